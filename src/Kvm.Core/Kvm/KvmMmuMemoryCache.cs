using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <summary>struct kvm_mmu_memory_cache for pages: filled while sleeping is allowed, emptied under the MMU lock, where it is not.</summary>
public sealed class KvmMmuMemoryCache
{
    private readonly Host _host;
    private readonly string _tag;
    private readonly ulong[] _objects;
    private int _count;

    /// <summary>A cache of at most <paramref name="capacity"/> pages (KVM_ARCH_NR_OBJS_PER_MEMORY_CACHE is 40 on x86).</summary>
    public KvmMmuMemoryCache(Host host, string tag, int capacity = 40)
    {
        _host = host;
        _tag = tag;
        _objects = new ulong[capacity];
    }

    /// <summary>kvm_mmu_memory_cache_nr_free_objects.</summary>
    public int Count => _count;

    /// <summary>kvm_mmu_topup_memory_cache: fills it unless <paramref name="min"/> pages are there; -ENOMEM when not even those can be had.</summary>
    [KernelFunction("kvm_mmu_topup_memory_cache", File = "virt/kvm/kvm_main.c")]
    public KvmResult Topup(int min)
    {
        if (_count >= min) return 0;
        using var _ = FunctionTrace.Enter("kvm_mmu_topup_memory_cache");
        while (_count < _objects.Length)
        {
            ulong page = _host.Pages.AllocPage(_tag);
            if (page == 0) return _count >= min ? 0 : Errno.ENOMEM;
            _objects[_count++] = page;
        }

        return 0;
    }

    /// <summary>kvm_mmu_memory_cache_alloc: a zeroed page. An empty cache is our own bug; a last try is made.</summary>
    public ulong Alloc()
    {
        if (!_host.Log.WarnOnce(_count == 0, "kvm_mmu_memory_cache_alloc", "kvm: MMU memory cache is empty")) return _objects[--_count];
        ulong page = _host.Pages.AllocPage(_tag);
        return page != 0 ? page : throw new InvalidOperationException("BUG: no page for the MMU.");
    }

    /// <summary>kvm_mmu_free_memory_cache.</summary>
    [KernelFunction("kvm_mmu_free_memory_cache", File = "virt/kvm/kvm_main.c")]
    public void Free()
    {
        while (_count > 0) _host.Pages.FreePage(_objects[--_count]);
    }
}
