using System.Numerics;
using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

/// <summary>What <see cref="CpuState.LazyOp"/> says about the arithmetic flags: which operation produced the result they are derived from.</summary>
internal static class LazyOp
{
    /// <summary>RFLAGS holds the flags.</summary>
    internal const uint None = 0;
    /// <summary>Result = Src1 + Src2.</summary>
    internal const uint Add = 1;
    /// <summary>Result = Src1 - Src2 (CMP, SUB, NEG).</summary>
    internal const uint Sub = 2;
    /// <summary>With a carry or borrow coming in.</summary>
    internal const uint Adc = 3;
    internal const uint Sbb = 4;
    /// <summary>CF = OF = AF = 0.</summary>
    internal const uint Logic = 5;
    /// <summary>Src1 = carry flag before (0 or 1), Src2 = operand before.</summary>
    internal const uint Inc = 6;
    internal const uint Dec = 7;
    /// <summary>Src1 = operand shifted by one bit less than the count.</summary>
    internal const uint Shl = 8;
    internal const uint Shr = 9;
    internal const uint Sar = 10;
    /// <summary>Src1 = CF and OF (0 or 1).</summary>
    internal const uint Mul = 11;
}

/// <summary>
/// The arithmetic flags of RFLAGS, computed when somebody asks. Results and sources are kept sign-extended to 64 bits, so no formula needs the operand's width.
/// </summary>
internal static unsafe class LazyFlags
{
    internal const ulong CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800;
    internal const ulong All = CF | PF | AF | ZF | SF | OF;

    /// <summary>CF as 0 or 1.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static ulong Carry(CpuState* s)
    {
        uint op = s->LazyOp;
        if (op == LazyOp.Sub)
            return s->LazySrc1 < s->LazySrc2 ? 1UL : 0;
        if (op == LazyOp.Logic)
            return 0;
        return op == LazyOp.None ? s->Rflags & CF : CarrySlow(s);
    }

    private static ulong CarrySlow(CpuState* s)
    {
        ulong a = s->LazySrc1, b = s->LazySrc2, r = s->LazyResult;
        return s->LazyOp switch
        {
            LazyOp.Add => r < a ? 1UL : 0,
            LazyOp.Sub => a < b ? 1UL : 0,
            LazyOp.Adc => ((a & b) | ((a | b) & ~r)) >> 63,
            LazyOp.Sbb => ((~a & b) | (~(a ^ b) & r)) >> 63,
            LazyOp.Inc or LazyOp.Dec or LazyOp.Mul => a,
            LazyOp.Shl => a >> 63,
            LazyOp.Shr or LazyOp.Sar => a & 1,
            LazyOp.None => s->Rflags & CF,
            _ => 0,
        };
    }

    /// <summary>OF as 0 or 1.</summary>
    internal static ulong Overflow(CpuState* s)
    {
        ulong a = s->LazySrc1, b = s->LazySrc2, r = s->LazyResult;
        return s->LazyOp switch
        {
            LazyOp.Add or LazyOp.Adc => ((a ^ r) & (b ^ r)) >> 63,
            LazyOp.Sub or LazyOp.Sbb => ((a ^ b) & (a ^ r)) >> 63,
            LazyOp.Inc => (r & ~b) >> 63,
            LazyOp.Dec => (~r & b) >> 63,
            LazyOp.Shl or LazyOp.Shr => (a ^ r) >> 63,
            LazyOp.Mul => a,
            LazyOp.None => (s->Rflags >> 11) & 1,
            _ => 0,
        };
    }

    private static ulong Adjust(CpuState* s)
    {
        ulong r = s->LazyResult;
        return s->LazyOp switch
        {
            LazyOp.Add or LazyOp.Sub or LazyOp.Adc or LazyOp.Sbb => (s->LazySrc1 ^ s->LazySrc2 ^ r) & AF,
            LazyOp.Inc => (r & 0xf) == 0 ? AF : 0,
            LazyOp.Dec => (r & 0xf) == 0xf ? AF : 0,
            _ => 0,
        };
    }

    internal static ulong Parity(ulong result) => (BitOperations.PopCount(result & 0xff) & 1) == 0 ? PF : 0;

    internal static bool Zero(CpuState* s) => s->LazyOp != LazyOp.None ? s->LazyResult == 0 : (s->Rflags & ZF) != 0;
    internal static bool Sign(CpuState* s) => s->LazyOp != LazyOp.None ? (long)s->LazyResult < 0 : (s->Rflags & SF) != 0;

    /// <summary>The six arithmetic flags, as RFLAGS bits.</summary>
    internal static ulong Arithmetic(CpuState* s)
    {
        if (s->LazyOp == LazyOp.None)
            return s->Rflags & All;
        ulong r = s->LazyResult;
        return CarrySlow(s) | Parity(r) | Adjust(s) | (r == 0 ? ZF : 0) | ((r >> 63) << 7) | (Overflow(s) << 11);
    }

    /// <summary>Moves the flags into RFLAGS.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Resolve(CpuState* s)
    {
        if (s->LazyOp != LazyOp.None)
            ResolveSlow(s);
    }

    private static void ResolveSlow(CpuState* s)
    {
        s->Rflags = (s->Rflags & ~All) | Arithmetic(s);
        s->LazyOp = LazyOp.None;
    }

    /// <summary>Sets the flags in <paramref name="mask"/> to <paramref name="value"/>, leaving the other arithmetic flags as they are.</summary>
    internal static void Set(CpuState* s, ulong mask, ulong value)
    {
        if ((mask & All) == All)
            s->LazyOp = LazyOp.None;
        else
            Resolve(s);
        s->Rflags = (s->Rflags & ~mask) | (value & mask);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Record(CpuState* s, uint op, ulong a, ulong b, ulong result)
    {
        s->LazyOp = op;
        s->LazySrc1 = a;
        s->LazySrc2 = b;
        s->LazyResult = result;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void RecordLogic(CpuState* s, ulong result)
    {
        s->LazyOp = LazyOp.Logic;
        s->LazyResult = result;
    }

    /// <summary>A condition by its encoding (the low four bits of Jcc, SETcc, CMOVcc).</summary>
    internal static bool Condition(CpuState* s, int cc)
    {
        bool value = (cc >> 1) switch
        {
            0 => Overflow(s) != 0,
            1 => Carry(s) != 0,
            2 => Zero(s),
            3 => Zero(s) || Carry(s) != 0,
            4 => Sign(s),
            5 => (s->LazyOp != LazyOp.None ? Parity(s->LazyResult) : s->Rflags & PF) != 0,
            6 => Sign(s) != (Overflow(s) != 0),
            _ => Zero(s) || Sign(s) != (Overflow(s) != 0),
        };
        return value != ((cc & 1) != 0);
    }
}
