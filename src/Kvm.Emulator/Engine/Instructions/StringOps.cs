using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

/// <summary>
/// MOVS STOS LODS SCAS CMPS with and without REP. Elements that lie in one page on each side are done together through host pointers;
/// others one by one through the Mmu. Registers are exact after every group, so a fault or a pending event leaves the instruction resumable.
/// </summary>
internal static unsafe class StringOps
{
    /// <summary>Work done before a REP instruction lets the loop look up even if nothing asks it to: an element counts 1, one that goes through the Mmu 64.</summary>
    private const ulong MaximumPerTurn = 1 << 17, SlowElement = 64;

    /// <summary>Registers of a string instruction, truncated to its address size.</summary>
    private ref struct Cursor
    {
        internal ulong Mask;
        internal long Step;
        internal ulong Count;
        internal ulong Source;
        internal ulong Destination;
    }

    private static bool Repeats(Op* op) => (op->Prefixes & (OpPrefixes.Rep | OpPrefixes.Repne)) != 0;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Cursor Begin<TW>(CpuState* s, Op* op) where TW : struct, IWidth
    {
        ulong mask = op->AddressMask;
        return new Cursor
        {
            Mask = mask,
            Step = (s->Rflags & 0x400) != 0 ? -TW.Size : TW.Size,
            Count = Repeats(op) ? s->Gpr[1] & mask : 1,
            Source = s->Gpr[6] & mask,
            Destination = s->Gpr[7] & mask,
        };
    }

    private static void StoreIndex(CpuState* s, int register, ulong mask, ulong value)
    {
        int size = mask == ushort.MaxValue ? 2 : mask == uint.MaxValue ? 4 : 8;
        s->Gpr[register] = OperandSize.Insert(s->Gpr[register], value, size);
    }

    private static void Advance(CpuState* s, Op* op, ref Cursor c, ulong elements, bool source, bool destination)
    {
        ulong delta = (ulong)(c.Step * (long)elements);
        if (source)
            StoreIndex(s, 6, c.Mask, c.Source = (c.Source + delta) & c.Mask);
        if (destination)
            StoreIndex(s, 7, c.Mask, c.Destination = (c.Destination + delta) & c.Mask);
        c.Count -= elements;
        if (Repeats(op))
            StoreIndex(s, 1, c.Mask, c.Count);
    }

    /// <summary>
    /// Host pointer of the element at <paramref name="offset"/> when the TLB has its page; lowers <paramref name="elements"/> to those that lie in the page,
    /// in the segment and before the offset wraps. Null: one element at a time through the Mmu.
    /// </summary>
    private static byte* Window(Processor cpu, Seg segment, ulong offset, in Cursor c, int size, bool write, ref ulong elements)
    {
        CpuState* s = cpu.State;
        if ((s->ExitRequest & (uint)ExitRequests.SingleStep) != 0)
            return null;
        bool backward = c.Step < 0;
        // Keep the offsets from wrapping.
        ulong room = backward ? offset / (ulong)size + 1 : (c.Mask - offset) / (ulong)size + (c.Mask == ulong.MaxValue ? 0 : 1UL);
        ulong n = Math.Min(elements, room);
        uint mode = s->Mode;
        ulong linear;
        if ((mode & (uint)CodeMode.AlignmentCheck) != 0)
            return null;
        if ((mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64)
            linear = offset + (segment >= Seg.FS ? s->Segs[(int)segment].Base : 0);
        else
        {
            ref SegmentCache cache = ref cpu.Segment(segment);
            linear = (uint)(offset + cache.Base);
            // Only plain expand-up segments of the right kind are handled here.
            bool flat = (mode & (uint)CodeMode.Flat) != 0 && segment is Seg.ES or Seg.SS or Seg.DS;
            if (!flat)
            {
                bool protectedMode = (mode & (uint)(CodeMode.Protected | CodeMode.Virtual8086)) == (uint)CodeMode.Protected;
                if (protectedMode && ((cache.AccessRights & 0x1009c) != 0x90 || (write && (cache.AccessRights & 2) == 0)))
                    return null;
                ulong last = backward ? offset + (ulong)size - 1 : offset + n * (ulong)size - 1;
                if (last > cache.Limit)
                {
                    if (backward || offset + (ulong)size - 1 > cache.Limit)
                        return null;
                    n = (cache.Limit - offset + 1) / (ulong)size;
                }
            }
        }
        ulong inPage = linear & 0xfff;
        if (inPage + (ulong)size > 4096)
            return null;
        n = Math.Min(n, backward ? inPage / (ulong)size + 1 : (4096 - inPage) / (ulong)size);
        TlbEntry* entry = s->Tlb + ((linear >> 12) & (TlbEntry.Entries - 1));
        if ((write ? entry->WriteTag : entry->ReadTag) != (linear & Operand.PageMask))
            return null;
        elements = n;
        return (byte*)(linear + entry->Addend);
    }

    /// <summary>Whether a REP instruction should let the loop look at pending events before it goes on.</summary>
    private static bool ShouldYield(CpuState* s, ulong done) => Volatile.Read(ref s->ExitRequest) != 0 || done >= MaximumPerTurn;

    internal static ExecStatus Movs<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        Cursor c = Begin<TW>(s, op);
        ulong done = 0;
        while (c.Count != 0)
        {
            ulong n = c.Count;
            byte* from = Window(cpu, op->Segment, c.Source, c, TW.Size, false, ref n), to = null;
            if (from != null)
                to = Window(cpu, Seg.ES, c.Destination, c, TW.Size, true, ref n);
            if (to != null)
                Copy<TW>(from, to, n, c.Step);
            else
            {
                n = 1;
                if (!cpu.Mmu.Read(op->Segment, c.Source, TW.Size, out ulong value) || !cpu.Mmu.Write(Seg.ES, c.Destination, TW.Size, value))
                    return ExecStatus.Fault;
            }
            Advance(s, op, ref c, n, source: true, destination: true);
            done += to != null ? n : SlowElement;
            if (c.Count != 0 && ShouldYield(s, done))
                return ExecStatus.Again;
        }
        return ExecStatus.Next;
    }

    // Overlap with the destination ahead of the source repeats a pattern, element by element.
    private static void Copy<TW>(byte* from, byte* to, ulong elements, long step) where TW : struct, IWidth
    {
        ulong bytes = elements * (ulong)TW.Size;
        if (step > 0 && (ulong)(to - from) >= bytes)
        {
            Buffer.MemoryCopy(from, to, bytes, bytes);
            return;
        }
        for (; elements != 0; elements--, from += step, to += step)
            TW.Store(to, TW.Load(from));
    }

    internal static ExecStatus Stos<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        Cursor c = Begin<TW>(s, op);
        ulong value = TW.Load(&s->Gpr[0]), done = 0;
        while (c.Count != 0)
        {
            ulong n = c.Count;
            byte* to = Window(cpu, Seg.ES, c.Destination, c, TW.Size, true, ref n);
            if (to != null)
                Fill<TW>(c.Step > 0 ? to : to - (n - 1) * (ulong)TW.Size, value, n);
            else
            {
                n = 1;
                if (!cpu.Mmu.Write(Seg.ES, c.Destination, TW.Size, value))
                    return ExecStatus.Fault;
            }
            Advance(s, op, ref c, n, source: false, destination: true);
            done += to != null ? n : SlowElement;
            if (c.Count != 0 && ShouldYield(s, done))
                return ExecStatus.Again;
        }
        return ExecStatus.Next;
    }

    private static void Fill<TW>(byte* to, ulong value, ulong elements) where TW : struct, IWidth
    {
        int n = (int)elements;
        switch (TW.Size)
        {
            case 1: new Span<byte>(to, n).Fill((byte)value); break;
            case 2: new Span<ushort>(to, n).Fill((ushort)value); break;
            case 4: new Span<uint>(to, n).Fill((uint)value); break;
            default: new Span<ulong>(to, n).Fill(value); break;
        }
    }

    internal static ExecStatus Lods<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        Cursor c = Begin<TW>(s, op);
        ulong done = 0;
        while (c.Count != 0)
        {
            if (!cpu.Mmu.Read(op->Segment, c.Source, TW.Size, out ulong value))
                return ExecStatus.Fault;
            TW.StoreRegister(&s->Gpr[0], value);
            Advance(s, op, ref c, 1, source: true, destination: false);
            done += SlowElement;
            if (c.Count != 0 && ShouldYield(s, done))
                return ExecStatus.Again;
        }
        return ExecStatus.Next;
    }

    /// <summary>True when a repeated comparison goes on after elements that are (not) equal.</summary>
    private static bool Continues(Op* op, bool equal) => equal == ((op->Prefixes & OpPrefixes.Rep) != 0);

    internal static ExecStatus Scas<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        Cursor c = Begin<TW>(s, op);
        ulong a = TW.LoadSigned(&s->Gpr[0]), b = 0, done = 0;
        while (c.Count != 0)
        {
            ulong n = c.Count;
            byte* p = Window(cpu, Seg.ES, c.Destination, c, TW.Size, false, ref n);
            bool stop = false;
            ulong performed = 0;
            if (p != null)
            {
                do
                {
                    b = TW.LoadSigned(p);
                    p += c.Step;
                    performed++;
                    stop = !Continues(op, a == b);
                }
                while (!stop && performed < n);
            }
            else
            {
                if (!cpu.Mmu.Read(Seg.ES, c.Destination, TW.Size, out b))
                    return ExecStatus.Fault;
                b = TW.Sign(b);
                performed = 1;
                stop = !Continues(op, a == b);
            }
            LazyFlags.Record(s, LazyOp.Sub, a, b, TW.Sign(a - b));
            Advance(s, op, ref c, performed, source: false, destination: true);
            done += p != null ? performed : SlowElement;
            if (stop && Repeats(op))
                break;
            if (c.Count != 0 && ShouldYield(s, done))
                return ExecStatus.Again;
        }
        return ExecStatus.Next;
    }

    internal static ExecStatus Cmps<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        Cursor c = Begin<TW>(s, op);
        ulong done = 0;
        while (c.Count != 0)
        {
            ulong n = c.Count, a, b, performed = 0;
            byte* from = Window(cpu, op->Segment, c.Source, c, TW.Size, false, ref n), to = null;
            if (from != null)
                to = Window(cpu, Seg.ES, c.Destination, c, TW.Size, false, ref n);
            bool stop;
            if (to != null)
            {
                do
                {
                    a = TW.LoadSigned(from);
                    b = TW.LoadSigned(to);
                    from += c.Step;
                    to += c.Step;
                    performed++;
                    stop = !Continues(op, a == b);
                }
                while (!stop && performed < n);
            }
            else
            {
                if (!cpu.Mmu.Read(op->Segment, c.Source, TW.Size, out a) || !cpu.Mmu.Read(Seg.ES, c.Destination, TW.Size, out b))
                    return ExecStatus.Fault;
                a = TW.Sign(a);
                b = TW.Sign(b);
                performed = 1;
                stop = !Continues(op, a == b);
            }
            LazyFlags.Record(s, LazyOp.Sub, a, b, TW.Sign(a - b));
            Advance(s, op, ref c, performed, source: true, destination: true);
            done += to != null ? performed : SlowElement;
            if (stop && Repeats(op))
                break;
            if (c.Count != 0 && ShouldYield(s, done))
                return ExecStatus.Again;
        }
        return ExecStatus.Next;
    }
}
