using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>FXSAVE, FXRSTOR, with REX.W too.</summary>
/// <remarks>
/// SDM vol 2A, FXSAVE, FXRSTOR; APM vol 5. CR0.EM raises #UD on Intel's processors, #NM on AMD's. Without CR4.OSFXSR neither XMM registers nor MXCSR are
/// touched. With EFER.FFXSR, AMD's leave the XMM registers out in 64-bit mode at CPL 0. Bytes 416–511 are software's, but must be accessible.
/// </remarks>
internal static unsafe class FxsaveInstructions
{
    private const int size = 512;
    private const ulong alignment = 16;

    private static XsaveFormat Format(Processor cpu, Op* op) => new((op->Prefixes & OpPrefixes.RexW) != 0, cpu.Code64 ? 16 : 8);

    internal static ExecStatus Fxsave(Processor cpu, Op* op)
    {
        if (!Available(cpu) || !WideMemory.Linear(cpu, op, cpu.EffectiveAddress(op), size, AccessKind.Write, out ulong linear, alignment) || !WideMemory.CanWrite(cpu, linear, size))
            return ExecStatus.Fault;
        return Save(cpu, new GuestXsaveArea(cpu, op, linear), Format(cpu, op)) ? ExecStatus.Next : ExecStatus.Fault;
    }

    internal static ExecStatus Fxrstor(Processor cpu, Op* op)
    {
        if (!Available(cpu) || !WideMemory.Linear(cpu, op, cpu.EffectiveAddress(op), size, AccessKind.Read, out ulong linear, alignment))
            return ExecStatus.Fault;
        return Restore(cpu, new GuestXsaveArea(cpu, op, linear), Format(cpu, op)) ? ExecStatus.Next : ExecStatus.Fault;
    }

    private static bool Available(Processor cpu)
    {
        ulong cr0 = cpu.State->Cr0;
        if ((cr0 & (Cr0.EM | Cr0.TS)) == 0)
            return true;
        cpu.Raise(new Fault((cr0 & Cr0.EM) != 0 && !cpu.Fpu.Amd ? Fault.UD : Fault.NM));
        return false;
    }

    private static bool HasSse(Processor cpu) => (cpu.State->Cr4 & Cr4.OSFXSR) != 0;

    /// <summary>EFER.FFXSR.</summary>
    private static bool WithoutXmm(CpuState* s, Processor cpu) => (s->Efer & Efer.FFXSR) != 0 && s->Cpl == 0 && cpu.Code64;

    internal static bool Save<TArea>(Processor cpu, in TArea area, XsaveFormat format) where TArea : IXsaveArea
        => XsaveImage.StoreX87(cpu, area, format)
            && (!HasSse(cpu) || (XsaveImage.StoreMxcsr(cpu, area) && (WithoutXmm(cpu.State, cpu) || XsaveImage.StoreXmm(cpu, area, format.Registers))));

    /// <summary>False: an access failed, or #GP(0) for reserved bits of MXCSR; nothing has been loaded.</summary>
    internal static bool Restore<TArea>(Processor cpu, in TArea area, XsaveFormat format) where TArea : IXsaveArea
    {
        byte* legacy = stackalloc byte[size];
        if (!area.Read(0, legacy, size))
            return false;
        if (HasSse(cpu))
        {
            uint mxcsr = *(uint*)(legacy + XsaveImage.MxcsrOffset);
            if ((mxcsr & ~cpu.Fpu.MxcsrMask) != 0)
            {
                cpu.RaiseGp();
                return false;
            }
            cpu.MxcsrValue = mxcsr;
            if (!WithoutXmm(cpu.State, cpu))
                XsaveImage.LoadXmm(cpu, legacy + XsaveImage.XmmOffset, format.Registers);
        }
        XsaveImage.LoadX87(cpu, legacy, format);
        return true;
    }
}
