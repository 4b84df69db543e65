using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using Iced.Intel;
using Kvm.Emulator.Engine;
using Kvm.Emulator.Vector;
using Xunit.Abstractions;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Moves, logic, packed integers, shuffles, text and cryptography: the C# cores give what the host processor gives.</summary>
public sealed unsafe class IntegerCores(ITestOutputHelper output)
{
    /// <summary>What the cores of these tests are: neither x87 nor floating-point arithmetic.</summary>
    internal static bool IsOurs(Code code) => !CoreCoverage.IsX87(code) && !CoreCoverage.IsFloat(code);

    private static readonly Code[] codes = [.. CoreInstructions.All.Where(c => IsOurs(c) && VectorTable.Instance[c] != null)];

    /// <summary>Sets of CPUID features that instructions name.</summary>
    public static TheoryData<string> Features => [.. codes.Select(Feature).Distinct()];

    private static string Feature(Code code) => string.Join('+', code.CpuidFeatures());

    [SkippableTheory]
    [MemberData(nameof(Features))]
    public void Give_the_host_processors_results(string feature)
    {
        Code[] those = [.. codes.Where(c => Feature(c) == feature && HostStubs.HostHas(c) && HostStubs.IsPlain(c.Mnemonic()))];
        Skip.If(those.Length == 0, $"the host does not execute {feature}");
        long cases = CoreComparison.Cases(1000, codes.Length);
        using var comparison = new CoreComparison();
        var differences = new StringBuilder();
        var wrong = new List<Code>();
        foreach (Code code in those)
        {
            if (Same(comparison, code, cases))
                continue;
            wrong.Add(code);
            if (wrong.Count <= 3)
                differences.Append(comparison.Difference());
        }
        output.WriteLine($"{feature}: {those.Length} instructions, {cases} cases each, {wrong.Count} different");
        wrong.Should().BeEmpty("the host gives\n{0}", differences);
    }

    private const int digestCases = 320;

    private static string DigestFile([CallerFilePath] string here = "") => Path.Combine(Path.GetDirectoryName(here)!, "Data", "integer-digests.txt");

    // What was shown equal to an x86 processor stays so, also where there is none to ask.
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
        File.ReadAllText(DigestFile()).Should().Be(text.ToString(), "a change must first be shown equal to a processor");
    }

    private static ulong Digest(CoreComparison comparison, Code code)
    {
        ulong digest = 0xcbf29ce484222325;
        Each(comparison, code, digestCases, host: false, () =>
        {
            digest = comparison.RunManagedWhole(digest);
            return true;
        });
        return digest;
    }

    // The one core without a host function to compare with: that would be right in 64-bit mode only.
    [Theory]
    [InlineData(Code.VEX_Vzeroupper, CodeMode.Code64, 16)]
    [InlineData(Code.VEX_Vzeroupper, CodeMode.Code32, 8)]
    [InlineData(Code.VEX_Vzeroall, CodeMode.Code64, 16)]
    [InlineData(Code.VEX_Vzeroall, CodeMode.Code32, 8)]
    public void VZEROUPPER_and_VZEROALL_leave_registers_that_the_mode_does_not_have(Code code, CodeMode mode, int registers)
    {
        var state = new CpuState { Mode = (uint)mode };
        Op op = default;
        new Span<byte>(state.Fx, 512).Fill(1);
        new Span<byte>(state.YmmHi, 256).Fill(1);
        VectorTable.Instance[code](&state, &op, null);
        new Span<byte>(state.YmmHi, 256).IndexOf((byte)1).Should().Be(registers == 16 ? -1 : registers * 16);
        new Span<byte>(VectorUnit.Xmm(&state, 0), 256).IndexOf((byte)1).Should().Be(code == Code.VEX_Vzeroupper ? 0 : registers == 16 ? -1 : registers * 16);
        new Span<byte>(state.Fx, VectorUnit.FxXmm).IndexOf((byte)0).Should().Be(-1, "the rest of the image stays");
    }

    private static bool Same(CoreComparison comparison, Code code, long cases) => Each(comparison, code, cases, host: true, comparison.Run);

    /// <summary>False as soon as a case gives false, or when there is no function of the host's that <paramref name="host"/> needs.</summary>
    private static bool Each(CoreComparison comparison, Code code, long cases, bool host, Func<bool> one)
    {
        var random = new CoreOperands(CoreComparison.Seed + (ulong)code);
        // Each immediate is a function of its own, and memory for them is limited: the forms stay few however many the cases are.
        int forms = CoreInstructions.HasImmediate(code) ? 320 : 32;
        for (int form = 0; form < forms; form++)
        {
            if (!comparison.Select(CoreInstructions.Create(code, form, random)) && host)
                return false;
            bool legacy = (comparison.Traits & VectorFlags.Mmx) != 0;
            for (long left = cases * (form + 1) / forms - cases * form / forms; left > 0; left--)
            {
                random.Fill(comparison.State, comparison.Area, legacy);
                if (!one())
                    return false;
            }
        }
        return true;
    }
}
