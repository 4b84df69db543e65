using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS, XGETBV, XSETBV as instructions of a stream.</summary>
/// <remarks>
/// Order of checks: #UD (CR4.OSXSAVE; hidden by a hypervisor), #GP (CPL of XSAVES and XRSTORS), VM exit, #NM (CR0.TS), segment, #GP (64-byte alignment), page faults,
/// then what the area holds. SDM vol 2C, vol 2D; vol 3C, "Relative Priority of Faults and VM Exits".
/// </remarks>
internal static unsafe class XsaveInstructions
{
    private const ulong alignment = 64;

    internal static ExecStatus Xsave(Processor cpu, Op* op) => Save(cpu, op, XsaveForm.Xsave);
    internal static ExecStatus Xsaveopt(Processor cpu, Op* op) => Save(cpu, op, XsaveForm.Xsaveopt);
    internal static ExecStatus Xsavec(Processor cpu, Op* op) => Save(cpu, op, XsaveForm.Xsavec);
    internal static ExecStatus Xsaves(Processor cpu, Op* op) => Save(cpu, op, XsaveForm.Xsaves);
    internal static ExecStatus Xrstor(Processor cpu, Op* op) => Restore(cpu, op, supervisor: false);
    internal static ExecStatus Xrstors(Processor cpu, Op* op) => Restore(cpu, op, supervisor: true);

    private static XsaveFormat Format(Processor cpu, Op* op) => new((op->Prefixes & OpPrefixes.RexW) != 0, cpu.Code64 ? 16 : 8);

    private static ulong Mask(CpuState* s) => (uint)s->Gpr[0] | s->Gpr[2] << 32;

    private static ExecStatus Save(Processor cpu, Op* op, XsaveForm form)
    {
        CpuState* s = cpu.State;
        bool supervisor = form == XsaveForm.Xsaves;
        ExecStatus allowed = Allowed(cpu, op, supervisor, restore: false);
        if (allowed != ExecStatus.Next)
            return allowed;
        ulong rfbm = Mask(s) & (supervisor ? s->Xcr0 | s->Xss : s->Xcr0);
        bool compacted = form is XsaveForm.Xsavec or XsaveForm.Xsaves;
        int size = cpu.Fpu.AreaSize(rfbm, compacted ? rfbm | 1UL << 63 : 0);
        if (!WideMemory.Linear(cpu, op, cpu.EffectiveAddress(op), size, AccessKind.ReadWrite, out ulong linear, alignment) || !WideMemory.CanWrite(cpu, linear, size))
            return ExecStatus.Fault;
        return XsaveUnit.Save(cpu, new GuestXsaveArea(cpu, op, linear), form, rfbm, Format(cpu, op)) ? ExecStatus.Next : ExecStatus.Fault;
    }

    private static ExecStatus Restore(Processor cpu, Op* op, bool supervisor)
    {
        CpuState* s = cpu.State;
        ExecStatus allowed = Allowed(cpu, op, supervisor, restore: true);
        if (allowed != ExecStatus.Next)
            return allowed;
        ulong enabled = supervisor ? s->Xcr0 | s->Xss : s->Xcr0, rfbm = Mask(s) & enabled;
        if (!WideMemory.Linear(cpu, op, cpu.EffectiveAddress(op), FpuTraits.HeaderEnd, AccessKind.Read, out ulong linear, alignment))
            return ExecStatus.Fault;
        return XsaveUnit.Restore(cpu, new GuestXsaveArea(cpu, op, linear), supervisor, enabled, rfbm, Format(cpu, op)) ? ExecStatus.NextEndBlock : ExecStatus.Fault;
    }

    private static ExecStatus Allowed(Processor cpu, Op* op, bool supervisor, bool restore)
    {
        CpuState* s = cpu.State;
        if ((s->Cr4 & Cr4.OSXSAVE) == 0)
            return cpu.RaiseUd();
        if (supervisor)
        {
            if (cpu.NonRoot?.Enabled(NonRootFeature.Xsaves) == false)
                return cpu.RaiseUd();
            if (s->Cpl != 0)
                return cpu.RaiseGp();
            if (cpu.NonRoot is { } guest && guest.Xsaves(op->Length, restore, Mask(s) & s->Xss))
                return ExecStatus.Switched;
        }
        return (s->Cr0 & Cr0.TS) != 0 ? cpu.Raise(new Fault(Fault.NM)) : ExecStatus.Next;
    }

    internal static ExecStatus Xgetbv(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        if ((s->Cr4 & Cr4.OSXSAVE) == 0)
            return cpu.RaiseUd();
        return (uint)s->Gpr[1] switch
        {
            0 => cpu.SetEdxEax(s->Xcr0),
            1 when cpu.Fpu.ReadsInUse => cpu.SetEdxEax(s->Xcr0 & XsaveImage.InUse(cpu, cpu.Code64 ? 16 : 8)),
            _ => cpu.RaiseGp(),
        };
    }

    internal static ExecStatus Xsetbv(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        if ((s->Cr4 & Cr4.OSXSAVE) == 0)
            return cpu.RaiseUd();
        if (s->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.NonRoot is { } guest && guest.Xsetbv(op->Length))
            return ExecStatus.Switched;
        InstructionResult result = cpu.Xsetbv((uint)s->Gpr[1], Mask(s));
        return result.IsFault ? cpu.Raise(result.Fault) : ExecStatus.NextEndBlock;
    }
}
