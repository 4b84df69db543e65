using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>A shift of all elements of a lane by one count.</summary>
internal interface IShift
{
    static abstract Vector128<byte> Of(Vector128<byte> a, ulong count);
}

/// <summary>PSLLW, PSLLD, PSLLQ: counts beyond the element leave nothing.</summary>
internal readonly struct ShiftLeft<T> : IShift
{
    public static Vector128<byte> Of(Vector128<byte> a, ulong count) => count < (ulong)Unsafe.SizeOf<T>() * 8 ? (a.As<byte, T>() << (int)count).AsByte() : Vector128<byte>.Zero;
}

/// <summary>PSRLW, PSRLD, PSRLQ.</summary>
internal readonly struct ShiftRight<T> : IShift
{
    public static Vector128<byte> Of(Vector128<byte> a, ulong count) => count < (ulong)Unsafe.SizeOf<T>() * 8 ? (a.As<byte, T>() >>> (int)count).AsByte() : Vector128<byte>.Zero;
}

/// <summary>PSRAW, PSRAD: counts beyond the element leave signs.</summary>
internal readonly struct ShiftArithmetic<T> : IShift
{
    public static Vector128<byte> Of(Vector128<byte> a, ulong count) => (a.As<byte, T>() >> (int)Math.Min(count, (ulong)Unsafe.SizeOf<T>() * 8 - 1)).AsByte();
}

/// <summary>PSLLDQ: whole lanes, by bytes.</summary>
internal readonly struct ShiftBytesLeft : IShift
{
    public static Vector128<byte> Of(Vector128<byte> a, ulong count) =>
        count < 16 ? Unsafe.BitCast<UInt128, Vector128<byte>>(Unsafe.BitCast<Vector128<byte>, UInt128>(a) << (int)count * 8) : Vector128<byte>.Zero;
}

/// <summary>PSRLDQ.</summary>
internal readonly struct ShiftBytesRight : IShift
{
    public static Vector128<byte> Of(Vector128<byte> a, ulong count) =>
        count < 16 ? Unsafe.BitCast<UInt128, Vector128<byte>>(Unsafe.BitCast<Vector128<byte>, UInt128>(a) >>> (int)count * 8) : Vector128<byte>.Zero;
}

/// <summary>VPSLLV: every element by its own count.</summary>
internal readonly unsafe struct ShiftLeftEach<T> : ILane where T : unmanaged, IBinaryInteger<T>
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        for (int i = 0; i < 16 / sizeof(T); i++)
        {
            ulong count = ulong.CreateTruncating(((T*)&b)[i]);
            ((T*)&a)[i] = count < (ulong)sizeof(T) * 8 ? ((T*)&a)[i] << (int)count : T.Zero;
        }
        return a;
    }
}

/// <summary>VPSRLV.</summary>
internal readonly unsafe struct ShiftRightEach<T> : ILane where T : unmanaged, IBinaryInteger<T>
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        for (int i = 0; i < 16 / sizeof(T); i++)
        {
            ulong count = ulong.CreateTruncating(((T*)&b)[i]);
            ((T*)&a)[i] = count < (ulong)sizeof(T) * 8 ? ((T*)&a)[i] >>> (int)count : T.Zero;
        }
        return a;
    }
}

/// <summary>VPSRAVD.</summary>
internal readonly unsafe struct ShiftArithmeticEach : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        for (int i = 0; i < 4; i++)
            ((int*)&a)[i] >>= (int)Math.Min(((uint*)&b)[i], 31);
        return a;
    }
}

/// <summary>Cores of the operand forms of shifts by one count.</summary>
internal static unsafe class Shifts
{
    /// <summary>op xmm, xmm/m128: the count is the low quadword.</summary>
    internal static void Sse<T>(CpuState* s, Op* op, byte* m) where T : struct, IShift
    {
        byte* target = VectorUnit.Xmm(s, op->Reg);
        T.Of(Vector128.Load(target), *(ulong*)Lanes.Rm(s, op, m)).Store(target);
    }

    internal static void Vex128<T>(CpuState* s, Op* op, byte* m) where T : struct, IShift
        => Lanes.Put(s, op->Reg, T.Of(Vector128.Load(VectorUnit.Xmm(s, op->Imm2)), *(ulong*)Lanes.Rm(s, op, m)));

    internal static void Vex256<T>(CpuState* s, Op* op, byte* m) where T : struct, IShift
    {
        ulong count = *(ulong*)Lanes.Rm(s, op, m);
        Lanes.Put(s, op->Reg, T.Of(Vector128.Load(VectorUnit.Xmm(s, op->Imm2)), count), T.Of(Vector128.Load(VectorUnit.YmmHigh(s, op->Imm2)), count));
    }

    /// <summary>op xmm, imm8: the rm operand is the destination.</summary>
    internal static void SseImmediate<T>(CpuState* s, Op* op, byte* m) where T : struct, IShift
    {
        byte* target = VectorUnit.Xmm(s, op->Rm);
        T.Of(Vector128.Load(target), VectorOp.Immediate(op)).Store(target);
    }

    /// <summary>vop xmm, xmm, imm8: VEX.vvvv is the destination.</summary>
    internal static void Vex128Immediate<T>(CpuState* s, Op* op, byte* m) where T : struct, IShift
        => Lanes.Put(s, op->Imm2, T.Of(Vector128.Load(VectorUnit.Xmm(s, op->Rm)), VectorOp.Immediate(op)));

    internal static void Vex256Immediate<T>(CpuState* s, Op* op, byte* m) where T : struct, IShift
    {
        ulong count = VectorOp.Immediate(op);
        Lanes.Put(s, op->Imm2, T.Of(Vector128.Load(VectorUnit.Xmm(s, op->Rm)), count), T.Of(Vector128.Load(VectorUnit.YmmHigh(s, op->Rm)), count));
    }
}
