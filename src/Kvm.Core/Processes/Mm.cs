using System.Globalization;
using System.Runtime.CompilerServices;
using Kvm.Interop;

namespace Kvm.Core;

/// <summary>
/// The address space of a process (struct mm_struct): its mappings, the foreign memory that a guest uses, and who is told of changes. User addresses are
/// addresses of this program.
/// </summary>
public sealed unsafe class Mm
{
    private readonly object _gate = new();
    private readonly List<IMmuNotifier> _notifiers = [];
    private readonly Srcu _readers;
    private Vma[] _vmas = []; // sorted by Start; replaced as a whole, so that readers need no lock
    private (ulong Start, ulong End, bool Writable)[] _foreign = [];

    internal Mm(Host host)
    {
        Host = host;
        _readers = new Srcu(host.Cpus.Count);
    }

    public Host Host { get; }

    /// <summary>The mappings, by address.</summary>
    public IReadOnlyList<Vma> Vmas => _vmas;

    /// <summary>True when the process has exited.</summary>
    public bool Dead { get; private set; }

    /// <summary>find_vma: the mapping that contains the address, or null.</summary>
    public Vma? Find(ulong address)
    {
        Vma[] vmas = Volatile.Read(ref _vmas);
        int lo = 0, hi = vmas.Length - 1;
        while (lo <= hi)
        {
            int mid = (lo + hi) >>> 1;
            Vma vma = vmas[mid];
            if (address < vma.Start) hi = mid - 1;
            else if (address >= vma.End) lo = mid + 1;
            else return vma;
        }

        return null;
    }

    /// <summary>
    /// get_user_pages for one page: the physical address of <paramref name="hva"/>, or 0 (-EFAULT) when nothing is mapped there or it may not be written.
    /// Memory that the process did not map through this host is accepted when it is really mapped in the program.
    /// </summary>
    [Tracing.KernelFunction("get_user_pages_fast", File = "mm/gup.c")]
    public ulong GetUserPage(ulong hva, bool write)
    {
        if (!UserMemory.AccessOk(hva, 1)) return 0;
        if (Find(hva) is { } vma) return (write ? vma.Writable : vma.Readable) ? hva : 0;
        foreach (var (start, end, writable) in Volatile.Read(ref _foreign))
            if (hva >= start && hva < end) return !write || writable ? hva : 0;
        return Adopt(hva, write) ? hva : 0;
    }

    /// <summary>mmu_notifier_register (fault point "mmu_notifier_register").</summary>
    [Tracing.KernelFunction("__mmu_notifier_register", File = "mm/mmu_notifier.c")]
    public KvmResult RegisterNotifier(IMmuNotifier notifier)
    {
        using var _ = Tracing.FunctionTrace.Enter("__mmu_notifier_register");
        if (Host.Faults.ShouldFail("mmu_notifier_register")) return HostTask.Current.FatalSignalPending ? Abi.Errno.EINTR : Abi.Errno.ENOMEM;
        if (HostTask.Current.FatalSignalPending) return Abi.Errno.EINTR;
        lock (_notifiers) _notifiers.Add(notifier);
        return 0;
    }

    /// <summary>mmu_notifier_unregister: calls release unless the address space died before.</summary>
    [Tracing.KernelFunction("mmu_notifier_unregister", File = "mm/mmu_notifier.c")]
    public void UnregisterNotifier(IMmuNotifier notifier)
    {
        using var _ = Tracing.FunctionTrace.Enter("mmu_notifier_unregister");
        bool was;
        lock (_notifiers) was = _notifiers.Remove(notifier);
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
        lock (_notifiers) notifiers = [.. _notifiers];
        foreach (IMmuNotifier n in notifiers) n.InvalidateRangeStart(start, end);
        change?.Invoke();
        foreach (IMmuNotifier n in notifiers) n.InvalidateRangeEnd(start, end);
    }

    internal void Announce(IHostRam ram)
    {
        foreach (Vma vma in Vmas)
            if (vma.File is null) ram.Add(vma.Start, vma.Length);
        foreach (var (start, end, _) in _foreign) ram.Add(start, end - start);
    }

    /// <summary>mmap: 0 when the system has no room.</summary>
    internal ulong Map(ulong length, int protection, int flags, KvmFile? file, ulong pageOffset, out KvmResult error)
    {
        error = Abi.Errno.ENOMEM;
        var vma = new Vma(0, length, protection, flags, file, pageOffset);
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
                if (page != 0) _ = Host.Pages.MapAlias(page, vma.Start + off, protection & 3);
            }

            file.Get();
        }

        lock (_gate) Publish([.. _vmas.Append(vma).OrderBy(v => v.Start)]);
        if (file is null) Host.Ram?.Add(vma.Start, length);
        return vma.Start;
    }

    /// <summary>munmap of whole pages: mappings are cut where the range ends inside them.</summary>
    internal KvmResult Unmap(ulong start, ulong length)
    {
        ulong end = start + length;
        Vma[] hit;
        lock (_gate) hit = [.. _vmas.Where(v => v.Start < end && v.End > start)];
        if (hit.Length == 0) return 0;
        Invalidate(start, end, () =>
        {
            lock (_gate)
            {
                var next = new List<Vma>();
                foreach (Vma v in _vmas)
                {
                    if (!(v.Start < end && v.End > start))
                    {
                        next.Add(v);
                        continue;
                    }

                    if (v.Start < start) next.Add(Piece(v, v.Start, start));
                    if (v.End > end) next.Add(Piece(v, end, v.End));
                }

                Publish([.. next]);
            }

            // No copy still uses what goes away.
            _readers.Synchronize();
            foreach (Vma v in hit)
            {
                ulong from = Math.Max(v.Start, start), to = Math.Min(v.End, end);
                if (v.File is null) Host.Ram?.Remove(from, to - from);
                _ = LibC.munmap((void*)from, (nuint)(to - from));
            }
        });
        foreach (Vma v in hit) v.File?.Put();
        return 0;
    }

    /// <summary>mprotect of whole mappings. -ENOMEM when the range is not one mapping of this host.</summary>
    internal KvmResult Protect(ulong start, ulong length, int protection)
    {
        if (Find(start) is not { } vma || vma.End < start + length) return Abi.Errno.ENOMEM;
        if (vma.Start != start || vma.Length != length) return Abi.Errno.EINVAL;
        Invalidate(start, start + length, () =>
        {
            vma.Protection = protection;
            _readers.Synchronize();
            _ = LibC.mprotect((void*)start, (nuint)length, protection);
        });
        return 0;
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
        }

        foreach (IMmuNotifier n in notifiers) n.Release();
        foreach (Vma v in Vmas.ToArray()) _ = Unmap(v.Start, v.Length);
        foreach (var (start, end, _) in _foreign) Host.Ram?.Remove(start, end - start);
        _foreign = [];
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
        return new Vma(start, end - start, v.Protection, v.Flags, v.File, v.PageOffset + (start - v.Start) / PageAllocator.PageSize);
    }

    private void Publish(Vma[] vmas) => Volatile.Write(ref _vmas, vmas);

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
                _foreign = [.. _foreign, (start, end, writable)];
                Host.Ram?.Add(start, end - start);
                return true;
            }
        }

        return false;
    }
}
