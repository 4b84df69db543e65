using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

// PADD, PSUB and relatives, by element type: what they do to a lane.

internal readonly struct Add<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => (a.As<byte, T>() + b.As<byte, T>()).AsByte();
}

internal readonly struct Subtract<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => (a.As<byte, T>() - b.As<byte, T>()).AsByte();
}

internal readonly struct AddSaturated<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.AddSaturate(a.As<byte, T>(), b.As<byte, T>()).AsByte();
}

internal readonly struct SubtractSaturated<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.SubtractSaturate(a.As<byte, T>(), b.As<byte, T>()).AsByte();
}

/// <summary>Averages of unsigned elements, halves rounded up.</summary>
internal readonly struct Average<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<T> x = a.As<byte, T>(), y = b.As<byte, T>();
        return ((x | y) - ((x ^ y) >>> 1)).AsByte();
    }
}

internal readonly struct Minimum<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Min(a.As<byte, T>(), b.As<byte, T>()).AsByte();
}

internal readonly struct Maximum<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Max(a.As<byte, T>(), b.As<byte, T>()).AsByte();
}

/// <summary>PABS: the most negative number is its own absolute value.</summary>
internal readonly struct Absolute<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<T> x = b.As<byte, T>(), negative = Vector128.LessThan(x, Vector128<T>.Zero);
        return ((x ^ negative) - negative).AsByte();
    }
}

/// <summary>PSIGN: negated, zeroed or left as the second operand's sign says.</summary>
internal readonly struct Sign<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate)
    {
        Vector128<T> x = a.As<byte, T>(), by = b.As<byte, T>(), negative = Vector128.LessThan(by, Vector128<T>.Zero);
        return Vector128.AndNot((x ^ negative) - negative, Vector128.Equals(by, Vector128<T>.Zero)).AsByte();
    }
}

internal readonly struct CompareEqual<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Equals(a.As<byte, T>(), b.As<byte, T>()).AsByte();
}

internal readonly struct CompareGreater<T> : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.GreaterThan(a.As<byte, T>(), b.As<byte, T>()).AsByte();
}
