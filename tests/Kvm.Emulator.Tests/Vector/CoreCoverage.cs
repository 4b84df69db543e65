using Iced.Intel;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Every vector and x87 instruction that a model can announce can be executed without the host's help.</summary>
public sealed unsafe class CoreCoverage
{
    internal static bool IsX87(Code code) => code.CpuidFeatures().Any(f => f is CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387);

    /// <summary>Floating-point arithmetic: reads MXCSR, or approximates.</summary>
    internal static bool IsFloat(Code code) => !IsX87(code) && ((VectorTraits.Of(code).Flags & VectorFlags.Float) != 0 || FloatCores.IsEstimate(code));

    // Instructions whose memory operand is more, or less, than its bytes (masked, gathered, environments) have rows in the opcode table and are not listed.
    private static IEnumerable<Code> Missing => CoreInstructions.All.Where(c => VectorTable.Instance[c] == null);

    [Fact]
    public void Moves_logic_packed_integers_text_and_cryptography_have_cores() => Missing.Where(c => !IsX87(c) && !IsFloat(c)).Should().BeEmpty();

    [Fact]
    public void Floating_point_arithmetic_has_cores() => Missing.Where(IsFloat).Should().BeEmpty();

    [Fact]
    public void X87_instructions_have_cores() => Missing.Where(IsX87).Should().BeEmpty();
}
