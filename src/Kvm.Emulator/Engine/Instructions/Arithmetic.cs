using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

/// <summary>A two-operand arithmetic or logic operation. Operands and results are sign-extended from the operand width.</summary>
internal unsafe interface IBinary
{
    /// <summary>False for CMP and TEST.</summary>
    static abstract bool Writes { get; }
    static abstract ulong Compute(CpuState* s, ulong a, ulong b);
    /// <summary>Sets the flags; called when nothing can fail any more.</summary>
    static abstract void Flags(CpuState* s, ulong a, ulong b, ulong result);
}

internal readonly unsafe struct AddOp : IBinary
{
    public static bool Writes => true;
    public static ulong Compute(CpuState* s, ulong a, ulong b) => a + b;
    public static void Flags(CpuState* s, ulong a, ulong b, ulong result) => LazyFlags.Record(s, LazyOp.Add, a, b, result);
}

internal readonly unsafe struct AdcOp : IBinary
{
    public static bool Writes => true;
    public static ulong Compute(CpuState* s, ulong a, ulong b) => a + b + LazyFlags.Carry(s);
    public static void Flags(CpuState* s, ulong a, ulong b, ulong result) => LazyFlags.Record(s, LazyOp.Adc, a, b, result);
}

internal readonly unsafe struct SubOp : IBinary
{
    public static bool Writes => true;
    public static ulong Compute(CpuState* s, ulong a, ulong b) => a - b;
    public static void Flags(CpuState* s, ulong a, ulong b, ulong result) => LazyFlags.Record(s, LazyOp.Sub, a, b, result);
}

internal readonly unsafe struct SbbOp : IBinary
{
    public static bool Writes => true;
    public static ulong Compute(CpuState* s, ulong a, ulong b) => a - b - LazyFlags.Carry(s);
    public static void Flags(CpuState* s, ulong a, ulong b, ulong result) => LazyFlags.Record(s, LazyOp.Sbb, a, b, result);
}

internal readonly unsafe struct CmpOp : IBinary
{
    public static bool Writes => false;
    public static ulong Compute(CpuState* s, ulong a, ulong b) => a - b;
    public static void Flags(CpuState* s, ulong a, ulong b, ulong result) => LazyFlags.Record(s, LazyOp.Sub, a, b, result);
}

internal readonly unsafe struct AndOp : IBinary
{
    public static bool Writes => true;
    public static ulong Compute(CpuState* s, ulong a, ulong b) => a & b;
    public static void Flags(CpuState* s, ulong a, ulong b, ulong result) => LazyFlags.RecordLogic(s, result);
}

internal readonly unsafe struct OrOp : IBinary
{
    public static bool Writes => true;
    public static ulong Compute(CpuState* s, ulong a, ulong b) => a | b;
    public static void Flags(CpuState* s, ulong a, ulong b, ulong result) => LazyFlags.RecordLogic(s, result);
}

internal readonly unsafe struct XorOp : IBinary
{
    public static bool Writes => true;
    public static ulong Compute(CpuState* s, ulong a, ulong b) => a ^ b;
    public static void Flags(CpuState* s, ulong a, ulong b, ulong result) => LazyFlags.RecordLogic(s, result);
}

internal readonly unsafe struct TestOp : IBinary
{
    public static bool Writes => false;
    public static ulong Compute(CpuState* s, ulong a, ulong b) => a & b;
    public static void Flags(CpuState* s, ulong a, ulong b, ulong result) => LazyFlags.RecordLogic(s, result);
}

/// <summary>A one-operand operation.</summary>
internal unsafe interface IUnary
{
    static abstract ulong Compute(ulong a);
    static abstract void Flags(CpuState* s, ulong a, ulong result);
}

internal readonly unsafe struct IncOp : IUnary
{
    public static ulong Compute(ulong a) => a + 1;
    public static void Flags(CpuState* s, ulong a, ulong result) => LazyFlags.Record(s, LazyOp.Inc, LazyFlags.Carry(s), a, result);
}

internal readonly unsafe struct DecOp : IUnary
{
    public static ulong Compute(ulong a) => a - 1;
    public static void Flags(CpuState* s, ulong a, ulong result) => LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, result);
}

internal readonly unsafe struct NegOp : IUnary
{
    public static ulong Compute(ulong a) => 0 - a;
    public static void Flags(CpuState* s, ulong a, ulong result) => LazyFlags.Record(s, LazyOp.Sub, 0, a, result);
}

internal readonly unsafe struct NotOp : IUnary
{
    public static ulong Compute(ulong a) => ~a;
    public static void Flags(CpuState* s, ulong a, ulong result) { }
}

/// <summary>ADD OR ADC SBB AND SUB XOR CMP TEST and INC DEC NEG NOT in every operand form.</summary>
internal static unsafe class Arithmetic
{
    /// <summary>r/m, reg.</summary>
    internal static ExecStatus RmReg<TW, TOp>(Processor cpu, Op* op) where TW : struct, IWidth where TOp : struct, IBinary
        => ToRm<TW, TOp>(cpu, op, TW.LoadSigned(Operand.Reg(cpu.State, op)));

    /// <summary>r/m, imm; accumulator, imm.</summary>
    internal static ExecStatus RmImm<TW, TOp>(Processor cpu, Op* op) where TW : struct, IWidth where TOp : struct, IBinary
        => ToRm<TW, TOp>(cpu, op, TW.Sign(op->Imm));

    /// <summary>reg, r/m.</summary>
    internal static ExecStatus RegRm<TW, TOp>(Processor cpu, Op* op) where TW : struct, IWidth where TOp : struct, IBinary
    {
        CpuState* s = cpu.State;
        if (!Operand.ReadRm<TW>(cpu, op, out ulong b))
            return ExecStatus.Fault;
        b = TW.Sign(b);
        ulong a = TW.LoadSigned(Operand.Reg(s, op));
        ulong r = TW.Sign(TOp.Compute(s, a, b));
        TOp.Flags(s, a, b, r);
        if (TOp.Writes)
            TW.StoreRegister(Operand.Reg(s, op), r);
        return ExecStatus.Next;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ExecStatus ToRm<TW, TOp>(Processor cpu, Op* op, ulong b) where TW : struct, IWidth where TOp : struct, IBinary
    {
        CpuState* s = cpu.State;
        ulong a, r;
        if (!op->HasMemory)
        {
            byte* p = Operand.Rm(s, op);
            a = TW.LoadSigned(p);
            r = TW.Sign(TOp.Compute(s, a, b));
            if (TOp.Writes)
                TW.StoreRegister(p, r);
        }
        else if (!TOp.Writes)
        {
            if (!Operand.Read<TW>(cpu, op, out a))
                return ExecStatus.Fault;
            a = TW.Sign(a);
            r = TW.Sign(TOp.Compute(s, a, b));
        }
        else
        {
            if (!ReadModifyWrite.Open<TW>(cpu, op, out ReadModifyWrite access, out a))
                return ExecStatus.Fault;
            a = TW.Sign(a);
            r = TW.Sign(TOp.Compute(s, a, b));
            if ((op->Prefixes & OpPrefixes.Lock) != 0 && access.Pointer != null)
            {
                ulong seen;
                while ((seen = TW.Sign(TW.CompareExchange(access.Pointer, r, a))) != a)
                {
                    a = seen;
                    r = TW.Sign(TOp.Compute(s, a, b));
                }
            }
            else if (!access.Commit<TW>(r))
                return ExecStatus.Fault;
        }
        TOp.Flags(s, a, b, r);
        return ExecStatus.Next;
    }

    /// <summary>INC DEC NEG NOT r/m.</summary>
    internal static ExecStatus Unary<TW, TOp>(Processor cpu, Op* op) where TW : struct, IWidth where TOp : struct, IUnary
    {
        CpuState* s = cpu.State;
        ulong a, r;
        if (!op->HasMemory)
        {
            byte* p = Operand.Rm(s, op);
            a = TW.LoadSigned(p);
            r = TW.Sign(TOp.Compute(a));
            TW.StoreRegister(p, r);
        }
        else
        {
            if (!ReadModifyWrite.Open<TW>(cpu, op, out ReadModifyWrite access, out a))
                return ExecStatus.Fault;
            a = TW.Sign(a);
            r = TW.Sign(TOp.Compute(a));
            if ((op->Prefixes & OpPrefixes.Lock) != 0 && access.Pointer != null)
            {
                ulong seen;
                while ((seen = TW.Sign(TW.CompareExchange(access.Pointer, r, a))) != a)
                {
                    a = seen;
                    r = TW.Sign(TOp.Compute(a));
                }
            }
            else if (!access.Commit<TW>(r))
                return ExecStatus.Fault;
        }
        TOp.Flags(s, a, r);
        return ExecStatus.Next;
    }

    /// <summary>ADCX (CF) and ADOX (OF): the other flags stay.</summary>
    internal static ExecStatus AddCarryFlag<TW, TFlag>(Processor cpu, Op* op) where TW : struct, IWidth where TFlag : struct, IFlag
    {
        CpuState* s = cpu.State;
        if (!Operand.ReadRm<TW>(cpu, op, out ulong b))
            return ExecStatus.Fault;
        LazyFlags.Resolve(s);
        ulong a = TW.Load(Operand.Reg(s, op));
        ulong carry = (s->Rflags & TFlag.Mask) != 0 ? 1UL : 0;
        UInt128 sum = (UInt128)a + b + carry;
        TW.StoreRegister(Operand.Reg(s, op), (ulong)sum);
        LazyFlags.Set(s, TFlag.Mask, (sum >> TW.Bits) != 0 ? TFlag.Mask : 0);
        return ExecStatus.Next;
    }
}

/// <summary>A flag as a type argument.</summary>
internal interface IFlag
{
    static abstract ulong Mask { get; }
}

internal readonly struct CarryFlag : IFlag
{
    public static ulong Mask => LazyFlags.CF;
}

internal readonly struct OverflowFlag : IFlag
{
    public static ulong Mask => LazyFlags.OF;
}
