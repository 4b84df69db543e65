using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <summary>Coalesced MMIO and PIO: writes to registered zones are queued in a page that all vCPUs share with user space instead of exiting.</summary>
public sealed unsafe class KvmCoalescedMmio
{
    /// <summary>KVM_COALESCED_MMIO_MAX: entries that fit the page.</summary>
    public static readonly uint Max = (PageAllocator.PageSize - (uint)sizeof(kvm_coalesced_mmio_ring)) / (uint)sizeof(kvm_coalesced_mmio);

    private readonly KvmVm _vm;
    private readonly List<Zone> _zones = [];
    private readonly RawSpinLock _ringLock = new();
    private kvm_coalesced_mmio_ring* _ring;

    internal KvmCoalescedMmio(KvmVm vm) => _vm = vm;

    /// <summary>The ring's page; 0 before <see cref="Init"/>.</summary>
    public ulong RingPage => (ulong)_ring;

    /// <summary>Registered zones.</summary>
    public int ZoneCount => _zones.Count;

    [KernelFunction("kvm_coalesced_mmio_init", File = "virt/kvm/coalesced_mmio.c")]
    internal KvmResult Init()
    {
        using var _ = FunctionTrace.Enter("kvm_coalesced_mmio_init");
        _ring = (kvm_coalesced_mmio_ring*)_vm.Host.Pages.AllocPage("coalesced_mmio_ring");
        return _ring == null ? Errno.ENOMEM : 0;
    }

    [KernelFunction("kvm_coalesced_mmio_free", File = "virt/kvm/coalesced_mmio.c")]
    internal void Free()
    {
        using var _ = FunctionTrace.Enter("kvm_coalesced_mmio_free");
        _vm.Host.Pages.FreePage((ulong)_ring);
        _ring = null;
    }

    /// <summary>KVM_REGISTER_COALESCED_MMIO.</summary>
    [KernelFunction("kvm_vm_ioctl_register_coalesced_mmio", File = "virt/kvm/coalesced_mmio.c")]
    internal KvmResult Register(in kvm_coalesced_mmio_zone zone)
    {
        if (zone.pio > 1) return Errno.EINVAL;
        if (_vm.Host.Faults.ShouldFail("kzalloc", "kvm_coalesced_mmio_dev")) return Errno.ENOMEM;
        var device = new Zone(this, zone);
        using var _ = _vm.SlotsLock.Enter();
        KvmResult r = _vm.IoBusRegisterDev(device.Bus, zone.addr, (int)zone.size, device);
        if (r.IsError) return r;
        _zones.Add(device);
        return 0;
    }

    /// <summary>KVM_UNREGISTER_COALESCED_MMIO: drops the zones that the given range… lies in; always 0.</summary>
    [KernelFunction("kvm_vm_ioctl_unregister_coalesced_mmio", File = "virt/kvm/coalesced_mmio.c")]
    internal KvmResult Unregister(in kvm_coalesced_mmio_zone zone)
    {
        if (zone.pio > 1) return Errno.EINVAL;
        using var _ = _vm.SlotsLock.Enter();
        foreach (Zone device in _zones.ToArray())
        {
            if (device.Pio != zone.pio || !device.Covers(zone.addr, (int)zone.size)) continue;
            KvmResult r = _vm.IoBusUnregisterDev(device.Bus, device);
            device.Destructor();
            // A failure has destroyed all zones: there are none left to walk.
            if (r.IsError) break;
        }

        return 0;
    }

    private sealed class Zone(KvmCoalescedMmio owner, kvm_coalesced_mmio_zone zone) : KvmIoDevice
    {
        public uint Pio => zone.pio;

        public KvmBus Bus => zone.pio != 0 ? KvmBus.Pio : KvmBus.Mmio;

        /// <summary>coalesced_mmio_in_range.</summary>
        public bool Covers(ulong address, int length)
        {
            if (length < 0) return false;
            ulong end = unchecked(address + (ulong)length);
            return end >= address && address >= zone.addr && end <= zone.addr + zone.size;
        }

        [KernelFunction("coalesced_mmio_write", File = "virt/kvm/coalesced_mmio.c")]
        public override KvmResult Write(KvmVcpu? vcpu, ulong address, int length, void* value)
        {
            if (!Covers(address, length)) return Errno.EOPNOTSUPP;
            kvm_coalesced_mmio_ring* ring = owner._ring;
            using var _ = owner._ringLock.Enter();
            uint insert = Volatile.Read(ref ring->last);
            // One entry stays free; both indexes are in user space's hands.
            if (unchecked(ring->first - insert - 1) % Max == 0 || insert >= Max) return Errno.EOPNOTSUPP;
            kvm_coalesced_mmio* entry = (kvm_coalesced_mmio*)(ring + 1) + insert;
            entry->phys_addr = address;
            entry->len = (uint)length;
            Buffer.MemoryCopy(value, (byte*)entry + 16, 8, Math.Min(length, 8));
            entry->pio = zone.pio;
            Volatile.Write(ref ring->last, (insert + 1) % Max);
            return 0;
        }

        public override void Destructor() => owner._zones.Remove(this);
    }
}
