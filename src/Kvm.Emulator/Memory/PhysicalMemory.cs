using System.Runtime.InteropServices;
using Kvm.Collections;
using Kvm.Interop;

namespace Kvm.Emulator;

/// <summary>
/// The RAM of the machine: which physical addresses exist. A physical address is an address of this process (ARCHITECTURE D1), so memory becomes RAM by
/// being registered; anything else is the bus's.
/// </summary>
/// <remarks>Lookups are lock-free on an immutable tree; changes put another in its place under a lock and bump <see cref="Epoch"/>.</remarks>
public sealed unsafe class PhysicalMemory : IDisposable
{
    /// <summary>Smallest unit of registration.</summary>
    public const ulong PageSize = 4096;

    private readonly Machine machine;
    private readonly Lock gate = new();
    private IntervalTree<MemoryRange> registrations = IntervalTree<MemoryRange>.Empty;
    /// <summary>Union of the registrations, disjoint.</summary>
    private IntervalTree<MemoryRange> ranges = IntervalTree<MemoryRange>.Empty;
    private ulong registered;
    private ulong nextHint = 64UL << 30;

    internal PhysicalMemory(Machine machine) => this.machine = machine;

    /// <summary>Changes whenever RAM is withdrawn: cached host pointers older than this are invalid.</summary>
    public uint Epoch { get; private set; }

    /// <summary>Bytes of registered RAM.</summary>
    public ulong Size
    {
        get
        {
            ulong total = 0;
            foreach (MemoryRange range in Volatile.Read(ref ranges).All)
                total += range.Size;
            return total;
        }
    }

    /// <summary>Whether all of [<paramref name="pa"/>, +<paramref name="size"/>) is RAM.</summary>
    public bool Contains(ulong pa, ulong size = 1)
    {
        while (size != 0)
        {
            MemoryRange? range = Find(pa);
            if (range is null)
                return false;
            ulong available = range.End - pa;
            if (available >= size)
                return true;
            pa += available;
            size -= available;
        }
        return true;
    }

    /// <summary>Host pointer of a physical address, null where there is no RAM. Valid to the end of the 4 KiB page.</summary>
    public byte* Pointer(ulong pa)
    {
        MemoryRange? range = Find(pa);
        return range is null ? null : range.Host + (pa - range.Start);
    }

    internal MemoryRange? Find(ulong pa) => Volatile.Read(ref ranges).Find(pa);

    /// <summary>
    /// Makes process memory RAM. Both arguments are multiples of 4 KiB. Registrations are counted and may overlap: an address is RAM while one of them covers it.
    /// </summary>
    public void Register(void* start, ulong size) => Insert((ulong)start, size, (byte*)start, owned: false);

    /// <inheritdoc cref="Register(void*, ulong)"/>
    public void Register(ulong start, ulong size) => Insert(start, size, (byte*)start, owned: false);

    /// <summary>Makes RAM appear at a physical address of choice (a bare-metal machine's low memory), backed by <paramref name="host"/>.</summary>
    public void Map(ulong physical, ulong size, byte* host) => Insert(physical, size, host, owned: false);

    /// <summary>
    /// Takes back one registration. Returns when every processor that executes has dropped its translations at a boundary: the memory may be unmapped then.
    /// Guests that have it mapped must be out before (KVM's MMU notifier), or they look it up again.
    /// </summary>
    public void Unregister(ulong start, ulong size)
    {
        lock (gate)
        {
            MemoryRange? gone = null;
            foreach (MemoryRange range in registrations.Overlapping(start, start))
            {
                if (range.Start == start && range.Size == size)
                    gone = range;
            }
            if (gone is null)
                throw new ArgumentException($"no RAM registration at 0x{start:x} of 0x{size:x} bytes", nameof(start));
            registrations = registrations.Remove(start, gone.Key);
            Unite(start, gone.End);
            Epoch++;
        }
        machine.LeaveWithdrawnMemory();
    }

    /// <summary>
    /// Allocates zeroed RAM for bare-metal use, at process addresses between 64 GiB and 2^39 where the host allows it, so that processors with 39 physical
    /// address bits reach it. Freed with the machine or by <see cref="Free"/>.
    /// </summary>
    public ulong Allocate(ulong size) => AllocateAt(0, size);

    /// <summary>Like <see cref="Allocate"/>, below 4 GiB: reachable without paging. Zero when the process has no room there.</summary>
    public ulong AllocateLow(ulong size)
    {
        for (ulong hint = 0x1000_0000; hint + size <= 0xf000_0000; hint += 0x0100_0000)
        {
            ulong start = TryMap(hint, size);
            if (start != 0)
                return Adopt(start, size);
        }
        return 0;
    }

    /// <summary>Returns memory of <see cref="Allocate"/>.</summary>
    public void Free(ulong start, ulong size)
    {
        size = RoundUp(size);
        Unregister(start, size);
        LibC.munmap((void*)start, (nuint)size);
    }

    public void Dispose()
    {
        lock (gate)
        {
            foreach (MemoryRange range in registrations.All)
                if (range.Owned)
                    LibC.munmap(range.Host, (nuint)range.Size);
            registrations = ranges = IntervalTree<MemoryRange>.Empty;
        }
    }

    private static ulong RoundUp(ulong size) => (size + PageSize - 1) & ~(PageSize - 1);

    private ulong AllocateAt(ulong start, ulong size)
    {
        size = RoundUp(size);
        lock (gate)
        {
            while (start == 0 && nextHint + size < 1UL << 39)
            {
                start = TryMap(nextHint, size);
                nextHint += (size + 0x1fffff) & ~0x1fffffUL;
            }
        }
        if (start == 0)
        {
            void* anywhere = LibC.mmap(null, (nuint)size, LibC.PROT_READ | LibC.PROT_WRITE, LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS | LibC.MAP_NORESERVE, -1, 0);
            if (anywhere == LibC.MAP_FAILED)
                throw new InsufficientMemoryException($"mmap of 0x{size:x} bytes failed with errno {Marshal.GetLastPInvokeError()}");
            start = (ulong)anywhere;
        }
        return Adopt(start, size);
    }

    private ulong Adopt(ulong start, ulong size)
    {
        Insert(start, RoundUp(size), (byte*)start, owned: true);
        return start;
    }

    private static ulong TryMap(ulong hint, ulong size)
    {
        size = RoundUp(size);
        void* result = LibC.mmap((void*)hint, (nuint)size, LibC.PROT_READ | LibC.PROT_WRITE,
            LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS | LibC.MAP_NORESERVE | LibC.MAP_FIXED_NOREPLACE, -1, 0);
        if (result == LibC.MAP_FAILED)
            return 0;
        if ((ulong)result == hint)
            return hint;
        LibC.munmap(result, (nuint)size);
        return 0;
    }

    private void Insert(ulong start, ulong size, byte* host, bool owned)
    {
        if (((start | size | (ulong)host) & (PageSize - 1)) != 0 || size == 0)
            throw new ArgumentException($"RAM range 0x{start:x}+0x{size:x} is not whole pages", nameof(start));
        lock (gate)
        {
            var added = new MemoryRange(start, size, host, owned, ++registered);
            foreach (MemoryRange range in ranges.Overlapping(start, added.End - 1))
            {
                if (range.Host - range.Start != host - start)
                    throw new ArgumentException($"RAM range 0x{start:x}+0x{size:x} overlaps another that is backed differently", nameof(start));
            }
            registrations = registrations.Add(start, added.End - 1, added, added.Key);
            Unite(start, added.End);
        }
    }

    /// <summary>Makes the union anew around [<paramref name="start"/>, <paramref name="end"/>), where registrations have changed.</summary>
    private void Unite(ulong start, ulong end)
    {
        IntervalTree<MemoryRange> union = ranges;
        foreach (MemoryRange range in ranges.Overlapping(start, end - 1))
        {
            union = union.Remove(range.Start);
            start = Math.Min(start, range.Start);
            end = Math.Max(end, range.End);
        }
        MemoryRange? last = null;
        foreach (MemoryRange range in registrations.Overlapping(start, end - 1))
        {
            if (last is null || last.End <= range.Start)
            {
                if (last is not null)
                    union = union.Add(last.Start, last.End - 1, last);
                last = range;
            }
            else if (range.End > last.End)
            {
                last = new MemoryRange(last.Start, range.End - last.Start, last.Host, owned: false);
            }
        }
        if (last is not null)
            union = union.Add(last.Start, last.End - 1, last);
        Volatile.Write(ref ranges, union);
    }
}
