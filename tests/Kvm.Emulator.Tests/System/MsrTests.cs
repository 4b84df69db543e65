using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>SDM vol 4 and APM vol 2 appendix A: which MSRs exist, which writes fault. CPUID, TSC and CPU models.</summary>
public sealed unsafe class MsrTests
{
    private static Machine Create(string model = "intel-skylake", BiosSettings? bios = null) => new(MachineOptions.Uniform(CpuModel.Load(model), 1, bios));

    public static TheoryData<string, uint, ulong, bool> Writes => new()
    {
        { "intel-skylake", Msr.IA32_EFER, Efer.SCE | Efer.LME | Efer.NXE, true },
        { "intel-skylake", Msr.IA32_EFER, Efer.SVME, false },
        { "intel-skylake", Msr.IA32_EFER, Efer.FFXSR, false },
        { "intel-skylake", Msr.IA32_EFER, 2, false },
        { "amd-zen", Msr.IA32_EFER, Efer.SVME, true },
        { "amd-zen", Msr.IA32_EFER, Efer.LMSLE, true },
        { "minimal-x86-64", Msr.IA32_EFER, Efer.SVME, false },
        { "intel-skylake", Msr.IA32_PAT, 0x0007_0406_0007_0406, true },
        { "intel-skylake", Msr.IA32_PAT, 0x0007_0406_0002_0406, false },
        { "intel-skylake", Msr.IA32_PAT, 0x0307_0406_0007_0406, false },
        { "intel-skylake", Msr.IA32_LSTAR, 0xffff_8000_0000_0000, true },
        { "intel-skylake", Msr.IA32_LSTAR, 0x0000_8000_0000_0000, false },
        { "intel-skylake", Msr.IA32_GS_BASE, 0x8000_0000_0000_0000, false },
        { "intel-skylake", Msr.IA32_KERNEL_GS_BASE, 0xffff_ffff_ffff_0000, true },
        { "intel-skylake", Msr.IA32_SYSENTER_EIP, 0x0000_8000_0000_0000, false },
        { "intel-skylake", Msr.IA32_TSC_AUX, 0x1_0000_0000, false },
        { "amd-zen", Msr.IA32_TSC_AUX, 0x1_0000_0000, true },
        { "minimal-x86-64", Msr.IA32_TSC_AUX, 0, false },
        { "intel-skylake", Msr.IA32_DEBUGCTL, 3, true },
        { "intel-skylake", Msr.IA32_DEBUGCTL, 4, false },
        { "intel-skylake", Msr.IA32_VMX_BASIC, 0, false },
        { "intel-skylake", Msr.IA32_ARCH_CAPABILITIES, 0, false },
        { "intel-skylake", Msr.IA32_MTRRCAP, 0, false },
        { "intel-skylake", Msr.IA32_MTRR_DEF_TYPE, 0xc06, true },
        { "intel-skylake", Msr.IA32_MTRR_DEF_TYPE, 0xc02, false },
        { "intel-skylake", Msr.IA32_MTRR_PHYSBASE0, 0x1000_0000_0006, true },
        { "intel-skylake", Msr.IA32_MTRR_PHYSBASE0, 0x1_0000_0000_0006, false },
        { "intel-skylake", Msr.IA32_MTRR_PHYSBASE0 + 1, 0x800, true },
        { "intel-skylake", Msr.IA32_MTRR_PHYSBASE0 + 1, 0x400, false },
        { "intel-skylake", Msr.IA32_MTRR_FIX64K_00000, 0x0606_0606_0606_0606, true },
        { "intel-skylake", Msr.IA32_MTRR_FIX64K_00000, 0x0706_0606_0606_0606, false },
        { "intel-skylake", Msr.IA32_APIC_BASE, 0xfee0_0900, true },
        { "intel-skylake", Msr.IA32_APIC_BASE, 0xfee0_0d00, false },
        { "bochs-skylake-x", Msr.IA32_APIC_BASE, 0xfee0_0d00, true },
        { "intel-skylake", Msr.IA32_APIC_BASE, 0xfee0_0901, false },
        { "intel-skylake", Msr.IA32_MC0_CTL + 1, 1, false },
        { "intel-skylake", Msr.IA32_MC0_CTL + 1, 0, true },
        { "intel-skylake", Msr.IA32_SPEC_CTRL, 0, false },
        { "intel-skylake", Msr.IA32_PRED_CMD, 1, false },
        { "intel-skylake", Msr.IA32_XSS, 0, true },
        { "intel-skylake", Msr.IA32_XSS, 1, false },
        { "minimal-x86-64", Msr.IA32_XSS, 0, false },
        { "bochs-skylake-x", Msr.IA32_XSS, 0, true },
        { "intel-skylake", Msr.AMD_VM_CR, 0, false },
        { "amd-zen", Msr.IA32_FEATURE_CONTROL, 5, false },
        { "amd-zen", Msr.AMD_VM_HSAVE_PA, 0x1000, true },
        { "amd-zen", Msr.AMD_VM_HSAVE_PA, 0x1001, false },
        { "amd-zen", Msr.AMD_VM_HSAVE_PA, 1UL << 48, false },
        { "intel-skylake", 0xdead, 0, false },
        { "bochs-skylake-x", Msr.IA32_TSX_CTRL, 0, true },
        { "intel-skylake", Msr.IA32_TSX_CTRL, 0, false },
    };

    [Theory]
    [MemberData(nameof(Writes))]
    public void WRMSR(string model, uint index, ulong value, bool allowed)
    {
        using Machine machine = Create(model);
        Processor cpu = machine.Processors[0];
        InstructionResult result = cpu.WriteMsr(index, value);
        result.Should().Be(allowed ? InstructionResult.Success : InstructionResult.Faulted(Fault.Gp()));
    }

    [Theory]
    [InlineData("default", 5UL, false)]
    [InlineData("disabled", 1UL, false)]
    [InlineData("unlocked", 0UL, true)]
    public void IA32_FEATURE_CONTROL_is_locked_by_the_BIOS(string bios, ulong value, bool writable)
    {
        using Machine machine = Create(bios: bios switch { "default" => BiosSettings.Default, "disabled" => BiosSettings.VirtualizationDisabled, _ => BiosSettings.Unlocked });
        Processor cpu = machine.Processors[0];
        cpu.ReadMsr(Msr.IA32_FEATURE_CONTROL, out ulong read).Ok.Should().BeTrue();
        read.Should().Be(value);
        cpu.WriteMsr(Msr.IA32_FEATURE_CONTROL, 5).Ok.Should().Be(writable);
        cpu.WriteMsr(Msr.IA32_FEATURE_CONTROL, 5).Ok.Should().BeFalse("now it is locked in any case");
        cpu.WriteMsr(Msr.IA32_FEATURE_CONTROL, 2).Ok.Should().BeFalse();
    }

    [Fact]
    public void SVMDIS_makes_EFER_SVME_reserved()
    {
        using Machine machine = Create("amd-zen", BiosSettings.VirtualizationDisabled);
        Processor cpu = machine.Processors[0];
        cpu.ReadMsr(Msr.AMD_VM_CR, out ulong value);
        value.Should().Be(Msr.VmCrSvmDisable | Msr.VmCrLock);
        cpu.WriteMsr(Msr.IA32_EFER, Efer.SVME).Ok.Should().BeFalse();
        cpu.WriteMsr(Msr.AMD_VM_CR, 0).Ok.Should().BeTrue();
        cpu.ReadMsr(Msr.AMD_VM_CR, out value);
        value.Should().Be(Msr.VmCrSvmDisable | Msr.VmCrLock, "LOCK freezes SVMDIS and itself");
    }

    [Fact]
    public void EFER_LME_cannot_change_under_paging_and_LMA_is_not_written()
    {
        using var m = new BareMachine();
        m.Long();
        m.Cpu.WriteMsr(Msr.IA32_EFER, Efer.SCE).Ok.Should().BeFalse();
        m.Cpu.WriteMsr(Msr.IA32_EFER, Efer.LME).Ok.Should().BeTrue();
        m.State->Efer.Should().Be(Efer.LME | Efer.LMA);
    }

    [Fact]
    public void Write_only_MSRs_cannot_be_read()
    {
        using Machine machine = Create("bochs-ryzen");
        machine.Processors[0].ReadMsr(Msr.IA32_PRED_CMD, out _).Ok.Should().BeFalse();
    }

    [Fact]
    public void Processors_of_one_machine_may_differ()
    {
        using var machine = new Machine(new MachineOptions
        {
            Processors =
            [
                new ProcessorOptions(CpuModel.IntelSkylake),
                new ProcessorOptions(CpuModel.IntelSkylake) { Bios = BiosSettings.VirtualizationDisabled },
                new ProcessorOptions(CpuModel.IntelSkylake.With(msrs: new Dictionary<uint, ulong?> { [Msr.IA32_VMX_BASIC] = 0x00DA_0400_0000_0005, [Msr.IA32_VMX_VMFUNC] = null })),
            ],
        });
        machine.Processors[0].ReadMsr(Msr.IA32_FEATURE_CONTROL, out ulong a);
        machine.Processors[1].ReadMsr(Msr.IA32_FEATURE_CONTROL, out ulong b);
        (a, b).Should().Be((5UL, 1UL));
        machine.Processors[2].ReadMsr(Msr.IA32_VMX_BASIC, out ulong c);
        c.Should().Be(0x00DA_0400_0000_0005);
        machine.Processors[2].ReadMsr(Msr.IA32_VMX_VMFUNC, out _).Ok.Should().BeFalse();
    }

    [Fact]
    public void The_TSC_runs_with_the_machines_clock()
    {
        var time = new ManualTime();
        using var machine = new Machine(MachineOptions.Uniform(CpuModel.IntelSkylake) with { Time = time });
        Processor cpu = machine.Processors[0];
        ulong start = cpu.ReadTsc();
        time.Advance(TimeSpan.FromMilliseconds(1));
        (cpu.ReadTsc() - start).Should().Be(2_000_000);
        cpu.WriteMsr(Msr.IA32_TIME_STAMP_COUNTER, 1000).Ok.Should().BeTrue();
        cpu.ReadTsc().Should().Be(1000);
        cpu.ReadMsr(Msr.IA32_TSC_ADJUST, out ulong adjust);
        adjust.Should().Be(unchecked(1000UL - start - 2_000_000));
        cpu.WriteMsr(Msr.IA32_TSC_ADJUST, 0);
        cpu.ReadTsc().Should().Be(start + 2_000_000);
    }

    [Fact]
    public void RDTSC_and_RDTSCP_and_TSD()
    {
        var time = new ManualTime();
        using var m = new BareMachine(time: time);
        m.Long(cpl: 3);
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000);
        m.SetGate64(Fault.BP, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000, dpl: 3);
        m.Bytes(0x9000, 0xf4);
        time.Advance(TimeSpan.FromSeconds(4));
        m.State->TscAux = 7;
        m.Assemble(BareMachine.UserCode, a =>
        {
            a.rdtscp();
            a.int3();
        });
        m.Run();
        m.State->Gpr[0].Should().Be(unchecked((uint)8_000_000_000));
        m.State->Gpr[2].Should().Be(1);
        m.State->Gpr[1].Should().Be(7);
        m.Long(cpl: 3);
        m.State->Cr4 |= Cr4.TSD;
        m.Run();
        (*m.Qword(m.State->Gpr[4] + 8)).Should().Be(BareMachine.UserCode);
    }

    [Theory]
    [InlineData("intel-skylake", CpuVendor.Intel, 6, 0x55, true, false, 48)]
    [InlineData("amd-zen", CpuVendor.Amd, 0x17, 1, false, true, 48)]
    [InlineData("bochs-skylake-x", CpuVendor.Intel, 6, 0x55, true, false, 40)]
    [InlineData("bochs-ryzen", CpuVendor.Amd, 0x17, 1, false, true, 40)]
    [InlineData("minimal-x86-64", CpuVendor.Intel, 6, 0xf, false, false, 40)]
    public void The_models(string name, CpuVendor vendor, int family, int model, bool vmx, bool svm, int bits)
    {
        CpuModel cpu = CpuModel.Load(name);
        (cpu.Vendor, cpu.Family, cpu.ModelNumber, cpu.HasVmx, cpu.HasSvm, cpu.PhysicalAddressBits).Should().Be((vendor, family, model, vmx, svm, bits));
        (cpu.Leaf(0x80000008).Eax & 0xff).Should().Be((uint)bits);
        cpu.HasLongMode.Should().BeTrue();
        // What a 64-bit Linux kernel refuses to start without: FPU MSR PAE CX8 PGE CMOV FXSR SSE SSE2.
        foreach (int bit in (int[])[0, 5, 6, 8, 13, 15, 24, 25, 26])
            cpu.Feature1Edx(bit).Should().BeTrue($"bit {bit}");
        CpuModel.Names.Should().Contain(name);
    }

    [Theory]
    [InlineData("intel-skylake")]
    [InlineData("bochs-skylake-x")]
    public void CR4_FIXED1_is_the_set_of_CR4_bits_that_the_model_has(string name)
    {
        using Machine machine = Create(name);
        Processor cpu = machine.Processors[0];
        cpu.ReadMsr(Msr.IA32_VMX_CR4_FIXED1, out ulong value);
        value.Should().Be(cpu.Cr4Mask);
    }

    [Fact]
    public void The_recorded_machines_answer_as_their_logs_show()
    {
        using Machine intel = Create("bochs-skylake-x");
        using Machine amd = Create("bochs-ryzen");
        (uint Index, ulong Value)[] vmx =
        [
            (0x480, 0xd810000000002b), (0x481, 0xff00000016), (0x482, 0xfff9fffe0401e172), (0x483, 0x407fffff00036dff), (0x484, 0xffff000011ff), (0x485, 0x600401e0),
            (0x487, 0xffffffff), (0x489, 0x3727ff), (0x48b, 0x2577fff00000000), (0x48c, 0xf0106734141),
        ];
        foreach ((uint index, ulong value) in vmx)
        {
            intel.Processors[0].ReadMsr(index, out ulong read).Ok.Should().BeTrue();
            read.Should().Be(value);
        }
        foreach (uint index in (uint[])[0xc0010117, 0x48, 0xe1])
            intel.Processors[0].ReadMsr(index, out _).Ok.Should().BeFalse();
        foreach (uint index in (uint[])[0x3a, 0x48, 0xe1])
            amd.Processors[0].ReadMsr(index, out _).Ok.Should().BeFalse();
        foreach (uint index in (uint[])[0xc0010114, 0xc0010117, 0xc0010140, 0x1d9, 0xc0010200, 0x587])
            amd.Processors[0].ReadMsr(index, out _).Ok.Should().BeTrue($"{index:x}");
    }

    [Fact]
    public void CPUID_reflects_processor_state()
    {
        using var machine = new Machine(CpuModel.Load("bochs-skylake-x"), 2);
        Processor cpu = machine.Processors[1];
        cpu.Cpuid(1, 0, out _, out uint ebx, out uint ecx, out _);
        (ebx >> 24).Should().Be(1, "the APIC id");
        (ecx & 1 << 27).Should().Be(0);
        cpu.WriteCr(4, Cr4.OSXSAVE).Ok.Should().BeTrue();
        cpu.Cpuid(1, 0, out _, out _, out ecx, out _);
        (ecx & 1 << 27).Should().NotBe(0);
        cpu.Cpuid(0xb, 1, out _, out _, out ecx, out uint edx);
        (ecx & 0xff, edx).Should().Be((1u, 1u));
        cpu.Cpuid(0xd, 0, out _, out ebx, out _, out _);
        ebx.Should().Be(576);
        cpu.Xsetbv(0, 7).Ok.Should().BeTrue();
        cpu.Cpuid(0xd, 0, out _, out ebx, out _, out _);
        ebx.Should().Be(0x340);
        cpu.Xsetbv(0, 4).Fault.Should().Be(Fault.Gp());
        cpu.Cpuid(0x4000_0000, 0, out uint eax, out _, out _, out _);
        cpu.Cpuid(cpu.Model.MaxLeaf, 0, out uint last, out _, out _, out _);
        eax.Should().Be(last, "Intel answers the highest basic leaf beyond the limits");
    }

    [Fact]
    public void RDMSR_of_an_absent_MSR_faults_in_the_stream_too()
    {
        using var m = new BareMachine();
        m.Long();
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000);
        m.Bytes(0x9000, 0xf4);
        m.Assemble(BareMachine.Code, a =>
        {
            a.mov(ecx, Msr.IA32_FS_BASE);
            a.mov(edx, 0x7fff);
            a.mov(eax, 0x1000);
            a.wrmsr();
            a.rdmsr();
            a.mov(rbx, rdx);
            a.mov(ecx, 0xdead);
            a.rdmsr();
        });
        m.Run();
        m.State->Gpr[3].Should().Be(0x7fff);
        m.Cpu.Segment(Seg.FS).Base.Should().Be(0x7fff_0000_1000);
        (*m.Qword(m.State->Gpr[4])).Should().Be(0);
    }
}

/// <summary>A clock that tests move.</summary>
internal sealed class ManualTime : TimeProvider
{
    private long ticks;
    public override long TimestampFrequency => 1_000_000_000;
    public override long GetTimestamp() => ticks;
    public void Advance(TimeSpan by) => ticks += (long)(by.TotalSeconds * 1_000_000_000);
}
