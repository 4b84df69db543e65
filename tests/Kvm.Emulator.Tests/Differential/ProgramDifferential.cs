using System.Globalization;
using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Xunit.Abstractions;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>
/// Programs of up to twelve instructions give on the emulated processor what they give on the host's, each instruction on what the ones before it left.
/// FsCheck makes them, and a failure is shrunk until nothing can be left out. KVM_TEST_PROGRAMS sets their number, KVM_TEST_SEED the seed.
/// </summary>
[Collection("host signals")]
public sealed class ProgramDifferential(ITestOutputHelper output)
{
    private const int defaultPrograms = 5_000;

    [SkippableFact]
    public void Programs_match_the_host()
    {
        Skip.If(NativeProcessor.Missing is not null, NativeProcessor.Missing);
        int programs = Setting("KVM_TEST_PROGRAMS", defaultPrograms), seed = Setting("KVM_TEST_SEED", 20261121);
        Code[] forms = [.. CaseGeneration.Forms.Where(InstructionDifferential.HostRuns)];
        using var native = new NativeProcessor();
        using var guest = new GuestMachine(InstructionDifferential.Model);
        guest.Start(64, [0xf4]);
        var judge = new HostJudge(native, guest);
        var found = Shrinking.Check(ProgramGenerator.Programs(forms, new ProgramShrinker(judge.Advance)), p => judge.Difference(p) == null, programs, (ulong)seed);
        output.WriteLine($"{programs} programs of {forms.Length} forms, seed {seed}");
        (found is { } f ? $"{f.Shrunk}: {judge.Difference(f.Shrunk)}\nfrom {f.Found}" : null).Should().BeNull();
    }

    private static int Setting(string name, int otherwise) => int.TryParse(Environment.GetEnvironmentVariable(name), CultureInfo.InvariantCulture, out int value) ? value : otherwise;
}
