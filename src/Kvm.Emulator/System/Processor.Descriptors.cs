namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    private static bool IsNull(ushort selector) => (selector & 0xfffc) == 0;

    /// <summary>Linear address of a selector's descriptor; false when it lies outside its table.</summary>
    private bool DescriptorAddress(ushort selector, int size, out ulong address)
    {
        ulong tableBase;
        uint limit;
        if ((selector & 4) != 0)
        {
            ref SegmentCache ldt = ref Segment(Seg.LDTR);
            tableBase = ldt.Base;
            limit = ldt.Limit;
            if (ldt.Unusable || IsNull(ldt.Selector) && !ldt.Present)
            {
                address = 0;
                return false;
            }
        }
        else
        {
            tableBase = State->Gdtr.Base;
            limit = State->Gdtr.Limit;
        }
        uint offset = (uint)selector & 0xfff8;
        address = tableBase + offset;
        return offset + (uint)size - 1 <= limit;
    }

    /// <summary>
    /// Reads the descriptor of a non-null selector. Outside the table: <paramref name="vector"/>(selector | ext). False: fault or memory exit pending.
    /// </summary>
    private bool ReadDescriptor(ushort selector, byte vector, uint ext, out Descriptor descriptor)
    {
        descriptor = default;
        if (!DescriptorAddress(selector, 8, out ulong address))
            return Fail(vector, selector, ext);
        return Mmu.ReadLinear(address, 8, out descriptor.Low, supervisor: true);
    }

    /// <summary>Reads bytes 8–15 of a 16-byte system descriptor; its type field (bits 12:8 of the last dword) must be zero.</summary>
    private bool ReadDescriptorHigh(ushort selector, byte vector, uint ext, ref Descriptor descriptor)
    {
        if (!DescriptorAddress(selector, 16, out ulong address))
            return Fail(vector, selector, ext);
        if (!Mmu.ReadLinear(address + 8, 8, out ulong high, supervisor: true))
            return false;
        if ((high >> 40 & 0x1f) != 0)
            return Fail(vector, selector, ext);
        descriptor.High = (uint)high;
        return true;
    }

    private bool Fail(byte vector, ushort selector, uint ext)
    {
        Raise(new Fault(vector, true, (uint)(selector & 0xfffc) | ext));
        return false;
    }

    /// <summary>Sets the accessed bit of a code or data descriptor in memory.</summary>
    private bool SetAccessed(ushort selector, ref Descriptor descriptor)
    {
        if ((descriptor.Low >> 40 & 1) != 0)
            return true;
        descriptor.Low |= Descriptor.Accessed;
        return DescriptorAddress(selector, 8, out ulong address) && Mmu.WriteLinear(address + 5, 1, descriptor.Low >> 40 & 0xff, supervisor: true);
    }

    /// <summary>Changes the busy bit of a TSS descriptor in memory.</summary>
    private bool SetBusy(ushort selector, ref Descriptor descriptor, bool busy)
    {
        ulong wanted = busy ? descriptor.Low | Descriptor.Busy : descriptor.Low & ~Descriptor.Busy;
        if (wanted == descriptor.Low)
            return true;
        descriptor.Low = wanted;
        return DescriptorAddress(selector, 8, out ulong address) && Mmu.WriteLinear(address + 5, 1, wanted >> 40 & 0xff, supervisor: true);
    }

    /// <summary>Loads ES, SS, DS, FS or GS as MOV, POP and LxS do, in the current mode. False: fault or memory exit pending, nothing changed.</summary>
    /// <remarks>SDM vol 2A, MOV, "Loading a segment register while in protected mode"; vol 3A, "Segment Loading Instructions in IA-32e Mode".</remarks>
    internal bool LoadSegment(Seg seg, ushort selector)
    {
        if (!ProtectedMode || Virtual8086)
        {
            LoadRealSegment(seg, selector);
            UpdateMode();
            return true;
        }
        if (!CheckDataSegment(seg, selector, State->Cpl, Fault.GP, 0, out SegmentCache cache))
            return false;
        StoreDataSegment(seg, cache);
        UpdateMode();
        return true;
    }

    /// <summary>A null selector keeps FS and GS bases on AMD; Intel clears them.</summary>
    private void StoreDataSegment(Seg seg, in SegmentCache cache)
    {
        ulong oldBase = Segment(seg).Base;
        Segment(seg) = cache;
        if (cache.Unusable && Model.Vendor == CpuVendor.Amd && seg is Seg.FS or Seg.GS && cache.Unusable)
            Segment(seg).Base = oldBase;
    }

    /// <summary>Real-address and virtual-8086 mode: base = selector * 16. Real mode keeps limit and rights ("unreal" mode).</summary>
    private void LoadRealSegment(Seg seg, ushort selector)
    {
        ref SegmentCache cache = ref Segment(seg);
        cache.Selector = selector;
        cache.Base = (ulong)selector << 4;
        if (Virtual8086)
        {
            cache.Limit = 0xffff;
            cache.AccessRights = 0xf3;
        }
        else if (cache.Unusable)
        {
            cache.AccessRights = 0x93;
            cache.Limit = 0xffff;
        }
        else if (seg == Seg.CS)
        {
            cache.AccessRights = (cache.AccessRights & ~0xffu) | 0x9b;
        }
    }

    /// <summary>The checks of a data-segment load at privilege <paramref name="cpl"/>; reads the descriptor and sets its accessed bit.</summary>
    private bool CheckDataSegment(Seg seg, ushort selector, int cpl, byte vector, uint ext, out SegmentCache cache)
    {
        cache = default;
        int rpl = selector & 3;
        if (IsNull(selector))
        {
            if (seg == Seg.SS && !(Code64 && cpl != 3 && rpl == cpl))
                return Fail(vector, 0, ext);
            cache = NullSegment(selector, seg == Seg.SS ? cpl : 0);
            return true;
        }
        if (!ReadDescriptor(selector, vector, ext, out Descriptor d))
            return false;
        if (seg == Seg.SS)
        {
            if (rpl != cpl || !d.IsWritableData || d.Dpl != cpl)
                return Fail(vector, selector, ext);
            if (!d.Present)
                return Fail(Fault.SS, selector, ext);
        }
        else
        {
            if (!d.S || !d.IsReadable || (!d.IsConforming && (rpl > d.Dpl || cpl > d.Dpl)))
                return Fail(vector, selector, ext);
            if (!d.Present)
                return Fail(Fault.NP, selector, ext);
        }
        if (!SetAccessed(selector, ref d))
            return false;
        cache = d.ToCache(selector);
        return true;
    }

    private static SegmentCache NullSegment(ushort selector, int dpl)
        => new() { Selector = selector, AccessRights = SegmentRights.Unusable | (uint)dpl << 5, Limit = 0, Base = 0 };

    /// <summary>After a return to an outer level: data segments that the new level may not use become null, and null selectors lose their RPL.</summary>
    private void DropInaccessibleSegments()
    {
        for (Seg seg = Seg.ES; seg <= Seg.GS; seg++)
        {
            if (seg is Seg.CS or Seg.SS)
                continue;
            ref SegmentCache cache = ref Segment(seg);
            bool conforming = (cache.AccessRights & (SegmentRights.Code | SegmentRights.Conforming)) == (SegmentRights.Code | SegmentRights.Conforming);
            // Only selector and rights go: FS and GS bases of null segments are what WRMSR made them, and 64-bit code goes on using them.
            if (IsNull(cache.Selector))
                cache.Selector = 0;
            else if (!cache.Unusable && cache.Dpl < State->Cpl && !conforming)
                cache = NullSegment(0, 0) with { Base = cache.Base, Limit = cache.Limit };
        }
    }

    /// <summary>RIP fits the target: canonical in 64-bit code, within the limit otherwise.</summary>
    private bool CheckTargetRip(in SegmentCache cs, ulong rip, uint ext = 0)
    {
        bool ok = LongMode && cs.L ? Mmu.Canonical(rip) : rip <= cs.Limit;
        if (!ok)
            Raise(Fault.Gp(ext));
        return ok;
    }

    /// <summary>L and D both set is reserved in IA-32e mode.</summary>
    private bool BadCodeBits(in Descriptor d) => LongMode && d.L && d.Db;

    private SegmentCache CodeSegment(Descriptor d, ushort selector, int cpl)
    {
        SegmentCache cache = d.ToCache((ushort)((selector & 0xfffc) | cpl));
        cache.AccessRights |= SegmentRights.Accessed;
        if (LongMode && d.L)
            cache.Base = 0;
        return cache;
    }
}
