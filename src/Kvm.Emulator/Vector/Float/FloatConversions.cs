namespace Kvm.Emulator.Vector.Float;

/// <summary>One element of a conversion, between integers (sign-extended) and floating-point formats.</summary>
internal unsafe interface IFloatConversion
{
    static abstract int FromBytes { get; }
    static abstract int ToBytes { get; }
    static abstract void Apply(byte* from, byte* to, ref FloatContext c);
}

internal readonly unsafe struct Int32To<F> : IFloatConversion where F : struct, INativeFormat
{
    public static int FromBytes => 4;
    public static int ToBytes => FloatOperands.Size<F>();
    public static void Apply(byte* from, byte* to, ref FloatContext c) => F.Store(to, SoftFloat.FromInteger<F>(*(int*)from, ref c));
}

internal readonly unsafe struct Int64To<F> : IFloatConversion where F : struct, INativeFormat
{
    public static int FromBytes => 8;
    public static int ToBytes => FloatOperands.Size<F>();
    public static void Apply(byte* from, byte* to, ref FloatContext c) => F.Store(to, SoftFloat.FromInteger<F>(*(long*)from, ref c));
}

/// <summary>CVTxx2DQ, CVTxx2PI, CVTxx2SI: rounded as MXCSR says.</summary>
internal readonly unsafe struct ToInt32<F> : IFloatConversion where F : struct, INativeFormat
{
    public static int FromBytes => FloatOperands.Size<F>();
    public static int ToBytes => 4;
    public static void Apply(byte* from, byte* to, ref FloatContext c) => *(int*)to = (int)SoftFloat.ToInteger<F>(F.Load(from), 32, c.Rounding, ref c);
}

internal readonly unsafe struct ToInt64<F> : IFloatConversion where F : struct, INativeFormat
{
    public static int FromBytes => FloatOperands.Size<F>();
    public static int ToBytes => 8;
    public static void Apply(byte* from, byte* to, ref FloatContext c) => *(long*)to = SoftFloat.ToInteger<F>(F.Load(from), 64, c.Rounding, ref c);
}

/// <summary>CVTTxx2DQ, CVTTxx2PI, CVTTxx2SI.</summary>
internal readonly unsafe struct TruncateToInt32<F> : IFloatConversion where F : struct, INativeFormat
{
    public static int FromBytes => FloatOperands.Size<F>();
    public static int ToBytes => 4;
    public static void Apply(byte* from, byte* to, ref FloatContext c) => *(int*)to = (int)SoftFloat.ToInteger<F>(F.Load(from), 32, Rounding.TowardZero, ref c);
}

internal readonly unsafe struct TruncateToInt64<F> : IFloatConversion where F : struct, INativeFormat
{
    public static int FromBytes => FloatOperands.Size<F>();
    public static int ToBytes => 8;
    public static void Apply(byte* from, byte* to, ref FloatContext c) => *(long*)to = SoftFloat.ToInteger<F>(F.Load(from), 64, Rounding.TowardZero, ref c);
}

internal readonly unsafe struct FloatTo<From, To> : IFloatConversion
    where From : struct, INativeFormat
    where To : struct, INativeFormat
{
    public static int FromBytes => FloatOperands.Size<From>();
    public static int ToBytes => FloatOperands.Size<To>();
    public static void Apply(byte* from, byte* to, ref FloatContext c) => To.Store(to, SoftFloat.Convert<From, To>(From.Load(from), ref c));
}

/// <summary>VCVTPH2PS: every half has a value in single precision, and none of them is treated as a denormal operand.</summary>
internal readonly unsafe struct HalfToSingle : IFloatConversion
{
    public static int FromBytes => 2;
    public static int ToBytes => 4;

    public static void Apply(byte* from, byte* to, ref FloatContext c)
    {
        var quiet = new FloatContext(0x1f80);
        *(uint*)to = (uint)SoftFloat.Convert<Binary16, Binary32>(*(ushort*)from, ref quiet);
        c.Raise(quiet.Flags & FloatContext.Invalid);
    }
}
