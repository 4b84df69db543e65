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

    /// <summary>The sample checks what it says; here only that it says it all.</summary>
    [Theory]
    [InlineData("intel", 34, "VMXON faults in one processor: KVM_CREATE_VM gives -EBUSY", "free_pml", "out_vmcs")]
    [InlineData("amd", 33, "Another hypervisor uses SVM in one processor: KVM_CREATE_VM gives -EBUSY", "error_free_vmsa_page")]
    public void Lifecycle_tells_everything_and_all_of_it_holds(string cpu, int labels, params string[] words)
    {
        ToolRun run = ToolRun.Program(Path.Combine(AppContext.BaseDirectory, "Lifecycle.dll"), null, cpu);
        run.ExitCode.Should().Be(0, run.Output + run.Errors);
        string[] lines = run.Output.Split('\n');
        lines.Should().NotContain(l => l.StartsWith("NOT", StringComparison.Ordinal));
        lines.Count(l => l.StartsWith("ok    ", StringComparison.Ordinal)).Should().Be(labels, "each label that can be reached is one line");
        foreach (string word in words) run.Output.Should().Contain(word);
        foreach (string chapter in (string[])
        [
            "--- The module is loaded, but virtualization is switched on by the first VM and off by the last", "--- A BIOS that disabled virtualization: the module refuses to load",
            "--- Processors that differ: the module refuses to load", "--- A processor goes and comes back", "--- The computer sleeps and wakes up",
            $"--- insmod kvm_{cpu}: every unwinding label", "--- KVM_CREATE_VM: every unwinding label", "--- KVM_CREATE_VCPU: every unwinding label",
        ])
            lines.Should().Contain(chapter);
    }

    [Fact]
    public void Lifecycle_knows_two_vendors()
    {
        ToolRun run = ToolRun.Program(Path.Combine(AppContext.BaseDirectory, "Lifecycle.dll"), null, "cyrix");
        run.ExitCode.Should().Be(2);
        run.Errors.Should().StartWith("usage: ");
    }

    private static string Output(string kernel, Action<Kvm.Client.IKvmBackend, TextWriter> sample)
    {
        Kernels.Open(kernel).Dispose(); // skips where there is none
        var output = new StringWriter { NewLine = "\n" };
        sample(Kernels.Backend(kernel), output);
        return output.ToString();
    }
}
