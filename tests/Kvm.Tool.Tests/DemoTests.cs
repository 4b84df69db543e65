namespace Kvm.Tool.Tests;

public class DemoTests
{
    [Theory]
    [InlineData]
    [InlineData("demo")]
    public void Demo_runs_the_embedded_guest_on_both_vendors_and_shows_the_path(params string[] arguments)
    {
        ToolRun run = ToolRun.Of(arguments);
        run.ExitCode.Should().Be(ExitCode.Success, run.Errors);
        run.Output.Should().Contain("GenuineIntel: 2+2 = 4").And.Contain("AuthenticAMD: 2+2 = 4");
        foreach (string milestone in (string[])["kvm_dev_ioctl", "vmx_hardware_enable", "init_vmcs", "handle_ept_violation", "handle_io", "svm_hardware_enable", "svm_vcpu_reset", "npf_interception", "io_interception"])
            run.Output.Should().Contain(milestone);
        run.Output.Split('\n').Length.Should().BeLessThan(100, "it is a first look");
    }

    [Fact]
    public void Doctor_finds_both_models_working()
    {
        ToolRun run = ToolRun.Of("doctor");
        run.ExitCode.Should().Be(ExitCode.Success, run.Output);
        run.Output.Should().Contain("ok    model, intel-skylake").And.Contain("ok    model, amd-zen");
    }
}
