using System.Numerics;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM.</summary>
/// <remarks>SDM vol 1, "SSE4.2 String and Text Processing"; vol 2, "Imm8 Control Byte Operation for PCMPESTRI / PCMPESTRM / PCMPISTRI / PCMPISTRM".</remarks>
internal static unsafe class StringCompare
{
    /// <summary>Explicit lengths in EAX and EDX; the index goes to ECX.</summary>
    internal static void ExplicitIndex(CpuState* s, Op* op, byte* m) => Index(s, op, m, Length(op, (int)s->Gpr[0]), Length(op, (int)s->Gpr[2]));

    /// <summary>Lengths in RAX and RDX.</summary>
    internal static void ExplicitIndex64(CpuState* s, Op* op, byte* m) => Index(s, op, m, Length(op, (long)s->Gpr[0]), Length(op, (long)s->Gpr[2]));

    internal static void ExplicitMask(CpuState* s, Op* op, byte* m) => Mask(s, op, m, Length(op, (int)s->Gpr[0]), Length(op, (int)s->Gpr[2]));

    internal static void ExplicitMask64(CpuState* s, Op* op, byte* m) => Mask(s, op, m, Length(op, (long)s->Gpr[0]), Length(op, (long)s->Gpr[2]));

    /// <summary>Strings end at their first zero.</summary>
    internal static void ImplicitIndex(CpuState* s, Op* op, byte* m) => Index(s, op, m, Length(op, VectorUnit.Xmm(s, op->Reg)), Length(op, Lanes.Rm(s, op, m)));

    internal static void ImplicitMask(CpuState* s, Op* op, byte* m) => Mask(s, op, m, Length(op, VectorUnit.Xmm(s, op->Reg)), Length(op, Lanes.Rm(s, op, m)));

    internal static void ExplicitMask128(CpuState* s, Op* op, byte* m)
    {
        ExplicitMask(s, op, m);
        Vector128<byte>.Zero.Store(VectorUnit.YmmHigh(s, 0));
    }

    internal static void ExplicitMask64Bits128(CpuState* s, Op* op, byte* m)
    {
        ExplicitMask64(s, op, m);
        Vector128<byte>.Zero.Store(VectorUnit.YmmHigh(s, 0));
    }

    internal static void ImplicitMask128(CpuState* s, Op* op, byte* m)
    {
        ImplicitMask(s, op, m);
        Vector128<byte>.Zero.Store(VectorUnit.YmmHigh(s, 0));
    }

    private static bool Words(Op* op) => (VectorOp.Immediate(op) & 1) != 0;

    private static int Elements(Op* op) => Words(op) ? 8 : 16;

    /// <summary>The absolute value, at most all elements.</summary>
    private static int Length(Op* op, long length)
    {
        int all = Elements(op);
        return length < -all || length > all ? all : (int)Math.Abs(length);
    }

    private static int Length(Op* op, byte* text)
    {
        uint zeros = Words(op)
            ? Vector128.Equals(Vector128.Load((ushort*)text), Vector128<ushort>.Zero).ExtractMostSignificantBits()
            : Vector128.Equals(Vector128.Load(text), Vector128<byte>.Zero).ExtractMostSignificantBits();
        return zeros == 0 ? Elements(op) : BitOperations.TrailingZeroCount(zeros);
    }

    private static void Index(CpuState* s, Op* op, byte* m, int first, int second)
    {
        uint result = Compare(s, op, m, first, second);
        bool highest = (VectorOp.Immediate(op) & 0x40) != 0;
        s->Gpr[1] = result == 0 ? (uint)Elements(op) : (uint)(highest ? BitOperations.Log2(result) : BitOperations.TrailingZeroCount(result));
    }

    private static void Mask(CpuState* s, Op* op, byte* m, int first, int second)
    {
        uint result = Compare(s, op, m, first, second);
        Vector128<byte> mask;
        if ((VectorOp.Immediate(op) & 0x40) == 0)
        {
            mask = Vector128.CreateScalar(result).AsByte();
        }
        else if (Words(op))
        {
            Vector128<ushort> bits = Vector128.Create((ushort)1, 2, 4, 8, 16, 32, 64, 128);
            mask = Vector128.Equals(Vector128.Create((ushort)result) & bits, bits).AsByte();
        }
        else
        {
            var bits = Vector128.Create(0x8040_2010_0804_0201).AsByte();
            mask = Vector128.Equals(Vector128.Create(Vector64.Create((byte)result), Vector64.Create((byte)(result >> 8))) & bits, bits);
        }
        mask.Store(VectorUnit.Xmm(s, 0));
    }

    /// <summary>IntRes2, and the flags that come of it.</summary>
    private static uint Compare(CpuState* s, Op* op, byte* m, int first, int second)
    {
        Vector128<byte> a = Vector128.Load(VectorUnit.Xmm(s, op->Reg)), b = Vector128.Load(Lanes.Rm(s, op, m));
        int immediate = VectorOp.Immediate(op), all = Elements(op);
        uint result = (immediate & 3) switch
        {
            0 => Aggregate<byte>((byte*)&a, first, (byte*)&b, second, immediate),
            1 => Aggregate<ushort>((ushort*)&a, first, (ushort*)&b, second, immediate),
            2 => Aggregate<sbyte>((sbyte*)&a, first, (sbyte*)&b, second, immediate),
            _ => Aggregate<short>((short*)&a, first, (short*)&b, second, immediate),
        };
        if ((immediate & 0x30) == 0x10)
            result ^= (1u << all) - 1;
        else if ((immediate & 0x30) == 0x30)
            result ^= (1u << second) - 1;
        *(ulong*)(m + VectorUnit.FlagsOffset) = (ulong)((result != 0 ? Flags.CF : 0) | (second < all ? Flags.ZF : 0) | (first < all ? Flags.SF : 0) | ((result & 1) != 0 ? Flags.OF : 0));
        return result;
    }

    /// <summary>IntRes1: a bit for every element of <paramref name="b"/>.</summary>
    private static uint Aggregate<T>(T* a, int first, T* b, int second, int immediate) where T : unmanaged, IBinaryInteger<T>
    {
        uint result = 0;
        switch (immediate >> 2 & 3)
        {
            case 0: // equal any: one of a set
                for (int j = 0; j < second; j++)
                {
                    for (int i = 0; i < first; i++)
                        result |= a[i] == b[j] ? 1u << j : 0;
                }
                return result;
            case 1: // in one of the ranges; half a range is none
                for (int j = 0; j < second; j++)
                {
                    for (int i = 0; i + 1 < first; i += 2)
                        result |= a[i] <= b[j] && b[j] <= a[i + 1] ? 1u << j : 0;
                }
                return result;
            case 2: // equal each: behind both ends is equal, behind one is not
                for (int j = 0; j < 16 / sizeof(T); j++)
                    result |= (j < first && j < second ? a[j] == b[j] : j >= first && j >= second) ? 1u << j : 0;
                return result;
            default: // a found in b; at the end of b a beginning of a is enough, unless b's string ends before
                for (int j = 0; j < 16 / sizeof(T); j++)
                {
                    int i = 0;
                    while (i < first && i + j < 16 / sizeof(T) && i + j < second && a[i] == b[i + j])
                        i++;
                    result |= i == first || i + j == 16 / sizeof(T) ? 1u << j : 0;
                }
                return result;
        }
    }
}
