using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>Memory of this process that a VM sees as RAM: one memory slot.</summary>
public sealed unsafe class GuestMemory : IDisposable
{
    private readonly Vm _vm;
    private byte* _host;

    internal GuestMemory(Vm vm, uint slot, ulong guestAddress, ulong size, uint flags)
    {
        long host = vm.Backend.MapAnonymous(size);
        if (host < 0) throw new KvmException($"mmap of {size} bytes of guest memory", (Errno)(-host));
        _vm = vm;
        _host = (byte*)host;
        Slot = slot;
        GuestAddress = guestAddress;
        Size = size;
        try
        {
            Protect(flags);
        }
        catch
        {
            vm.Backend.Munmap((ulong)host, size);
            throw;
        }

        vm.Backend.AddUser();
    }

    /// <summary>The slot's number (low half) and address space (high half).</summary>
    public uint Slot { get; }

    /// <summary>Guest-physical address of the first byte.</summary>
    public ulong GuestAddress { get; }

    /// <summary>Bytes.</summary>
    public ulong Size { get; }

    /// <summary>Address of the first byte in this process; page-aligned.</summary>
    /// <exception cref="ObjectDisposedException">The memory was freed.</exception>
    public byte* Host => _host != null ? _host : throw new ObjectDisposedException(nameof(GuestMemory));

    /// <summary>The memory, at most the first 2 GiB - 1 of it. It must not be used after disposal.</summary>
    /// <exception cref="ObjectDisposedException">The memory was freed.</exception>
    public Span<byte> Span => new(Host, (int)Math.Min(Size, int.MaxValue));

    /// <summary>The bytes at a guest-physical address.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Not all of them lie in this slot.</exception>
    /// <exception cref="ObjectDisposedException">The memory was freed.</exception>
    public Span<byte> At(ulong guestAddress, int length)
    {
        if (!Contains(guestAddress, (ulong)length))
            throw new ArgumentOutOfRangeException(nameof(guestAddress), $"0x{guestAddress:x}+{length} is not inside slot {Slot}, 0x{GuestAddress:x}+0x{Size:x}");
        return new Span<byte>(Host + (guestAddress - GuestAddress), length);
    }

    /// <summary>Whether all bytes of a guest-physical range lie in this slot.</summary>
    public bool Contains(ulong guestAddress, ulong length) =>
        guestAddress >= GuestAddress && length <= Size && guestAddress - GuestAddress <= Size - length;

    /// <summary>The value at a guest-physical address; writing it writes the guest's memory. It need not be aligned.</summary>
    public ref T At<T>(ulong guestAddress) where T : unmanaged => ref *(T*)System.Runtime.CompilerServices.Unsafe.AsPointer(ref At(guestAddress, sizeof(T))[0]);

    /// <summary>Changes the slot's flags: <c>KVM_MEM_LOG_DIRTY_PAGES</c>, <c>KVM_MEM_READONLY</c>.</summary>
    /// <exception cref="KvmException">EINVAL: the slot can't change so (read-only is for good).</exception>
    /// <exception cref="ObjectDisposedException">The memory was freed.</exception>
    public void Protect(uint flags) => _vm.SetUserMemoryRegion(Slot, flags, GuestAddress, Size, (ulong)Host);

    /// <summary>KVM_GET_DIRTY_LOG: one bit a page of 4 KiB, lowest first, set if written since the last call.</summary>
    /// <exception cref="KvmException">ENOENT: the slot has no <c>KVM_MEM_LOG_DIRTY_PAGES</c>.</exception>
    public ulong[] GetDirtyLog()
    {
        var bitmap = new ulong[(Size / 4096 + 63) / 64];
        _vm.GetDirtyLog(Slot, bitmap);
        return bitmap;
    }

    /// <summary>Deletes the slot and frees the memory.</summary>
    public void Dispose()
    {
        if (_host == null) return;
        // The slot goes first: the guest must not reach freed memory. A VM already closed has no slots (EBADF).
        _vm.TrySetUserMemoryRegion(new kvm_userspace_memory_region { slot = Slot, guest_phys_addr = GuestAddress });
        _vm.Backend.Munmap((ulong)_host, Size);
        _host = null;
        _vm.Backend.RemoveUser();
    }
}
