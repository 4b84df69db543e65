using System.Runtime.CompilerServices;
using Kvm.Collections;

namespace Kvm.Core;

/// <summary>
/// struct kvm_memslots: one set of slots, found by frame number, by id and by process address. Only the inactive set of a VM is ever changed, and only when no
/// reader can still see it, so readers take no lock.
/// </summary>
/// <remarks>As in Linux a change takes a time that is logarithmic in the slots: a tree by frame, one by process address, a hash by id.</remarks>
public sealed class KvmMemslots
{
    private readonly Dictionary<short, KvmMemorySlot> _byId = [];
    private IntervalTree<KvmMemorySlot> _byGfn = IntervalTree<KvmMemorySlot>.Empty;
    private IntervalTree<KvmMemorySlot> _byHva = IntervalTree<KvmMemorySlot>.Empty;
    private KvmMemorySlot? _lastUsed;

    internal KvmMemslots(int nodeIndex, ulong generation)
    {
        NodeIndex = nodeIndex;
        Generation = generation;
    }

    /// <summary>Changes with every update; has KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS during one; distinct between address spaces.</summary>
    public ulong Generation;

    /// <summary>Which of the two sets this is.</summary>
    public int NodeIndex { get; }

    /// <summary>Slots in the set.</summary>
    public int Count => _byGfn.Count;

    /// <summary>kvm_memslots_empty.</summary>
    public bool IsEmpty => Count == 0;

    /// <summary>The slots in order of their first frame.</summary>
    public IReadOnlyList<KvmMemorySlot> ByGfn
    {
        get
        {
            var slots = new List<KvmMemorySlot>(Count);
            foreach (KvmMemorySlot slot in _byGfn.All) slots.Add(slot);
            return slots;
        }
    }

    /// <summary>id_to_memslot, or null.</summary>
    public KvmMemorySlot? ById(int id) => _byId.GetValueOrDefault((short)id);

    /// <summary>__gfn_to_memslot: the slot of a frame, or null.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public KvmMemorySlot? Find(ulong gfn)
    {
        KvmMemorySlot? last = _lastUsed;
        if (last is not null && last.Contains(gfn)) return last;
        return Search(gfn);
    }

    /// <summary>search_memslots: without the cache. With <paramref name="approx"/> the nearest slot below, or the lowest one.</summary>
    public KvmMemorySlot? Search(ulong gfn, bool approx = false)
    {
        KvmMemorySlot? below = _byGfn.Floor(gfn);
        if (below is not null && below.Contains(gfn))
        {
            _lastUsed = below;
            return below;
        }

        return approx ? below ?? _byGfn.First : null;
    }

    /// <summary>kvm_for_each_memslot_in_gfn_range: slots that intersect [start, end), in order.</summary>
    internal IntervalTree<KvmMemorySlot>.Query GfnRange(ulong start, ulong end) => start < end ? _byGfn.Overlapping(start, end - 1) : default;

    /// <inheritdoc cref="GfnRange"/>
    public IEnumerable<KvmMemorySlot> InGfnRange(ulong start, ulong end)
    {
        foreach (KvmMemorySlot slot in GfnRange(start, end)) yield return slot;
    }

    /// <summary>kvm_for_each_memslot_in_hva_range: slots whose process memory intersects [start, last].</summary>
    internal IntervalTree<KvmMemorySlot>.Query HvaRange(ulong start, ulong last) => _byHva.Overlapping(start, last);

    /// <summary>Replaces <paramref name="old"/> by <paramref name="next"/>; null adds or removes. The set must be inactive.</summary>
    internal void Replace(KvmMemorySlot? old, KvmMemorySlot? next)
    {
        if (old is not null)
        {
            _byId.Remove(old.Id);
            if (_lastUsed == old) _lastUsed = next;
            int before = Count;
            _byGfn = _byGfn.Remove(old.BaseGfn);
            if (Count == before) throw new InvalidOperationException("BUG: slot is not in the set.");
            _byHva = _byHva.Remove(old.UserspaceAddr, (ushort)old.Id);
        }

        if (next is null) return;
        _byId[next.Id] = next;
        _byGfn = _byGfn.Add(next.BaseGfn, next.EndGfn - 1, next);
        _byHva = _byHva.Add(next.UserspaceAddr, next.UserspaceAddr + (next.Npages << KvmLimits.PageShift) - 1, next, (ushort)next.Id);
    }
}
