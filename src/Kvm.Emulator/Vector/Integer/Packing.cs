using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>PACKSSWB: the low half of the result from the first operand, the high half from the second.</summary>
internal readonly struct PackWords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.NarrowWithSaturation(a.AsInt16(), b.AsInt16()).AsByte();
}

/// <summary>PACKUSWB: signed words to unsigned bytes.</summary>
internal readonly struct PackWordsUnsigned : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) =>
        Vector128.NarrowWithSaturation(Vector128.Max(a.AsInt16(), Vector128<short>.Zero).AsUInt16(), Vector128.Max(b.AsInt16(), Vector128<short>.Zero).AsUInt16());
}

/// <summary>PACKSSDW.</summary>
internal readonly struct PackDoublewords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.NarrowWithSaturation(a.AsInt32(), b.AsInt32()).AsByte();
}

/// <summary>PACKUSDW: signed doublewords to unsigned words.</summary>
internal readonly struct PackDoublewordsUnsigned : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) =>
        Vector128.NarrowWithSaturation(Vector128.Max(a.AsInt32(), Vector128<int>.Zero).AsUInt32(), Vector128.Max(b.AsInt32(), Vector128<int>.Zero).AsUInt32()).AsByte();
}

// PUNPCKL, PUNPCKH: elements of both operands in turn, the first operand's first.

internal readonly struct UnpackLowBytes : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => (Vector128.WidenLower(a) | Vector128.WidenLower(b) << 8).AsByte();
}

internal readonly struct UnpackHighBytes : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => (Vector128.WidenUpper(a) | Vector128.WidenUpper(b) << 8).AsByte();
}

internal readonly struct UnpackLowWords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => (Vector128.WidenLower(a.AsUInt16()) | Vector128.WidenLower(b.AsUInt16()) << 16).AsByte();
}

internal readonly struct UnpackHighWords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => (Vector128.WidenUpper(a.AsUInt16()) | Vector128.WidenUpper(b.AsUInt16()) << 16).AsByte();
}

internal readonly struct UnpackLowDoublewords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => (Vector128.WidenLower(a.AsUInt32()) | Vector128.WidenLower(b.AsUInt32()) << 32).AsByte();
}

internal readonly struct UnpackHighDoublewords : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => (Vector128.WidenUpper(a.AsUInt32()) | Vector128.WidenUpper(b.AsUInt32()) << 32).AsByte();
}

/// <summary>PUNPCKLQDQ, UNPCKLPD, MOVLHPS, MOVHPS and MOVHPD from memory.</summary>
internal readonly struct LowAndLow : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Create(a.GetLower(), b.GetLower());
}

/// <summary>PUNPCKHQDQ, UNPCKHPD.</summary>
internal readonly struct HighAndHigh : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Create(a.GetUpper(), b.GetUpper());
}
