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
        run.Output.Should().Contain("kvm_dev_ioctl [kvm]").And.Contain("[kvm_intel]").And.Contain("[kvm_amd]");
    }

    [Theory]
    [InlineData("create-vm", "intel", "kvm_dev_ioctl [kvm] {", "vmx_hardware_enable [kvm_intel]")]
    [InlineData("create-vm", "amd", "kvm_dev_ioctl [kvm] {", "svm_hardware_enable [kvm_amd]")]
    [InlineData("create-vcpu", "intel", "kvm_vm_ioctl [kvm] {", "vmx_vcpu_create [kvm_intel]")]
    [InlineData("create-vcpu", "amd", "kvm_vm_ioctl [kvm] {", "svm_vcpu_create [kvm_amd]")]
    [InlineData("run", "intel", "kvm_arch_vcpu_ioctl_run [kvm] {", "vmx_vcpu_run [kvm_intel]")]
    [InlineData("run", "amd", "kvm_arch_vcpu_ioctl_run [kvm] {", "svm_vcpu_run [kvm_amd]")]
    public void Trace_shows_the_kernel_s_functions(string call, string cpu, string outer, string inner)
    {
        ToolRun run = ToolRun.Of("trace", call, "--cpu", cpu);
        run.ExitCode.Should().Be(ExitCode.Success, run.Errors);
        run.Output.Should().Contain(outer).And.Contain(inner);
        run.Output.IndexOf(outer, StringComparison.Ordinal).Should().BeLessThan(run.Output.IndexOf(inner, StringComparison.Ordinal));
    }

    [Fact]
    public void Doctor_finds_both_models_working()
    {
        ToolRun run = ToolRun.Of("doctor");
        run.ExitCode.Should().Be(ExitCode.Success, run.Output);
        run.Output.Should().Contain("ok    model, intel-skylake").And.Contain("ok    model, amd-zen");
    }
}
