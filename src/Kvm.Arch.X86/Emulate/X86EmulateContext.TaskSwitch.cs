using Kvm.Abi;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.TaskSwitchReason;
using static Kvm.Arch.X86.VcpuSreg;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Hardware task switches, which virtualization hardware always leaves to the hypervisor.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    private const ushort NoLink = 0xffff;

    /// <summary>
    /// emulator_task_switch: Continue or Unhandleable. A fault of the switch is lost: the kernel goes on in the guest, which tries again.
    /// </summary>
    internal int TaskSwitch(ushort selector, int idtIndex, TaskSwitchReason reason, bool hasErrorCode, uint errorCode)
    {
        InvalidateRegisterCache();
        NextEip = Eip;
        int rc = DoTaskSwitch(selector, idtIndex, reason, hasErrorCode, errorCode);
        if (rc == Continue)
        {
            Eip = NextEip;
            WritebackRegisterCache();
        }

        return rc == Unhandleable ? Unhandleable : Continue;
    }

    private int DoTaskSwitch(ushort selector, int idtIndex, TaskSwitchReason reason, bool hasErrorCode, uint errorCode)
    {
        ops.GetSegment(vcpu, out kvm_segment tr, VCPU_SREG_TR);
        int rc = ReadDescriptor(selector, out ulong next, out ulong _);
        if (rc != Continue)
            return rc;
        rc = ReadDescriptor(tr.selector, out ulong current, out ulong _);
        if (rc != Continue)
            return rc;
        if (reason == TASK_SWITCH_GATE && idtIndex != -1)
        {
            rc = CheckTaskGate(selector, idtIndex);
            if (rc != Continue)
                return rc;
        }

        kvm_segment tss = Unpack(next, selector);
        bool wide = (tss.type & 8) != 0;
        if (tss.present == 0 || (tss.limit < 0x67 && wide) || tss.limit < 0x2b)
            return Ts(selector & 0xfffcu);
        if (reason is TASK_SWITCH_IRET or TASK_SWITCH_JMP)
            WriteDescriptor(tr.selector, current & ~Descriptor.Busy);
        if (reason == TASK_SWITCH_IRET)
            Eflags &= ~X86_EFLAGS_NT;

        bool link = reason is TASK_SWITCH_CALL or TASK_SWITCH_GATE;
        ushort oldSelector = link ? tr.selector : NoLink;
        rc = wide ? TaskSwitch32(oldSelector, tr.@base, tss.@base) : TaskSwitch16(oldSelector, tr.@base, tss.@base);
        if (rc != Continue)
            return rc;
        if (link)
            Eflags |= X86_EFLAGS_NT;
        if (reason != TASK_SWITCH_IRET)
        {
            tss.type |= 2;
            WriteDescriptor(selector, next | Descriptor.Busy);
        }

        vcpu.SetCr(0, vcpu.GetCr(0) | X86_CR0_TS);
        ops.SetSegment(vcpu, tss, VCPU_SREG_TR);
        if (hasErrorCode)
        {
            opBytes = adBytes = wide ? 4 : 2;
            rc = Push(errorCode, opBytes);
        }

        const ulong LocalEnables = 0x55 | 0x100;
        vcpu.SetDr(7, vcpu.GetDr(7) & ~LocalEnables);
        return rc;
    }

    /// <summary>A software interrupt through a task gate asks for its privilege level.</summary>
    private int CheckTaskGate(ushort selector, int idtIndex)
    {
        ops.GetIdt(vcpu, out DescPtr idt);
        if (idt.Size < (idtIndex << 3) + 7)
            return Gp((uint)(idtIndex << 3) | 2);
        ulong gate = 0;
        int rc = LinearReadSystem(idt.Address + (uint)(idtIndex << 3), &gate, 8);
        if (rc != Continue)
            return rc;
        int dpl = new Descriptor { Low = gate }.Dpl;
        return (selector & 3) > dpl || ops.GetCpl(vcpu) > dpl ? Gp((uint)(idtIndex << 3) | 2) : Continue;
    }

    private int TaskSwitch32(ushort oldSelector, ulong oldBase, ulong newBase)
    {
        TaskState32 tss;
        int rc = LinearReadSystem(oldBase, &tss, sizeof(TaskState32));
        if (rc != Continue)
            return rc;
        tss.Eip = (uint)NextEip;
        tss.Eflags = (uint)Eflags;
        for (int i = 0; i < 8; i++)
            tss.Registers[i] = (uint)RegRead(i);
        tss.Es = (uint)Selector(VCPU_SREG_ES);
        tss.Cs = (uint)Selector(VCPU_SREG_CS);
        tss.Ss = (uint)Selector(VCPU_SREG_SS);
        tss.Ds = (uint)Selector(VCPU_SREG_DS);
        tss.Fs = (uint)Selector(VCPU_SREG_FS);
        tss.Gs = (uint)Selector(VCPU_SREG_GS);

        // EIP up to GS: CR3 and the LDT selector are not stored.
        rc = LinearWriteSystem(oldBase + 32, &tss.Eip, 96 - 32);
        if (rc == Continue)
            rc = LinearReadSystem(newBase, &tss, sizeof(TaskState32));
        if (rc == Continue && oldSelector != NoLink)
        {
            ushort link = oldSelector;
            rc = LinearWriteSystem(newBase, &link, 2);
        }

        return rc != Continue ? rc : LoadTss32(tss);
    }

    private int LoadTss32(TaskState32 tss)
    {
        if (vcpu.SetCr(3, tss.Cr3) != 0)
            return Gp(0);
        NextEip = tss.Eip;
        Eflags = tss.Eflags | X86_EFLAGS_FIXED;
        for (int i = 0; i < 8; i++)
            RegWrite(i, tss.Registers[i]);
        SetSelector((ushort)tss.Ldt, VCPU_SREG_LDTR);
        SetSelector((ushort)tss.Es, VCPU_SREG_ES);
        SetSelector((ushort)tss.Cs, VCPU_SREG_CS);
        SetSelector((ushort)tss.Ss, VCPU_SREG_SS);
        SetSelector((ushort)tss.Ds, VCPU_SREG_DS);
        SetSelector((ushort)tss.Fs, VCPU_SREG_FS);
        SetSelector((ushort)tss.Gs, VCPU_SREG_GS);
        bool vm86 = (Eflags & X86_EFLAGS_VM) != 0;
        Mode = vm86 ? EmulMode.Vm86 : EmulMode.Prot32;
        int cpl = vm86 ? 3 : (int)tss.Cs & 3;
        int rc = LoadTaskSegment((ushort)tss.Ldt, VCPU_SREG_LDTR, cpl);
        rc = rc != Continue ? rc : LoadTaskSegment((ushort)tss.Es, VCPU_SREG_ES, cpl);
        rc = rc != Continue ? rc : LoadTaskSegment((ushort)tss.Cs, VCPU_SREG_CS, cpl);
        rc = rc != Continue ? rc : LoadTaskSegment((ushort)tss.Ss, VCPU_SREG_SS, cpl);
        rc = rc != Continue ? rc : LoadTaskSegment((ushort)tss.Ds, VCPU_SREG_DS, cpl);
        rc = rc != Continue ? rc : LoadTaskSegment((ushort)tss.Fs, VCPU_SREG_FS, cpl);
        return rc != Continue ? rc : LoadTaskSegment((ushort)tss.Gs, VCPU_SREG_GS, cpl);
    }

    private int TaskSwitch16(ushort oldSelector, ulong oldBase, ulong newBase)
    {
        TaskState16 tss;
        int rc = LinearReadSystem(oldBase, &tss, sizeof(TaskState16));
        if (rc != Continue)
            return rc;
        tss.Ip = (ushort)NextEip;
        tss.Flags = (ushort)Eflags;
        for (int i = 0; i < 8; i++)
            tss.Registers[i] = (ushort)RegRead(i);
        tss.Es = (ushort)Selector(VCPU_SREG_ES);
        tss.Cs = (ushort)Selector(VCPU_SREG_CS);
        tss.Ss = (ushort)Selector(VCPU_SREG_SS);
        tss.Ds = (ushort)Selector(VCPU_SREG_DS);
        tss.Ldt = (ushort)Selector(VCPU_SREG_LDTR);
        rc = LinearWriteSystem(oldBase, &tss, sizeof(TaskState16));
        if (rc == Continue)
            rc = LinearReadSystem(newBase, &tss, sizeof(TaskState16));
        if (rc == Continue && oldSelector != NoLink)
        {
            ushort link = oldSelector;
            rc = LinearWriteSystem(newBase, &link, 2);
        }

        if (rc != Continue)
            return rc;
        NextEip = tss.Ip;
        Eflags = tss.Flags | X86_EFLAGS_FIXED;
        for (int i = 0; i < 8; i++)
            RegWrite(i, tss.Registers[i]);
        SetSelector(tss.Ldt, VCPU_SREG_LDTR);
        SetSelector(tss.Es, VCPU_SREG_ES);
        SetSelector(tss.Cs, VCPU_SREG_CS);
        SetSelector(tss.Ss, VCPU_SREG_SS);
        SetSelector(tss.Ds, VCPU_SREG_DS);
        int cpl = tss.Cs & 3;
        rc = LoadTaskSegment(tss.Ldt, VCPU_SREG_LDTR, cpl);
        rc = rc != Continue ? rc : LoadTaskSegment(tss.Es, VCPU_SREG_ES, cpl);
        rc = rc != Continue ? rc : LoadTaskSegment(tss.Cs, VCPU_SREG_CS, cpl);
        rc = rc != Continue ? rc : LoadTaskSegment(tss.Ss, VCPU_SREG_SS, cpl);
        return rc != Continue ? rc : LoadTaskSegment(tss.Ds, VCPU_SREG_DS, cpl);
    }

    private int LoadTaskSegment(ushort selector, int seg, int cpl) => LoadSegment(selector, seg, cpl, Transfer.TaskSwitch, out kvm_segment _);

    private void SetSelector(ushort selector, int seg)
    {
        ops.GetSegment(vcpu, out kvm_segment segment, seg);
        segment.selector = selector;
        ops.SetSegment(vcpu, segment, seg);
    }
}
