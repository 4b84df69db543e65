using Iced.Intel;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Every floating-point instruction of SSE, AVX, FMA and F16C, in C# and by the host processor: results and MXCSR bit by bit.</summary>
public sealed unsafe class FloatCores
{
    /// <summary>Instructions of the table: all whose execution can raise SIMD floating-point exceptions, and the approximations.</summary>
    internal static readonly Code[] All = [.. Enum.GetValues<Code>().Where(IsFloat)];

    private static bool IsFloat(Code code) => VectorTable.Instance[code] != null && ((VectorTraits.Of(code).Flags & VectorFlags.Float) != 0 || IsEstimate(code));

    public static TheoryData<Code> Codes => [.. All];

    [Fact]
    public void All_of_them_are_there() => All.Should().HaveCount(289);

    /// <summary>KVM_TEST_CASES sets the number of cases of all instructions together.</summary>
    [SkippableTheory]
    [MemberData(nameof(Codes))]
    public void Equal_the_host_processor(Code code)
    {
        const int each = 50; // cases with the same registers
        using var comparison = new CoreComparison { Tolerate = IsEstimate(code) ? Approximate : null };
        Skip.IfNot(comparison.Select(Plain(code)), "the host does not have it");
        var random = new CaseRandom(CoreComparison.Seed + (ulong)code);
        long cases = CoreComparison.Cases(2_500, All.Length);
        for (long done = 0; done < cases; done++)
        {
            if (done % each == 0)
            {
                comparison.Select(FloatInstructions.Next(ref random, code)).Should().BeTrue();
                FloatInstructions.Registers(ref random, comparison);
            }
            FloatInstructions.Operands(ref random, comparison);
            if (!comparison.Run())
                Assert.Fail($"case {done}: {comparison.Difference()}");
        }
    }

    private static Instruction Plain(Code code)
    {
        var random = new CaseRandom((ulong)code);
        return FloatInstructions.Next(ref random, code);
    }

    internal static bool IsEstimate(Code code) => code.Mnemonic() is Mnemonic.Rcpps or Mnemonic.Rcpss or Mnemonic.Rsqrtps or Mnemonic.Rsqrtss
        or Mnemonic.Vrcpps or Mnemonic.Vrcpss or Mnemonic.Vrsqrtps or Mnemonic.Vrsqrtss;

    /// <summary>Tables of processors differ: two values that both are within 1.5 * 2^-12 of the truth are equal, and so are results that both may be called tiny.</summary>
    private static void Approximate(CpuState* before, CpuState* host, CpuState* managed, byte* hostArea, byte* managedArea)
    {
        for (int i = 0; i < 64 * 2; i++)
        {
            float* h = i < 64 ? (float*)VectorUnit.Xmm(host, 0) + i : (float*)VectorUnit.YmmHigh(host, 0) + i - 64;
            float* m = i < 64 ? (float*)VectorUnit.Xmm(managed, 0) + i : (float*)VectorUnit.YmmHigh(managed, 0) + i - 64;
            const double least = 1.17549435082229e-38;
            bool close = Math.Abs((double)*h - *m) <= 2 * 1.5 / 4096 * Math.Abs((double)*m);
            bool tiny = Math.Abs((double)*h) < least * 1.001 && Math.Abs((double)*m) < least * 1.001 && float.IsNegative(*h) == float.IsNegative(*m);
            if (close || tiny)
                *m = *h;
        }
    }
}
