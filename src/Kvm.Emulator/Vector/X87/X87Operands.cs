namespace Kvm.Emulator.Vector.X87;

/// <summary>A memory format that can be read into a register.</summary>
internal unsafe interface IX87Source
{
    static abstract Unpacked Load(byte* m);
}

/// <summary>A two-operand operation; the result goes where the first operand came from.</summary>
internal interface IX87Binary
{
    static abstract Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c);
}

/// <summary>A one-operand operation on ST(0).</summary>
internal interface IX87Unary
{
    static abstract Float80 Compute(in Unpacked a, ref FloatContext c);
}

internal readonly unsafe struct M32 : IX87Source
{
    public static Unpacked Load(byte* m) => Unpacked.OfSingle(*(uint*)m);
}

internal readonly unsafe struct M64 : IX87Source
{
    public static Unpacked Load(byte* m) => Unpacked.OfDouble(*(ulong*)m);
}

internal readonly unsafe struct I16 : IX87Source
{
    public static Unpacked Load(byte* m) => Unpacked.OfInteger(*(short*)m);
}

internal readonly unsafe struct I32 : IX87Source
{
    public static Unpacked Load(byte* m) => Unpacked.OfInteger(*(int*)m);
}

internal readonly unsafe struct I64 : IX87Source
{
    public static Unpacked Load(byte* m) => Unpacked.OfInteger(*(long*)m);
}

internal readonly struct Add : IX87Binary
{
    public static Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c) => FloatArithmetic.Add(a, b, ref c);
}

internal readonly struct Mul : IX87Binary
{
    public static Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c) => FloatArithmetic.Multiply(a, b, ref c);
}

internal readonly struct Sub : IX87Binary
{
    public static Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c) => FloatArithmetic.Subtract(a, b, ref c);
}

internal readonly struct SubR : IX87Binary
{
    public static Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c) => FloatArithmetic.Subtract(b, a, ref c);
}

internal readonly struct Div : IX87Binary
{
    public static Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c) => FloatArithmetic.Divide(a, b, ref c);
}

internal readonly struct DivR : IX87Binary
{
    public static Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c) => FloatArithmetic.Divide(b, a, ref c);
}

internal readonly struct Sqrt : IX87Unary
{
    public static Float80 Compute(in Unpacked a, ref FloatContext c) => FloatArithmetic.SquareRoot(a, ref c);
}

internal readonly struct RndInt : IX87Unary
{
    public static Float80 Compute(in Unpacked a, ref FloatContext c) => FloatConversions.ToIntegral(a, ref c);
}
