using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Engine;

/// <summary>
/// The same instructions of an x86-64 host: while the guest's MXCSR has its default controls, as the host's has, results are the same for all operands, and the
/// flags that come with them gather in the host's MXCSR until somebody may look at the guest's.
/// </summary>
/// <remarks>
/// Inexactness has to be noted before: the runtime may stop the thread between any two operations, and what it computes then is inexact at times.
/// It has no other exceptions; its compiler might, so methods called in between are compiled before (<see cref="Prepare"/>).
/// Of two NaNs the first is the result: the compiler must not exchange the operands. It doesn't for scalar ones, which pass on the rest of the first;
/// for packed ones the first is loaded and the second is memory. The tests would show it.
/// </remarks>
internal readonly unsafe struct HostArithmetic : IVectorArithmetic
{
    private const uint controls = 0xffc0, defaults = 0x1f80, inexact = 0x20;

    private static readonly delegate* unmanaged[SuppressGCTransition]<uint> read = HostCode.Supported
        ? (delegate* unmanaged[SuppressGCTransition]<uint>)HostCode.Add([0x0f, 0xae, 0x5c, 0x24, 0xf8, 0x8b, 0x44, 0x24, 0xf8, 0xc3]) // stmxcsr [rsp-8]; mov eax, [rsp-8]; ret
        : null;

    private static readonly delegate* unmanaged[SuppressGCTransition]<uint, void> write = HostCode.Supported
        ? (delegate* unmanaged[SuppressGCTransition]<uint, void>)HostCode.Add([0x89, 0x7c, 0x24, 0xf8, 0x0f, 0xae, 0x54, 0x24, 0xf8, 0xc3]) // mov [rsp-8], edi; ldmxcsr [rsp-8]; ret
        : null;

    internal static bool Supported => Sse2.X64.IsSupported && read != null && write != null;

    /// <summary>Calls what is called between <see cref="Begin"/> and <see cref="End"/>, on a state that is reset afterwards.</summary>
    internal static void Prepare(CpuState* s)
    {
        s->LazyOp = LazyOp.Add;
        _ = LazyFlags.Carry(s);
        s->LazyOp = LazyOp.None;
        Begin(s);
        End(s);
    }

    /// <summary>What C# code before has left in the host's flags is cleared, if it would show.</summary>
    [MethodImpl(MethodImplOptions.NoInlining | MethodImplOptions.AggressiveOptimization)]
    public static bool Begin(CpuState* s)
    {
        uint guest = VectorUnit.Mxcsr(s);
        if ((guest & (controls | inexact)) != (defaults | inexact))
            return false;
        uint host = read();
        if ((host & controls) != defaults)
            return false;
        if ((host & VectorUnit.MxcsrFlags & ~guest) != 0)
            write(defaults);
        return true;
    }

    [MethodImpl(MethodImplOptions.NoInlining | MethodImplOptions.AggressiveOptimization)]
    public static void End(CpuState* s) => VectorUnit.Mxcsr(s) |= read() & VectorUnit.MxcsrFlags;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool AddSd(byte* to, byte* from) => Store(to, Sse2.AddScalar(Double(to), OneDouble(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool SubSd(byte* to, byte* from) => Store(to, Sse2.SubtractScalar(Double(to), OneDouble(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool MulSd(byte* to, byte* from) => Store(to, Sse2.MultiplyScalar(Double(to), OneDouble(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool DivSd(byte* to, byte* from) => Store(to, Sse2.DivideScalar(Double(to), OneDouble(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool SqrtSd(byte* to, byte* from) => Store(to, Sse2.SqrtScalar(Double(to), OneDouble(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool AddSs(byte* to, byte* from) => Store(to, Sse.AddScalar(Single(to), OneSingle(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool SubSs(byte* to, byte* from) => Store(to, Sse.SubtractScalar(Single(to), OneSingle(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool MulSs(byte* to, byte* from) => Store(to, Sse.MultiplyScalar(Single(to), OneSingle(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool DivSs(byte* to, byte* from) => Store(to, Sse.DivideScalar(Single(to), OneSingle(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool AddPd(byte* to, byte* from) => Store(to, Sse2.Add(Double(to), Double(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool SubPd(byte* to, byte* from) => Store(to, Sse2.Subtract(Double(to), Double(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool MulPd(byte* to, byte* from) => Store(to, Sse2.Multiply(Double(to), Double(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool DivPd(byte* to, byte* from) => Store(to, Sse2.Divide(Double(to), Double(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool AddPs(byte* to, byte* from) => Store(to, Sse.Add(Single(to), Single(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool SubPs(byte* to, byte* from) => Store(to, Sse.Subtract(Single(to), Single(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool MulPs(byte* to, byte* from) => Store(to, Sse.Multiply(Single(to), Single(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool DivPs(byte* to, byte* from) => Store(to, Sse.Divide(Single(to), Single(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvtSi64Sd(byte* to, byte* from) => Store(to, Sse2.X64.ConvertScalarToVector128Double(Double(to), *(long*)from));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvtSi32Ss(byte* to, byte* from) => Store(to, Sse.ConvertScalarToVector128Single(Single(to), *(int*)from));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvttSdSi32(byte* to, byte* from)
    {
        *(ulong*)to = (uint)Sse2.ConvertToInt32WithTruncation(OneDouble(from));
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvttSdSi64(byte* to, byte* from)
    {
        *(long*)to = Sse2.X64.ConvertToInt64WithTruncation(OneDouble(from));
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvttSsSi32(byte* to, byte* from)
    {
        *(ulong*)to = (uint)Sse.ConvertToInt32WithTruncation(OneSingle(from));
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvtSsSd(byte* to, byte* from) => Store(to, Sse2.ConvertScalarToVector128Double(Double(to), OneSingle(from)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CvtSdSs(byte* to, byte* from) => Store(to, Sse2.ConvertScalarToVector128Single(Single(to), OneDouble(from)));

    /// <summary>As UCOMISD flags them; quiet NaNs, with which COMISD differs, are left to the handlers.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint ComiSd(byte* first, byte* second)
    {
        if (Sse2.CompareScalarUnorderedGreaterThan(OneDouble(first), OneDouble(second)))
            return IVectorArithmetic.Greater;
        if (Sse2.CompareScalarUnorderedGreaterThan(OneDouble(second), OneDouble(first)))
            return IVectorArithmetic.Less;
        return Sse2.CompareScalarUnorderedEqual(OneDouble(first), OneDouble(second)) ? IVectorArithmetic.Equal : 0;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint ComiSs(byte* first, byte* second)
    {
        if (Sse.CompareScalarUnorderedGreaterThan(OneSingle(first), OneSingle(second)))
            return IVectorArithmetic.Greater;
        if (Sse.CompareScalarUnorderedGreaterThan(OneSingle(second), OneSingle(first)))
            return IVectorArithmetic.Less;
        return Sse.CompareScalarUnorderedEqual(OneSingle(first), OneSingle(second)) ? IVectorArithmetic.Equal : 0;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<double> Double(byte* at) => Vector128.Load((double*)at);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> Single(byte* at) => Vector128.Load((float*)at);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<double> OneDouble(byte* at) => Vector128.CreateScalarUnsafe(*(double*)at);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> OneSingle(byte* at) => Vector128.CreateScalarUnsafe(*(float*)at);

    // The whole register: loads of all of it, which copies are, could not take part of it from the store before.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool Store<T>(byte* to, Vector128<T> value) where T : unmanaged
    {
        value.Store((T*)to);
        return true;
    }
}
