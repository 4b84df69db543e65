using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

/// <summary>A shift or rotate. <c>a</c> is zero-extended; the count is masked to 5 or 6 bits and not zero.</summary>
internal unsafe interface IShift
{
    static abstract ulong Compute<TW>(CpuState* s, ulong a, int count) where TW : struct, IWidth;
    static abstract void Flags<TW>(CpuState* s, ulong a, int count, ulong result) where TW : struct, IWidth;
}

internal readonly unsafe struct ShlOp : IShift
{
    public static ulong Compute<TW>(CpuState* s, ulong a, int count) where TW : struct, IWidth => a << count;
    public static void Flags<TW>(CpuState* s, ulong a, int count, ulong result) where TW : struct, IWidth
        => LazyFlags.Record(s, LazyOp.Shl, TW.Sign(a << (count - 1)), 0, TW.Sign(result));
}

internal readonly unsafe struct ShrOp : IShift
{
    public static ulong Compute<TW>(CpuState* s, ulong a, int count) where TW : struct, IWidth => a >> count;
    public static void Flags<TW>(CpuState* s, ulong a, int count, ulong result) where TW : struct, IWidth
        => LazyFlags.Record(s, LazyOp.Shr, TW.Sign(a >> (count - 1)), 0, TW.Sign(result));
}

internal readonly unsafe struct SarOp : IShift
{
    public static ulong Compute<TW>(CpuState* s, ulong a, int count) where TW : struct, IWidth => (ulong)((long)TW.Sign(a) >> count);
    public static void Flags<TW>(CpuState* s, ulong a, int count, ulong result) where TW : struct, IWidth
        => LazyFlags.Record(s, LazyOp.Sar, (ulong)((long)TW.Sign(a) >> (count - 1)), 0, TW.Sign(result));
}

internal readonly unsafe struct RolOp : IShift
{
    public static ulong Compute<TW>(CpuState* s, ulong a, int count) where TW : struct, IWidth
    {
        count &= TW.Bits - 1;
        return count == 0 ? a : a << count | a >> (TW.Bits - count);
    }

    public static void Flags<TW>(CpuState* s, ulong a, int count, ulong result) where TW : struct, IWidth
        => Shift.SetCarryOverflow(s, result & 1, ((result >> (TW.Bits - 1)) ^ result) & 1);
}

internal readonly unsafe struct RorOp : IShift
{
    public static ulong Compute<TW>(CpuState* s, ulong a, int count) where TW : struct, IWidth
    {
        count &= TW.Bits - 1;
        return count == 0 ? a : a >> count | a << (TW.Bits - count);
    }

    public static void Flags<TW>(CpuState* s, ulong a, int count, ulong result) where TW : struct, IWidth
        => Shift.SetCarryOverflow(s, result >> (TW.Bits - 1) & 1, (result >> (TW.Bits - 1) ^ result >> (TW.Bits - 2)) & 1);
}

internal readonly unsafe struct RclOp : IShift
{
    public static ulong Compute<TW>(CpuState* s, ulong a, int count) where TW : struct, IWidth
    {
        count %= TW.Bits + 1;
        if (count == 0)
            return a;
        ulong carry = LazyFlags.Carry(s);
        ulong r = a << count | carry << (count - 1);
        return count == 1 ? r : r | a >> (TW.Bits + 1 - count);
    }

    public static void Flags<TW>(CpuState* s, ulong a, int count, ulong result) where TW : struct, IWidth
    {
        count %= TW.Bits + 1;
        ulong carry = count == 0 ? LazyFlags.Carry(s) : a >> (TW.Bits - count) & 1;
        Shift.SetCarryOverflow(s, carry, (result >> (TW.Bits - 1) & 1) ^ carry);
    }
}

internal readonly unsafe struct RcrOp : IShift
{
    public static ulong Compute<TW>(CpuState* s, ulong a, int count) where TW : struct, IWidth
    {
        count %= TW.Bits + 1;
        if (count == 0)
            return a;
        ulong carry = LazyFlags.Carry(s);
        ulong r = (count == 64 ? 0 : a >> count) | carry << (TW.Bits - count);
        return count == 1 ? r : r | a << (TW.Bits + 1 - count);
    }

    public static void Flags<TW>(CpuState* s, ulong a, int count, ulong result) where TW : struct, IWidth
    {
        count %= TW.Bits + 1;
        ulong carry = count == 0 ? LazyFlags.Carry(s) : a >> (count - 1) & 1;
        Shift.SetCarryOverflow(s, carry, (result >> (TW.Bits - 1) ^ result >> (TW.Bits - 2)) & 1);
    }
}

/// <summary>SHL SHR SAR ROL ROR RCL RCR SHLD SHRD and the flagless BMI2 shifts.</summary>
/// <remarks>A masked count of zero leaves every flag alone. OF for counts above one is undefined by the manuals; here it follows the one-bit formula on the result.</remarks>
internal static unsafe class Shift
{
    internal static void SetCarryOverflow(CpuState* s, ulong carry, ulong overflow)
        => LazyFlags.Set(s, LazyFlags.CF | LazyFlags.OF, carry | overflow << 11);

    internal static ExecStatus RmImm<TW, TOp>(Processor cpu, Op* op) where TW : struct, IWidth where TOp : struct, IShift
        => ToRm<TW, TOp>(cpu, op, (int)op->Imm & (TW.Size == 8 ? 63 : 31));

    internal static ExecStatus RmOne<TW, TOp>(Processor cpu, Op* op) where TW : struct, IWidth where TOp : struct, IShift
        => ToRm<TW, TOp>(cpu, op, 1);

    internal static ExecStatus RmCl<TW, TOp>(Processor cpu, Op* op) where TW : struct, IWidth where TOp : struct, IShift
        => ToRm<TW, TOp>(cpu, op, (int)cpu.State->Gpr[1] & (TW.Size == 8 ? 63 : 31));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ExecStatus ToRm<TW, TOp>(Processor cpu, Op* op, int count) where TW : struct, IWidth where TOp : struct, IShift
    {
        CpuState* s = cpu.State;
        ulong a, r;
        if (!op->HasMemory)
        {
            byte* p = Operand.Rm(s, op);
            a = TW.Load(p);
            r = count == 0 ? a : TW.Zero(TOp.Compute<TW>(s, a, count));
            TW.StoreRegister(p, r);
        }
        else
        {
            if (!ReadModifyWrite.Open<TW>(cpu, op, out ReadModifyWrite access, out a))
                return ExecStatus.Fault;
            r = count == 0 ? a : TW.Zero(TOp.Compute<TW>(s, a, count));
            if (!access.Commit<TW>(r))
                return ExecStatus.Fault;
        }
        if (count != 0)
            TOp.Flags<TW>(s, a, count, r);
        return ExecStatus.Next;
    }

    // ---- double shifts ----
    internal static ExecStatus ShldImm<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Double<TW>(cpu, op, (int)op->Imm, left: true);
    internal static ExecStatus ShldCl<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Double<TW>(cpu, op, (int)cpu.State->Gpr[1], left: true);
    internal static ExecStatus ShrdImm<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Double<TW>(cpu, op, (int)op->Imm, left: false);
    internal static ExecStatus ShrdCl<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Double<TW>(cpu, op, (int)cpu.State->Gpr[1], left: false);

    private static ExecStatus Double<TW>(Processor cpu, Op* op, int count, bool left) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        count &= TW.Size == 8 ? 63 : 31;
        ulong fill = TW.Load(Operand.Reg(s, op));
        ulong a;
        ReadModifyWrite access = default;
        if (!op->HasMemory)
            a = TW.Load(Operand.Rm(s, op));
        else if (!ReadModifyWrite.Open<TW>(cpu, op, out access, out a))
            return ExecStatus.Fault;
        ulong r = a, carry = 0;
        if (count != 0)
            r = left ? DoubleLeft<TW>(a, fill, count, out carry) : DoubleRight<TW>(a, fill, count, out carry);
        if (!op->HasMemory)
            TW.StoreRegister(Operand.Rm(s, op), r);
        else if (!access.Commit<TW>(r))
            return ExecStatus.Fault;
        if (count != 0)
        {
            ulong sign = TW.Sign(r);
            ulong overflow = (TW.Sign(a) ^ sign) >> 63;
            LazyFlags.Set(s, LazyFlags.All, carry | overflow << 11 | LazyFlags.Parity(r) | (sign >> 63) << 7 | (sign == 0 ? LazyFlags.ZF : 0));
        }
        return ExecStatus.Next;
    }

    // A 16-bit count above 16 is undefined by the manuals; processors shift the 48-bit value dest:src:dest.
    private static ulong DoubleLeft<TW>(ulong a, ulong fill, int count, out ulong carry) where TW : struct, IWidth
    {
        if (TW.Size == 2)
        {
            ulong wide = a << 32 | fill << 16 | a;
            carry = wide >> (48 - count) & 1;
            return (ushort)(wide << count >> 32);
        }
        carry = a >> (TW.Bits - count) & 1;
        return TW.Zero(a << count | fill >> (TW.Bits - count));
    }

    private static ulong DoubleRight<TW>(ulong a, ulong fill, int count, out ulong carry) where TW : struct, IWidth
    {
        if (TW.Size == 2)
        {
            ulong wide = a << 32 | fill << 16 | a;
            carry = wide >> (count - 1) & 1;
            return (ushort)(wide >> count);
        }
        carry = a >> (count - 1) & 1;
        return TW.Zero(a >> count | fill << (TW.Bits - count));
    }

    // ---- BMI2: count in vvvv or an immediate, no flags ----
    internal static ExecStatus Shlx<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Flagless<TW>(cpu, op, 0);
    internal static ExecStatus Shrx<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Flagless<TW>(cpu, op, 1);
    internal static ExecStatus Sarx<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Flagless<TW>(cpu, op, 2);
    internal static ExecStatus Rorx<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Flagless<TW>(cpu, op, 3);

    private static ExecStatus Flagless<TW>(Processor cpu, Op* op, int kind) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        if (!Operand.ReadRm<TW>(cpu, op, out ulong a))
            return ExecStatus.Fault;
        int count = (int)(kind == 3 ? op->Imm : s->Gpr[op->Imm2]) & (TW.Bits - 1);
        ulong r = kind switch
        {
            0 => a << count,
            1 => a >> count,
            2 => (ulong)((long)TW.Sign(a) >> count),
            _ => RorOp.Compute<TW>(s, a, count),
        };
        TW.StoreRegister(Operand.Reg(s, op), r);
        return ExecStatus.Next;
    }
}
