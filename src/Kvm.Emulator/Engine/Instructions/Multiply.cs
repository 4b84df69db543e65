namespace Kvm.Emulator.Engine;

/// <summary>MUL IMUL DIV IDIV MULX, sign extensions of the accumulator, and decimal adjustments.</summary>
internal static unsafe class Multiply
{
    // MUL and IMUL leave SF ZF PF AF undefined; they are set from the low half here.
    private static void MultiplyFlags(CpuState* s, bool overflow, ulong lowSigned)
        => LazyFlags.Record(s, LazyOp.Mul, overflow ? 1UL : 0, 0, lowSigned);

    /// <summary>MUL r/m: the accumulator's double = accumulator × operand.</summary>
    internal static ExecStatus Mul<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        if (!Operand.ReadRm<TW>(cpu, op, out ulong b))
            return ExecStatus.Fault;
        UInt128 product = (UInt128)TW.Zero(s->Gpr[0]) * b;
        ulong low = (ulong)product, high = (ulong)(product >> TW.Bits);
        StoreDouble<TW>(s, low, high);
        MultiplyFlags(s, TW.Zero(high) != 0, TW.Sign(low));
        return ExecStatus.Next;
    }

    /// <summary>IMUL r/m.</summary>
    internal static ExecStatus Imul<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        if (!Operand.ReadRm<TW>(cpu, op, out ulong b))
            return ExecStatus.Fault;
        Int128 product = (Int128)(long)TW.Sign(s->Gpr[0]) * (long)TW.Sign(b);
        ulong low = (ulong)product, high = (ulong)(product >> TW.Bits);
        StoreDouble<TW>(s, low, high);
        MultiplyFlags(s, product != (long)TW.Sign(low), TW.Sign(low));
        return ExecStatus.Next;
    }

    private static void StoreDouble<TW>(CpuState* s, ulong low, ulong high) where TW : struct, IWidth
    {
        if (TW.Size == 1)
        {
            *(ushort*)&s->Gpr[0] = (ushort)((low & 0xff) | (high << 8));
            return;
        }
        TW.StoreRegister(&s->Gpr[0], low);
        TW.StoreRegister(&s->Gpr[2], high);
    }

    /// <summary>IMUL reg, r/m.</summary>
    internal static ExecStatus ImulRegRm<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => ImulTo<TW>(cpu, op, TW.LoadSigned(Operand.Reg(cpu.State, op)));

    /// <summary>IMUL reg, r/m, imm.</summary>
    internal static ExecStatus ImulRegRmImm<TW>(Processor cpu, Op* op) where TW : struct, IWidth => ImulTo<TW>(cpu, op, TW.Sign(op->Imm));

    private static ExecStatus ImulTo<TW>(Processor cpu, Op* op, ulong a) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong b))
            return ExecStatus.Fault;
        b = TW.Sign(b);
        ulong low;
        bool overflow;
        if (TW.Size == 8)
        {
            long high = Math.BigMul((long)a, (long)b, out long lowSigned);
            low = (ulong)lowSigned;
            overflow = high != lowSigned >> 63;
        }
        else
        {
            ulong product = (ulong)((long)a * (long)b);
            low = TW.Sign(product);
            overflow = low != product;
        }
        TW.StoreRegister(Operand.Reg(cpu.State, op), low);
        MultiplyFlags(cpu.State, overflow, low);
        return ExecStatus.Next;
    }

    /// <summary>MULX high (reg), low (vvvv), RDX × r/m. No flags.</summary>
    internal static ExecStatus Mulx<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong b))
            return ExecStatus.Fault;
        UInt128 product = (UInt128)TW.Zero(cpu.State->Gpr[2]) * b;
        TW.StoreRegister(&cpu.State->Gpr[op->Imm2], (ulong)product);
        TW.StoreRegister(Operand.Reg(cpu.State, op), (ulong)(product >> TW.Bits));
        return ExecStatus.Next;
    }

    /// <summary>DIV r/m: #DE on zero or when the quotient does not fit.</summary>
    internal static ExecStatus Div<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        if (!Operand.ReadRm<TW>(cpu, op, out ulong b))
            return ExecStatus.Fault;
        if (b == 0)
            return cpu.Raise(new Fault(Fault.DE));
        if (TW.Size == 1)
        {
            uint n = (ushort)s->Gpr[0], q8 = n / (uint)b;
            if (q8 > 0xff)
                return cpu.Raise(new Fault(Fault.DE));
            *(ushort*)&s->Gpr[0] = (ushort)(q8 | (n % (uint)b) << 8);
            return ExecStatus.Next;
        }
        ulong high = TW.Zero(s->Gpr[2]), low = TW.Zero(s->Gpr[0]);
        if (high >= b)
            return cpu.Raise(new Fault(Fault.DE));
        ulong quotient, remainder;
        if (TW.Size < 8)
        {
            ulong n = high << TW.Bits | low;
            quotient = n / b;
            remainder = n - quotient * b;
        }
        else if (high == 0)
            (quotient, remainder) = Math.DivRem(low, b);
        else
            Divide128(high, low, b, out quotient, out remainder);
        TW.StoreRegister(&s->Gpr[0], quotient);
        TW.StoreRegister(&s->Gpr[2], remainder);
        return ExecStatus.Next;
    }

    /// <summary>IDIV r/m.</summary>
    internal static ExecStatus Idiv<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        if (!Operand.ReadRm<TW>(cpu, op, out ulong divisor))
            return ExecStatus.Fault;
        long b = (long)TW.Sign(divisor);
        if (b == 0)
            return cpu.Raise(new Fault(Fault.DE));
        Int128 n = TW.Size == 1 ? (short)s->Gpr[0] : (Int128)(long)TW.Sign(s->Gpr[2]) << TW.Bits | (Int128)TW.Zero(s->Gpr[0]);
        Int128 quotient = n == long.MinValue && b == -1 ? (Int128)1 << 63 : n >= long.MinValue && n <= long.MaxValue ? (long)n / b : DivideSigned(n, b);
        if (quotient != (long)TW.Sign((ulong)quotient))
            return cpu.Raise(new Fault(Fault.DE));
        ulong remainder = (ulong)(n - quotient * b);
        if (TW.Size == 1)
            *(ushort*)&s->Gpr[0] = (ushort)((byte)quotient | (byte)remainder << 8);
        else
        {
            TW.StoreRegister(&s->Gpr[0], (ulong)quotient);
            TW.StoreRegister(&s->Gpr[2], remainder);
        }
        return ExecStatus.Next;
    }

    private static Int128 DivideSigned(Int128 n, long b)
    {
        UInt128 magnitude = n < 0 ? (UInt128)(-n) : (UInt128)n;
        ulong divisor = b < 0 ? (ulong)-b : (ulong)b;
        ulong high = (ulong)(magnitude >> 64);
        if (high >= divisor)
            return Int128.MaxValue;
        Divide128(high, (ulong)magnitude, divisor, out ulong quotient, out _);
        return n < 0 != b < 0 ? -(Int128)quotient : quotient;
    }

    // Knuth's algorithm D for two digits by one; high < divisor, so the quotient fits.
    private static void Divide128(ulong high, ulong low, ulong divisor, out ulong quotient, out ulong remainder)
    {
        int shift = System.Numerics.BitOperations.LeadingZeroCount(divisor);
        divisor <<= shift;
        ulong top = shift == 0 ? high : high << shift | low >> (64 - shift);
        ulong bottom = low << shift;
        ulong q1 = Digit(top, bottom >> 32, divisor, out ulong r1);
        ulong q0 = Digit(r1, (uint)bottom, divisor, out ulong r0);
        quotient = q1 << 32 | q0;
        remainder = r0 >> shift;
    }

    private static ulong Digit(ulong top, ulong next, ulong divisor, out ulong remainder)
    {
        ulong dh = divisor >> 32, dl = (uint)divisor;
        ulong q = top / dh, r = top - q * dh;
        while (q > uint.MaxValue || q * dl > (r << 32 | next))
        {
            q--;
            r += dh;
            if (r > uint.MaxValue)
                break;
        }
        remainder = (top << 32 | next) - q * divisor;
        return q;
    }

    // ---- CBW CWDE CDQE, CWD CDQ CQO ----
    internal static ExecStatus Cbw(Processor cpu, Op* op) { *(ushort*)&cpu.State->Gpr[0] = (ushort)(sbyte)cpu.State->Gpr[0]; return ExecStatus.Next; }
    internal static ExecStatus Cwde(Processor cpu, Op* op) { cpu.State->Gpr[0] = (uint)(short)cpu.State->Gpr[0]; return ExecStatus.Next; }
    internal static ExecStatus Cdqe(Processor cpu, Op* op) { cpu.State->Gpr[0] = (ulong)(int)cpu.State->Gpr[0]; return ExecStatus.Next; }

    internal static ExecStatus SignToDx<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        TW.StoreRegister(&cpu.State->Gpr[2], (ulong)((long)TW.Sign(cpu.State->Gpr[0]) >> 63));
        return ExecStatus.Next;
    }

    // ---- decimal adjustments ----
    private static void ResultFlags(CpuState* s, byte al, bool cf, bool af)
        => LazyFlags.Set(s, LazyFlags.All, (cf ? LazyFlags.CF : 0) | (af ? LazyFlags.AF : 0) | LazyFlags.Parity(al) | (al == 0 ? LazyFlags.ZF : 0) | (al & LazyFlags.SF));

    internal static ExecStatus Daa(Processor cpu, Op* op) => DecimalAdjust(cpu, 1);
    internal static ExecStatus Das(Processor cpu, Op* op) => DecimalAdjust(cpu, -1);

    private static ExecStatus DecimalAdjust(Processor cpu, int sign)
    {
        CpuState* s = cpu.State;
        LazyFlags.Resolve(s);
        byte before = (byte)s->Gpr[0];
        int al = before;
        bool cf = (s->Rflags & LazyFlags.CF) != 0, af = (before & 0xf) > 9 || (s->Rflags & LazyFlags.AF) != 0;
        bool carry = before > 0x99 || cf;
        if (af)
        {
            al += sign * 6;
            // DAS: the borrow out of the low correction also sets CF.
            carry |= sign < 0 && al < 0;
        }
        if (before > 0x99 || cf)
            al += sign * 0x60;
        *(byte*)&s->Gpr[0] = (byte)al;
        ResultFlags(s, (byte)al, carry, af);
        return ExecStatus.Next;
    }

    internal static ExecStatus Aaa(Processor cpu, Op* op) => AsciiAdjust(cpu, 0x106);
    internal static ExecStatus Aas(Processor cpu, Op* op) => AsciiAdjust(cpu, -0x106);

    private static ExecStatus AsciiAdjust(Processor cpu, int correction)
    {
        CpuState* s = cpu.State;
        LazyFlags.Resolve(s);
        ushort ax = (ushort)s->Gpr[0];
        bool adjust = (ax & 0xf) > 9 || (s->Rflags & LazyFlags.AF) != 0;
        if (adjust)
            ax = (ushort)(ax + correction);
        ax &= 0xff0f;
        *(ushort*)&s->Gpr[0] = ax;
        ResultFlags(s, (byte)ax, adjust, adjust);
        return ExecStatus.Next;
    }

    internal static ExecStatus Aam(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        byte divisor = (byte)op->Imm, al = (byte)s->Gpr[0];
        if (divisor == 0)
            return cpu.Raise(new Fault(Fault.DE));
        *(ushort*)&s->Gpr[0] = (ushort)(al / divisor << 8 | al % divisor);
        ResultFlags(s, (byte)(al % divisor), false, false);
        return ExecStatus.Next;
    }

    internal static ExecStatus Aad(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        ushort ax = (ushort)s->Gpr[0];
        byte al = (byte)((byte)ax + (ax >> 8) * (byte)op->Imm);
        *(ushort*)&s->Gpr[0] = al;
        ResultFlags(s, al, false, false);
        return ExecStatus.Next;
    }
}
