using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>INVLPG, INVPCID, INVD, WBINVD, WBNOINVD, RSM.</summary>
public sealed unsafe partial class Processor
{
    /// <remarks>SDM vol 2A, INVLPG: no fault for a non-canonical address, which invalidates nothing.</remarks>
    internal static ExecStatus InvlpgHandler(Processor cpu, Op* op)
    {
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        ulong offset = cpu.EffectiveAddress(op);
        ulong linear = cpu.Code64 ? (op->Segment >= Seg.FS ? cpu.Segment(op->Segment).Base : 0) + offset : (uint)(cpu.Segment(op->Segment).Base + offset);
        if (cpu.NonRoot is { } guest && guest.Invlpg(op->Length, linear))
            return ExecStatus.Switched;
        if (cpu.Mmu.Canonical(linear))
            cpu.Mmu.FlushLinearCurrent(linear);
        return ExecStatus.NextEndBlock;
    }

    /// <remarks>SDM vol 2A, INVPCID: types 0 address, 1 one PCID, 2 all with globals, 3 all without.</remarks>
    internal static ExecStatus Invpcid(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        if (cpu.NonRoot?.Enabled(NonRootFeature.Invpcid) == false)
            return cpu.RaiseUd();
        if (s->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.NonRoot is { } guest)
        {
            ulong offset = cpu.EffectiveAddress(op);
            ulong at = cpu.Code64 ? (op->Segment >= Seg.FS ? cpu.Segment(op->Segment).Base : 0) + offset : (uint)(cpu.Segment(op->Segment).Base + offset);
            if (guest.Invpcid(op->Length, cpu.OperandOf(op), at, op->Reg))
                return ExecStatus.Switched;
        }
        ulong type = Truncate(s->Gpr[op->Reg], cpu.Code64 ? 8 : 4);
        ulong address = cpu.EffectiveAddress(op);
        if (!cpu.Mmu.Read(op->Segment, address, 8, out ulong pcid) || !cpu.Mmu.Read(op->Segment, address + 8, 8, out ulong linear))
            return ExecStatus.Fault;
        bool pcide = (s->Cr4 & Cr4.PCIDE) != 0;
        if (type > 3 || (pcid & ~0xfffUL) != 0 || (type < 2 && !pcide && pcid != 0) || (type == 0 && !cpu.Mmu.Canonical(linear)))
            return cpu.RaiseGp();
        switch (type)
        {
            case 0: cpu.Mmu.FlushLinearPcid(cpu.TlbTag, (ushort)pcid, linear, global: false); break;
            case 1: cpu.Mmu.FlushPcid(cpu.TlbTag, (ushort)pcid); break;
            case 2: cpu.Mmu.FlushTag(cpu.TlbTag, keepGlobal: false); break;
            default: cpu.Mmu.FlushTag(cpu.TlbTag, keepGlobal: true); break;
        }
        return ExecStatus.NextEndBlock;
    }

    internal static ExecStatus Invd(Processor cpu, Op* op)
    {
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        return cpu.NonRoot is { } guest && guest.Invd(op->Length) ? ExecStatus.Switched : ExecStatus.Next;
    }

    internal static ExecStatus WbinvdHandler(Processor cpu, Op* op)
    {
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.NonRoot is { } guest && guest.Wbinvd(op->Length))
            return ExecStatus.Switched;
        cpu.Wbinvd();
        return ExecStatus.Next;
    }

    /// <summary>RSM outside system-management mode.</summary>
    internal static ExecStatus Rsm(Processor cpu, Op* op)
        => cpu.NonRoot is { } guest && guest.Rsm(op->Length) ? ExecStatus.Switched : cpu.RaiseUd();
}
