using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>
/// The routine that a small hypervisor enters VMX root operation with, as machine code: PCB through GS, feature test, CR4.VMXE, VMXON region, VMXON, the flags.
/// Input ESI = VMXON region; output EAX = 0 or an error code.
/// </summary>
public sealed unsafe class VmxOperationEnterTests
{
    private const uint Success = 0, Unsuccess = 0xc000_0001, BadRegion = 0xc000_0002;
    private const int StatusVmxon = 0x10, InstructionVmx = 0x1;
    // Offsets in the processor control block.
    private const int Base = 0x00, ProcessorStatus = 0x10, FeatureEcx = 0x14, InstructionStatus = 0x18, VmxonPhysicalPointer = 0x20;
    private const ulong Pcb = 0xe000;
    private const ulong Region = 0xf000;
    private const ulong Guard = 0x1122_3344_5566_7788;

    private static BareMachine Create(CpuModel? model = null, BiosSettings? bios = null)
    {
        var m = new BareMachine(model, bios: bios);
        m.Long();
        m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9000);
        m.SetGate64(Fault.UD, SegmentRights.InterruptGate32, BareMachine.Code64, 0x9010);
        m.Bytes(0x9000, 0xf4);
        m.Bytes(0x9010, 0xf4);
        m.Cpu.Segment(Seg.GS).Base = Pcb;
        *m.Qword(Pcb + Base) = Pcb;
        m.Cpu.Cpuid(1, 0, out _, out _, out uint ecx, out _);
        *(uint*)m.At(Pcb + FeatureEcx) = ecx;
        m.State->Gpr[6] = Region;
        m.State->Gpr[1] = Guard;
        m.State->Gpr[2] = Guard + 1;
        m.State->Gpr[5] = Guard + 2;
        m.Assemble(BareMachine.Code, Write);
        return m;
    }

    private static void Write(Assembler a)
    {
        Label enter = a.CreateLabel(), done = a.CreateLabel(), initialize = a.CreateLabel(), bad = a.CreateLabel();
        a.call(enter);
        a.hlt();

        a.Label(ref enter);
        a.push(rcx);
        a.push(rdx);
        a.push(rbp);
        a.mov(rbp, __qword_ptr.gs[Base]);
        a.mov(eax, Success);
        a.test(__dword_ptr[rbp + ProcessorStatus], StatusVmxon);
        a.jnz(done);
        a.bt(__dword_ptr[rbp + FeatureEcx], 5);
        a.mov(eax, Unsuccess);
        a.jnc(done);
        a.mov(rcx, cr4);
        a.bts(rcx, 13);
        a.mov(cr4, rcx);
        a.or(__dword_ptr[rbp + InstructionStatus], InstructionVmx);
        a.call(initialize);
        a.cmp(eax, Success);
        a.jne(done);
        a.vmxon(__qword_ptr[rbp + VmxonPhysicalPointer]);
        a.mov(eax, Unsuccess);
        a.jc(done);
        a.jz(done);
        a.or(__dword_ptr[rbp + ProcessorStatus], StatusVmxon);
        a.mov(eax, Success);
        a.Label(ref done);
        a.pop(rbp);
        a.pop(rdx);
        a.pop(rcx);
        a.ret();

        // Revision identifier into the first dword, bit 31 clear; the region must be 4 KiB aligned.
        a.Label(ref initialize);
        a.mov(eax, BadRegion);
        a.test(esi, 0xfff);
        a.jnz(bad);
        a.mov(ecx, Msr.IA32_VMX_BASIC);
        a.rdmsr();
        a.btr(eax, 31);
        a.mov(__dword_ptr[rsi], eax);
        a.mov(__qword_ptr[rbp + VmxonPhysicalPointer], rsi);
        a.mov(eax, Success);
        a.Label(ref bad);
        a.ret();
    }

    private static uint ProcessorStatusOf(BareMachine m) => *(uint*)m.At(Pcb + ProcessorStatus);
    private static uint InstructionStatusOf(BareMachine m) => *(uint*)m.At(Pcb + InstructionStatus);

    private static uint Run(BareMachine m)
    {
        m.State->Activity = ActivityState.Active;
        m.State->Rip = BareMachine.Code;
        m.State->Gpr[4] = BareMachine.Stack;
        m.Run().Should().Be(StopReason.Halted);
        return (uint)m.State->Gpr[0];
    }

    [Fact]
    [Trait("Seed", "S3-1")]
    [Trait("Seed", "S3-2")]
    [Trait("Seed", "S3-4")]
    [Trait("Seed", "S3-15")]
    [Trait("Seed", "S3-16")]
    [Trait("Seed", "S3-19")]
    [Trait("Seed", "S3-20")]
    [Trait("Seed", "S3-22")]
    public void It_enters_VMX_root_operation_and_returns_success()
    {
        using BareMachine m = Create();
        Run(m).Should().Be(Success);
        m.Cpu.InVmxOperation.Should().BeTrue();
        m.Cpu.NonRoot.Should().BeNull("root operation");
        (m.State->Cr4 & Cr4.VMXE).Should().Be(Cr4.VMXE);
        ProcessorStatusOf(m).Should().Be(StatusVmxon);
        (m.Cpu.Rflags & (Flags.CF | Flags.ZF)).Should().Be(0);
        ((CodeMode)m.State->Mode & CodeMode.SizeMask).Should().Be(CodeMode.Code64);
        m.Cpu.Vmptrst(out ulong current);
        current.Should().Be(ulong.MaxValue, "VMXON leaves no current VMCS");
    }

    [Fact]
    [Trait("Seed", "S3-3")]
    public void It_saves_ecx_edx_ebp_in_that_order_and_only_eax_changes()
    {
        using BareMachine m = Create();
        Run(m);
        (m.State->Gpr[1], m.State->Gpr[2], m.State->Gpr[5], m.State->Gpr[6]).Should().Be((Guard, Guard + 1, Guard + 2, Region));
        m.State->Gpr[4].Should().Be(BareMachine.Stack);
        (*m.Qword(BareMachine.Stack - 16), *m.Qword(BareMachine.Stack - 24), *m.Qword(BareMachine.Stack - 32)).Should().Be((Guard, Guard + 1, Guard + 2));
    }

    [Fact]
    [Trait("Seed", "S3-5")]
    [Trait("Seed", "S3-6")]
    public void A_second_call_succeeds_without_a_second_VMXON()
    {
        using BareMachine m = Create();
        Run(m).Should().Be(Success);
        var observer = new RecordingObserver();
        m.Cpu.Observer = observer;
        m.State->Gpr[0] = 99;
        Run(m).Should().Be(Success);
        observer.Log.Should().BeEmpty();
    }

    [Fact]
    [Trait("Seed", "S3-7")]
    [Trait("Seed", "S3-8")]
    [Trait("Seed", "S3-9")]
    [Trait("Seed", "S1-14")]
    public void Without_bit_5_of_the_feature_word_it_gives_up_before_touching_anything()
    {
        using BareMachine m = Create(CpuModel.IntelSkylake.WithCpuid(1, 0, default, new CpuidLeaf(0, 0, 1 << 5, 0)));
        Run(m).Should().Be(Unsuccess);
        (m.State->Cr4 & Cr4.VMXE).Should().Be(0);
        InstructionStatusOf(m).Should().Be(0);
        ProcessorStatusOf(m).Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S3-10")]
    [Trait("Seed", "S3-12")]
    [Trait("Seed", "S3-14")]
    public void The_processor_sees_CR4_VMXE_then_the_revision_read_then_VMXON()
    {
        using BareMachine m = Create();
        var observer = new RecordingObserver();
        m.Cpu.Observer = observer;
        ulong cr4 = m.State->Cr4;
        Run(m).Should().Be(Success);
        observer.Log.Should().Equal($"CR4 {cr4:x} {cr4 | Cr4.VMXE:x}", "R 480 da040000000004 False", "VMXON Success");
        (*(uint*)m.At(Region)).Should().Be(4u, "revision identifier with bit 31 clear");
        InstructionStatusOf(m).Should().Be(InstructionVmx);
    }

    [Fact]
    [Trait("Seed", "S3-11")]
    [Trait("Seed", "S3-13")]
    [Trait("Seed", "S3-21")]
    public void An_error_from_the_region_setup_leaves_CR4_VMXE_and_the_instruction_status_set_but_no_VMX_operation()
    {
        using BareMachine m = Create();
        m.State->Gpr[6] = Region + 8;
        Run(m).Should().Be(BadRegion);
        (m.State->Cr4 & Cr4.VMXE).Should().Be(Cr4.VMXE);
        InstructionStatusOf(m).Should().Be(InstructionVmx);
        m.Cpu.InVmxOperation.Should().BeFalse();
        ProcessorStatusOf(m).Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S3-16")]
    [Trait("Seed", "S3-17")]
    [Trait("Seed", "S3-18")]
    [Trait("Seed", "S3-21")]
    public void CF_and_ZF_both_mean_failure()
    {
        using BareMachine m = Create();
        // VMXON in root operation without a current VMCS: VMfailInvalid, CF.
        Run(m).Should().Be(Success);
        *(uint*)m.At(Pcb + ProcessorStatus) = 0;
        Run(m).Should().Be(Unsuccess);
        ProcessorStatusOf(m).Should().Be(0);

        // With a current VMCS: VMfailValid(15), ZF.
        ulong vmcs = m.Machine.Memory.Allocate(0x1000);
        *(uint*)vmcs = 4;
        m.Cpu.Vmclear(vmcs).Should().Be(InstructionResult.Success);
        m.Cpu.Vmptrld(vmcs).Should().Be(InstructionResult.Success);
        Run(m).Should().Be(Unsuccess);
        m.Cpu.Vmread(0x4400, out ulong error);
        error.Should().Be(15);
    }

    [Fact]
    [Trait("Seed", "S3-17")]
    [Trait("Seed", "S3-23")]
    public void An_injected_VMfailInvalid_is_failure_here_where_Linux_would_not_look()
    {
        using BareMachine m = Create();
        m.Cpu.InstructionFaults.Add("VMXON", InstructionResult.FailInvalid);
        Run(m).Should().Be(Unsuccess);
        ProcessorStatusOf(m).Should().Be(0);
        m.Cpu.InVmxOperation.Should().BeFalse();
    }

    [Fact]
    [Trait("Seed", "S3-23")]
    public void A_BIOS_lock_is_an_exception_that_no_flag_test_sees()
    {
        using BareMachine m = Create(bios: BiosSettings.VirtualizationDisabled);
        m.State->Rip = BareMachine.Code;
        m.Run();
        m.State->Rip.Should().Be(0x9001, "VMXON raises #GP(0)");
        (*m.Qword(m.State->Gpr[4])).Should().Be(0);
        ProcessorStatusOf(m).Should().Be(0);
    }
}
