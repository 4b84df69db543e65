using Iced.Intel;
using Kvm.Emulator.Vmx;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>VMX instructions decoded from memory: RFLAGS, operand forms, and the order of #UD, #GP and #PF.</summary>
public unsafe class VmxStreamTests
{
    private const ulong Region = 0x20_0000, VmcsRegion = 0x20_1000, Pointer = 0x20_2000, Handlers = 0x9000;

    /// <summary>64-bit mode, IDT with a handler per vector that halts with the vector in R15 and the error code on the stack.</summary>
    private static BareMachine Create(int cpl = 0, bool vmxOn = true, bool vmcs = true)
    {
        var m = new BareMachine();
        m.Long(cpl);
        for (int vector = 0; vector < 32; vector++)
        {
            ulong handler = Handlers + ((ulong)vector * 16);
            m.Assemble(handler, a => { a.mov(r15d, vector + 1); a.hlt(); });
            m.SetGate64(vector, SegmentRights.InterruptGate32, BareMachine.Code64, handler);
        }
        m.Cpu.ReadMsr(Msr.IA32_VMX_BASIC, out ulong basic);
        *(uint*)m.At(Region) = *(uint*)m.At(VmcsRegion) = (uint)basic & 0x7fff_ffff;
        m.State->Cr4 |= Cr4.VMXE;
        if (vmxOn)
            m.Cpu.Vmxon(Region).Ok.Should().BeTrue();
        if (vmxOn && vmcs)
        {
            m.Cpu.Vmclear(VmcsRegion).Ok.Should().BeTrue();
            m.Cpu.Vmptrld(VmcsRegion).Ok.Should().BeTrue();
        }
        return m;
    }

    /// <summary>Runs one instruction with all status flags set before; returns the flags after it, or -(vector) when it faulted.</summary>
    private static long Execute(BareMachine m, Action<Assembler> instruction, ulong flags = Flags.Status)
    {
        ulong code = m.State->Cpl == 3 ? BareMachine.UserCode : BareMachine.Code;
        m.Assemble(code, a => { instruction(a); a.pushfq(); a.pop(rbx); a.int3(); });
        m.State->Gpr[15] = 0;
        m.State->Rip = code;
        m.State->Gpr[4] = m.State->Cpl == 3 ? BareMachine.UserStack : BareMachine.Stack;
        m.State->Activity = ActivityState.Active;
        // The code was written behind the processor's back.
        m.Cpu.Mmu.FlushAll();
        m.Cpu.Rflags = flags | 2;
        m.Run().Should().Be(StopReason.Halted);
        int vector = (int)m.State->Gpr[15] - 1;
        return vector == Fault.BP ? (long)(m.State->Gpr[3] & Flags.Status) : -vector;
    }

    [Fact]
    [Trait("Seed", "S3-16")]
    [Trait("Seed", "S3-23")]
    public void The_outcome_is_in_RFLAGS()
    {
        using BareMachine m = Create(vmcs: false);
        *m.Qword(Pointer) = VmcsRegion;
        Execute(m, a => a.vmread(rax, rax)).Should().Be((long)Flags.CF, "VMfailInvalid: no current VMCS");
        Execute(m, a => a.vmptrld(__qword_ptr[Pointer])).Should().Be(0, "VMsucceed clears all six flags");
        m.State->Gpr[0] = 0x6ffe;
        Execute(m, a => a.vmread(rax, rax)).Should().Be((long)Flags.ZF, "VMfailValid");
        Execute(m, a => a.vmcall()).Should().Be((long)Flags.ZF);
        m.Cpu.Vmread(VmcsField.VM_INSTRUCTION_ERROR, out ulong error);
        error.Should().Be(1);
        Execute(m, a => a.vmxoff()).Should().Be(0);
        Execute(m, a => a.vmxoff()).Should().Be(-Fault.UD);
    }

    [Fact]
    public void VMREAD_and_VMWRITE_take_registers_and_memory()
    {
        using BareMachine m = Create();
        m.State->Gpr[0] = (ulong)VmcsField.GUEST_RIP;
        *m.Qword(Pointer) = 0x1122_3344_5566_7788;
        m.State->Gpr[6] = Pointer;
        Execute(m, a => a.vmwrite(rax, __qword_ptr[rsi])).Should().Be(0);
        Execute(m, a => a.vmread(rcx, rax)).Should().Be(0);
        m.State->Gpr[1].Should().Be(0x1122_3344_5566_7788);
        m.State->Gpr[2] = 1;
        m.State->Gpr[0] = (ulong)VmcsField.GUEST_CS_SELECTOR;
        m.State->Gpr[1] = 0xabcd_1234;
        Execute(m, a => a.vmwrite(rax, rcx)).Should().Be(0);
        Execute(m, a => a.vmread(__qword_ptr[rsi + (rdx * 8)], rax)).Should().Be(0);
        m.Qword(Pointer)[1].Should().Be(0x1234);
    }

    [Fact]
    public void Bits_63_32_of_the_encoding_register_are_not_ignored()
    {
        using BareMachine m = Create();
        m.State->Gpr[0] = 1UL << 32 | (ulong)VmcsField.GUEST_RIP;
        Execute(m, a => a.vmread(rcx, rax)).Should().Be((long)Flags.ZF);
    }

    [Fact]
    public void Above_CPL_0_they_fault()
    {
        using BareMachine m = Create(cpl: 3);
        Execute(m, a => a.vmread(rax, rax)).Should().Be(-Fault.GP);
    }

    [Fact]
    public void Outside_VMX_operation_UD_comes_before_GP()
    {
        using BareMachine m = Create(cpl: 3, vmxOn: false);
        Execute(m, a => a.vmread(rax, rax)).Should().Be(-Fault.UD);
        using BareMachine n = Create(cpl: 3, vmxOn: false);
        Execute(n, a => a.vmxon(__qword_ptr[Pointer])).Should().Be(-Fault.GP, "CR4.VMXE is set, so VMXON exists");
    }

    [Fact]
    public void In_compatibility_mode_they_are_undefined()
    {
        using BareMachine m = Create();
        m.Cpu.Segment(Seg.CS) = new SegmentCache { Selector = BareMachine.Code32, Limit = uint.MaxValue, AccessRights = 0xc09b };
        m.Cpu.UpdateMode();
        m.Bytes(BareMachine.Code, VmxMachine.Assemble(32, BareMachine.Code, a => a.vmxoff()));
        m.Run().Should().Be(StopReason.Halted);
        (m.State->Gpr[15] - 1).Should().Be(Fault.UD);
        m.Cpu.InVmxOperation.Should().BeTrue();
    }

    [Fact]
    [Trait("Seed", "S0-26")]
    [Trait("Seed", "S0-27")]
    public void VMXON_reads_a_64_bit_physical_address_from_memory_and_faults_or_sets_flags()
    {
        using BareMachine m = Create(vmxOn: false);
        *m.Qword(Pointer) = Region;
        m.State->Cr4 &= ~Cr4.VMXE;
        Execute(m, a => a.vmxon(__qword_ptr[Pointer])).Should().Be(-Fault.UD);
        m.State->Cr4 |= Cr4.VMXE;
        *m.Qword(Pointer) = 1UL << 40 | Region;
        Execute(m, a => a.vmxon(__qword_ptr[Pointer])).Should().Be((long)Flags.CF, "all 64 bits count");
        *m.Qword(Pointer) = Region;
        Execute(m, a => a.vmxon(__qword_ptr[Pointer])).Should().Be(0);
        m.Cpu.InVmxOperation.Should().BeTrue();
    }

    [Fact]
    public void The_memory_operand_can_fault()
    {
        using BareMachine m = Create();
        m.State->Gpr[6] = 0x4000_0000;
        Execute(m, a => a.vmptrld(__qword_ptr[rsi])).Should().Be(-Fault.PF);
        m.State->Cr2.Should().Be(0x4000_0000);
        m.State->Gpr[6] = 0x8000_0000_0000_0000;
        Execute(m, a => a.vmclear(__qword_ptr[rsi])).Should().Be(-Fault.GP);
        m.State->Gpr[6] = 0x4000_0000;
        m.State->Gpr[0] = (ulong)VmcsField.GUEST_RIP;
        Execute(m, a => a.vmread(__qword_ptr[rsi], rax)).Should().Be(-Fault.PF);
        Execute(m, a => a.vmptrst(__qword_ptr[rsi])).Should().Be(-Fault.PF);
    }

    [Fact]
    public void VMREAD_of_an_unsupported_component_does_not_touch_its_destination()
    {
        using BareMachine m = Create();
        m.State->Gpr[6] = 0x4000_0000;
        m.State->Gpr[0] = 0x6ffe;
        Execute(m, a => a.vmread(__qword_ptr[rsi], rax)).Should().Be((long)Flags.ZF);
    }

    [Fact]
    public void INVEPT_checks_its_type_before_it_reads_its_descriptor()
    {
        using BareMachine m = Create();
        m.State->Gpr[6] = 0x4000_0000;
        m.State->Gpr[0] = 9;
        Execute(m, a => a.invept(rax, __xmmword_ptr[rsi])).Should().Be((long)Flags.ZF);
        m.State->Gpr[0] = 2;
        Execute(m, a => a.invept(rax, __xmmword_ptr[rsi])).Should().Be(-Fault.PF);
        m.State->Gpr[6] = Pointer;
        Execute(m, a => a.invept(rax, __xmmword_ptr[rsi])).Should().Be(0);
        *m.Qword(Pointer) = 1UL << 16;
        m.State->Gpr[0] = 1;
        Execute(m, a => a.invvpid(rax, __xmmword_ptr[rsi])).Should().Be((long)Flags.ZF, "VPID bits 63:16 are reserved");
    }

    [Fact]
    public void VMLAUNCH_that_fails_goes_on_with_the_next_instruction()
    {
        using BareMachine m = Create();
        Execute(m, a => a.vmlaunch()).Should().Be((long)Flags.ZF);
        Execute(m, a => a.vmresume()).Should().Be((long)Flags.ZF);
        m.Cpu.Vmread(VmcsField.VM_INSTRUCTION_ERROR, out ulong error);
        error.Should().Be((ulong)VmxInstructionError.VmresumeNonlaunchedVmcs);
    }

    [Fact]
    public void VMFUNC_in_root_operation_is_undefined()
    {
        using BareMachine m = Create();
        Execute(m, a => a.vmfunc()).Should().Be(-Fault.UD);
    }

    [Fact]
    public void An_armed_failure_reaches_machine_code_too()
    {
        using BareMachine m = Create(vmxOn: false);
        *m.Qword(Pointer) = Region;
        m.Cpu.InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));
        Execute(m, a => a.vmxon(__qword_ptr[Pointer])).Should().Be(-Fault.GP);
        m.Cpu.InVmxOperation.Should().BeFalse();
    }
}
