using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using Iced.Intel;
using Kvm.Emulator.Vector;
using Xunit.Abstractions;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>
/// Every x87 instruction, computed by the host's x87 unit and in C#: registers, tags, status word, memory and flags are the same to the last bit, except of
/// <see cref="X87Tolerance">transcendental functions</see>.
/// </summary>
public sealed unsafe class X87CoreTests(ITestOutputHelper output)
{
    private const int digestCases = 2_000;
    private static readonly Code[] codes = [.. CoreInstructions.All.Where(c => CoreCoverage.IsX87(c) && VectorTable.Instance[c] != null)];

    public static TheoryData<Code> Codes => [.. codes];

    private static void Prepare(CoreComparison comparison, Code code, int form, int forms, ref CaseRandom random) =>
        X87Cases.Prepare(comparison.State, comparison.Area, forms == 1 ? 1 : form, X87Forms.MemoryBytes(code), X87Forms.IsInteger(code), ref random);

    [SkippableTheory]
    [MemberData(nameof(Codes))]
    public void The_C_sharp_core_gives_what_the_host_gives(Code code)
    {
        Skip.If(X87Tolerance.DiffersBetweenVendors(code) && !X87Tolerance.HostIsAmd, "the C# core follows AMD's processors here");
        using var comparison = new CoreComparison();
        if (X87Tolerance.IsTranscendental(code))
            comparison.Tolerate = X87Tolerance.LastBit;
        long cases = CoreComparison.Cases(4_000, codes.Length), different = 0;
        Instruction[] forms = X87Forms.Of(code);
        var random = new CaseRandom(CoreComparison.Seed + (ulong)code);
        string? first = null;
        for (int form = 0; form < forms.Length; form++)
        {
            Skip.IfNot(comparison.Select(forms[form]), "the host does not have it");
            for (long i = 0; i < cases / forms.Length; i++)
            {
                Prepare(comparison, code, form, forms.Length, ref random);
                if (!X87Tolerance.HostIsAmd)
                    *(ushort*)(comparison.State->Fx + VectorUnit.FxControl) |= 0x3f;
                if (comparison.Run())
                    continue;
                different++;
                first ??= comparison.Difference();
            }
        }
        output.WriteLine($"{code}: {cases} cases, {different} different, seed {CoreComparison.Seed:x}");
        different.Should().Be(0, "{0}", first);
    }

    /// <summary>All x87 instructions but those that load and store the unit's state, which have handlers.</summary>
    [Fact]
    public void Every_instruction_has_a_core() => CoreInstructions.All.Where(c => CoreCoverage.IsX87(c) && VectorTable.Instance[c] == null && !X87Forms.IsStateTransfer(c)).Should().BeEmpty();

    private static string DigestFile([CallerFilePath] string here = "") => Path.Combine(Path.GetDirectoryName(here)!, "Data", "x87-digests.txt");

    /// <summary>Where there is no x87 unit to compare with: what was the same as an x87 unit's results is still what comes out.</summary>
    [Fact]
    public void The_results_are_those_that_were_compared()
    {
        using var comparison = new CoreComparison();
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"# digests of the C# cores' results in {digestCases} cases of each instruction; written by the tests with KVM_REGENERATE=1\n");
        foreach (Code code in codes)
            text.Append(CultureInfo.InvariantCulture, $"{code} {Digest(comparison, code):x16}\n");
        if (Environment.GetEnvironmentVariable("KVM_REGENERATE") == "1")
            File.WriteAllText(DigestFile(), text.ToString());
        File.ReadAllText(DigestFile()).Should().Be(text.ToString(), "a change must first be shown equal to an x87 unit");
    }

    private static ulong Digest(CoreComparison comparison, Code code)
    {
        Instruction[] forms = X87Forms.Of(code);
        var random = new CaseRandom(CoreComparison.Seed + (ulong)code);
        ulong digest = 0xcbf29ce484222325;
        for (int form = 0; form < forms.Length; form++)
        {
            comparison.Select(forms[form]);
            for (int i = 0; i < digestCases / forms.Length; i++)
            {
                Prepare(comparison, code, form, forms.Length, ref random);
                digest = comparison.RunManaged(digest);
            }
        }
        return digest;
    }
}
