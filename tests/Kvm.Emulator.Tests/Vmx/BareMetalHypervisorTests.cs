using Iced.Intel;
using Kvm.Emulator.Vmx;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>
/// A hypervisor as machine code, executed by the processor in root operation without any C# host: VMXON, VMCLEAR, VMPTRLD, VMWRITEs, VMLAUNCH of a guest that does
/// OUT, CPUID and HLT, exits handled by VMREAD, VMRESUME, and VMXOFF at the end. The same VMCS on a machine of two processors shows what is per processor.
/// </summary>
public unsafe class BareMetalHypervisorTests
{
    // Physical layout behind what BareMachine uses.
    private const ulong Vmxon = 0x20_0000, Vmcs = 0x20_1000, Fields = 0x20_2000, Log = 0x20_4000, Pointers = 0x20_5000, Result = 0x20_5100;
    private const ulong Ept = 0x30_0000, GuestCode = 0x1000, GuestMemory = 0x40_0000;
    private const ulong Exit = 0x9000;

    private static void WriteFields(BareMachine m, params (VmcsField Field, ulong Value)[] fields)
    {
        ulong* p = m.Qword(Fields);
        foreach ((VmcsField field, ulong value) in fields)
        {
            *p++ = (ulong)field;
            *p++ = value;
        }
        *p = ulong.MaxValue;
    }

    /// <summary>Guest-physical 0–2 MiB are at <see cref="GuestMemory"/> (2 MiB page).</summary>
    private static void BuildEpt(BareMachine m)
    {
        m.Qword(Ept)[0] = Ept + 0x1000 | 7;
        m.Qword(Ept + 0x1000)[0] = Ept + 0x2000 | 7;
        m.Qword(Ept + 0x2000)[0] = GuestMemory | 7 | 6 << 3 | 0x80;
    }

    private static BareMachine Create(Action<Assembler> guest)
    {
        var m = new BareMachine();
        m.Long();
        BuildEpt(m);
        m.Cpu.ReadMsr(Msr.IA32_VMX_BASIC, out ulong basic);
        *(uint*)m.At(Vmxon) = *(uint*)m.At(Vmcs) = (uint)basic & 0x7fff_ffff;
        m.Qword(Pointers)[0] = Vmxon;
        m.Qword(Pointers)[1] = Vmcs;
        m.Bytes(GuestMemory + GuestCode, VmxMachine.Assemble(16, GuestCode, guest));

        m.Cpu.ReadMsr(Msr.IA32_VMX_TRUE_PROCBASED_CTLS, out ulong procBased);
        m.Cpu.ReadMsr(Msr.IA32_VMX_PINBASED_CTLS, out ulong pinBased);
        m.Cpu.ReadMsr(Msr.IA32_VMX_EXIT_CTLS, out ulong exit);
        m.Cpu.ReadMsr(Msr.IA32_VMX_ENTRY_CTLS, out ulong entry);
        var fields = new List<(VmcsField, ulong)>
        {
            (VmcsField.PIN_BASED_VM_EXEC_CONTROL, (uint)pinBased),
            (VmcsField.CPU_BASED_VM_EXEC_CONTROL, (uint)procBased | (uint)(PrimaryControls.HltExiting | PrimaryControls.UnconditionalIoExiting | PrimaryControls.ActivateSecondaryControls)),
            (VmcsField.SECONDARY_VM_EXEC_CONTROL, (uint)(SecondaryControls.EnableEpt | SecondaryControls.UnrestrictedGuest)),
            (VmcsField.VM_EXIT_CONTROLS, (uint)exit | (uint)(VmExitControls.HostAddressSpaceSize | VmExitControls.SaveEfer | VmExitControls.LoadEfer)),
            (VmcsField.VM_ENTRY_CONTROLS, (uint)entry | (uint)VmEntryControls.LoadEfer),
            (VmcsField.EPT_POINTER, Ept | 6 | 3 << 3),
            (VmcsField.VMCS_LINK_POINTER, ulong.MaxValue),
            (VmcsField.HOST_CR0, m.State->Cr0), (VmcsField.HOST_CR3, m.State->Cr3), (VmcsField.HOST_CR4, m.State->Cr4 | Cr4.VMXE),
            (VmcsField.HOST_IA32_EFER, m.State->Efer),
            (VmcsField.HOST_CS_SELECTOR, BareMachine.Code64), (VmcsField.HOST_SS_SELECTOR, BareMachine.Data32), (VmcsField.HOST_DS_SELECTOR, BareMachine.Data32),
            (VmcsField.HOST_ES_SELECTOR, BareMachine.Data32), (VmcsField.HOST_TR_SELECTOR, BareMachine.TssSelector), (VmcsField.HOST_TR_BASE, BareMachine.Tss),
            (VmcsField.HOST_GDTR_BASE, BareMachine.Gdt), (VmcsField.HOST_IDTR_BASE, BareMachine.Idt),
            (VmcsField.HOST_RSP, BareMachine.InnerStack), (VmcsField.HOST_RIP, Exit),
            (VmcsField.GUEST_CR0, Cr0.ET | Cr0.NE), (VmcsField.GUEST_CR4, Cr4.VMXE), (VmcsField.GUEST_RFLAGS, 2),
            (VmcsField.GUEST_RIP, GuestCode), (VmcsField.GUEST_RSP, 0x8000), (VmcsField.GUEST_CS_AR_BYTES, 0x9b), (VmcsField.GUEST_TR_AR_BYTES, 0x8b),
            (VmcsField.GUEST_LDTR_AR_BYTES, 0x10000), (VmcsField.GUEST_IDTR_LIMIT, 0x3ff), (VmcsField.GUEST_CS_LIMIT, 0xffff), (VmcsField.GUEST_TR_LIMIT, 0xffff),
            (VmcsField.GUEST_DR7, 0x400),
        };
        foreach (string s in new[] { "ES", "SS", "DS", "FS", "GS" })
        {
            fields.Add((Enum.Parse<VmcsField>($"GUEST_{s}_LIMIT"), 0xffff));
            fields.Add((Enum.Parse<VmcsField>($"GUEST_{s}_AR_BYTES"), 0x93));
        }
        WriteFields(m, [.. fields]);
        m.Assemble(BareMachine.Code, Start);
        m.Assemble(Exit, HandleExit);
        return m;
    }

    /// <summary>Entry point: enters VMX operation and launches; every failure stores its step number at <see cref="Result"/> and halts.</summary>
    private static void Start(Assembler a)
    {
        Label fail = a.CreateLabel(), next = a.CreateLabel(), written = a.CreateLabel();
        a.mov(rax, cr4);
        a.bts(rax, 13);
        a.mov(cr4, rax);
        a.mov(r15d, 1);
        a.vmxon(__qword_ptr[Pointers]);
        a.jbe(fail);
        a.inc(r15);
        a.vmclear(__qword_ptr[Pointers + 8]);
        a.jbe(fail);
        a.inc(r15);
        a.vmptrld(__qword_ptr[Pointers + 8]);
        a.jbe(fail);
        a.inc(r15);
        a.mov(rsi, Fields);
        a.Label(ref next);
        a.mov(rax, __qword_ptr[rsi]);
        a.cmp(rax, -1);
        a.je(written);
        a.vmwrite(rax, __qword_ptr[rsi + 8]);
        a.jbe(fail);
        a.add(rsi, 16);
        a.jmp(next);
        a.Label(ref written);
        a.inc(r15);
        a.mov(r10d, (uint)Log);
        a.vmlaunch();
        a.Label(ref fail);
        a.pushfq();
        a.pop(rbx);
        a.mov(__qword_ptr[Result], r15);
        a.mov(__qword_ptr[Result + 8], rbx);
        a.hlt();
    }

    /// <summary>HOST_RIP: logs reason and qualification at R10, emulates CPUID, skips the instruction, resumes; HLT ends it.</summary>
    private static void HandleExit(Assembler a)
    {
        Label end = a.CreateLabel(), skip = a.CreateLabel(), fail = a.CreateLabel();
        a.mov(r8d, (uint)VmcsField.VM_EXIT_REASON);
        a.vmread(__qword_ptr[r10], r8);
        a.mov(r8d, (uint)VmcsField.EXIT_QUALIFICATION);
        a.vmread(r9, r8);
        a.mov(__qword_ptr[r10 + 8], r9);
        a.mov(__qword_ptr[r10 + 16], rax);
        a.mov(r9, __qword_ptr[r10]);
        a.add(r10, 24);
        a.cmp(r9, (int)VmxExitReason.HLT);
        a.je(end);
        a.cmp(r9, (int)VmxExitReason.CPUID);
        a.jne(skip);
        a.mov(eax, 0x4b564d);
        a.Label(ref skip);
        a.mov(r8d, (uint)VmcsField.GUEST_RIP);
        a.vmread(r11, r8);
        a.mov(r9d, (uint)VmcsField.VM_EXIT_INSTRUCTION_LEN);
        a.vmread(r12, r9);
        a.add(r11, r12);
        a.vmwrite(r8, r11);
        a.vmresume();
        a.jmp(fail);
        a.Label(ref end);
        a.vmptrst(__qword_ptr[Result + 16]);
        a.vmclear(__qword_ptr[Pointers + 8]);
        a.jbe(fail);
        a.vmxoff();
        a.jbe(fail);
        a.mov(rax, cr4);
        a.btr(rax, 13);
        a.mov(cr4, rax);
        a.mov(__qword_ptr[Result], 100);
        a.hlt();
        a.Label(ref fail);
        a.mov(__qword_ptr[Result], 99);
        a.hlt();
    }

    private static readonly Action<Assembler> Guest = a =>
    {
        a.mov(al, (byte)'A');
        a.@out(0x10, al);
        a.cpuid();
        a.@out(0x11, eax);
        a.hlt();
    };

    [Fact]
    public void Launches_a_guest_handles_its_exits_and_leaves_VMX_operation()
    {
        using BareMachine m = Create(Guest);
        m.Run().Should().Be(StopReason.Halted);
        m.Qword(Result)[0].Should().Be(100, "the step that failed, RFLAGS 0x{0:x}", m.Qword(Result)[1]);
        ulong* log = m.Qword(Log);
        (log[0], log[1], log[2] & 0xff).Should().Be(((ulong)VmxExitReason.IO_INSTRUCTION, 0x10_0040UL, (ulong)'A'));
        log[3].Should().Be((ulong)VmxExitReason.CPUID);
        (log[6], log[7], log[8]).Should().Be(((ulong)VmxExitReason.IO_INSTRUCTION, 0x11_0043UL, 0x4b564dUL));
        log[9].Should().Be((ulong)VmxExitReason.HLT);
        m.Qword(Result)[2].Should().Be(Vmcs, "VMPTRST");
        m.Cpu.InVmxOperation.Should().BeFalse();
        (m.State->Cr4 & Cr4.VMXE).Should().Be(0);
        m.State->Segs[(int)Seg.CS].Selector.Should().Be(BareMachine.Code64);
        // VMCLEAR wrote the VMCS back: the guest's last RIP can be found by loading it again.
        m.State->Cr4 |= Cr4.VMXE;
        m.Cpu.Vmxon(Vmxon).Ok.Should().BeTrue();
        m.Cpu.Vmptrld(Vmcs).Ok.Should().BeTrue();
        m.Cpu.Vmread(VmcsField.VM_EXIT_REASON, out ulong reason);
        reason.Should().Be((ulong)VmxExitReason.HLT);
    }

    [Fact]
    public void A_wrong_revision_identifier_stops_at_VMXON_with_carry()
    {
        using BareMachine m = Create(Guest);
        *(uint*)m.At(Vmxon) ^= 1;
        m.Run().Should().Be(StopReason.Halted);
        m.Qword(Result)[0].Should().Be(1);
        (m.Qword(Result)[1] & Flags.Status).Should().Be(Flags.CF);
    }

    [Fact]
    public void A_bad_control_stops_at_VMLAUNCH_with_zero()
    {
        using BareMachine m = Create(Guest);
        m.Qword(Fields)[1] = 0;
        m.Run().Should().Be(StopReason.Halted);
        m.Qword(Result)[0].Should().Be(5);
        (m.Qword(Result)[1] & Flags.Status).Should().Be(Flags.ZF);
        m.Cpu.Vmread(VmcsField.VM_INSTRUCTION_ERROR, out ulong error);
        error.Should().Be((ulong)VmxInstructionError.EntryInvalidControlField);
    }

    [Fact]
    public void An_unsupported_component_stops_at_VMWRITE_with_zero()
    {
        using BareMachine m = Create(Guest);
        m.Qword(Fields)[0] = 0x6ffe;
        m.Run().Should().Be(StopReason.Halted);
        m.Qword(Result)[0].Should().Be(4);
        (m.Qword(Result)[1] & Flags.Status).Should().Be(Flags.ZF);
    }

    /// <summary>Exits for a physical interrupt reach the hypervisor's code, which goes on where it was.</summary>
    [Fact]
    public void An_endless_guest_is_ended_by_an_interrupt()
    {
        using BareMachine m = Create(a => a.db(0xeb, 0xfe));
        m.Qword(Fields)[1] |= (ulong)PinBasedControls.ExternalInterruptExiting;
        m.Cpu.Run(10_000).Should().Be(StopReason.Budget);
        m.Cpu.NonRoot.Should().NotBeNull();
        m.Cpu.RaiseInterrupt(0x55);
        // The exit handler skips an instruction of length 0 and resumes: the guest runs on.
        m.Cpu.Run(10_000).Should().Be(StopReason.Budget);
        m.Qword(Log)[0].Should().Be((ulong)VmxExitReason.EXTERNAL_INTERRUPT);
    }
}
