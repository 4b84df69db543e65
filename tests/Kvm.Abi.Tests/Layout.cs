using System.Reflection;
using System.Runtime.CompilerServices;

namespace Kvm.Abi.Tests;

/// <summary>Sizes and offsets as the runtime lays structures out (managed layout, which for unmanaged types is the one that pointers see).</summary>
internal static class Layout
{
    public static int SizeOf(Type type) => (int)s_sizeOf.MakeGenericMethod(type).Invoke(null, null)!;

    /// <summary>Bytes from the start of <paramref name="type"/> to <paramref name="field"/>, measured by writing the field and looking where it went.</summary>
    public static int OffsetOf(Type type, FieldInfo field) => (int)s_offsetOf.MakeGenericMethod(type, field.FieldType).Invoke(null, [field])!;

    private static readonly MethodInfo s_sizeOf = typeof(Unsafe).GetMethod(nameof(Unsafe.SizeOf))!;
    private static readonly MethodInfo s_offsetOf = typeof(Layout).GetMethod(nameof(Measure), BindingFlags.NonPublic | BindingFlags.Static)!;

    private static unsafe int Measure<TStruct, TField>(FieldInfo field)
        where TStruct : unmanaged
        where TField : unmanaged
    {
        TField ones;
        new Span<byte>(&ones, sizeof(TField)).Fill(0xff);
        object boxed = default(TStruct);
        field.SetValue(boxed, ones);
        var value = (TStruct)boxed;
        var bytes = new ReadOnlySpan<byte>(&value, sizeof(TStruct));
        return bytes.IndexOf((byte)0xff);
    }
}
