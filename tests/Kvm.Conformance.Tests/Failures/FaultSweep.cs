using System.Text.RegularExpressions;
using Kvm.Abi;
using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.Failures;

/// <summary>
/// Every point that can fail, made to fail at every one of its uses, in a session from insmod to rmmod: an errno at the step that used it, nothing changed by that
/// step, the same step works when tried again, the session ends as always, and every page comes back.
/// </summary>
public sealed partial class FaultSweep(ITestOutputHelper output)
{
    public static TheoryData<string, string> Configurations
    {
        get
        {
            var data = new TheoryData<string, string>();
            foreach ((string model, string parameters) in FaultSweeps.Configurations)
                data.Add(model, parameters);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Configurations))]
    public void Each_point_at_each_use(string model, string parameters)
    {
        IReadOnlyList<FaultOutcome> outcomes = FaultSweeps.Of(model, parameters);
        foreach (FaultOutcome outcome in outcomes)
        {
            output.WriteLine($"{outcome.Point} {outcome.Use}: {(outcome.Step is null ? "goes on" : $"{outcome.Step} {outcome.Errno}")}");
            if (outcome.Step is null)
                WhyItGoesOn(outcome.Point).Should().NotBeNull("{0} {1} failed and no step said so", outcome.Point, outcome.Use);
            else
                outcome.Errno.Should().Be(ErrnoOf(outcome.Point), "{0} failed at {1}", outcome.Point, outcome.Step);
        }

        outcomes.Count(static o => o.Step is not null).Should().BeGreaterThan(100);
    }

    /// <summary>The errno that a failure of the point gives, by what the kernel's function returns there.</summary>
    private static Errno ErrnoOf(string point) => point.Split(':')[0] switch
    {
        "get_unused_fd" => Errno.EMFILE,
        "kvm_vfio_ops_init" => Errno.EEXIST,
        _ when Processor().IsMatch(point) => Errno.EBUSY,
        _ => Errno.ENOMEM,
    };

    /// <summary>Why the kernel goes on without what it asked for; null: it must not.</summary>
    internal static string? WhyItGoesOn(string point) => point switch
    {
        "debugfs_create_dir" or "debugfs_create_file" => "debugfs is for the curious: its callers do not look at what it returns",
        "kmem_cache_zalloc:pte_list_desc" or "kmem_cache_zalloc:kvm_mmu_page_header" or "alloc_page:kvm_mmu_page" or "alloc_page:kvm_mmu_shadowed_info" => "the cache holds the objects that one fault needs: it need not be full",
        "kmalloc:kvm_io_bus" => "a bus that can't be copied without a device goes as a whole, and every device on it",
        "kvzalloc:kvm_apic_map" => "without a map an interrupt looks at every local APIC",
        "cpuhp_setup_state:x86/kvm/clk:online" => "nobody looks at what it returns: the guests' clocks then miss what happens to a processor",
        "kzalloc:invalid_slot" => "a slot of KVM's own that can't be deleted when its VM is destroyed goes with the VM, and its memory with the process",
        _ => null,
    };

    [GeneratedRegex("on CPU [01]$")]
    private static partial Regex Processor();
}
