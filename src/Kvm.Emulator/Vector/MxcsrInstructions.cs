using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>LDMXCSR, STMXCSR and their VEX-encoded forms.</summary>
internal static unsafe class MxcsrInstructions
{
    internal static ExecStatus Ldmxcsr(Processor cpu, Op* op) => Load(cpu, op, VectorFlags.Sse);
    internal static ExecStatus Vldmxcsr(Processor cpu, Op* op) => Load(cpu, op, VectorFlags.Avx);
    internal static ExecStatus Stmxcsr(Processor cpu, Op* op) => Store(cpu, op, VectorFlags.Sse);
    internal static ExecStatus Vstmxcsr(Processor cpu, Op* op) => Store(cpu, op, VectorFlags.Avx);

    private static ExecStatus Load(Processor cpu, Op* op, VectorFlags unit)
    {
        if (!VectorUnit.Available(cpu, cpu.State, unit) || !Operand.Read<W32>(cpu, op, out ulong value))
            return ExecStatus.Fault;
        if ((value & ~cpu.Fpu.MxcsrMask) != 0)
            return cpu.RaiseGp();
        cpu.MxcsrValue = (uint)value;
        return ExecStatus.Next;
    }

    private static ExecStatus Store(Processor cpu, Op* op, VectorFlags unit)
        => VectorUnit.Available(cpu, cpu.State, unit) && Operand.Write<W32>(cpu, op, cpu.MxcsrValue) ? ExecStatus.Next : ExecStatus.Fault;
}
