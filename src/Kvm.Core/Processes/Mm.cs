using System.Globalization;
using System.Runtime.CompilerServices;
using Kvm.Collections;
using Kvm.Interop;

namespace Kvm.Core;

/// <summary>
/// The address space of a process (struct mm_struct): its mappings, the foreign memory that a guest uses, and who is told of changes. User addresses are
/// addresses of this program.
/// </summary>
public sealed unsafe class Mm
{
    private readonly KernelMutex _mmapLock = new();
    private readonly object _gate = new();
    private readonly LinkedList<IMmuNotifier> _notifiers = [];
    private readonly Dictionary<IMmuNotifier, LinkedListNode<IMmuNotifier>> _notifierNodes = new(ReferenceEqualityComparer.Instance);
    private IMmuNotifier[]? _notifierArray = []; // the list as an array; null: made anew when it is needed
    private readonly Srcu _readers;
    private IntervalTree<Vma> _vmas = IntervalTree<Vma>.Empty; // replaced as a whole, so that readers need no lock
    private IntervalTree<Foreign> _foreign = IntervalTree<Foreign>.Empty;

    internal Mm(Host host)
    {
        Host = host;
        _readers = new Srcu(host.Cpus.Count);
    }

    public Host Host { get; }

    /// <summary>The mappings, by address.</summary>
    public IReadOnlyList<Vma> Vmas
    {
        get
        {
            IntervalTree<Vma> vmas = Volatile.Read(ref _vmas);
            var list = new List<Vma>(vmas.Count);
            foreach (Vma vma in vmas.All) list.Add(vma);
            return list;
        }
    }

    /// <summary>True when the process has exited.</summary>
    public bool Dead { get; private set; }

    /// <summary>find_vma: the mapping that contains the address, or null.</summary>
    public Vma? Find(ulong address) => Volatile.Read(ref _vmas).Find(address);

    /// <summary>SIGBUS's number.</summary>
    public const int SIGBUS = 7;

    /// <summary>SIGSEGV's number.</summary>
    public const int SIGSEGV = 11;

    /// <summary>
    /// The signal that an access of the process to <paramref name="address"/> raises: 0 for none; <see cref="SIGSEGV"/> where nothing is mapped or the
    /// protection forbids it; <see cref="SIGBUS"/> where the mapping has no page (a vCPU's pages that its file does not have).
    /// </summary>
    public int SignalOf(ulong address, bool write)
    {
        if (Find(address) is { } vma) return (write ? vma.Writable : vma.Readable) ? vma.HasPage(address) ? 0 : SIGBUS : SIGSEGV;
        byte value = 0;
        return UserMemory.AccessOk(address, 1) && CopyFrom(&value, address, 1) && (!write || CopyTo(address, &value, 1)) ? 0 : SIGSEGV;
    }

    /// <summary>
    /// get_user_pages for one page: the physical address of <paramref name="hva"/>, or 0 (-EFAULT) when nothing is mapped there or it may not be written.
    /// Memory that the process did not map through this host is accepted when it is really mapped in the program.
    /// </summary>
    [Tracing.KernelFunction("get_user_pages_fast", File = "mm/gup.c")]
    public ulong GetUserPage(ulong hva, bool write)
    {
        if (!UserMemory.AccessOk(hva, 1)) return 0;
        if (Find(hva) is { } vma) return (write ? vma.Writable : vma.Readable) && vma.HasPage(hva) ? hva : 0;
        foreach (Foreign piece in Volatile.Read(ref _foreign).Overlapping(hva, hva))
            if (!write || piece.Writable) return hva;
        return Adopt(hva, write) ? hva : 0;
    }

    /// <summary>mmu_notifier_register (fault point "mmu_notifier_register").</summary>
    [Tracing.KernelFunction("__mmu_notifier_register", File = "mm/mmu_notifier.c")]
    public KvmResult RegisterNotifier(IMmuNotifier notifier)
    {
        using var _ = Tracing.FunctionTrace.Enter("__mmu_notifier_register");
        if (Host.Faults.ShouldFail("mmu_notifier_register")) return HostTask.Current.FatalSignalPending ? Abi.Errno.EINTR : Abi.Errno.ENOMEM;
        if (HostTask.Current.FatalSignalPending) return Abi.Errno.EINTR;
        lock (_notifiers)
        {
            _notifierNodes.Add(notifier, _notifiers.AddLast(notifier));
            _notifierArray = null;
        }

        return 0;
    }

    /// <summary>mmu_notifier_unregister: calls release unless the address space died before.</summary>
    [Tracing.KernelFunction("mmu_notifier_unregister", File = "mm/mmu_notifier.c")]
    public void UnregisterNotifier(IMmuNotifier notifier)
    {
        using var _ = Tracing.FunctionTrace.Enter("mmu_notifier_unregister");
        bool was;
        lock (_notifiers)
        {
            was = _notifierNodes.Remove(notifier, out LinkedListNode<IMmuNotifier>? node);
            if (was) _notifiers.Remove(node!);
            _notifierArray = null;
        }

        if (was) notifier.Release();
        Tracing.FunctionTrace.Leaf("synchronize_srcu");
    }

    internal int NotifierCount
    {
        get { lock (_notifiers) return _notifiers.Count; }
    }

    /// <summary>Tells the notifiers around <paramref name="change"/> of the range.</summary>
    public void Invalidate(ulong start, ulong end, Action? change = null)
    {
        IMmuNotifier[] notifiers;
        lock (_notifiers) notifiers = _notifierArray ??= [.. _notifiers];
        foreach (IMmuNotifier n in notifiers) n.InvalidateRangeStart(start, end);
        change?.Invoke();
        foreach (IMmuNotifier n in notifiers) n.InvalidateRangeEnd(start, end);
    }

    internal void Announce(IHostRam ram)
    {
        foreach (Vma vma in Vmas) ram.Add(vma.Start, vma.Length);
        foreach (Foreign piece in _foreign.All) ram.Add(piece.Start, piece.Length);
    }

    /// <summary>mmap: 0 when the system has no room.</summary>
    internal ulong Map(ulong length, int protection, int flags, KvmFile? file, ulong pageOffset, out KvmResult error)
    {
        error = Abi.Errno.ENOMEM;
        var vma = new Vma(0, length, protection, flags, file, pageOffset) { Populated = file is null ? null : new bool[length / PageAllocator.PageSize] };
        if (file is not null)
        {
            error = file.Operations.Mmap(file, vma);
            if (error.IsError) return 0;
        }

        int prot = file is null ? protection : LibC.PROT_NONE;
        int mapFlags = LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS | LibC.MAP_NORESERVE;
        ulong align = file is null && length >= 2 << 20 ? 2UL << 20 : 4096;
        void* p = AddressSpaceHints.Map(length, align, prot, mapFlags, -1, 0);
        if (p == null)
        {
            error = Abi.Errno.ENOMEM;
            return 0;
        }

        vma.Start = (ulong)p;
        if (file is not null)
        {
            // DIVERGES: D-CORE-1
            for (ulong off = 0; off < length; off += PageAllocator.PageSize)
            {
                ulong page = file.Operations.Fault(file, pageOffset + off / PageAllocator.PageSize);
                vma.Populated![off / PageAllocator.PageSize] = page != 0 && Host.Pages.MapAlias(page, vma.Start + off, protection & 3, (flags & Fcntl.MAP_SHARED) != 0);
            }

            file.Get();
        }

        lock (_gate) Publish(_vmas.Add(vma.Start, vma.End - 1, vma));
        Host.Ram?.Add(vma.Start, length);
        return vma.Start;
    }

    /// <summary>munmap of whole pages: mappings are cut where the range ends inside them.</summary>
    internal KvmResult Unmap(ulong start, ulong length)
    {
        PutFiles(UnmapLocked(start, start + length));
        return 0;
    }

    /// <summary>The mappings' references: without the lock, as the last one can release a VM that unmaps memory of its own (Linux: delayed_fput).</summary>
    private static void PutFiles(Vma[] mappings)
    {
        foreach (Vma v in mappings) v.File?.Put();
    }

    private Vma[] UnmapLocked(ulong start, ulong end)
    {
        using var _ = _mmapLock.Enter();
        Vma[] hit = Overlapping(start, end);
        if (hit.Length == 0) return hit;
        Invalidate(start, end, () =>
        {
            foreach (Vma v in hit) Cut(v, start, end, null);
            // No copy still uses what goes away.
            _readers.Synchronize();
            foreach (Vma v in hit)
            {
                ulong from = Math.Max(v.Start, start), to = Math.Min(v.End, end);
                Host.Ram?.Remove(v.Start, v.Length);
                LibC.munmap((void*)from, (nuint)(to - from));
            }
        });
        return hit;
    }

    /// <summary>mprotect: mappings are cut where the range ends inside them. -ENOMEM at the first address without a mapping of this host; what lies before has changed.</summary>
    internal KvmResult Protect(ulong start, ulong length, int protection)
    {
        KvmResult r;
        Vma[] changed;
        using (_mmapLock.Enter()) r = Protect(start, length, protection, out changed);
        PutFiles(changed);
        return r;
    }

    private KvmResult Protect(ulong start, ulong length, int protection, out Vma[] replaced)
    {
        ulong end = start, wanted = start + length;
        replaced = [];
        Vma[] hit = Overlapping(start, wanted);
        foreach (Vma v in hit)
        {
            if (v.Start > end) break;
            end = Math.Min(v.End, wanted);
        }

        if (end == start) return length == 0 ? 0 : Abi.Errno.ENOMEM;
        hit = replaced = [.. hit.Where(v => v.Start < end)];
        Invalidate(start, end, () =>
        {
            foreach (Vma v in hit)
            {
                ulong from = Math.Max(v.Start, start), to = Math.Min(v.End, end);
                Vma changed = Piece(v, from, to);
                changed.Protection = protection;
                Cut(v, start, end, changed);
            }

            _readers.Synchronize();
            foreach (Vma v in hit)
            {
                Host.Ram?.Remove(v.Start, v.Length);
                for (ulong at = Math.Max(v.Start, start), to = Math.Min(v.End, end); at < to;)
                {
                    // Pages that a file does not have stay inaccessible.
                    ulong run = at;
                    bool has = v.HasPage(at);
                    while (at < to && v.HasPage(at) == has) at = v.Populated is null ? to : at + PageAllocator.PageSize;
                    if (has) LibC.mprotect((void*)run, (nuint)(at - run), protection);
                }
            }
        });
        return end == wanted ? 0 : Abi.Errno.ENOMEM;
    }

    private Vma[] Overlapping(ulong start, ulong end)
    {
        if (start >= end) return [];
        var hit = new List<Vma>();
        lock (_gate)
            foreach (Vma vma in _vmas.Overlapping(start, end - 1)) hit.Add(vma);
        return [.. hit];
    }

    /// <summary>Puts in a mapping's place what is left of it outside the range, and a changed piece inside. Their memory is RAM before the whole stops being it.</summary>
    private void Cut(Vma v, ulong start, ulong end, Vma? changed)
    {
        List<Vma> pieces = [];
        if (v.Start < start) pieces.Add(Piece(v, v.Start, start));
        if (changed is not null) pieces.Add(changed);
        if (v.End > end) pieces.Add(Piece(v, end, v.End));
        foreach (Vma piece in pieces) Host.Ram?.Add(piece.Start, piece.Length);
        lock (_gate)
        {
            IntervalTree<Vma> vmas = _vmas.Remove(v.Start);
            foreach (Vma piece in pieces) vmas = vmas.Add(piece.Start, piece.End - 1, piece);
            Publish(vmas);
        }
    }

    /// <summary>exit_mmap: notifiers are released, mappings go.</summary>
    internal void Exit()
    {
        if (Dead) return;
        Dead = true;
        IMmuNotifier[] notifiers;
        lock (_notifiers)
        {
            notifiers = [.. _notifiers];
            _notifiers.Clear();
            _notifierNodes.Clear();
            _notifierArray = [];
        }

        foreach (IMmuNotifier n in notifiers) n.Release();
        foreach (Vma v in Vmas) _ = Unmap(v.Start, v.Length);
        foreach (Foreign piece in _foreign.All) Host.Ram?.Remove(piece.Start, piece.Length);
        _foreign = IntervalTree<Foreign>.Empty;
    }

    internal bool CopyFrom(void* to, ulong from, ulong size)
    {
        int index = _readers.ReadLock();
        try
        {
            if (Find(from) is { Readable: true, File: null } vma && vma.End - from >= size)
            {
                Unsafe.CopyBlockUnaligned(to, (void*)from, (uint)size);
                return true;
            }
        }
        finally
        {
            _readers.ReadUnlock(index);
        }

        return UserMemory.ProbeRead(to, from, size);
    }

    /// <summary>get_user of an aligned word of 4 or 8 bytes, read at once: false when nothing is mapped there.</summary>
    public bool ReadAtomic(ulong from, int size, out ulong value)
    {
        int index = _readers.ReadLock();
        try
        {
            if (Find(from) is { Readable: true, File: null })
            {
                value = size == 8 ? Volatile.Read(ref *(ulong*)from) : Volatile.Read(ref *(uint*)from);
                return true;
            }
        }
        finally
        {
            _readers.ReadUnlock(index);
        }

        ulong read = 0;
        bool ok = UserMemory.ProbeRead(&read, from, (ulong)size);
        value = read;
        return ok;
    }

    internal bool CopyTo(ulong to, void* from, ulong size)
    {
        int index = _readers.ReadLock();
        try
        {
            if (Find(to) is { Writable: true, File: null } vma && vma.End - to >= size)
            {
                Unsafe.CopyBlockUnaligned((void*)to, from, (uint)size);
                return true;
            }
        }
        finally
        {
            _readers.ReadUnlock(index);
        }

        return UserMemory.ProbeWrite(to, from, size);
    }

    private static Vma Piece(Vma v, ulong start, ulong end)
    {
        v.File?.Get();
        int first = (int)((start - v.Start) / PageAllocator.PageSize), pages = (int)((end - start) / PageAllocator.PageSize);
        return new Vma(start, end - start, v.Protection, v.Flags, v.File, v.PageOffset + (ulong)first) { Populated = v.Populated?[first..(first + pages)] };
    }

    private void Publish(IntervalTree<Vma> vmas) => Volatile.Write(ref _vmas, vmas);

    /// <summary>Looks the address up in the program's own mappings and makes the piece around it known as host memory.</summary>
    private bool Adopt(ulong hva, bool write)
    {
        lock (_gate)
        {
            foreach (string line in File.ReadLines("/proc/self/maps"))
            {
                int dash = line.IndexOf('-'), space = line.IndexOf(' ');
                ulong start = ulong.Parse(line.AsSpan(0, dash), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
                ulong end = ulong.Parse(line.AsSpan(dash + 1, space - dash - 1), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
                if (hva < start || hva >= end) continue;
                bool readable = line[space + 1] == 'r', writable = line[space + 2] == 'w';
                if (!readable || (write && !writable)) return false;
                // At most 2 MiB at a time: the mapping may be far larger than what the guest uses.
                start = Math.Max(start, hva & ~0x1f_ffffUL);
                end = Math.Min(end, (hva & ~0x1f_ffffUL) + 0x20_0000);
                // Of these 2 MiB there may be pieces already, with less access or smaller.
                Volatile.Write(ref _foreign, _foreign.Add(start, end - 1, new Foreign(start, end - start, writable), key: (ulong)_foreign.Count));
                Host.Ram?.Add(start, end - start);
                return true;
            }
        }

        return false;
    }

    /// <summary>A piece of memory that the process has not from this host.</summary>
    private sealed record Foreign(ulong Start, ulong Length, bool Writable);
}
