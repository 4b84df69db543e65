using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>A virtual machine: the VM ioctls.</summary>
public sealed unsafe partial class Vm : IDisposable
{
    private readonly int _vcpuMmapSize;

    internal Vm(KvmFd fd, int vcpuMmapSize)
    {
        Fd = fd;
        _vcpuMmapSize = vcpuMmapSize;
    }

    public KvmFd Fd { get; }

    public IKvmBackend Backend => Fd.Backend;

    /// <summary>KVM_CREATE_VCPU.</summary>
    /// <exception cref="KvmException">EEXIST: the id is taken. EINVAL: the id or the number of vCPUs is too large.</exception>
    public Vcpu CreateVcpu(uint id) => new(new KvmFd(Backend, (int)Fd.Ioctl(KVM_CREATE_VCPU, id)), id, _vcpuMmapSize);

    /// <summary>Allocates zeroed memory and makes it guest RAM.</summary>
    /// <param name="slot">The slot's number (low half) and address space (high half).</param>
    /// <param name="guestAddress">Guest-physical address; page-aligned.</param>
    /// <param name="size">Bytes; whole pages.</param>
    /// <param name="flags"><c>KVM_MEM_LOG_DIRTY_PAGES</c>, <c>KVM_MEM_READONLY</c>.</param>
    /// <exception cref="KvmException">EINVAL: not page-aligned, or no such slot. EEXIST: overlaps another slot.</exception>
    public GuestMemory MapMemory(uint slot, ulong guestAddress, ulong size, uint flags = 0) => new(this, slot, guestAddress, size, flags);

    /// <summary>KVM_SET_USER_MEMORY_REGION with memory of the caller's; size 0 deletes the slot.</summary>
    public void SetUserMemoryRegion(uint slot, uint flags, ulong guestAddress, ulong size, ulong hostAddress) =>
        Fd.Set(KVM_SET_USER_MEMORY_REGION, new kvm_userspace_memory_region
        {
            slot = slot,
            flags = flags,
            guest_phys_addr = guestAddress,
            memory_size = size,
            userspace_addr = hostAddress,
        });

    /// <summary>KVM_CHECK_EXTENSION for this VM: 0 when absent.</summary>
    public int CheckExtension(int capability) => (int)Fd.Ioctl(KVM_CHECK_EXTENSION, (ulong)capability);

    /// <summary>KVM_ENABLE_CAP for the VM.</summary>
    public void EnableCap(int capability, params ReadOnlySpan<ulong> args) => Capability.Enable(Fd, capability, args);

    public int TscKhz
    {
        get => (int)Fd.Ioctl(KVM_GET_TSC_KHZ, 0);
        set => Fd.Ioctl(KVM_SET_TSC_KHZ, (ulong)value);
    }

    public kvm_clock_data Clock
    {
        get => Fd.Get<kvm_clock_data>(KVM_GET_CLOCK);
        set => Fd.Set(KVM_SET_CLOCK, value);
    }

    /// <summary>Which vCPU starts as the bootstrap processor; before the first KVM_CREATE_VCPU.</summary>
    public void SetBootCpuId(uint id) => Fd.Ioctl(KVM_SET_BOOT_CPU_ID, id);

    /// <summary>Three guest-physical pages that Intel hosts without unrestricted guest use as a TSS.</summary>
    public void SetTssAddr(ulong address) => Fd.Ioctl(KVM_SET_TSS_ADDR, address);

    public void SetIdentityMapAddr(ulong address) => Fd.Set(KVM_SET_IDENTITY_MAP_ADDR, address);

    /// <summary>KVM_CREATE_DEVICE.</summary>
    /// <returns>The device's descriptor; -1 with <c>KVM_CREATE_DEVICE_TEST</c>.</returns>
    public KvmFd? CreateDevice(uint type, uint flags = 0)
    {
        var device = new kvm_create_device { type = type, flags = flags };
        Fd.Exchange(KVM_CREATE_DEVICE, ref device);
        return (flags & KVM_CREATE_DEVICE_TEST) == 0 ? new KvmFd(Backend, (int)device.fd) : null;
    }

    /// <summary>KVM_GET_DIRTY_LOG into <paramref name="bitmap"/>: one bit a page of the slot.</summary>
    public void GetDirtyLog(uint slot, Span<ulong> bitmap)
    {
        fixed (ulong* pointer = bitmap)
            Fd.Set(KVM_GET_DIRTY_LOG, new kvm_dirty_log { slot = slot, dirty_bitmap = (ulong)pointer });
    }

    /// <summary>KVM_CLEAR_DIRTY_LOG: protects again the pages whose bits are set.</summary>
    public void ClearDirtyLog(uint slot, ulong firstPage, uint pages, ReadOnlySpan<ulong> bitmap)
    {
        fixed (ulong* pointer = bitmap)
            Fd.Set(KVM_CLEAR_DIRTY_LOG, new kvm_clear_dirty_log { slot = slot, first_page = firstPage, num_pages = pages, dirty_bitmap = (ulong)pointer });
    }

    /// <summary>KVM_RESET_DIRTY_RINGS.</summary>
    /// <returns>Pages protected again.</returns>
    public int ResetDirtyRings() => (int)Fd.Ioctl(KVM_RESET_DIRTY_RINGS, 0);

    /// <summary>KVM_GET_STATS_FD: the kernel's counters of this VM by name, such as <c>remote_tlb_flush</c>. Histograms are left out.</summary>
    /// <exception cref="KvmException">ENOTTY or EINVAL: a kernel older than 5.14.</exception>
    public IReadOnlyDictionary<string, ulong> ReadStats() => BinaryStats.Read(Fd);

    /// <summary>Any other ioctl.</summary>
    public long Ioctl(uint request, ulong argument = 0) => Fd.Ioctl(request, argument);

    /// <summary>Any other ioctl with a structure that it reads, writes or both.</summary>
    public long Ioctl<T>(uint request, ref T argument) where T : unmanaged => Fd.Exchange(request, ref argument);

    public void Dispose() => Fd.Dispose();
}
