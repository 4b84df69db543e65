using System.Runtime.InteropServices;
using Kvm.Client;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm.Boot;

/// <summary>A PC's RAM: one slot from address 0, and what lies beyond 3 GiB moved above 4 GiB, past the hole for devices.</summary>
public sealed class GuestRam : IDisposable
{
    /// <summary>Where low RAM ends at the latest: 3 GiB. Devices lie between.</summary>
    public const ulong HoleStart = 0xc000_0000;
    /// <summary>Where RAM goes on: 4 GiB.</summary>
    public const ulong HoleEnd = 0x1_0000_0000;

    private readonly GuestMemory _low;
    private readonly GuestMemory? _high;
    private readonly IKvmBackend _backend;

    /// <param name="vm">The VM that gets slots 0 and, if need be, 1.</param>
    /// <param name="size">Bytes; whole pages.</param>
    public GuestRam(Vm vm, ulong size)
    {
        Size = size;
        _backend = vm.Backend;
        _low = vm.MapMemory(0, 0, Math.Min(size, HoleStart));
        if (size > HoleStart) _high = vm.MapMemory(1, HoleEnd, size - HoleStart);
    }

    /// <summary>Bytes altogether.</summary>
    public ulong Size { get; }

    /// <summary>Bytes of RAM from address 0 upward.</summary>
    public ulong LowSize => _low.Size;

    /// <summary>Bytes of RAM from 4 GiB upward.</summary>
    public ulong HighSize => _high?.Size ?? 0;

    /// <summary>The slots.</summary>
    internal IReadOnlyList<GuestMemory> Memories => _high is null ? [_low] : [_low, _high];

    /// <summary>The RAM at a guest-physical address.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Not all of it is RAM.</exception>
    public Span<byte> At(ulong address, int length) =>
        _high is not null && address >= HoleEnd ? _high.At(address, length) : _low.At(address, length);

    /// <summary>The RAM at a guest-physical address that a guest chose. False: not all of it is RAM.</summary>
    public bool TryAt(ulong address, int length, out Span<byte> bytes)
    {
        GuestMemory memory = _high is not null && address >= HoleEnd ? _high : _low;
        bool inside = memory.Contains(address, (ulong)length);
        bytes = inside ? memory.At(address, length) : default;
        return inside;
    }

    /// <summary>Takes the page at a guest-physical address away from this process and gives it back, so that the kernel has to look at it anew. Not RAM: nothing happens.</summary>
    public void TakePageAway(ulong address)
    {
        const int pageSize = 4096;
        address &= ~(pageSize - 1UL);
        GuestMemory memory = _high is not null && address >= HoleEnd ? _high : _low;
        if (!memory.Contains(address, pageSize)) return;
        ulong host = HostAddress(memory) + (address - memory.GuestAddress);
        // Nobody but the guest uses the page meanwhile: it is the guest that asked.
        if (_backend.Mprotect(host, pageSize, PROT_NONE) >= 0) _backend.Mprotect(host, pageSize, PROT_READ | PROT_WRITE);
    }

    // SAFETY: only the address is taken.
    private static unsafe ulong HostAddress(GuestMemory memory) => (ulong)memory.Host;

    /// <summary>Zeroes any number of bytes.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Not all of them are RAM.</exception>
    public void Clear(ulong address, ulong length)
    {
        const int Step = 1 << 30;
        for (; length > Step; address += Step, length -= Step) At(address, Step).Clear();
        At(address, (int)length).Clear();
    }

    /// <summary>Copies bytes to a guest-physical address. Beyond RAM: <see cref="ArgumentOutOfRangeException"/>.</summary>
    public void Write(ulong address, ReadOnlySpan<byte> data) => data.CopyTo(At(address, data.Length));

    /// <summary>Writes a value, lowest byte first. Beyond RAM: <see cref="ArgumentOutOfRangeException"/>.</summary>
    public void Write<T>(ulong address, T value) where T : unmanaged => MemoryMarshal.Write(At(address, System.Runtime.CompilerServices.Unsafe.SizeOf<T>()), value);

    /// <summary>Reads a value, lowest byte first. Beyond RAM: <see cref="ArgumentOutOfRangeException"/>.</summary>
    public T Read<T>(ulong address) where T : unmanaged => MemoryMarshal.Read<T>(At(address, System.Runtime.CompilerServices.Unsafe.SizeOf<T>()));

    /// <summary>Deletes the slots and frees the memory.</summary>
    public void Dispose()
    {
        _high?.Dispose();
        _low.Dispose();
    }
}
