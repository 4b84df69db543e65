using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>
/// x87 and SSE state: initialization, control and status words, FXSAVE and FXRSTOR. No arithmetic: that faults as the engine's table says.
/// State->Fx holds everything in the 64-bit FXSAVE format.
/// </summary>
/// <remarks>SDM vol 1, "FXSAVE and FXRSTOR Instructions"; vol 2A, FINIT, FSTSW, FSTCW, FLDCW, FXSAVE, FXRSTOR.</remarks>
public sealed unsafe partial class Processor
{
    private const int FxControl = 0, FxStatus = 2, FxTags = 4, FxOpcode = 6, FxIp = 8, FxDp = 16, FxMxcsr = 24, FxMxcsrMask = 28, FxXmm = 160, FxEnd = 416;
    private const uint MxcsrMask = 0xffff;

    private ushort FxWord(int offset) => *(ushort*)(State->Fx + offset);

    /// <summary>Power-up state: FCW 40H, MXCSR 1F80H.</summary>
    private void ResetFpu()
    {
        for (int i = 0; i < 512; i++)
            State->Fx[i] = 0;
        *(ushort*)(State->Fx + FxControl) = 0x40;
        *(uint*)(State->Fx + FxMxcsr) = 0x1f80;
        *(uint*)(State->Fx + FxMxcsrMask) = MxcsrMask;
        State->Fx[FxTags] = 0xff;
    }

    /// <summary>Copies the FXSAVE image out, for kernel code that switches FPU states.</summary>
    public void SaveFx(Span<byte> image) => new ReadOnlySpan<byte>(State->Fx, 512).CopyTo(image);

    /// <summary>Loads an FXSAVE image. #GP(0) for reserved MXCSR bits.</summary>
    public InstructionResult RestoreFx(ReadOnlySpan<byte> image)
    {
        if ((BitConverter.ToUInt32(image[FxMxcsr..]) & ~MxcsrMask) != 0)
            return InstructionResult.Faulted(Fault.Gp());
        image[..FxEnd].CopyTo(new Span<byte>(State->Fx, 512));
        *(uint*)(State->Fx + FxMxcsrMask) = MxcsrMask;
        return InstructionResult.Success;
    }

    /// <summary>#NM while CR0 says that the unit is emulated or its state is not the task's.</summary>
    private bool FpuAvailable(bool sse = false)
    {
        if (sse && ((State->Cr0 & Cr0.EM) != 0 || (State->Cr4 & Cr4.OSFXSR) == 0))
        {
            RaiseUd();
            return false;
        }
        if ((State->Cr0 & (Cr0.EM | Cr0.TS)) == 0)
            return true;
        Raise(new Fault(Fault.NM));
        return false;
    }

    internal static ExecStatus Fninit(Processor cpu, Op* op)
    {
        if (!cpu.FpuAvailable())
            return ExecStatus.Fault;
        byte* fx = cpu.State->Fx;
        Vector.VectorUnit.ResetTop(cpu.State);
        *(ushort*)(fx + FxControl) = 0x37f;
        *(ushort*)(fx + FxStatus) = 0;
        fx[FxTags] = 0;
        *(ushort*)(fx + FxOpcode) = 0;
        *(ulong*)(fx + FxIp) = 0;
        *(ulong*)(fx + FxDp) = 0;
        return ExecStatus.Next;
    }

    internal static ExecStatus Fnclex(Processor cpu, Op* op)
    {
        if (!cpu.FpuAvailable())
            return ExecStatus.Fault;
        *(ushort*)(cpu.State->Fx + FxStatus) &= 0x7f00;
        return ExecStatus.Next;
    }

    internal static ExecStatus FnstswAx(Processor cpu, Op* op)
    {
        if (!cpu.FpuAvailable())
            return ExecStatus.Fault;
        cpu.WriteRegister(0, 2, cpu.FxWord(FxStatus));
        return ExecStatus.Next;
    }

    internal static ExecStatus Fnstsw(Processor cpu, Op* op) => cpu.StoreFx(op, cpu.FxWord(FxStatus), 2, sse: false);
    internal static ExecStatus Fnstcw(Processor cpu, Op* op) => cpu.StoreFx(op, cpu.FxWord(FxControl), 2, sse: false);
    internal static ExecStatus Stmxcsr(Processor cpu, Op* op) => cpu.StoreFx(op, *(uint*)(cpu.State->Fx + FxMxcsr), 4, sse: true);

    private ExecStatus StoreFx(Op* op, ulong value, int size, bool sse)
        => FpuAvailable(sse) && Mmu.Write(op->Segment, EffectiveAddress(op), size, value) ? ExecStatus.Next : ExecStatus.Fault;

    internal static ExecStatus Fldcw(Processor cpu, Op* op)
    {
        if (!cpu.FpuAvailable() || !cpu.Mmu.Read(op->Segment, cpu.EffectiveAddress(op), 2, out ulong value))
            return ExecStatus.Fault;
        *(ushort*)(cpu.State->Fx + FxControl) = (ushort)((value & 0x1f3f) | 0x40);
        return ExecStatus.Next;
    }

    internal static ExecStatus Ldmxcsr(Processor cpu, Op* op)
    {
        if (!cpu.FpuAvailable(sse: true) || !cpu.Mmu.Read(op->Segment, cpu.EffectiveAddress(op), 4, out ulong value))
            return ExecStatus.Fault;
        if ((value & ~MxcsrMask) != 0)
            return cpu.RaiseGp();
        *(uint*)(cpu.State->Fx + FxMxcsr) = (uint)value;
        return ExecStatus.Next;
    }

    internal static ExecStatus Emms(Processor cpu, Op* op)
    {
        if ((cpu.State->Cr0 & Cr0.EM) != 0)
            return cpu.RaiseUd();
        if (!cpu.FpuAvailable())
            return ExecStatus.Fault;
        cpu.State->Fx[FxTags] = 0;
        return ExecStatus.Next;
    }

    /// <summary>XMM8–XMM15 exist in 64-bit mode only.</summary>
    private int FxSize => Code64 ? FxEnd : FxXmm + 128;

    internal static ExecStatus Fxsave(Processor cpu, Op* op)
    {
        ulong address = cpu.EffectiveAddress(op);
        if (!cpu.FpuAvailable() || !cpu.CheckFxOperand(op, address, AccessKind.Write, out ulong linear) || !cpu.Mmu.ProbeWrite(linear, 512))
            return ExecStatus.Fault;
        for (int i = 0; i < cpu.FxSize; i += 8)
        {
            ulong value = *(ulong*)(cpu.State->Fx + i);
            // Without REX.W the pointers are 32-bit offsets with a selector, which processors now store as zero.
            if (i is FxIp or FxDp && (op->Prefixes & OpPrefixes.RexW) == 0)
                value = (uint)value;
            if (!cpu.Mmu.Write(op->Segment, address + (ulong)i, 8, value))
                return ExecStatus.Fault;
        }
        return ExecStatus.Next;
    }

    internal static ExecStatus Fxrstor(Processor cpu, Op* op)
    {
        ulong address = cpu.EffectiveAddress(op);
        if (!cpu.FpuAvailable() || !cpu.CheckFxOperand(op, address, AccessKind.Read, out _))
            return ExecStatus.Fault;
        ulong* image = stackalloc ulong[64];
        for (int i = 0; i < cpu.FxSize / 8; i++)
            if (!cpu.Mmu.Read(op->Segment, address + (ulong)(i * 8), 8, out image[i]))
                return ExecStatus.Fault;
        if (((uint)image[3] & ~MxcsrMask) != 0)
            return cpu.RaiseGp();
        for (int i = 0; i < cpu.FxSize / 8; i++)
            ((ulong*)cpu.State->Fx)[i] = image[i];
        *(uint*)(cpu.State->Fx + FxMxcsrMask) = MxcsrMask;
        return ExecStatus.Next;
    }

    private bool CheckFxOperand(Op* op, ulong address, AccessKind kind, out ulong linear)
    {
        if (!Mmu.CheckedLinear(op->Segment, address, 1, kind, out linear))
            return false;
        if ((linear & 0xf) == 0)
            return true;
        RaiseGp();
        return false;
    }
}
