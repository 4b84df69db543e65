using System.Collections.Frozen;
using Iced.Intel;

namespace Kvm.Emulator.Engine;

/// <summary>Whose state an instruction works on.</summary>
internal enum OpcodeUnit { Integer, X87, Mmx, Sse, Avx }

/// <summary>Which instructions a processor has, from the CPUID leaves of its model.</summary>
internal static class OpcodeFeatures
{
    /// <summary>CPUID leaf, subleaf, register (0 EAX … 3 EDX) and bit of a feature name.</summary>
    private readonly record struct Bit(uint Leaf, uint Subleaf, int Register, int Number);

    // Architecture every processor here has, whatever CPUID says.
    private static readonly FrozenSet<string> Always = new[]
    {
        "INTEL8086", "INTEL186", "INTEL286", "INTEL386", "INTEL486", "X64", "MULTIBYTENOP", "PAUSE", "CPUID", "PREFETCHW", "RDPMC", "WBNOINVD", "SMM",
    }.ToFrozenSet();

    private static readonly FrozenDictionary<string, Bit> Bits = new Dictionary<string, Bit>
    {
        ["FPU"] = new(1, 0, 3, 0),
        ["FPU287"] = new(1, 0, 3, 0),
        ["FPU387"] = new(1, 0, 3, 0),
        ["TSC"] = new(1, 0, 3, 4),
        ["MSR"] = new(1, 0, 3, 5),
        ["CX8"] = new(1, 0, 3, 8),
        ["SEP"] = new(1, 0, 3, 11),
        ["CMOV"] = new(1, 0, 3, 15),
        ["CLFSH"] = new(1, 0, 3, 19),
        ["MMX"] = new(1, 0, 3, 23),
        ["FXSR"] = new(1, 0, 3, 24),
        ["SSE"] = new(1, 0, 3, 25),
        ["SSE2"] = new(1, 0, 3, 26),
        ["SSE3"] = new(1, 0, 2, 0),
        ["MONITOR"] = new(1, 0, 2, 3),
        ["VMX"] = new(1, 0, 2, 5),
        ["SMX"] = new(1, 0, 2, 6),
        ["CMPXCHG16B"] = new(1, 0, 2, 13),
        ["PCLMULQDQ"] = new(1, 0, 2, 1),
        ["SSSE3"] = new(1, 0, 2, 9),
        ["FMA"] = new(1, 0, 2, 12),
        ["SSE4_1"] = new(1, 0, 2, 19),
        ["AES"] = new(1, 0, 2, 25),
        ["AVX"] = new(1, 0, 2, 28),
        ["F16C"] = new(1, 0, 2, 29),
        ["AVX2"] = new(7, 0, 1, 5),
        ["SHA"] = new(7, 0, 1, 29),
        ["GFNI"] = new(7, 0, 2, 8),
        ["VAES"] = new(7, 0, 2, 9),
        ["VPCLMULQDQ"] = new(7, 0, 2, 10),
        ["SSE4A"] = new(0x80000001, 0, 2, 6),
        ["SSE4_2"] = new(1, 0, 2, 20),
        ["MOVBE"] = new(1, 0, 2, 22),
        ["POPCNT"] = new(1, 0, 2, 23),
        ["XSAVE"] = new(1, 0, 2, 26),
        ["RDRAND"] = new(1, 0, 2, 30),
        ["FSGSBASE"] = new(7, 0, 1, 0),
        ["BMI1"] = new(7, 0, 1, 3),
        ["BMI2"] = new(7, 0, 1, 8),
        ["INVPCID"] = new(7, 0, 1, 10),
        ["RDSEED"] = new(7, 0, 1, 18),
        ["ADX"] = new(7, 0, 1, 19),
        ["SMAP"] = new(7, 0, 1, 20),
        ["CLFLUSHOPT"] = new(7, 0, 1, 23),
        ["CLWB"] = new(7, 0, 1, 24),
        ["RDPID"] = new(7, 0, 2, 22),
        ["PKU"] = new(7, 0, 2, 3),
        ["XSAVEOPT"] = new(0xd, 1, 0, 0),
        ["XSAVEC"] = new(0xd, 1, 0, 1),
        ["XSAVES"] = new(0xd, 1, 0, 3),
        ["SVM"] = new(0x80000001, 0, 2, 2),
        ["SKINIT_or_SVM"] = new(0x80000001, 0, 2, 2),
        ["LZCNT"] = new(0x80000001, 0, 2, 5),
        ["MONITORX"] = new(0x80000001, 0, 2, 29),
        ["SYSCALL"] = new(0x80000001, 0, 3, 11),
        ["RDTSCP"] = new(0x80000001, 0, 3, 27),
        ["CLZERO"] = new(0x80000008, 0, 1, 0),
        ["INVEPT"] = new(1, 0, 2, 5),
        ["INVVPID"] = new(1, 0, 2, 5),
    }.ToFrozenDictionary();

    /// <summary>For every feature that instructions name, whether <paramref name="model"/> has it.</summary>
    internal static bool[] Announced(CpuModel model)
    {
        CpuidFeature[] features = Enum.GetValues<CpuidFeature>();
        var present = new bool[(int)features.Max() + 1];
        foreach (CpuidFeature feature in features)
            present[(int)feature] = Has(model, feature.ToString());
        return present;
    }

    private static readonly OpcodeUnit[] Units = [.. Enumerable.Range(0, (int)Enum.GetValues<CpuidFeature>().Max() + 1).Select(i => UnitOf(((CpuidFeature)i).ToString()))];

    internal static OpcodeUnit UnitOf(CpuidFeature feature) => Units[(int)feature];

    private static OpcodeUnit UnitOf(string name) => name switch
    {
        "FPU" or "FPU287" or "FPU387" or "FXSR" => OpcodeUnit.X87,
        "MMX" or "D3NOW" or "D3NOWEXT" => OpcodeUnit.Mmx,
        "AES" or "PCLMULQDQ" or "SHA" or "GFNI" => OpcodeUnit.Sse,
        _ when name.StartsWith("SSE", StringComparison.Ordinal) || name == "SSSE3" => OpcodeUnit.Sse,
        _ when name.StartsWith("AVX", StringComparison.Ordinal) || name is "FMA" or "F16C" or "VAES" or "VPCLMULQDQ" => OpcodeUnit.Avx,
        _ => OpcodeUnit.Integer,
    };

    /// <summary>A CPUID leaf with the bit of a feature cleared when it is there.</summary>
    internal static CpuidLeaf Without(uint leaf, uint subleaf, CpuidLeaf data, string feature)
    {
        if (!Bits.TryGetValue(feature, out Bit bit) || bit.Leaf != leaf || bit.Subleaf != subleaf)
            return data;
        uint mask = ~(1u << bit.Number);
        return bit.Register switch
        {
            0 => data with { Eax = data.Eax & mask },
            1 => data with { Ebx = data.Ebx & mask },
            2 => data with { Ecx = data.Ecx & mask },
            _ => data with { Edx = data.Edx & mask },
        };
    }

    internal static bool Has(CpuModel model, string feature)
    {
        if (Always.Contains(feature))
            return true;
        if (!Bits.TryGetValue(feature, out Bit bit) || bit.Leaf > (bit.Leaf >= 0x80000000 ? model.MaxExtendedLeaf : model.MaxLeaf))
            return false;
        CpuidLeaf leaf = model.Leaf(bit.Leaf, bit.Subleaf);
        uint value = bit.Register switch { 0 => leaf.Eax, 1 => leaf.Ebx, 2 => leaf.Ecx, _ => leaf.Edx };
        return (value >> bit.Number & 1) != 0;
    }
}
