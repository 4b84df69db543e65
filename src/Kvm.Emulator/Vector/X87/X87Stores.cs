using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.X87;

/// <summary>FST, FSTP, FIST, FISTP, FISTTP, FBSTP: to memory and to registers.</summary>
/// <remarks>SDM vol 2A, the instructions' pages.</remarks>
internal static unsafe class X87Stores
{
    /// <summary>An alias of FSTP that does nothing with an empty register but to pop it.</summary>
    internal static void Fstpnce(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        if (!x.IsEmpty(0))
            x.Set(op->Reg, x[0]);
        x.Pop();
    }

    internal static void FstSti(CpuState* s, Op* op, byte* m) => StoreRegister(s, op->Reg, pop: false);

    internal static void FstpSti(CpuState* s, Op* op, byte* m) => StoreRegister(s, op->Reg, pop: true);

    private static void StoreRegister(CpuState* s, int i, bool pop)
    {
        var x = new X87Stack(s);
        Float80 value = x[0];
        if (x.IsEmpty(0))
        {
            if (!x.Underflow())
                return;
            value = Float80.Indefinite;
        }
        else
        {
            x.SetC1(false);
        }
        x.Set(i, value);
        if (pop)
            x.Pop();
    }

    /// <summary>True: there is a value in ST(0) to store; false, with masked underflow: the format's indefinite is stored.</summary>
    private static bool Source(X87Stack x, out Unpacked value, out bool stopped)
    {
        bool full = !x.IsEmpty(0);
        stopped = !full && !x.Underflow();
        value = full ? x.Operand(0) : default;
        return full;
    }

    internal static void FstM32(CpuState* s, Op* op, byte* m) => StoreM32(new X87Stack(s), m, 0);

    internal static void FstpM32(CpuState* s, Op* op, byte* m) => StoreM32(new X87Stack(s), m, 1);

    private static void StoreM32(X87Stack x, byte* m, int pops)
    {
        FloatContext c = x.Context;
        uint value = FloatConversions.IndefiniteSingle;
        if (Source(x, out Unpacked a, out bool stopped))
        {
            value = FloatConversions.ToSingle(a, ref c);
            stopped = !x.CommitStore(c);
        }
        if (stopped)
            return;
        *(uint*)m = value;
        x.Pop(pops);
    }

    internal static void FstM64(CpuState* s, Op* op, byte* m) => StoreM64(new X87Stack(s), m, 0);

    internal static void FstpM64(CpuState* s, Op* op, byte* m) => StoreM64(new X87Stack(s), m, 1);

    private static void StoreM64(X87Stack x, byte* m, int pops)
    {
        FloatContext c = x.Context;
        ulong value = FloatConversions.IndefiniteDouble;
        if (Source(x, out Unpacked a, out bool stopped))
        {
            value = FloatConversions.ToDouble(a, ref c);
            stopped = !x.CommitStore(c);
        }
        if (stopped)
            return;
        *(ulong*)m = value;
        x.Pop(pops);
    }

    /// <summary>Stores whatever the register holds, without an exception but of the stack.</summary>
    internal static void FstpM80(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        Float80 value = x[0];
        if (x.IsEmpty(0))
        {
            if (!x.Underflow())
                return;
            value = Float80.Indefinite;
        }
        else
        {
            x.SetC1(false);
        }
        *(Float80*)m = value;
        x.Pop();
    }

    internal static void FistM16(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 2, 0, truncate: false);

    internal static void FistM32(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 4, 0, truncate: false);

    internal static void FistpM16(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 2, 1, truncate: false);

    internal static void FistpM32(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 4, 1, truncate: false);

    internal static void FistpM64(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 8, 1, truncate: false);

    internal static void FisttpM16(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 2, 1, truncate: true);

    internal static void FisttpM32(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 4, 1, truncate: true);

    internal static void FisttpM64(CpuState* s, Op* op, byte* m) => StoreInteger(new X87Stack(s), m, 8, 1, truncate: true);

    private static void StoreInteger(X87Stack x, byte* m, int bytes, int pops, bool truncate)
    {
        FloatContext c = x.Context;
        long value = 1L << (bytes * 8 - 1);
        if (Source(x, out Unpacked a, out bool stopped))
        {
            value = FloatConversions.ToInteger(a, bytes * 8, truncate ? RoundingMode.Zero : c.Rounding, ref c);
            stopped = !x.CommitStore(c);
        }
        if (stopped)
            return;
        switch (bytes)
        {
            case 2: *(short*)m = (short)value; break;
            case 4: *(int*)m = (int)value; break;
            default: *(long*)m = value; break;
        }
        x.Pop(pops);
    }

    internal static void Fbstp(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        FloatContext c = x.Context;
        (ulong Low, ushort High) value = (FloatConversions.IndefiniteBcdLow, FloatConversions.IndefiniteBcdHigh);
        if (Source(x, out Unpacked a, out bool stopped))
        {
            value = FloatConversions.ToBcd(a, ref c);
            stopped = !x.CommitStore(c);
        }
        if (stopped)
            return;
        *(ulong*)m = value.Low;
        *(ushort*)(m + 8) = value.High;
        x.Pop();
    }
}
