using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using Iced.Intel;
using Kvm.Emulator.Engine;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>docs/INSTRUCTIONS.md: every instruction form Iced knows, and what shows that it works.</summary>
public sealed unsafe class InstructionList
{
    private static string Docs([CallerFilePath] string here = "") => Path.Combine(Path.GetDirectoryName(here)!, "..", "..", "..", "docs");

    [Fact]
    public void Docs_INSTRUCTIONS_is_what_the_catalogue_says()
    {
        string path = Path.Combine(Docs(), "INSTRUCTIONS.md");
        string expected = Generate();
        if (Environment.GetEnvironmentVariable("KVM_REGENERATE") == "1")
            File.WriteAllText(path, expected);
        File.ReadAllText(path).Should().Be(expected, "docs/INSTRUCTIONS.md is generated: run the tests once with KVM_REGENERATE=1");
    }

    public static TheoryData<string> Models => [.. CpuModel.Names];

    [Theory]
    [MemberData(nameof(Models))]
    public void What_a_model_announces_executes(string name)
    {
        bool[] announced = OpcodeFeatures.Announced(CpuModel.Load(name));
        Enum.GetValues<Code>()
            .Where(c => c.ToOpCode().IsInstruction && !c.ToOpCode().Fwait && c.Encoding() is EncodingKind.Legacy or EncodingKind.VEX)
            .Where(c => c.CpuidFeatures().All(f => announced[(int)f]) && !Executes(c) && !RaisesUd(c))
            .Should().BeEmpty();
    }

    /// <summary>Rows of the integer and system engine, and vector forms with a core.</summary>
    private static bool Executes(Code code) => OpcodeTable.Instance[code].Handler != null
        || (VectorTraits.IsVector(code) && (VectorTable.Instance[code] != null || HostStubs.HostHas(code)));

    /// <summary>UD0, UD1, UD2 and forms that every processor refuses.</summary>
    private static bool RaisesUd(Code code) => code.Mnemonic() is Mnemonic.Ud0 or Mnemonic.Ud1 or Mnemonic.Ud2;

    private static string Generate()
    {
        Code[] all = [.. Enum.GetValues<Code>().Where(static c => c.ToOpCode().IsInstruction)];
        var text = new StringBuilder();
        text.Append("# Instruction forms and what shows that they work\n\n");
        text.Append("Generated from Iced's list of codes (a test regenerates this page and fails on a difference).\n\n");
        text.Append("| covered by | forms | |\n|---|---|---|\n");
        foreach (Coverage coverage in Enum.GetValues<Coverage>())
            text.Append(CultureInfo.InvariantCulture, $"| {coverage} | {all.Count(c => CoverageCatalog.Of(c) == coverage)} | {Explain(coverage)} |\n");
        foreach (Coverage coverage in Enum.GetValues<Coverage>())
        {
            text.Append(CultureInfo.InvariantCulture, $"\n## {coverage}\n\n");
            if (coverage == Coverage.NotAnnounced)
            {
                text.Append("| feature | forms |\n|---|---|\n");
                foreach (var group in all.Where(static c => CoverageCatalog.Of(c) == Coverage.NotAnnounced).GroupBy(Feature).OrderBy(static g => g.Key, StringComparer.Ordinal))
                    text.Append(CultureInfo.InvariantCulture, $"| {group.Key} | {group.Count()} |\n");
                continue;
            }
            text.Append("| instruction | forms |\n|---|---|\n");
            foreach (var group in all.Where(c => CoverageCatalog.Of(c) == coverage).GroupBy(static c => c.Mnemonic()).OrderBy(static g => g.Key.ToString(), StringComparer.Ordinal))
                text.Append(CultureInfo.InvariantCulture, $"| {group.Key.ToString().ToUpperInvariant()} | {string.Join(", ", group.Select(static c => $"`{c.ToOpCode().ToInstructionString()}`").Distinct(StringComparer.Ordinal))} |\n");
        }
        return text.ToString();
    }

    private static string Feature(Code code) => string.Join(" + ", code.CpuidFeatures().Where(static f => !CoverageCatalog.Announced(f)).Select(static f => f.ToString()).DefaultIfEmpty(code.Encoding().ToString()));

    private static string Explain(Coverage coverage) => coverage switch
    {
        Coverage.Differential => "random operands, on the host's processor and on the emulated one: registers, flags, memory, exceptions (InstructionDifferential)",
        Coverage.Programs => "small programs: stack, branches, strings, implicit memory operands (StackAndBranches, StringInstructions and others); masked moves and gathers on the host's processor too (StateDifferential)",
        Coverage.System => "tests of the system side: privilege, segments, far transfers, ports, interrupts, VMX and SVM; state saving on the host's processor too (StateDifferential)",
        Coverage.Legacy => "do not exist in 64-bit code: programs in 16- and 32-bit modes (Modes, DecimalAdjustment)",
        Coverage.NotDeterministic => "results differ from run to run: tests of their own",
        Coverage.Pair => "WAIT and another instruction, which the decoder sees one after the other",
        _ => "no CPU model announces the feature; raises #UD",
    };
}
