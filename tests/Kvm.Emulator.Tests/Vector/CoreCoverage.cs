using Iced.Intel;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Every vector and x87 instruction that a model can announce can be executed without the host's help.</summary>
public sealed unsafe class CoreCoverage
{
    internal static bool IsX87(Code code) => code.CpuidFeatures().Any(f => f is CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387);

    /// <summary>Floating-point arithmetic: reads MXCSR, or approximates.</summary>
    internal static bool IsFloat(Code code) => !IsX87(code) && ((VectorTraits.Of(code).Flags & VectorFlags.Float) != 0 || FloatCores.IsEstimate(code));

    /// <summary>Memory operands that are more, or less, than their bytes: masked, gathered, control registers, environments. They have rows of their own in the opcode table.</summary>
    internal static bool IsHandled(Code code) => code.Mnemonic() is Mnemonic.Vldmxcsr or Mnemonic.Vstmxcsr
        or Mnemonic.Fldenv or Mnemonic.Fnstenv or Mnemonic.Frstor or Mnemonic.Fnsave
        or Mnemonic.Maskmovq or Mnemonic.Maskmovdqu or Mnemonic.Vmaskmovdqu or Mnemonic.Vmaskmovps or Mnemonic.Vmaskmovpd or Mnemonic.Vpmaskmovd or Mnemonic.Vpmaskmovq
        || Enumerable.Range(0, code.ToOpCode().OpCount).Any(i => code.ToOpCode().GetOpKind(i).ToString().StartsWith("mem_vsib", StringComparison.Ordinal));

    private static IEnumerable<Code> Missing => CoreInstructions.All.Where(c => VectorTable.Instance[c] == null);

    [Fact]
    public void Moves_logic_packed_integers_text_and_cryptography_have_cores() => Missing.Where(c => !IsX87(c) && !IsFloat(c) && !IsHandled(c)).Should().BeEmpty();

    [Fact]
    public void Floating_point_arithmetic_has_cores() => Missing.Where(IsFloat).Should().BeEmpty();

    [Fact]
    public void X87_instructions_have_cores() => Missing.Where(c => IsX87(c) && !IsHandled(c)).Should().BeEmpty();
}
