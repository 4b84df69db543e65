using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, RDFSBASE and its relatives.</summary>
public sealed unsafe partial class Processor
{
    private const uint Code64Rights = 0xa09b, Code32Rights = 0xc09b, DataRights = 0xc093;

    private static SegmentCache FlatSegment(int selector, uint rights, int dpl) => new() { Selector = (ushort)selector, Limit = uint.MaxValue, AccessRights = rights | (uint)dpl << 5 };

    /// <remarks>SDM vol 2B, SYSCALL (64-bit code only); APM vol 3, SYSCALL (legacy and compatibility mode too: EIP from STAR or CSTAR).</remarks>
    internal static ExecStatus Syscall(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        bool amd = cpu.Model.Vendor == CpuVendor.Amd;
        if ((s->Efer & Efer.SCE) == 0 || !cpu.ProtectedMode || cpu.Virtual8086 || (!amd && !cpu.Code64))
            return cpu.RaiseUd();
        ulong next = cpu.NextRip(op);
        int selector = (int)(s->Star >> 32) & 0xfffc;
        s->Gpr[1] = next;
        if (cpu.LongMode)
        {
            s->Gpr[11] = cpu.Rflags & ~Flags.RF;
            s->Rip = cpu.Code64 ? s->Lstar : s->Cstar;
            cpu.Rflags = cpu.Rflags & ~s->Sfmask & ~Flags.RF;
            cpu.Segment(Seg.CS) = FlatSegment(selector, Code64Rights, 0);
        }
        else
        {
            s->Rip = (uint)s->Star;
            cpu.Rflags = cpu.Rflags & ~(Flags.VM | Flags.IF | Flags.RF);
            cpu.Segment(Seg.CS) = FlatSegment(selector, Code32Rights, 0);
        }
        cpu.Segment(Seg.SS) = FlatSegment(selector + 8, DataRights, 0);
        s->Cpl = 0;
        cpu.UpdateMode();
        cpu.StepAfterFastCall();
        return ExecStatus.Jumped;
    }

    /// <summary>SYSCALL and SYSRET step as the flags they load say: the kernel masks TF, and the trap comes right after SYSRET.</summary>
    private void StepAfterFastCall() => singleStepArmed = (State->Rflags & Flags.TF) != 0;

    internal static ExecStatus Sysret(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        bool amd = cpu.Model.Vendor == CpuVendor.Amd;
        if ((s->Efer & Efer.SCE) == 0 || !cpu.ProtectedMode || cpu.Virtual8086 || (!amd && !cpu.Code64))
            return cpu.RaiseUd();
        if (s->Cpl != 0)
            return cpu.RaiseGp();
        bool to64 = op->Width == 8;
        // Intel checks RCX while still at CPL 0.
        if (to64 && !amd && !cpu.Mmu.Canonical(s->Gpr[1]))
            return cpu.RaiseGp();
        int selector = (int)(s->Star >> 48);
        if (cpu.LongMode)
            cpu.Rflags = s->Gpr[11] & Flags.All & ~(Flags.RF | Flags.VM);
        else
            cpu.Rflags |= Flags.IF;
        s->Rip = to64 ? s->Gpr[1] : (uint)s->Gpr[1];
        cpu.Segment(Seg.CS) = FlatSegment((to64 ? selector + 16 : selector) | 3, to64 ? Code64Rights : Code32Rights, 3);
        // AMD loads only the selector; rights stay, with DPL 3.
        ref SegmentCache ss = ref cpu.Segment(Seg.SS);
        if (amd)
            ss = new SegmentCache { Selector = (ushort)((selector + 8) | 3), Base = ss.Base, Limit = ss.Limit, AccessRights = ss.AccessRights | 0x60 };
        else
            ss = FlatSegment((selector + 8) | 3, DataRights, 3);
        s->Cpl = 3;
        cpu.UpdateMode();
        cpu.StepAfterFastCall();
        cpu.Reevaluate();
        return ExecStatus.Jumped;
    }

    /// <remarks>SDM vol 2B, SYSENTER; AMD has it in legacy mode only.</remarks>
    internal static ExecStatus Sysenter(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        if (cpu.Model.Vendor == CpuVendor.Amd && cpu.LongMode)
            return cpu.RaiseUd();
        if (!cpu.ProtectedMode || (s->SysenterCs & 0xfffc) == 0)
            return cpu.RaiseGp();
        bool longMode = cpu.LongMode;
        cpu.Rflags = cpu.Rflags & ~(Flags.VM | Flags.IF | Flags.RF);
        s->Gpr[4] = longMode ? s->SysenterEsp : (uint)s->SysenterEsp;
        s->Rip = longMode ? s->SysenterEip : (uint)s->SysenterEip;
        int selector = (int)s->SysenterCs & 0xfffc;
        cpu.Segment(Seg.CS) = FlatSegment(selector, longMode ? Code64Rights : Code32Rights, 0);
        cpu.Segment(Seg.SS) = FlatSegment(selector + 8, DataRights, 0);
        s->Cpl = 0;
        cpu.UpdateMode();
        return ExecStatus.Jumped;
    }

    internal static ExecStatus Sysexit(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        if (cpu.Model.Vendor == CpuVendor.Amd && cpu.LongMode)
            return cpu.RaiseUd();
        if (!cpu.ProtectedMode || (s->SysenterCs & 0xfffc) == 0 || s->Cpl != 0)
            return cpu.RaiseGp();
        bool to64 = op->Width == 8;
        if (to64 && (!cpu.Mmu.Canonical(s->Gpr[1]) || !cpu.Mmu.Canonical(s->Gpr[2])))
            return cpu.RaiseGp();
        s->Gpr[4] = to64 ? s->Gpr[1] : (uint)s->Gpr[1];
        s->Rip = to64 ? s->Gpr[2] : (uint)s->Gpr[2];
        int selector = (int)s->SysenterCs & 0xfffc;
        cpu.Segment(Seg.CS) = FlatSegment((selector + (to64 ? 32 : 16)) | 3, to64 ? Code64Rights : Code32Rights, 3);
        cpu.Segment(Seg.SS) = FlatSegment((selector + (to64 ? 40 : 24)) | 3, DataRights, 3);
        s->Cpl = 3;
        cpu.UpdateMode();
        return ExecStatus.Jumped;
    }

    internal static ExecStatus Swapgs(Processor cpu, Op* op)
    {
        if (!cpu.Code64)
            return cpu.RaiseUd();
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        ref SegmentCache gs = ref cpu.Segment(Seg.GS);
        (gs.Base, cpu.State->KernelGsBase) = (cpu.State->KernelGsBase, gs.Base);
        return ExecStatus.Next;
    }

    private bool FsGsBaseEnabled => Code64 && (State->Cr4 & Cr4.FSGSBASE) != 0;

    private static ExecStatus ReadBase(Processor cpu, Op* op, Seg seg)
    {
        if (!cpu.FsGsBaseEnabled)
            return cpu.RaiseUd();
        cpu.WriteRegister(op->Rm != Op.NoRegister ? op->Rm : op->Reg, op->Width, Truncate(cpu.Segment(seg).Base, op->Width));
        return ExecStatus.Next;
    }

    private static ExecStatus WriteBase(Processor cpu, Op* op, Seg seg)
    {
        if (!cpu.FsGsBaseEnabled)
            return cpu.RaiseUd();
        ulong value = Truncate(cpu.State->Gpr[op->Rm != Op.NoRegister ? op->Rm : op->Reg], op->Width);
        if (!cpu.Mmu.Canonical(value))
            return cpu.RaiseGp();
        cpu.Segment(seg).Base = value;
        return ExecStatus.Next;
    }

    internal static ExecStatus Rdfsbase(Processor cpu, Op* op) => ReadBase(cpu, op, Seg.FS);
    internal static ExecStatus Rdgsbase(Processor cpu, Op* op) => ReadBase(cpu, op, Seg.GS);
    internal static ExecStatus Wrfsbase(Processor cpu, Op* op) => WriteBase(cpu, op, Seg.FS);
    internal static ExecStatus Wrgsbase(Processor cpu, Op* op) => WriteBase(cpu, op, Seg.GS);
}
