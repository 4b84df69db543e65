using Kvm.Client.Tests;
using LongMode;
using Quickstart;

namespace Kvm.Tool.Tests;

/// <summary>The samples, unchanged, on every kernel there is.</summary>
public class SampleTests
{
    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void Quickstart_adds_and_halts(string kernel) =>
        Output(kernel, AddingGuest.Run).Should().Be("4\n(halted)\n");

    [SkippableTheory, MemberData(nameof(All))]
    public void LongMode_handles_its_exception(string kernel) =>
        Output(kernel, LongModeGuest.Run).Should().Be("hello from 64-bit mode\ncaught a divide error\nand back\n(halted in long mode)\n");

    private static string Output(string kernel, Action<Kvm.Client.IKvmBackend, TextWriter> sample)
    {
        Kernels.Open(kernel).Dispose(); // skips where there is none
        var output = new StringWriter { NewLine = "\n" };
        sample(Kernels.Backend(kernel), output);
        return output.ToString();
    }
}
