using System.Text.RegularExpressions;

namespace Kvm.Conformance.Tests.Trees;

/// <summary>Why a recorded call is not in the model's tree although the model has the function.</summary>
internal static partial class Explanations
{
    /// <summary>The reason, or null. <paramref name="path"/> is the call with its callers.</summary>
    public static string? Of(RecordedTree tree, string path)
    {
        if (tree.Step.Contains("touch-kvm_run", StringComparison.Ordinal))
            return "D-CORE-1: pages of a vCPU are mapped by mmap";
        if (Interrupted(tree) && SecondRound().IsMatch(path))
            return "the recorded thread was interrupted or preempted there and went round once more";
        foreach ((Regex pattern, string reason) in reasons)
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

    private static readonly (Regex Pattern, string Reason)[] reasons =
    [
        (JumpLabel(), "the kernel patches its own code when a static key changes"),
        (Preempted(), "the recorded thread was preempted"),
        (TableWalk(), "the model goes through its paging structures without the kernel's iterator"),
        (GuestTime(), "the recorded host's TSC was not a master clock: the guest's time is updated when a vCPU changes CPU"),
        (NothingToWrite(), "an operand that is not written back is not looked at"),
        (Memslot(), "the slot is found by its own cache"),
        (Teardown(), "caches that are empty, and readers that cannot be there, need nothing"),
    ];

    [GeneratedRegex("(preempt_notifier_(inc|dec)|kvm_arch_vcpu_(create|destroy)) > on_each_cpu_cond_mask( > smp_call_function_many_cond)?$")]
    private static partial Regex JumpLabel();

    [GeneratedRegex("kvm_cpu_has_pending_timer|xfer_to_guest_mode_handle_work|kvm_arch_sched_in|topup_memory_caches? > .*kvm_arch_vcpu_(load|put)|_cancel_injection")]
    private static partial Regex Preempted();

    [GeneratedRegex("kvm_arch_vcpu_ioctl_run > (record_steal_time|kvm_service_local_tlb_flush_requests|(vmx|svm)_(prepare_switch_to_guest|vcpu_run|handle_exit_irqoff|handle_exit)(?! > (handle_|svm_invoke_exit_handler > ))( > .*)?)$")]
    private static partial Regex SecondRound();

    [GeneratedRegex("(kvm_mmu_slot_\\w+|kvm_tdp_mmu_zap_all|kvm_tdp_mmu_map|kvm_mmu_uninit_tdp_mmu|kvm_mmu_free_roots) > .*(tdp_iter_\\w+|tdp_mmu_next_root|handle_changed_spte\\w*|__handle_changed_spte|smp_call_function_single)$")]
    private static partial Regex TableWalk();

    [GeneratedRegex("kvm_arch_vcpu_ioctl_run > kvm_guest_time_update")]
    private static partial Regex GuestTime();

    [GeneratedRegex("x86_emulate_insn > (writeback|writeback_registers > emulator_write_gpr)$")]
    private static partial Regex NothingToWrite();

    [GeneratedRegex("emulator_read_write_onepage > kvm_vcpu_gfn_to_memslot$|kvm_arch_commit_memory_region > kvm_make_all_cpus_request( > kvm_make_all_cpus_request_except)?$")]
    private static partial Regex Memslot();

    [GeneratedRegex("kvm_mmu_free_memory_cache$|kvm_page_track_unregister_notifier > synchronize_srcu$")]
    private static partial Regex Teardown();
}
