using System.Buffers.Binary;
using System.Numerics;
using Iced.Intel;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Arithmetic, logic, shifts, bits, with the flags of the manuals; undefined flags stay as they are.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    private const ulong ArithmeticFlags = X86_EFLAGS_OF | X86_EFLAGS_SF | X86_EFLAGS_ZF | X86_EFLAGS_AF | X86_EFLAGS_PF | X86_EFLAGS_CF;

    private static ulong MaskOf(int bytes) => bytes == 8 ? ~0ul : (1ul << (bytes * 8)) - 1;

    private static ulong SignOf(int bytes) => 1ul << ((bytes * 8) - 1);

    private static long SignExtend(ulong value, int bytes) => bytes switch { 1 => (sbyte)value, 2 => (short)value, 4 => (int)value, _ => (long)value };

    private void SetFlag(ulong flag, bool on) => Eflags = on ? Eflags | flag : Eflags & ~flag;

    private void SetSzp(ulong result, int bytes)
    {
        SetFlag(X86_EFLAGS_ZF, (result & MaskOf(bytes)) == 0);
        SetFlag(X86_EFLAGS_SF, (result & SignOf(bytes)) != 0);
        SetFlag(X86_EFLAGS_PF, (BitOperations.PopCount((byte)result) & 1) == 0);
    }

    private ulong Add(ulong a, ulong b, ulong carry, int bytes)
    {
        ulong mask = MaskOf(bytes);
        a &= mask;
        b &= mask;
        ulong r = (a + b + carry) & mask;
        SetSzp(r, bytes);
        SetFlag(X86_EFLAGS_CF, carry != 0 ? r <= a : r < a);
        SetFlag(X86_EFLAGS_AF, ((a ^ b ^ r) & 0x10) != 0);
        SetFlag(X86_EFLAGS_OF, (~(a ^ b) & (a ^ r) & SignOf(bytes)) != 0);
        return r;
    }

    private ulong Sub(ulong a, ulong b, ulong borrow, int bytes)
    {
        ulong mask = MaskOf(bytes);
        a &= mask;
        b &= mask;
        ulong r = (a - b - borrow) & mask;
        SetSzp(r, bytes);
        SetFlag(X86_EFLAGS_CF, borrow != 0 ? a <= b : a < b);
        SetFlag(X86_EFLAGS_AF, ((a ^ b ^ r) & 0x10) != 0);
        SetFlag(X86_EFLAGS_OF, ((a ^ b) & (a ^ r) & SignOf(bytes)) != 0);
        return r;
    }

    private ulong Logic(ulong r, int bytes)
    {
        r &= MaskOf(bytes);
        SetSzp(r, bytes);
        Eflags &= ~(X86_EFLAGS_CF | X86_EFLAGS_OF | X86_EFLAGS_AF);
        return r;
    }

    private ulong Carry => Eflags & X86_EFLAGS_CF;

    /// <summary>INC and DEC leave the carry alone.</summary>
    private ulong IncDec(ulong value, bool increment)
    {
        ulong carry = Carry;
        ulong r = increment ? Add(value, 1, 0, dst.Bytes) : Sub(value, 1, 0, dst.Bytes);
        Eflags = (Eflags & ~X86_EFLAGS_CF) | carry;
        return r;
    }

    private ulong Shift(Mnemonic op, ulong value, int count, int bytes)
    {
        int bits = bytes * 8;
        count &= bytes == 8 ? 63 : 31;
        ulong mask = MaskOf(bytes);
        value &= mask;
        if (count == 0)
            return value;
        ulong r;
        bool carry;
        switch (op)
        {
            case Mnemonic.Shl or Mnemonic.Sal:
                r = count >= bits ? 0 : (value << count) & mask;
                carry = count <= bits && ((value >> (bits - count)) & 1) != 0;
                SetFlag(X86_EFLAGS_OF, ((r & SignOf(bytes)) != 0) ^ carry);
                break;
            case Mnemonic.Shr:
                r = count >= bits ? 0 : value >> count;
                carry = count <= bits && ((value >> (count - 1)) & 1) != 0;
                SetFlag(X86_EFLAGS_OF, (value & SignOf(bytes)) != 0);
                break;
            default:
                long signed = SignExtend(value, bytes);
                r = (ulong)(signed >> Math.Min(count, 63)) & mask;
                carry = ((signed >> Math.Min(count - 1, 63)) & 1) != 0;
                SetFlag(X86_EFLAGS_OF, false);
                break;
        }

        SetFlag(X86_EFLAGS_CF, carry);
        SetSzp(r, bytes);
        return r;
    }

    private ulong Rotate(Mnemonic op, ulong value, int count, int bytes)
    {
        int bits = bytes * 8;
        ulong mask = MaskOf(bytes);
        value &= mask;
        count &= bytes == 8 ? 63 : 31;
        if (count == 0)
            return value;
        bool left = op is Mnemonic.Rol or Mnemonic.Rcl;
        if (op is Mnemonic.Rol or Mnemonic.Ror)
        {
            int n = count % bits;
            if (!left)
                n = (bits - n) % bits;
            ulong rotated = n == 0 ? value : ((value << n) | (value >> (bits - n))) & mask;
            SetFlag(X86_EFLAGS_CF, left ? (rotated & 1) != 0 : (rotated & SignOf(bytes)) != 0);
            RotateOverflow(rotated, left, bytes);
            return rotated;
        }

        bool carry = Carry != 0;
        for (int i = count % (bits + 1); i > 0; i--)
        {
            bool next = left ? (value & SignOf(bytes)) != 0 : (value & 1) != 0;
            value = left ? ((value << 1) | (carry ? 1ul : 0)) & mask : (value >> 1) | (carry ? SignOf(bytes) : 0);
            carry = next;
        }

        SetFlag(X86_EFLAGS_CF, carry);
        RotateOverflow(value, left, bytes);
        return value;
    }

    private void RotateOverflow(ulong r, bool left, int bytes)
    {
        bool msb = (r & SignOf(bytes)) != 0;
        bool other = left ? Carry != 0 : (r & (SignOf(bytes) >> 1)) != 0;
        SetFlag(X86_EFLAGS_OF, msb ^ other);
    }

    private ulong DoubleShift(bool left, ulong value, ulong filler, int count, int bytes)
    {
        int bits = bytes * 8;
        count &= bytes == 8 ? 63 : 31;
        ulong mask = MaskOf(bytes);
        value &= mask;
        filler &= mask;
        if (count == 0)
            return value;
        if (count > bits)
            count -= bits; // 16-bit operands: undefined, bits come around
        ulong r = left
            ? count == bits ? filler : (value << count) | (filler >> (bits - count))
            : count == bits ? filler : (value >> count) | (filler << (bits - count));
        r &= mask;
        SetFlag(X86_EFLAGS_CF, ((left ? value >> (bits - count) : value >> (count - 1)) & 1) != 0);
        SetFlag(X86_EFLAGS_OF, ((r ^ value) & SignOf(bytes)) != 0);
        SetSzp(r, bytes);
        return r;
    }

    private void BitTest(Mnemonic op)
    {
        ulong bit = 1ul << (int)(src.Val & (ulong)((dst.Bytes * 8) - 1));
        SetFlag(X86_EFLAGS_CF, (dst.Val & bit) != 0);
        switch (op)
        {
            case Mnemonic.Bts: dst.Val |= bit; break;
            case Mnemonic.Btr: dst.Val &= ~bit; break;
            case Mnemonic.Btc: dst.Val ^= bit; break;
        }
    }

    private void BitScan(bool reverse)
    {
        ulong value = src.Val & MaskOf(src.Bytes);
        SetFlag(X86_EFLAGS_ZF, value == 0);
        if (value != 0)
            dst.Val = (ulong)(reverse ? BitOperations.Log2(value) : BitOperations.TrailingZeroCount(value));
        else if (dst.Bytes == 4)
            dst.Bytes = 8; // nothing is written: not even the upper half
        if (value == 0)
            dst.Val = RegRead(dst.Reg, false, dst.Bytes);
    }

    private void ImulTruncating(ulong a, ulong b)
    {
        int bytes = dst.Bytes;
        Int128 full = (Int128)SignExtend(a, bytes) * SignExtend(b, bytes);
        dst.Val = (ulong)full & MaskOf(bytes);
        bool overflow = full != SignExtend(dst.Val, bytes);
        SetFlag(X86_EFLAGS_CF, overflow);
        SetFlag(X86_EFLAGS_OF, overflow);
    }

    /// <summary>MUL, IMUL, DIV, IDIV of the accumulator.</summary>
    private int MulDiv(Mnemonic op)
    {
        ref EmulOperand operand = ref dst;
        int rc = FetchOperand(ref operand);
        if (rc != Continue)
            return rc;
        int bytes = operand.Bytes;
        ulong low = RegRead(RAX, false, bytes);
        ulong high = bytes == 1 ? RegRead(RAX, true, 1) : RegRead(RDX, false, bytes);
        ulong value = operand.Val & MaskOf(bytes);
        int bits = bytes * 8;
        ulong lowResult;
        ulong highResult;
        if (op is Mnemonic.Mul or Mnemonic.Imul)
        {
            UInt128 full = op == Mnemonic.Mul ? (UInt128)low * value : (UInt128)((Int128)SignExtend(low, bytes) * SignExtend(value, bytes));
            lowResult = (ulong)full & MaskOf(bytes);
            highResult = (ulong)(full >> bits) & MaskOf(bytes);
            bool overflow = op == Mnemonic.Mul ? highResult != 0 : (Int128)full != SignExtend(lowResult, bytes);
            SetFlag(X86_EFLAGS_CF, overflow);
            SetFlag(X86_EFLAGS_OF, overflow);
        }
        else if (!Divide(op == Mnemonic.Idiv, ((UInt128)high << bits) | low, value, bytes, out lowResult, out highResult))
        {
            return De();
        }

        if (bytes == 1)
        {
            RegAssign(RAX, false, 2, lowResult | (highResult << 8));
        }
        else
        {
            RegAssign(RAX, false, bytes, lowResult);
            RegAssign(RDX, false, bytes, highResult);
        }

        return Continue;
    }

    private static bool Divide(bool signed, UInt128 dividend, ulong divisor, int bytes, out ulong quotient, out ulong remainder)
    {
        quotient = remainder = 0;
        if (divisor == 0)
            return false;
        ulong mask = MaskOf(bytes);
        if (!signed)
        {
            UInt128 q = dividend / divisor;
            if (q > mask)
                return false;
            quotient = (ulong)q;
            remainder = (ulong)(dividend % divisor);
            return true;
        }

        int shift = 128 - (bytes * 16);
        Int128 n = (Int128)(dividend << shift) >> shift;
        Int128 d = SignExtend(divisor, bytes);
        if (d == -1 && n == Int128.MinValue)
            return false;
        Int128 result = n / d;
        if (result > (Int128)(mask >> 1) || result < -(Int128)(mask >> 1) - 1)
            return false;
        quotient = (ulong)result & mask;
        remainder = (ulong)(n % d) & mask;
        return true;
    }

    private static ulong ByteSwap(ulong value, int bytes) => bytes switch
    {
        2 => BinaryPrimitives.ReverseEndianness((ushort)value),
        4 => BinaryPrimitives.ReverseEndianness((uint)value),
        _ => BinaryPrimitives.ReverseEndianness(value),
    };

    private bool TestCondition(ConditionCode condition)
    {
        bool cf = (Eflags & X86_EFLAGS_CF) != 0;
        bool zf = (Eflags & X86_EFLAGS_ZF) != 0;
        bool sf = (Eflags & X86_EFLAGS_SF) != 0;
        bool of = (Eflags & X86_EFLAGS_OF) != 0;
        bool pf = (Eflags & X86_EFLAGS_PF) != 0;
        return condition switch
        {
            ConditionCode.o => of,
            ConditionCode.no => !of,
            ConditionCode.b => cf,
            ConditionCode.ae => !cf,
            ConditionCode.e => zf,
            ConditionCode.ne => !zf,
            ConditionCode.be => cf || zf,
            ConditionCode.a => !cf && !zf,
            ConditionCode.s => sf,
            ConditionCode.ns => !sf,
            ConditionCode.p => pf,
            ConditionCode.np => !pf,
            ConditionCode.l => sf != of,
            ConditionCode.ge => sf == of,
            ConditionCode.le => zf || sf != of,
            ConditionCode.g => !zf && sf == of,
            _ => false,
        };
    }

    private void Das()
    {
        byte al = (byte)RegRead(RAX);
        byte result = al;
        bool carry = Carry != 0;
        bool newCarry = false;
        if ((al & 0xf) > 9 || (Eflags & X86_EFLAGS_AF) != 0)
        {
            newCarry = carry || al < 6;
            result -= 6;
            Eflags |= X86_EFLAGS_AF;
        }
        else
        {
            Eflags &= ~X86_EFLAGS_AF;
        }

        if (al > 0x99 || carry)
        {
            result -= 0x60;
            newCarry = true;
        }

        RegAssign(RAX, false, 1, result);
        SetFlag(X86_EFLAGS_CF, newCarry);
        SetSzp(result, 1);
    }

    private int Aam()
    {
        byte divisor = insn.Immediate8;
        if (divisor == 0)
            return De();
        byte al = (byte)RegRead(RAX);
        RegAssign(RAX, false, 2, ((ulong)(al / divisor) << 8) | (uint)(al % divisor));
        SetSzp((ulong)(al % divisor), 1);
        return Continue;
    }

    private void Aad()
    {
        ulong ax = RegRead(RAX);
        byte result = (byte)(((byte)ax) + ((byte)(ax >> 8) * insn.Immediate8));
        RegAssign(RAX, false, 2, result);
        SetSzp(result, 1);
    }
}
