using System.Collections.Concurrent;
using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>A virtual machine: the VM ioctls.</summary>
public sealed unsafe partial class Vm : IDisposable
{
    private readonly int _vcpuMmapSize;
    private readonly ConcurrentDictionary<uint, ulong> _slotPages = new(); // so that a dirty log's bitmap can be told to be too small

    internal Vm(KvmFd fd, int vcpuMmapSize)
    {
        Fd = fd;
        _vcpuMmapSize = vcpuMmapSize;
    }

    /// <summary>The VM's descriptor.</summary>
    public KvmFd Fd { get; }

    /// <summary>The kernel that answers.</summary>
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

    /// <summary>KVM_SET_USER_MEMORY_REGION with memory of the caller's, which must stay until the slot is deleted.</summary>
    /// <param name="slot">The slot's number (low half) and address space (high half).</param>
    /// <param name="flags"><c>KVM_MEM_LOG_DIRTY_PAGES</c>, <c>KVM_MEM_READONLY</c>.</param>
    /// <param name="guestAddress">Guest-physical address; page-aligned.</param>
    /// <param name="size">Bytes; whole pages. 0 deletes the slot.</param>
    /// <param name="hostAddress">Address in this process; page-aligned.</param>
    /// <exception cref="KvmException">EINVAL: an address or size that is not allowed, or a change that is not. EEXIST: overlaps another slot.</exception>
    public void SetUserMemoryRegion(uint slot, uint flags, ulong guestAddress, ulong size, ulong hostAddress)
    {
        long result = TrySetUserMemoryRegion(new kvm_userspace_memory_region
        {
            slot = slot,
            flags = flags,
            guest_phys_addr = guestAddress,
            memory_size = size,
            userspace_addr = hostAddress,
        });
        if (result < 0) throw new KvmException(nameof(KVM_SET_USER_MEMORY_REGION), (Errno)(-result));
    }

    internal long TrySetUserMemoryRegion(kvm_userspace_memory_region region)
    {
        long result = Fd.TryIoctl(KVM_SET_USER_MEMORY_REGION, (ulong)&region);
        if (result < 0) return result;
        if (region.memory_size == 0) _slotPages.TryRemove(region.slot, out _);
        else _slotPages[region.slot] = region.memory_size / 4096;
        return result;
    }

    /// <summary>KVM_CHECK_EXTENSION for this VM: 0 when absent.</summary>
    public int CheckExtension(int capability) => (int)Fd.Ioctl(KVM_CHECK_EXTENSION, (ulong)capability);

    /// <summary>KVM_ENABLE_CAP for the VM.</summary>
    public void EnableCap(int capability, params ReadOnlySpan<ulong> args) => Capability.Enable(Fd, capability, args);

    /// <summary>The time-stamp counter of vCPUs created from now on, in kHz. KVM_CAP_VM_TSC_CONTROL.</summary>
    public int TscKhz
    {
        get => (int)Fd.Ioctl(KVM_GET_TSC_KHZ, 0);
        set => Fd.Ioctl(KVM_SET_TSC_KHZ, (ulong)value);
    }

    /// <summary>kvmclock: nanoseconds since the VM was made, and flags.</summary>
    public kvm_clock_data Clock
    {
        get => Fd.Get<kvm_clock_data>(KVM_GET_CLOCK);
        set => Fd.Set(KVM_SET_CLOCK, value);
    }

    /// <summary>Which vCPU starts as the bootstrap processor; before the first KVM_CREATE_VCPU.</summary>
    public void SetBootCpuId(uint id) => Fd.Ioctl(KVM_SET_BOOT_CPU_ID, id);

    /// <summary>Three guest-physical pages that Intel hosts without unrestricted guest use as a TSS.</summary>
    public void SetTssAddr(ulong address) => Fd.Ioctl(KVM_SET_TSS_ADDR, address);

    /// <summary>KVM_SET_IDENTITY_MAP_ADDR: a guest-physical page that Intel hosts without unrestricted guest use as a page table; before the first vCPU.</summary>
    public void SetIdentityMapAddr(ulong address) => Fd.Set(KVM_SET_IDENTITY_MAP_ADDR, address);

    /// <summary>KVM_CREATE_DEVICE.</summary>
    /// <returns>The device's descriptor; null with <c>KVM_CREATE_DEVICE_TEST</c>.</returns>
    /// <exception cref="KvmException">ENODEV: no such type. EEXIST: there can be only one.</exception>
    public KvmFd? CreateDevice(uint type, uint flags = 0)
    {
        var device = new kvm_create_device { type = type, flags = flags };
        Fd.Exchange(KVM_CREATE_DEVICE, ref device);
        return (flags & KVM_CREATE_DEVICE_TEST) == 0 ? new KvmFd(Backend, (int)device.fd) : null;
    }

    /// <summary>KVM_GET_DIRTY_LOG into <paramref name="bitmap"/>: one bit a page of the slot, lowest first.</summary>
    /// <exception cref="ArgumentException">The bitmap has fewer bits than the slot has pages: the kernel would write beyond it.</exception>
    /// <exception cref="KvmException">ENOENT: no such slot, or one without <c>KVM_MEM_LOG_DIRTY_PAGES</c>.</exception>
    public void GetDirtyLog(uint slot, Span<ulong> bitmap)
    {
        if (_slotPages.TryGetValue(slot, out ulong pages)) CheckBits(bitmap, pages);
        fixed (ulong* pointer = bitmap)
            Fd.Set(KVM_GET_DIRTY_LOG, new kvm_dirty_log { slot = slot, dirty_bitmap = (ulong)pointer });
    }

    /// <summary>KVM_CLEAR_DIRTY_LOG: protects again the pages whose bits are set.</summary>
    /// <param name="slot">The slot's number.</param>
    /// <param name="firstPage">The first bit's page in the slot; a multiple of 64.</param>
    /// <param name="pages">How many; a multiple of 64, or up to the slot's end.</param>
    /// <param name="bitmap">One bit a page, lowest first.</param>
    /// <exception cref="ArgumentException">The bitmap has fewer bits than <paramref name="pages"/>.</exception>
    /// <exception cref="KvmException">ENOENT: no such slot. EINVAL: not multiples of 64, or beyond the slot.</exception>
    public void ClearDirtyLog(uint slot, ulong firstPage, uint pages, ReadOnlySpan<ulong> bitmap)
    {
        CheckBits(bitmap, pages);
        fixed (ulong* pointer = bitmap)
            Fd.Set(KVM_CLEAR_DIRTY_LOG, new kvm_clear_dirty_log { slot = slot, first_page = firstPage, num_pages = pages, dirty_bitmap = (ulong)pointer });
    }

    private static void CheckBits(ReadOnlySpan<ulong> bitmap, ulong pages)
    {
        if ((ulong)bitmap.Length < (pages + 63) / 64) throw new ArgumentException($"a bitmap of {bitmap.Length} words is too small for {pages} pages", nameof(bitmap));
    }

    /// <summary>KVM_RESET_DIRTY_RINGS.</summary>
    /// <returns>Pages protected again.</returns>
    public int ResetDirtyRings() => (int)Fd.Ioctl(KVM_RESET_DIRTY_RINGS, 0);

    /// <summary>KVM_GET_STATS_FD: the kernel's counters of this VM by name, such as <c>remote_tlb_flush</c>. Histograms are left out.</summary>
    /// <exception cref="KvmException">ENOTTY or EINVAL: a kernel older than 5.14.</exception>
    public IReadOnlyDictionary<string, ulong> ReadStats()
    {
        using KvmStatistics statistics = OpenStatistics();
        return statistics.Read();
    }

    /// <summary>KVM_GET_STATS_FD: to be read again and again, while its vCPUs run.</summary>
    /// <exception cref="KvmException">ENOTTY or EINVAL: a kernel older than 5.14.</exception>
    public KvmStatistics OpenStatistics() => new(Fd);

    /// <summary>Any other ioctl.</summary>
    public long Ioctl(uint request, ulong argument = 0) => Fd.Ioctl(request, argument);

    /// <summary>Any other ioctl with a structure that it reads, writes or both.</summary>
    public long Ioctl<T>(uint request, ref T argument) where T : unmanaged => Fd.Exchange(request, ref argument);

    /// <summary>Closes the descriptor. The VM lives on while a vCPU of it is open; dispose its <see cref="GuestMemory"/> before.</summary>
    public void Dispose() => Fd.Dispose();
}
