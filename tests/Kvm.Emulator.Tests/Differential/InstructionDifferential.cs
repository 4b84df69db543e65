using System.Globalization;
using System.Text;
using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using Xunit.Abstractions;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>
/// Every instruction form that can run in user mode gives on the emulated processor what it gives on the host's: registers, flags, memory, exceptions.
/// KVM_TEST_CASES sets the number of cases, KVM_TEST_SEED the first seed; KVM_TEST_FORM limits them to codes whose name starts so.
/// </summary>
[Collection("host signals")]
public sealed unsafe class InstructionDifferential(ITestOutputHelper output)
{
    private const int defaultCases = 200_000;

    private static int Setting(string name, int otherwise) => int.TryParse(Environment.GetEnvironmentVariable(name), CultureInfo.InvariantCulture, out int value) ? value : otherwise;

    [SkippableTheory]
    [InlineData(VectorEngine.Auto)]
    [InlineData(VectorEngine.Managed)]
    public void Every_form_matches_the_host(VectorEngine engine)
    {
        Skip.If(NativeProcessor.Missing is not null, NativeProcessor.Missing);
        int cases = Setting("KVM_TEST_CASES", defaultCases), seed = Setting("KVM_TEST_SEED", 20261121);
        string only = Environment.GetEnvironmentVariable("KVM_TEST_FORM") ?? "";
        Code[] forms = [.. Enum.GetValues<Code>().Where(c => CoverageCatalog.Of(c) == Coverage.Differential && HostRuns(c) && c.ToString().StartsWith(only, StringComparison.OrdinalIgnoreCase)
            && (engine == VectorEngine.Auto || (VectorTable.Instance[c] != null && ComparableManaged(c))))];
        using var native = new NativeProcessor();
        using var guest = new GuestMachine(Model, vectorEngine: engine);
        guest.Start(64, [0xf4]);
        var failures = new StringBuilder();
        int failed = 0, done = 0;
        for (long i = 0; done < cases && failed < 40 && forms.Length > 0; i++)
        {
            Code code = forms[i % forms.Length];
            int caseSeed = unchecked(seed + (int)(i * 7919));
            if (OneCase.Make(code, caseSeed) is not { } c)
                continue;
            done++;
            if (c.Compare(native, guest) is { } difference)
            {
                failed++;
                failures.Append(CultureInfo.InvariantCulture, $"{code} seed {caseSeed}: {c.Text}: {difference}\n");
                if (failed <= 5)
                    failures.Append(CultureInfo.InvariantCulture, $"    shrunk: {Shrunk(OneCase.Make(code, caseSeed)!.Program(), native, guest)}\n");
            }
        }
        output.WriteLine($"{done} cases of {forms.Length} forms, seed {seed}, {engine}: {failed} differences");
        failures.ToString().Should().BeEmpty();
    }

    private static string Shrunk(ProgramCase program, NativeProcessor native, GuestMachine guest)
    {
        var judge = new HostJudge(native, guest);
        return Shrinking.Check(FsCheck.Fluent.Arb.From(FsCheck.Fluent.Gen.Constant(program), new ProgramShrinker(judge.Advance).Shrink), p => judge.Difference(p) == null, 1, 1) is { } r
            ? $"{r.Shrunk}: {judge.Difference(r.Shrunk)}" : "not repeatable";
    }

    /// <summary>The host's vendor decides what the manuals leave to the vendors.</summary>
    internal static readonly CpuModel Model = EverythingOf(HostIsAmd ? "bochs-ryzen" : "bochs-skylake-x");

    private static bool HostIsAmd => System.Runtime.Intrinsics.X86.X86Base.CpuId(0, 0) is var (_, ebx, _, _) && ebx == 0x68747541;

    private static CpuModel EverythingOf(string name) => CpuModel.Load(name)
        .WithCpuid(1, 0, new CpuidLeaf(0, 0, 1 | 1 << 1 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 29, 0))
        .WithCpuid(7, 0, new CpuidLeaf(0, 1 << 3 | 1 << 5 | 1 << 8 | 1 << 19 | 1 << 29, 1 << 8 | 1 << 9 | 1 << 10, 0))
        .WithCpuid(0x80000001, 0, new CpuidLeaf(0, 0, 1 << 5 | 1 << 6, 0));

    internal static bool HostRuns(Code code)
    {
        foreach (CpuidFeature feature in code.CpuidFeatures())
        {
            if (!Kvm.Emulator.Engine.OpcodeFeatures.Announced(Model)[(int)feature] || !Features.Host(feature))
                return false;
        }
        return true;
    }

    /// <summary>Not those whose result is an approximation that differs between processors.</summary>
    private static bool ComparableManaged(Code code) => code.Mnemonic() is not (Mnemonic.Rcpps or Mnemonic.Rcpss or Mnemonic.Rsqrtps or Mnemonic.Rsqrtss or Mnemonic.Vrcpps or Mnemonic.Vrcpss
        or Mnemonic.Vrsqrtps or Mnemonic.Vrsqrtss or Mnemonic.F2xm1 or Mnemonic.Fyl2x or Mnemonic.Fyl2xp1 or Mnemonic.Fptan or Mnemonic.Fpatan or Mnemonic.Fsin or Mnemonic.Fcos or Mnemonic.Fsincos);
}
