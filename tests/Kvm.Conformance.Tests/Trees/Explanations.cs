using System.Text.RegularExpressions;

namespace Kvm.Conformance.Tests.Trees;

/// <summary>Why a recorded call is not in the model's tree, or not at its place.</summary>
internal static partial class Explanations
{
    /// <summary>The reason, or null. <paramref name="path"/> is the call with its callers.</summary>
    public static string? Of(RecordedTree tree, string path)
    {
        if (tree.Step.Contains("touch-kvm_run", StringComparison.Ordinal))
            return "D-CORE-1: the pages of a vCPU are mapped by mmap";
        if (Interrupted(tree) && SecondRound().IsMatch(path))
            return "the recorded thread was interrupted or preempted, and went round the loop of KVM_RUN once more";
        foreach ((Regex pattern, string reason) in Reasons)
        {
            if (pattern.IsMatch(path))
                return reason;
        }
        return null;
    }

    private static bool Interrupted(RecordedTree tree)
    {
        IEnumerable<string> names = tree.Own.SelectMany(static c => c.Flatten()).Select(static c => c.Name);
        return names.Intersect(["xfer_to_guest_mode_handle_work", "kvm_sched_out", "clockevents_program_event"]).Any();
    }

    internal static (Regex Pattern, string Reason)[] Reasons { get; } =
    [
        (JumpLabel(), "the kernel patches its own code when a static key changes, and interrupts each CPU for it"),
        (Worker(), "the thread that gives split large pages back has nothing to do and is not started"),
        (TableWalk(), "the recorded walk of the page tables gave way to another thread and began again"),
        (GuestTime(), "a work item updated the guest's clocks 100 ms after the vCPU's first entry, which was between these calls"),
        (FromTheFirst(), "memory of the host is there at once, and found without the lock of its mappings"),
        (SplitFunction(), "the compiler made the first lines of vmx_set_efer part of its caller"),
        (Bypass(), "no device's interrupts could go past the host"),
        (Readers(), "readers that cannot be there are not waited for"),
    ];

    [GeneratedRegex("(preempt_notifier_(inc|dec)|kvm_arch_vcpu_(create|destroy)|kvm_create_lapic) > on_each_cpu_cond_mask( > smp_call_function_many_cond)?$")]
    private static partial Regex JumpLabel();

    [GeneratedRegex("^kvm_vm_worker_thread")]
    private static partial Regex Worker();

    [GeneratedRegex("kvm_arch_vcpu_ioctl_run > (kvm_cpu_has_pending_timer|xfer_to_guest_mode_handle_work|(vmx|svm)_cancel_injection( > .*)?|record_steal_time|kvm_service_local_tlb_flush_requests|(vmx|svm)_(prepare_switch_to_guest|vcpu_run|handle_exit_irqoff|handle_exit)(?! > (handle_|svm_invoke_exit_handler > ))( > .*)?)$")]
    private static partial Regex SecondRound();

    [GeneratedRegex("kvm_mmu_slot_\\w+ > .*tdp_iter_\\w+( > tdp_iter_restart)?$")]
    private static partial Regex TableWalk();

    [GeneratedRegex("kvm_arch_vcpu_ioctl_run > kvm_guest_time_update")]
    private static partial Regex GuestTime();

    [GeneratedRegex("hva_to_pfn > get_user_pages_unlocked$")]
    private static partial Regex FromTheFirst();

    [GeneratedRegex("vmx_set_cr0 > kvm_find_user_return_msr$")]
    private static partial Regex SplitFunction();

    [GeneratedRegex("kvm_irqfd > (kvm_arch_has_irq_bypass|try_module_get)$")]
    private static partial Regex Bypass();

    [GeneratedRegex("kvm_mmu_uninit_tdp_mmu > smp_call_function_single$")]
    private static partial Regex Readers();
}
