using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Tests;

/// <summary>What processors built from the models announce.</summary>
public sealed unsafe class CpuModelTests
{
    private static CpuidLeaf Cpuid(Processor cpu, uint leaf, uint subleaf = 0)
    {
        cpu.Cpuid(leaf, subleaf, out uint eax, out uint ebx, out uint ecx, out uint edx);
        return new CpuidLeaf(eax, ebx, ecx, edx);
    }

    /// <summary>Leaf 0DH: sizes follow XCR0 (standard format) and XCR0 | IA32_XSS (compacted); the maximum does not.</summary>
    [Theory]
    [InlineData("intel-skylake", 1, 0x240, 0x240, 0xa88)]
    [InlineData("intel-skylake", 3, 0x240, 0x240, 0xa88)]
    [InlineData("intel-skylake", 7, 0x340, 0x340, 0xa88)]
    [InlineData("intel-skylake", 0x201, 0xa88, 0x248, 0xa88)]
    [InlineData("intel-skylake", 0x207, 0xa88, 0x348, 0xa88)]
    [InlineData("amd-zen", 1, 0x240, 0x240, 0x340)]
    [InlineData("amd-zen", 7, 0x340, 0x340, 0x340)]
    public void Leaf_0D_sizes(string model, int xcr0, int standard, int compacted, int maximum)
    {
        using var machine = new Machine(CpuModel.Load(model));
        Processor cpu = machine.Processors[0];
        cpu.EnterKernelMode(new KernelContext { ExtraCr4 = Cr4.OSXSAVE });
        cpu.Xsetbv(0, (ulong)xcr0).Ok.Should().BeTrue();
        CpuidLeaf main = Cpuid(cpu, 0xd), extended = Cpuid(cpu, 0xd, 1);
        (main.Ebx, main.Ecx, extended.Ebx).Should().Be(((uint)standard, (uint)maximum, (uint)compacted));
        (main.Eax, main.Edx).Should().Be((model == "amd-zen" ? 7u : 0x207, 0u));
        (extended.Eax, extended.Ecx, extended.Edx).Should().Be((0xfu, 0u, 0u));
    }

    [Theory]
    [InlineData("intel-skylake", 2u, 0x100u, 0x240u)]
    [InlineData("intel-skylake", 9u, 8u, 0xa80u)]
    [InlineData("intel-skylake", 3u, 0u, 0u)]
    [InlineData("intel-skylake", 62u, 0u, 0u)]
    [InlineData("intel-skylake", 63u, 0u, 0u)]
    [InlineData("amd-zen", 9u, 0u, 0u)]
    [InlineData("bochs-skylake-x", 2u, 0x100u, 0x240u)]
    [InlineData("bochs-skylake-x", 5u, 0u, 0u)]
    [InlineData("bochs-skylake-x", 6u, 0u, 0u)]
    public void Leaf_0D_components(string model, uint component, uint size, uint offset)
    {
        using var machine = new Machine(CpuModel.Load(model));
        Cpuid(machine.Processors[0], 0xd, component).Should().Be(new CpuidLeaf(size, offset, 0, 0));
    }

    [Fact]
    public void OSXSAVE_and_OSPKE_follow_CR4()
    {
        using var machine = new Machine(CpuModel.IntelSkylake);
        Processor cpu = machine.Processors[0];
        cpu.EnterKernelMode(new KernelContext());
        ((Cpuid(cpu, 1).Ecx >> 27 & 1) + (Cpuid(cpu, 7).Ecx >> 4 & 1)).Should().Be(0);
        cpu.WriteCr(4, cpu.ReadCr(4) | Cr4.OSXSAVE | Cr4.PKE).Ok.Should().BeTrue();
        ((Cpuid(cpu, 1).Ecx >> 27 & 1) + (Cpuid(cpu, 7).Ecx >> 4 & 1)).Should().Be(2);
    }

    /// <summary>A recorded machine's model keeps its AVX-512; a processor built from it has none.</summary>
    [Fact]
    public void Recorded_features_without_instructions_do_not_reach_software()
    {
        CpuModel recorded = CpuModel.Load("bochs-skylake-x");
        const uint avx512 = 1u << 16 | 1 << 17 | 1 << 28 | 1 << 30 | 1u << 31;
        (recorded.Leaf(7).Ebx & avx512).Should().Be(avx512);
        recorded.Leaf(0xd).Eax.Should().Be(0xe7);
        using var machine = new Machine(recorded);
        Processor cpu = machine.Processors[0];
        Cpuid(cpu, 7).Ebx.Should().Be(recorded.Leaf(7).Ebx & ~avx512);
        Cpuid(cpu, 0xd).Eax.Should().Be(7);
        Cpuid(cpu, 0x80000001).Should().Be(recorded.Leaf(0x80000001) with { Edx = Cpuid(cpu, 0x80000001).Edx }, "the rest is as recorded");
    }

    /// <summary>Whatever a model says: bits of instructions that nobody has written, and leaves that describe them.</summary>
    [Theory]
    [InlineData(7u, 0u)]
    [InlineData(7u, 1u)]
    [InlineData(0x12u, 0u)]
    [InlineData(0x14u, 0u)]
    [InlineData(0x80000001u, 0u)]
    public void Everything_that_is_announced_executes(uint leaf, uint subleaf)
    {
        var all = new CpuidLeaf(uint.MaxValue, uint.MaxValue, uint.MaxValue, uint.MaxValue);
        CpuModel greedy = CpuModel.Parse($$"""
            { "name": "greedy", "vendor": "amd", "physicalBits": 48, "linearBits": 48, "tscHz": 1000000000,
              "cpuid": { "0": ["00000016", "68747541", "444d4163", "69746e65"], "80000000": ["80000008", "0", "0", "0"], "{{leaf:x}}.{{subleaf:x}}": ["ffffffff", "ffffffff", "ffffffff", "ffffffff"] },
              "msrs": { } }
            """);
        greedy.Leaf(leaf, subleaf).Should().Be(all);
        using var machine = new Machine(greedy);
        CpuModel model = machine.Processors[0].Model;
        bool[] announced = OpcodeFeatures.Announced(model);
        Enum.GetValues<Code>().Where(c => c.Encoding() is EncodingKind.EVEX or EncodingKind.XOP or EncodingKind.D3NOW && c.CpuidFeatures().All(f => announced[(int)f])).Should().BeEmpty();
        const uint avx512 = 0xdc23_0000;
        (model.Leaf(7).Ebx & avx512).Should().Be(0);
        if (leaf is 0x12 or 0x14 || subleaf == 1)
            model.Leaf(leaf, subleaf).Should().Be(default(CpuidLeaf));
    }

    /// <summary>What the two default models are expected to have, by CPUID name.</summary>
    [Theory]
    [InlineData("intel-skylake", "SSE3 PCLMULQDQ SSSE3 FMA CMPXCHG16B SSE4_1 SSE4_2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND FSGSBASE BMI1 AVX2 BMI2 INVPCID RDSEED ADX CLFLUSHOPT CLWB PKU XSAVEOPT XSAVEC XSAVES LZCNT", "SHA SSE4A CLZERO GFNI")]
    [InlineData("amd-zen", "SSE3 PCLMULQDQ SSSE3 FMA CMPXCHG16B SSE4_1 SSE4_2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND FSGSBASE BMI1 AVX2 BMI2 RDSEED ADX CLFLUSHOPT SHA XSAVEOPT XSAVEC XSAVES LZCNT SSE4A CLZERO", "PKU CLWB INVPCID")]
    [InlineData("minimal-x86-64", "FPU MMX SSE SSE2 FXSR CMOV CX8", "SSE3 SSSE3 CMPXCHG16B POPCNT XSAVE AVX RDRAND LZCNT")]
    public void Default_models(string name, string present, string absent)
    {
        using var machine = new Machine(CpuModel.Load(name));
        CpuModel model = machine.Processors[0].Model;
        present.Split(' ').Where(f => !OpcodeFeatures.Has(model, f)).Should().BeEmpty();
        absent.Split(' ').Where(f => OpcodeFeatures.Has(model, f)).Should().BeEmpty();
    }
}
