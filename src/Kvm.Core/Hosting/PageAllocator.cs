using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Kvm.Interop;

namespace Kvm.Core;

/// <summary>
/// The page allocator: 4 KiB-aligned native pages whose physical address is their process address. Counted per tag, leak-checkable, fails on demand
/// ("alloc_page", "alloc_page:tag", "vmalloc", "vmalloc:tag").
/// </summary>
/// <remarks>
/// Chunks are shared file mappings, so that a page can be mapped a second time into a user mapping (the run page of a vCPU). They lie between 64 GiB and 2^39, those for 32-bit addresses below 2 GiB.
/// </remarks>
public sealed unsafe class PageAllocator : IDisposable
{
    /// <summary>Bytes in a page.</summary>
    public const int PageSize = 4096;

    private const int ChunkPages = 1024;
    private const int MaxOrder = 8;

    private sealed class Chunk
    {
        public ulong Address;
        public long FileOffset;
        public int Bump;
        public readonly ushort[] Tag = new ushort[ChunkPages]; // 0 = free, else tag index of an allocation's first page
        public readonly byte[] Order = new byte[ChunkPages];
    }

    private readonly object _gate = new();
    private readonly Host _host;
    private readonly List<Chunk> _chunks = [];
    private readonly Dictionary<ulong, Chunk> _byAddress = [];
    private readonly Stack<ulong>[] _free = new Stack<ulong>[MaxOrder + 1];
    private readonly Stack<ulong> _free32 = new();
    private readonly Dictionary<string, ushort> _tagIndex = [];
    private readonly List<string> _tags = [""];
    private readonly List<long> _tagPages = [0];
    private readonly ConcurrentDictionary<ulong, (ulong Bytes, string Tag)> _vmallocs = new();
    private readonly long _maxPages;
    private long _inUse;
    private long _vmallocBytes;
    private int _memfd = -1;
    private long _fileSize;
    private bool _disposed;

    internal PageAllocator(Host host, long maxPages)
    {
        _host = host;
        _maxPages = maxPages;
        for (int i = 0; i <= MaxOrder; i++) _free[i] = new Stack<ulong>();
    }

    /// <summary>Pages handed out and not given back.</summary>
    public long InUse => Volatile.Read(ref _inUse);

    /// <summary>Bytes of <see cref="Vmalloc"/> handed out and not given back.</summary>
    public long VmallocInUse => Volatile.Read(ref _vmallocBytes);

    /// <summary>Pages (and vmalloc'd areas as "vmalloc:tag", in bytes) in use per tag; tags with none are left out.</summary>
    public IReadOnlyDictionary<string, long> InUseByTag
    {
        get
        {
            lock (_gate)
            {
                var d = new Dictionary<string, long>();
                for (int i = 1; i < _tags.Count; i++)
                    if (_tagPages[i] != 0) d[_tags[i]] = _tagPages[i];
                foreach (var v in _vmallocs.Values) d["vmalloc:" + v.Tag] = d.GetValueOrDefault("vmalloc:" + v.Tag) + (long)v.Bytes;
                return d;
            }
        }
    }

    /// <summary>alloc_page: the address of a page, or 0. <paramref name="zero"/> = __GFP_ZERO.</summary>
    public ulong AllocPage(string tag, bool zero = true) => AllocPages(tag, 0, zero);

    /// <summary>alloc_pages: 2^<paramref name="order"/> contiguous pages aligned to their size, or 0.</summary>
    [Tracing.KernelFunction("__alloc_pages", File = "mm/page_alloc.c")]
    public ulong AllocPages(string tag, int order, bool zero = true)
    {
        Tracing.FunctionTrace.Leaf("__alloc_pages");
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)order, (uint)MaxOrder);
        if (_host.Faults.ShouldFail("alloc_page", tag)) return 0;
        ulong address;
        lock (_gate)
        {
            if (_disposed || _inUse + (1 << order) > _maxPages) return 0;
            address = Take(order);
            if (address == 0) return 0;
            ushort index = TagIndex(tag);
            Chunk chunk = _byAddress[address & ~(ulong)(ChunkPages * PageSize - 1)];
            int page = (int)((address - chunk.Address) / PageSize);
            chunk.Tag[page] = index;
            chunk.Order[page] = (byte)order;
            _tagPages[index] += 1 << order;
            _inUse += 1 << order;
        }

        if (zero) NativeMemory.Clear((void*)address, (nuint)(PageSize << order));
        return address;
    }

    /// <summary>alloc_page with GFP_DMA32: a zeroed page below 4 GiB, or 0.</summary>
    public ulong AllocPage32(string tag)
    {
        if (_host.Faults.ShouldFail("alloc_page", tag)) return 0;
        ulong address;
        lock (_gate)
        {
            if (_disposed || _inUse + 1 > _maxPages) return 0;
            if (_free32.Count == 0 && !Grow32()) return 0;
            address = _free32.Pop();
            ushort index = TagIndex(tag);
            Chunk chunk = _byAddress[address & ~(ulong)(ChunkPages * PageSize - 1)];
            int page = (int)((address - chunk.Address) / PageSize);
            chunk.Tag[page] = index;
            chunk.Order[page] = 0;
            _tagPages[index]++;
            _inUse++;
        }

        NativeMemory.Clear((void*)address, PageSize);
        return address;
    }

    /// <summary>free_page(s): gives back what <see cref="AllocPages"/> gave. 0 is ignored. Freeing twice, or a wild address, throws: our own bug.</summary>
    [Tracing.KernelFunction("free_pages", File = "mm/page_alloc.c")]
    public void FreePage(ulong address)
    {
        if (address == 0) return;
        using (Tracing.FunctionTrace.Enter("free_pages")) Tracing.FunctionTrace.Leaf("__free_pages");
        lock (_gate)
        {
            if (!_byAddress.TryGetValue(address & ~(ulong)(ChunkPages * PageSize - 1), out Chunk? chunk))
                throw new InvalidOperationException($"free_page of 0x{address:x}, which the allocator never gave out.");
            int page = (int)((address - chunk.Address) / PageSize);
            ushort index = chunk.Tag[page];
            if (index == 0 || (address & (PageSize - 1)) != 0)
                throw new InvalidOperationException($"free_page of 0x{address:x}, which is free.");
            int order = chunk.Order[page];
            chunk.Tag[page] = 0;
            _tagPages[index] -= 1 << order;
            _inUse -= 1 << order;
            if (address >> 32 == 0) _free32.Push(address);
            else _free[order].Push(address);
        }
    }

    /// <summary>vzalloc/kvcalloc: zeroed, 64-byte aligned memory that no device or guest sees by its physical address; 0 when it fails.</summary>
    public ulong Vmalloc(string tag, ulong bytes)
    {
        if (_host.Faults.ShouldFail("vmalloc", tag)) return 0;
        if (bytes == 0) bytes = 1;
        if (bytes > (ulong)_maxPages * PageSize) return 0;
        void* p;
        try
        {
            p = NativeMemory.AlignedAlloc((nuint)bytes, 64);
        }
        catch (OutOfMemoryException)
        {
            return 0;
        }

        NativeMemory.Clear(p, (nuint)bytes);
        _vmallocs[(ulong)p] = (bytes, tag);
        Interlocked.Add(ref _vmallocBytes, (long)bytes);
        return (ulong)p;
    }

    /// <summary>vfree: gives back what <see cref="Vmalloc"/> gave. 0 is ignored.</summary>
    public void Vfree(ulong address)
    {
        if (address == 0) return;
        if (!_vmallocs.TryRemove(address, out var v))
            throw new InvalidOperationException($"vfree of 0x{address:x}, which is not allocated.");
        Interlocked.Add(ref _vmallocBytes, -(long)v.Bytes);
        NativeMemory.AlignedFree((void*)address);
    }

    /// <summary>Physical address of a kernel pointer: the address itself (D1).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Pa(ulong address) => address;

    /// <summary>
    /// Maps the page a second time at <paramref name="at"/> (MAP_FIXED), as a user mapping of a kernel page; a private one is the kernel's until it is written to.
    /// False when the system refuses.
    /// </summary>
    internal bool MapAlias(ulong page, ulong at, int prot, bool shared)
    {
        long offset;
        lock (_gate)
        {
            if (!_byAddress.TryGetValue(page & ~(ulong)(ChunkPages * PageSize - 1), out Chunk? chunk)) return false;
            offset = chunk.FileOffset + (long)(page - chunk.Address);
        }

        return LibC.mmap((void*)at, PageSize, prot, (shared ? LibC.MAP_SHARED : LibC.MAP_PRIVATE) | LibC.MAP_FIXED, _memfd, offset) == (void*)at;
    }

    /// <summary>Tells a machine that joins late about the chunks there are.</summary>
    internal void Announce(IHostRam ram)
    {
        lock (_gate)
            foreach (Chunk chunk in _chunks) ram.Add(chunk.Address, ChunkPages * PageSize);
    }

    /// <summary>Unmaps everything. Pages still in use become invalid.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_disposed) return;
            _disposed = true;
            foreach (Chunk chunk in _chunks)
            {
                _host.Ram?.Remove(chunk.Address, ChunkPages * PageSize);
                _ = LibC.munmap((void*)chunk.Address, ChunkPages * PageSize);
            }

            _chunks.Clear();
            _byAddress.Clear();
            if (_memfd >= 0) _ = LibC.close(_memfd);
        }

        foreach (ulong v in _vmallocs.Keys) Vfree(v);
    }

    private ushort TagIndex(string tag)
    {
        if (_tagIndex.TryGetValue(tag, out ushort index)) return index;
        index = (ushort)_tags.Count;
        _tags.Add(tag);
        _tagPages.Add(0);
        _tagIndex[tag] = index;
        return index;
    }

    private ulong Take(int order)
    {
        if (_free[order].Count > 0) return _free[order].Pop();
        int pages = 1 << order;
        Chunk? chunk = _chunks.Count > 0 ? _chunks[^1] : null;
        int at = chunk is null ? ChunkPages : (chunk.Bump + pages - 1) & -pages;
        if (chunk is null || at + pages > ChunkPages)
        {
            chunk = Grow();
            if (chunk is null) return 0;
            at = 0;
        }

        // Pages skipped for alignment go to the single-page list.
        for (int i = chunk.Bump; i < at; i++) _free[0].Push(chunk.Address + (ulong)i * PageSize);
        chunk.Bump = at + pages;
        return chunk.Address + (ulong)at * PageSize;
    }

    private bool Grow32()
    {
        Chunk? chunk = NewChunk(low: true);
        if (chunk is null) return false;
        _chunks.Insert(0, chunk); // the last one is where other pages are taken from
        for (int i = ChunkPages - 1; i >= 0; i--) _free32.Push(chunk.Address + (ulong)i * PageSize);
        return true;
    }

    private Chunk? NewChunk(bool low)
    {
        const int bytes = ChunkPages * PageSize;
        if (_memfd < 0)
        {
            _memfd = LibC.memfd_create("kvm-host-ram", LibC.MFD_CLOEXEC);
            if (_memfd < 0) return null;
        }

        if (LibC.ftruncate(_memfd, _fileSize + bytes) != 0) return null;
        const int prot = LibC.PROT_READ | LibC.PROT_WRITE;
        void* p = low ? AddressSpaceHints.MapBelow4G(bytes, prot, LibC.MAP_SHARED, _memfd, _fileSize) : AddressSpaceHints.Map(bytes, bytes, prot, LibC.MAP_SHARED, _memfd, _fileSize);
        if (p == null) return null;
        var chunk = new Chunk { Address = (ulong)p, FileOffset = _fileSize, Bump = low ? ChunkPages : 0 };
        _fileSize += bytes;
        _byAddress[chunk.Address] = chunk;
        _host.Ram?.Add(chunk.Address, bytes);
        return chunk;
    }

    private Chunk? Grow()
    {
        Chunk? chunk = NewChunk(low: false);
        if (chunk is null) return null;
        if (_chunks.Count > 0)
        {
            Chunk last = _chunks[^1];
            for (int i = last.Bump; i < ChunkPages; i++) _free[0].Push(last.Address + (ulong)i * PageSize);
            last.Bump = ChunkPages;
        }

        _chunks.Add(chunk);
        return chunk;
    }
}
