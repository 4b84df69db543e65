using Iced.Intel;
using Kvm.Emulator.Vector;
using Xunit.Abstractions;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Every x87 instruction, computed by the host's x87 unit and in C#: registers, tags, status word and memory are the same to the last bit.</summary>
public sealed unsafe class X87CoreTests(ITestOutputHelper output)
{
    private static readonly Code[] codes = [.. Enum.GetValues<Code>().Where(IsX87)];

    public static TheoryData<Code> Codes => [.. codes];

    private static bool IsX87(Code code) => VectorTable.Instance[code] != null
        && code.CpuidFeatures().Any(f => f is CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387);

    [Theory]
    [MemberData(nameof(Codes))]
    public void The_C_sharp_core_gives_what_the_host_gives(Code code)
    {
        using var comparison = new CoreComparison();
        long cases = CoreComparison.Cases(4_000, codes.Length), different = 0;
        Instruction[] forms = X87Forms.Of(code);
        var random = new CaseRandom(CoreComparison.Seed + (ulong)code);
        string? first = null;
        for (int form = 0; form < forms.Length; form++)
        {
            if (!comparison.Select(forms[form]))
                return; // not on this host
            int register = forms.Length == 1 ? 1 : form;
            for (long i = 0; i < cases / forms.Length; i++)
            {
                X87Cases.Prepare(comparison.State, comparison.Area, register, X87Forms.MemoryBytes(code), X87Forms.IsInteger(code), ref random);
                if (comparison.Run())
                    continue;
                different++;
                first ??= comparison.Difference();
            }
        }
        output.WriteLine($"{code}: {cases} cases, {different} different");
        different.Should().Be(0, "{0}", first);
    }
}
