using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <summary>
/// struct kvm_memslots: one set of slots, found by frame number, by id and by process address. Only the inactive set of a VM is ever changed, and only when no
/// reader can still see it, so readers take no lock.
/// </summary>
public sealed class KvmMemslots
{
    private readonly Dictionary<short, KvmMemorySlot> _byId = [];
    private KvmMemorySlot[] _byGfn = new KvmMemorySlot[8];
    private int _count;
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
    public int Count => _count;

    /// <summary>kvm_memslots_empty.</summary>
    public bool IsEmpty => _count == 0;

    /// <summary>The slots in order of their first frame.</summary>
    public ReadOnlySpan<KvmMemorySlot> ByGfn => new(_byGfn, 0, _count);

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
        int lo = 0, hi = _count - 1, below = -1;
        while (lo <= hi)
        {
            int mid = (lo + hi) >>> 1;
            if (_byGfn[mid].BaseGfn <= gfn)
            {
                below = mid;
                lo = mid + 1;
            }
            else
            {
                hi = mid - 1;
            }
        }

        if (below >= 0 && _byGfn[below].Contains(gfn))
        {
            _lastUsed = _byGfn[below];
            return _byGfn[below];
        }

        if (!approx || _count == 0) return null;
        return _byGfn[Math.Max(below, 0)];
    }

    /// <summary>kvm_for_each_memslot_in_gfn_range: slots that intersect [start, end), in order.</summary>
    public IEnumerable<KvmMemorySlot> InGfnRange(ulong start, ulong end)
    {
        KvmMemorySlot[] slots = _byGfn;
        int count = _count;
        for (int i = 0; i < count; i++)
        {
            if (slots[i].BaseGfn >= end) yield break;
            if (slots[i].EndGfn > start) yield return slots[i];
        }
    }

    /// <summary>kvm_for_each_memslot_in_hva_range: slots whose process memory intersects [start, last].</summary>
    public IEnumerable<KvmMemorySlot> InHvaRange(ulong start, ulong last)
    {
        KvmMemorySlot[] slots = _byGfn;
        int count = _count;
        for (int i = 0; i < count; i++)
        {
            KvmMemorySlot s = slots[i];
            if (s.UserspaceAddr <= last && s.UserspaceAddr + (s.Npages << KvmLimits.PageShift) - 1 >= start) yield return s;
        }
    }

    /// <summary>Replaces <paramref name="old"/> by <paramref name="next"/>; null adds or removes. The set must be inactive.</summary>
    internal void Replace(KvmMemorySlot? old, KvmMemorySlot? next)
    {
        if (old is not null)
        {
            _byId.Remove(old.Id);
            if (_lastUsed == old) _lastUsed = next;
            if (next is not null && old.BaseGfn == next.BaseGfn)
            {
                _byGfn[IndexOf(old)] = next;
                _byId[next.Id] = next;
                return;
            }

            int at = IndexOf(old);
            Array.Copy(_byGfn, at + 1, _byGfn, at, _count - at - 1);
            _byGfn[--_count] = null!;
        }

        if (next is null) return;
        _byId[next.Id] = next;
        if (_count == _byGfn.Length) Array.Resize(ref _byGfn, _count * 2);
        int i = _count;
        while (i > 0 && _byGfn[i - 1].BaseGfn > next.BaseGfn) i--;
        Array.Copy(_byGfn, i, _byGfn, i + 1, _count - i);
        _byGfn[i] = next;
        _count++;
    }

    private int IndexOf(KvmMemorySlot slot)
    {
        int i = Array.IndexOf(_byGfn, slot, 0, _count);
        return i >= 0 ? i : throw new InvalidOperationException("BUG: slot is not in the set.");
    }
}
