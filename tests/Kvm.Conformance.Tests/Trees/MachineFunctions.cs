namespace Kvm.Conformance.Tests.Trees;

/// <summary>
/// Functions whose calls tell the state of the machine and not the path of the call: whether the allocator has an object at hand, when a thread sleeps, is woken or
/// preempted, when the clock is set, how static keys are patched.
/// </summary>
internal static class MachineFunctions
{
    private static readonly HashSet<string> names =
    [
        "kmem_cache_alloc", "kmem_cache_free", "__alloc_pages", "__free_pages", "__get_free_pages", "free_pages", "kvmalloc_node", "kvfree", "vzalloc", "vfree", "__vmalloc",
        "schedule", "wake_up_process", "clockevents_program_event", "synchronize_srcu", "synchronize_srcu_expedited", "switch_fpu_return",
        "user_return_notifier_register", "user_return_notifier_unregister",
    ];

    /// <summary>A thread that loses its CPU in the middle of a call: with everything that this calls.</summary>
    private static readonly HashSet<string> preemption = ["kvm_sched_out", "kvm_sched_in"];

    public static IEnumerable<string> All => names.Union(preemption).Order(StringComparer.Ordinal);

    /// <summary>The tree without them; what they called takes their place, but for preemption.</summary>
    public static List<CallTree> Remove(IEnumerable<CallTree> roots) => CallTree.Filter(CallTree.Without(roots, preemption), static n => !names.Contains(n));
}
