using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.X87;

/// <summary>F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS, FSINCOS.</summary>
/// <remarks>SDM vol 2A, the instructions' pages. How far results agree with a processor's: <see cref="FloatTranscendentals"/>.</remarks>
internal static unsafe class X87Transcendentals
{
    internal static void F2xm1(CpuState* s, Op* op, byte* m) => X87Arithmetic.Unary<PowerOfTwo>(s, op, m);

    private readonly struct PowerOfTwo : IX87Unary
    {
        public static Float80 Compute(in Unpacked a, ref FloatContext c) => FloatTranscendentals.PowerOfTwoLessOne(a, ref c);
    }

    private readonly struct Log : IX87Binary
    {
        public static Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c) => FloatTranscendentals.Logarithm(a, b, ref c);
    }

    private readonly struct LogOfOnePlus : IX87Binary
    {
        public static Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c) => FloatTranscendentals.LogarithmOfOnePlus(a, b, ref c);
    }

    private readonly struct Arctangent : IX87Binary
    {
        public static Float80 Compute(in Unpacked a, in Unpacked b, ref FloatContext c) => FloatTranscendentals.Angle(a, b, ref c);
    }

    internal static void Fyl2x(CpuState* s, Op* op, byte* m) => X87Arithmetic.Registers<Log>(s, 1, 0, pop: true);

    internal static void Fyl2xp1(CpuState* s, Op* op, byte* m) => X87Arithmetic.Registers<LogOfOnePlus>(s, 1, 0, pop: true);

    internal static void Fpatan(CpuState* s, Op* op, byte* m) => X87Arithmetic.Registers<Arctangent>(s, 1, 0, pop: true);

    internal static void Fsin(CpuState* s, Op* op, byte* m) => One(s, cosine: false);

    internal static void Fcos(CpuState* s, Op* op, byte* m) => One(s, cosine: true);

    private static void One(CpuState* s, bool cosine)
    {
        var x = new X87Stack(s);
        Float80 result = Float80.Indefinite;
        x.SetC2(false);
        if (x.IsEmpty(0))
        {
            if (!x.Underflow())
                return;
        }
        else
        {
            FloatContext c = x.Context;
            Unpacked angle = x.Operand(0);
            if (FloatTranscendentals.TooLarge(angle))
            {
                x.SetC1(false);
                x.SetC2(true);
                return;
            }
            result = cosine ? FloatTranscendentals.Cosine(angle, ref c) : FloatTranscendentals.Sine(angle, ref c);
            if (!x.Commit(c))
                return;
        }
        x.Set(0, result);
    }

    /// <summary>ST(0) becomes the tangent, then one is pushed; of a NaN or an invalid operand, both are the NaN.</summary>
    internal static void Fptan(CpuState* s, Op* op, byte* m) => Two(s, tangent: true);

    /// <summary>ST(0) becomes the sine, then the cosine is pushed.</summary>
    internal static void Fsincos(CpuState* s, Op* op, byte* m) => Two(s, tangent: false);

    private static void Two(CpuState* s, bool tangent)
    {
        var x = new X87Stack(s);
        Float80 first = Float80.Indefinite, second = Float80.Indefinite;
        x.SetC2(false);
        if (x.IsEmpty(0))
        {
            if (!x.Underflow())
                return;
        }
        else if (x.IsFull)
        {
            if (!x.Overflow())
                return;
        }
        else
        {
            FloatContext c = x.Context;
            Unpacked angle = x.Operand(0);
            if (FloatTranscendentals.TooLarge(angle))
            {
                x.SetC1(false);
                x.SetC2(true);
                return;
            }
            // C1 tells of the sine: it comes last.
            second = tangent ? Float80.One : FloatTranscendentals.Cosine(angle, ref c);
            first = tangent ? FloatTranscendentals.Tangent(angle, ref c) : FloatTranscendentals.Sine(angle, ref c);
            if (!angle.IsFinite)
                second = first;
            if (!x.Commit(c))
                return;
        }
        x.Set(0, first);
        x.Push(second);
    }
}
