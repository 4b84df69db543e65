using System.Text.RegularExpressions;

namespace Kvm.Conformance.Tests.House;

/// <summary>
/// The kernel's instruction emulator computes no result and no flag: the processor executes the instruction (Processor.Execute), so each instruction is written once.
/// What emulate.c does itself (which instructions, in what order, with which checks) stays its own.
/// </summary>
public partial class OneDefinition
{
    /// <summary>What a second formulation of arithmetic would need.</summary>
    [GeneratedRegex(@"BitOperations|ReverseEndianness|\bInt128|BigMul|DivRem|PopCount|Rotate(Left|Right)|LeadingZeroCount|TrailingZeroCount|X86_EFLAGS_(AF|PF|SF)\b|\bcase Mnemonic\.(Add|Adc|Sub|Sbb|And|Or|Xor|Shl|Shr|Sar|Rol|Ror|Rcl|Rcr|Neg|Not|Inc|Dec)\b")]
    private static partial Regex Formula { get; }

    /// <summary>EFLAGS_MASK names all six.</summary>
    private const string mask = "private const ulong ArithmeticFlags =";

    public static TheoryData<string> Sources => [.. Directory.GetFiles(Repository.PathOf("src", "Kvm.Arch.X86", "Emulate"), "*.cs").Select(f => Path.GetFileName(f))];

    [Theory]
    [MemberData(nameof(Sources))]
    public void The_kernels_emulator_has_no_arithmetic_of_its_own(string source)
    {
        File.ReadLines(Repository.PathOf("src", "Kvm.Arch.X86", "Emulate", source))
            .Where(l => !l.Contains(mask, StringComparison.Ordinal) && Formula.IsMatch(l)).Should().BeEmpty();
    }
}
