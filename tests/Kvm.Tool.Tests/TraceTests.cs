using System.Text.RegularExpressions;

namespace Kvm.Tool.Tests;

/// <summary><c>kvm trace</c>: the text of ftrace's function graph, with the functions and the nesting that were recorded on real kernels.</summary>
public partial class TraceTests
{
    /// <summary>What the recorded trees have, outermost first; two spaces a level.</summary>
    public static TheoryData<string, string, string[]> Paths => new()
    {
        {
            "create-vm", "intel",
            [
                "kvm_dev_ioctl [kvm]", "  kvm_arch_init_vm [kvm]", "    kvm_mmu_init_vm [kvm]", "    vmx_vm_init [kvm_intel]", "    set_or_clear_apicv_inhibit [kvm]",
                "  on_each_cpu_cond_mask", "    smp_call_function_many_cond", "      hardware_enable_nolock [kvm]", "        kvm_arch_hardware_enable [kvm]",
                "          vmx_hardware_enable [kvm_intel]", "hardware_enable_nolock [kvm]", "    vmx_hardware_enable [kvm_intel]", "  kvm_coalesced_mmio_init [kvm]",
                "    kvm_mmu_post_init_vm [kvm]", "  anon_inode_getfile", "  fd_install",
            ]
        },
        {
            "create-vm", "amd",
            [
                "kvm_dev_ioctl [kvm]", "  kvm_arch_init_vm [kvm]", "    svm_vm_init [kvm_amd]", "      hardware_enable_nolock [kvm]", "          svm_hardware_enable [kvm_amd]",
                "            has_svm [kvm_amd]", "hardware_enable_nolock [kvm]", "    svm_hardware_enable [kvm_amd]", "  kvm_coalesced_mmio_init [kvm]", "  fd_install",
            ]
        },
        {
            "create-vcpu", "intel",
            [
                "kvm_vm_ioctl [kvm]", "  kvm_arch_vcpu_precreate [kvm]", "    vmx_vcpu_precreate [kvm_intel]", "  kvm_arch_vcpu_create [kvm]", "    kvm_mmu_create [kvm]",
                "    vmx_vcpu_create [kvm_intel]", "      alloc_loaded_vmcs [kvm_intel]", "        alloc_vmcs_cpu [kvm_intel]", "    vcpu_load [kvm]",
                "          vmx_vcpu_load_vmcs [kvm_intel]", "    kvm_vcpu_reset [kvm]", "      vmx_vcpu_reset [kvm_intel]", "        init_vmcs [kvm_intel]", "    vcpu_put [kvm]",
                "  anon_inode_getfd", "  kvm_arch_vcpu_postcreate [kvm]", "    kvm_synchronize_tsc [kvm]",
            ]
        },
        {
            "create-vcpu", "amd",
            [
                "kvm_vm_ioctl [kvm]", "  kvm_arch_vcpu_create [kvm]", "    svm_vcpu_create [kvm_amd]", "      svm_vcpu_alloc_msrpm [kvm_amd]", "    vcpu_load [kvm]",
                "        svm_vcpu_load [kvm_amd]", "    kvm_vcpu_reset [kvm]", "      svm_vcpu_reset [kvm_amd]", "  anon_inode_getfd",
            ]
        },
        {
            "run", "intel",
            [
                "kvm_vcpu_ioctl [kvm]", "  kvm_arch_vcpu_ioctl_run [kvm]", "    vcpu_load [kvm]", "    kvm_mmu_load [kvm]", "    vmx_vcpu_run [kvm_intel]",
                "    vmx_handle_exit [kvm_intel]", "      handle_ept_violation [kvm_intel]", "              kvm_tdp_mmu_map [kvm]", "                tdp_iter_start [kvm]",
                "    vmx_vcpu_run [kvm_intel]", "      kvm_emulate_cpuid [kvm]", "    vmx_vcpu_run [kvm_intel]", "      handle_io [kvm_intel]", "        kvm_fast_pio [kvm]",
                "    vcpu_put [kvm]",
            ]
        },
        {
            "run", "amd",
            [
                "kvm_vcpu_ioctl [kvm]", "  kvm_arch_vcpu_ioctl_run [kvm]", "    vcpu_load [kvm]", "    kvm_mmu_load [kvm]", "    svm_vcpu_run [kvm_amd]",
                "    svm_handle_exit [kvm_amd]", "      svm_invoke_exit_handler [kvm_amd]", "        npf_interception [kvm_amd]", "                kvm_tdp_mmu_map [kvm]",
                "    svm_vcpu_run [kvm_amd]", "        kvm_emulate_cpuid [kvm]", "    svm_vcpu_run [kvm_amd]", "        io_interception [kvm_amd]", "          kvm_fast_pio [kvm]",
                "    vcpu_put [kvm]",
            ]
        },
    };

    [Theory, MemberData(nameof(Paths))]
    public void Path_is_the_recorded_one(string call, string cpu, string[] functions)
    {
        ToolRun run = ToolRun.Of("trace", call, "--cpu", cpu);
        run.ExitCode.Should().Be(ExitCode.Success, run.Errors);
        string[] calls = [.. Lines(run.Output).Select(l => Call().Match(l).Groups["call"].Value)];
        int at = 0;
        foreach (string function in functions)
        {
            int found = Array.FindIndex(calls, at, c => c == function);
            found.Should().BeGreaterThanOrEqualTo(0, "{0} comes after line {1}", function, at);
            at = found + 1;
        }

        Lines(run.Output)[0].Should().Contain(functions[0]);
        run.Output.Should().NotContain("kvm_vcpu_mmap", "the ioctl only");
    }

    [Theory]
    [InlineData("create-vm", "intel")]
    [InlineData("create-vcpu", "amd")]
    [InlineData("run", "intel")]
    public void Text_is_that_of_ftrace(string call, string cpu)
    {
        ToolRun run = ToolRun.Of("trace", call, "--cpu", cpu);
        run.Output.Should().StartWith("# tracer: function_graph\n#\n# CPU  DURATION                  FUNCTION CALLS\n# |     |   |                     |   |   |   |\n");
        var depth = new int[2];
        foreach (string line in Lines(run.Output))
        {
            Match match = Graph().Match(line);
            match.Success.Should().BeTrue("{0} is a line of function_graph", line);
            int cpuNumber = int.Parse(match.Groups["cpu"].Value, System.Globalization.CultureInfo.InvariantCulture);
            if (match.Groups["end"].Success) depth[cpuNumber]--;
            match.Groups["indent"].Length.Should().Be(depth[cpuNumber] * 2, line);
            match.Groups["time"].Success.Should().Be(!match.Groups["begin"].Success, "a call is timed where it ends: {0}", line);
            if (match.Groups["begin"].Success) depth[cpuNumber]++;
        }

        depth.Should().OnlyContain(d => d == 0, "every call ends");
    }

    [Theory]
    [InlineData("intel", "vmx_hardware_enable [kvm_intel]")]
    [InlineData("amd", "svm_hardware_enable [kvm_amd]")]
    public void First_vm_switches_virtualization_on_on_every_processor(string cpu, string function)
    {
        ToolRun run = ToolRun.Of("trace", "create-vm", "--cpu", cpu, "--cpus", "3");
        Lines(run.Output).Where(l => l.Contains(function, StringComparison.Ordinal)).Select(l => l[..3].Trim()).Should().BeEquivalentTo("0)", "1)", "2)");
    }

    [Fact]
    public void Folded_it_has_no_times_and_equal_calls_once()
    {
        ToolRun run = ToolRun.Of("trace", "create-vm", "--fold");
        run.Output.Should().StartWith("[task ").And.Contain("  debugfs_create_file {   x60\n").And.Contain("[task idle cpu1]\n").And.NotContain(" us ");
    }

    private static string[] Lines(string output) => [.. output.TrimEnd('\n').Split('\n').Where(l => !l.StartsWith('#'))];

    [GeneratedRegex(@"\|  (?<call> *[\w.]+( \[\w+\])?)\(\)")]
    private static partial Regex Call();

    [GeneratedRegex(@"^ (?<cpu>[01])\) (?:              |[ +!#*@$] (?<time>\d+(?:\.\d+)?) us +)\|  (?<indent> *)(?:(?<end>\})|[\w.]+(?: \[kvm(?:_intel|_amd)?\])?\(\)(?:;| (?<begin>\{)))$")]
    private static partial Regex Graph();
}
