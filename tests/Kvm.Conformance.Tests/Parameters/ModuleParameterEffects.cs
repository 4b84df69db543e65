using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Vmx;
using Kvm.Conformance.Tests.House;
using Kvm.Conformance.Tests.Sessions;
using Kvm.Core;

namespace Kvm.Conformance.Tests.Parameters;

/// <summary>Every parameter of the three modules, and the tests that show what it does or the divergence that says why nothing does.</summary>
public sealed class ModuleParameterEffects
{
    private const string kvm = "Kvm.Conformance.Tests/Parameters/KvmEffects.cs", intel = "Kvm.Conformance.Tests/Parameters/KvmIntelEffects.cs",
        amd = "Kvm.Conformance.Tests/Parameters/KvmAmdEffects.cs", running = "Kvm.Arch.X86.Vmx.Tests/Running.cs", capabilities = "Kvm.Arch.X86.Vmx.Tests/Capabilities.cs";

    /// <summary>A file below tests/ in which the parameter is named, or "D-…: why".</summary>
    private static readonly Dictionary<string, string> rows = new()
    {
        ["kvm.halt_poll_ns"] = kvm,
        ["kvm.halt_poll_ns_grow"] = kvm,
        ["kvm.halt_poll_ns_grow_start"] = kvm,
        ["kvm.halt_poll_ns_shrink"] = kvm,
        ["kvm.ignore_msrs"] = kvm,
        ["kvm.report_ignored_msrs"] = kvm,
        ["kvm.min_timer_period_us"] = kvm,
        ["kvm.kvmclock_periodic_sync"] = "D-X86-8: no clock correction to hand on",
        ["kvm.tsc_tolerance_ppm"] = kvm,
        ["kvm.lapic_timer_advance_ns"] = kvm,
        ["kvm.vector_hashing"] = kvm,
        ["kvm.enable_vmware_backdoor"] = kvm,
        ["kvm.force_emulation_prefix"] = kvm,
        ["kvm.pi_inject_timer"] = kvm,
        ["kvm.enable_pmu"] = kvm,
        ["kvm.eager_page_split"] = kvm,
        ["kvm.mitigate_smt_rsb"] = kvm,
        ["kvm.nx_huge_pages"] = kvm,
        ["kvm.nx_huge_pages_recovery_ratio"] = "D-X86-3: no recovery thread",
        ["kvm.nx_huge_pages_recovery_period_ms"] = "D-X86-3: no recovery thread",
        ["kvm.flush_on_reuse"] = kvm,
        ["kvm.tdp_mmu"] = kvm,
        ["kvm.mmio_caching"] = kvm,

        ["kvm_intel.vpid"] = intel,
        ["kvm_intel.vnmi"] = intel,
        ["kvm_intel.flexpriority"] = intel,
        ["kvm_intel.ept"] = intel,
        ["kvm_intel.unrestricted_guest"] = intel,
        ["kvm_intel.eptad"] = running,
        ["kvm_intel.emulate_invalid_guest_state"] = intel,
        ["kvm_intel.fasteoi"] = intel,
        ["kvm_intel.enable_apicv"] = intel,
        ["kvm_intel.enable_ipiv"] = "D-HW-3: no processor model has IPI virtualization",
        ["kvm_intel.nested"] = "Kvm.Arch.X86.Vmx.Tests/InitVmcs.cs",
        ["kvm_intel.enable_shadow_vmcs"] = "Kvm.Arch.X86.Vmx.Tests/InitVmcs.cs",
        ["kvm_intel.pml"] = running,
        ["kvm_intel.error_on_inconsistent_vmcs_config"] = capabilities,
        ["kvm_intel.dump_invalid_vmcs"] = running,
        ["kvm_intel.preemption_timer"] = running,
        ["kvm_intel.allow_smaller_maxphyaddr"] = intel,
        ["kvm_intel.nested_early_check"] = "D-VMX-1: guests of guests do not run",
        ["kvm_intel.sgx"] = "D-HW-3: no processor model has SGX",
        ["kvm_intel.enlightened_vmcs"] = "D-VMX-1: only under Hyper-V, for guests of guests",
        ["kvm_intel.ple_gap"] = intel,
        ["kvm_intel.ple_window"] = intel,
        ["kvm_intel.ple_window_grow"] = intel,
        ["kvm_intel.ple_window_shrink"] = intel,
        ["kvm_intel.ple_window_max"] = intel,
        ["kvm_intel.vmentry_l1d_flush"] = intel,

        ["kvm_amd.avic"] = "D-VMX-8: no processor model has AVIC",
        ["kvm_amd.force_avic"] = amd,
        ["kvm_amd.dump_invalid_vmcb"] = "Kvm.Arch.X86.Svm.Tests/Runs.cs",
        ["kvm_amd.intercept_smi"] = amd,
        ["kvm_amd.lbrv"] = amd,
        ["kvm_amd.nested"] = amd,
        ["kvm_amd.npt"] = amd,
        ["kvm_amd.nrips"] = amd,
        ["kvm_amd.pause_filter_count"] = amd,
        ["kvm_amd.pause_filter_count_grow"] = amd,
        ["kvm_amd.pause_filter_count_max"] = amd,
        ["kvm_amd.pause_filter_count_shrink"] = amd,
        ["kvm_amd.pause_filter_thresh"] = amd,
        ["kvm_amd.tsc_scaling"] = amd,
        ["kvm_amd.vgif"] = amd,
        ["kvm_amd.vls"] = amd,
    };

    [Fact]
    public void Every_parameter_has_a_row_and_every_row_a_parameter()
    {
        using var host = new ModelHost("intel");
        HostModule[] modules = [host.Kvm, new KvmIntel(host.Arch), new KvmAmd(host.Arch)];
        modules.SelectMany(static m => m.Parameters.All.Select(p => $"{m.Name}.{p.Name}")).Should().BeEquivalentTo(rows.Keys);
    }

    [Fact]
    public void Every_row_is_true()
    {
        string divergences = File.ReadAllText(Repository.PathOf("docs", "DIVERGENCES.md"));
        foreach ((string parameter, string row) in rows)
        {
            if (row.StartsWith("D-", StringComparison.Ordinal))
                divergences.Should().Contain($"| {row[..row.IndexOf(':')]} |", parameter);
            else
                File.ReadAllText(Repository.PathOf(["tests", .. row.Split('/')])).Should().Contain(parameter[(parameter.IndexOf('.') + 1)..], row);
        }
    }
}
