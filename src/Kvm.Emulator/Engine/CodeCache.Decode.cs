using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

internal sealed unsafe partial class CodeCache
{
    /// <summary>Room that one block can take.</summary>
    private const int LargestBlock = Block.HeaderSize + (Block.MaximumOps + 1) * 64 + 1024;

    /// <summary>Linear address of the instruction pointer.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong LinearRip(CpuState* s, ulong rip)
        => (s->Mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64 ? rip : (uint)(rip + s->Segs[(int)Seg.CS].Base);

    /// <summary>
    /// The block at <paramref name="rip"/> if the TLB and the cache have it and it may be entered without further checks; null otherwise. Changes nothing.
    /// </summary>
    internal Block* FindFast(CpuState* s, ulong rip)
    {
        ulong linear = LinearRip(s, rip);
        TlbEntry* entry = Operand.Entry(s, linear);
        if (entry->ExecTag != (linear & Operand.PageMask))
            return null;
        Block* b = Lookup((byte*)(linear + entry->Addend), s->Mode);
        if (b == null || b->CrossesPage != 0 || !WithinLimit(s, rip, b))
            return null;
        return b->Epoch == Epoch ? b : Revalidate(b);
    }

    /// <summary>As <see cref="FindFast"/>, in 64-bit code.</summary>
    internal Block* FindFast64(CpuState* s, ulong rip)
    {
        TlbEntry* entry = Operand.Entry(s, rip);
        if (entry->ExecTag != (rip & Operand.PageMask))
            return null;
        Block* b = Lookup((byte*)(rip + entry->Addend), s->Mode);
        if (b == null || b->CrossesPage != 0)
            return null;
        return b->Epoch == Epoch ? b : Revalidate(b);
    }

    private static bool WithinLimit(CpuState* s, ulong rip, Block* b)
        => (s->Mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64 || rip + b->ByteLength - 1 <= s->Segs[(int)Seg.CS].Limit;

    /// <summary>
    /// The block at RIP, decoded if need be. <paramref name="single"/>: one instruction only. Null: a fault (page fault, limit) is pending.
    /// </summary>
    internal Block* Find(bool single)
    {
        CpuState* s = cpu.State;
        if (flushPending)
            Reset();
        if (!single)
        {
            Block* fast = FindFast(s, s->Rip);
            if (fast != null)
                return fast;
        }
        bool code64 = (s->Mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64;
        if (!code64 && s->Rip > s->Segs[(int)Seg.CS].Limit)
        {
            cpu.RaiseGp();
            return null;
        }
        ulong linear = LinearRip(s, s->Rip);
        byte* page = cpu.Mmu.FetchPage(linear, out ulong physicalPage);
        if (page == null)
            return null;
        byte* code = page + (linear & 0xfff);
        uint mode = single ? s->Mode | Block.SingleInstruction : s->Mode;
        Block* b = Lookup(code, mode);
        if (b != null && b->CrossesPage != 0)
        {
            // The mapping of the next page may have changed since the instruction was decoded.
            byte* second = cpu.Mmu.FetchPage((linear & Operand.PageMask) + 4096, out _);
            if (second == null)
                return null;
            if (b->Dead != 0 || second != b->SecondCode)
                b = null;
        }
        if (b != null && b->Epoch != Epoch)
            b = Revalidate(b);
        b = b == null ? Decode(code, physicalPage, linear, mode) : b;
        if (b == null)
            return null;
        if (WithinLimit(s, s->Rip, b))
            return b;
        // The limit lies inside the block: go on instruction by instruction until it is met.
        if (!single)
            return Find(single: true);
        cpu.RaiseGp();
        return null;
    }

    private Block* Decode(byte* code, ulong physicalPage, ulong linear, uint mode)
    {
        if (used + LargestBlock + 2 * (nuint)sizeof(CodePage) + 256 > arenaSize)
            Reset();
        int inPage = 4096 - (int)(linear & 0xfff);
        int codeSize = (int)(mode & (uint)CodeMode.SizeMask);
        int limit = (mode & Block.SingleInstruction) != 0 ? 1 : Block.MaximumOps;
        Block* stale = Lookup(code, mode);
        if (stale != null)
            Kill(stale);
        CodePage* page = EnterPage(physicalPage);
        var b = (Block*)(arena + used);
        *b = new Block { Code = code, Mode = mode, Page = physicalPage, Epoch = Epoch, MemoryEpoch = cpu.Machine.Memory.Epoch, Heat = int.MaxValue, FlagsIn = Block.FlagsUnknown };
        Op* ops = Block.Ops(b);
        int count = 0, length = 0;
        while (count < limit && length < inPage)
        {
            Op* op = &ops[count];
            if (decoder.Decode(code + length, inPage - length, codeSize, out *op) == DecodeResult.NeedsMoreBytes)
                break;
            op->BlockOffset = (ushort)length;
            length += op->Length;
            count++;
            if (Lowering.Lower(op, mode))
                break;
        }
        if (count == 0)
            return DecodeCrossing(b, page, linear, mode, inPage);
        b->OpCount = (ushort)count;
        b->ByteLength = (ushort)length;
        if (cpu.NativeEngine is { } native)
            b->Heat = native.InitialHeat(mode);
        Lowering.Finish(ops, count);
        Finish(b, page);
        new ReadOnlySpan<byte>(code, length).CopyTo(new Span<byte>(Block.Copy(b), length));
        return b;
    }

    /// <summary>An instruction that goes on in the next page is a block of its own, bound to both physical pages.</summary>
    private Block* DecodeCrossing(Block* b, CodePage* page, ulong linear, uint mode, int inPage)
    {
        byte* second = cpu.Mmu.FetchPage((linear & Operand.PageMask) + 4096, out ulong secondPage);
        if (second == null)
        {
            Reconcile(page);
            return null;
        }
        byte* bytes = stackalloc byte[16];
        new Span<byte>(b->Code, inPage).CopyTo(new Span<byte>(bytes, inPage));
        CodePage* next = secondPage == page->Page ? page : CrossingPage(secondPage, ref b);
        new Span<byte>(second, 15 - inPage).CopyTo(new Span<byte>(bytes + inPage, 15 - inPage));
        Op* op = Block.Ops(b);
        decoder.Decode(bytes, 15, (int)(mode & (uint)CodeMode.SizeMask), out *op);
        if (op->Length <= inPage)
            op->Length = (byte)(inPage + 1);
        Lowering.LowerCold(op, mode);
        b->OpCount = 1;
        b->ByteLength = op->Length;
        b->CrossesPage = 1;
        b->SecondPage = secondPage;
        b->SecondCode = second;
        b->SecondPageNext = next->Incoming;
        next->Incoming = b;
        next->Granules |= GranulesOf(0, op->Length - inPage);
        shared.AddGranules(next->Page, next->Granules);
        Finish(b, page);
        new Span<byte>(bytes, op->Length).CopyTo(new Span<byte>(Block.Copy(b), op->Length));
        return b;
    }

    // Registering the second page may take room in the arena where the block was about to be built.
    private CodePage* CrossingPage(ulong physicalPage, ref Block* b)
    {
        Block header = *b;
        CodePage* page = EnterPage(physicalPage);
        b = (Block*)(arena + used);
        *b = header;
        return page;
    }

    private void Finish(Block* b, CodePage* page)
    {
        Op* end = Block.Ops(b) + b->OpCount;
        *end = default;
        end->Kind = (b->Mode & Block.SingleInstruction) != 0 ? OpKind.Leave : OpKind.EndOfBlock;
        end->BlockOffset = b->ByteLength;
        end->BlockDisp = b->ByteLength;
        end->AddressMask = (b->Mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64 ? ulong.MaxValue : uint.MaxValue;
        Allocate((nuint)(Block.HeaderSize + (b->OpCount + 1) * sizeof(Op) + b->ByteLength));
        nuint h = Hash(b->Code, b->Mode);
        b->HashNext = buckets[h];
        buckets[h] = b;
        b->PageNext = page->Blocks;
        page->Blocks = b;
        page->Granules |= GranulesOf((int)((ulong)b->Code & 0xfff), b->FirstLength);
        shared.AddGranules(page->Page, page->Granules);
        BlocksDecoded++;
    }
}
