using Kvm.Core;
using Kvm.Core.Tracing;

namespace Kvm.Arch.X86;

/// <summary>Pages set aside before the MMU lock is taken, so that nothing has to be allocated under it.</summary>
/// <remarks>struct kvm_mmu_memory_cache, virt/kvm/kvm_main.c.</remarks>
internal sealed class MmuMemoryCache(Host host, string tag, bool pages, int capacity)
{
    /// <summary>KVM_ARCH_NR_OBJS_PER_MEMORY_CACHE.</summary>
    public const int KernelCapacity = 40;

    /// <summary>With nested paging one fault needs 5 at most (DIVERGES: D-X86-2).</summary>
    public const int SmallCapacity = 10;
    private readonly ulong[] objects = new ulong[capacity];
    private int count;

    /// <summary>kvm_mmu_memory_cache_nr_free_objects.</summary>
    public int Count => count;

    /// <summary>Fills up when fewer than <paramref name="min"/> are left: 0 or -ENOMEM.</summary>
    [KernelFunction("kvm_mmu_topup_memory_cache", File = "virt/kvm/kvm_main.c")]
    public int Topup(int min)
    {
        using var outer = FunctionTrace.Enter("kvm_mmu_topup_memory_cache");
        using var _ = FunctionTrace.Enter("__kvm_mmu_topup_memory_cache");
        if (count >= min)
            return 0;
        while (count < objects.Length)
        {
            ulong page;
            if (pages)
            {
                using (FunctionTrace.Enter("__get_free_pages"))
                    page = host.Pages.AllocPage(tag);
            }
            else
            {
                FunctionTrace.Leaf("kmem_cache_alloc");
                page = host.Faults.ShouldFail("kmem_cache_zalloc", tag) ? 0u : 1u;
            }

            if (page == 0)
                return count >= min ? 0 : -Errnos.ENOMEM;
            objects[count++] = page;
        }

        return 0;
    }

    [KernelFunction("kvm_mmu_memory_cache_alloc", File = "virt/kvm/kvm_main.c")]
    public ulong Alloc()
    {
        FunctionTrace.Leaf("kvm_mmu_memory_cache_alloc");
        return objects[--count];
    }

    [KernelFunction("kvm_mmu_free_memory_cache", File = "virt/kvm/kvm_main.c")]
    public void Free()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_free_memory_cache");
        while (count > 0)
        {
            ulong page = objects[--count];
            if (pages)
                host.Pages.FreePage(page);
        }
    }
}
