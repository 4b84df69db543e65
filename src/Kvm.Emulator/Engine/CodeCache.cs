using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Kvm.Emulator.Engine;

/// <summary>Decoded blocks of one processor, by (host address, mode), and the physical pages they were decoded from (ARCHITECTURE D7).</summary>
/// <remarks>
/// The software TLB keeps the promise that every guest store to a page with decoded code takes the slow path: a WriteTag is only filled when
/// <see cref="IsCodePage"/> is false, and <see cref="CodeWritten"/> is called after such a store.
/// Everything lies in one native arena, reset as a whole when it is full; nothing is allocated per block.
/// </remarks>
internal sealed unsafe partial class CodeCache : IDisposable
{
    private const int BucketCount = 1 << 15, PageBucketCount = 1 << 10;
    private const nuint DefaultArenaSize = 48 << 20;

    private readonly Processor cpu;
    private readonly CodePages shared;
    private readonly InstructionDecoder decoder;
    private readonly byte* arena;
    private readonly nuint arenaSize;
    private nuint used;
    private readonly Block** buckets;
    private readonly CodePage** pageBuckets;
    private CodePage* allPages;
    private bool flushPending;

    /// <summary>Blocks decoded since the processor was made, for tests and statistics.</summary>
    internal ulong BlocksDecoded { get; private set; }

    internal CodeCache(Processor cpu, nuint arenaSize = DefaultArenaSize)
    {
        this.cpu = cpu;
        shared = cpu.Machine.CodePages;
        decoder = new InstructionDecoder(cpu.Model, cpu.Machine.VectorEngine);
        this.arenaSize = arenaSize;
        arena = (byte*)NativeMemory.AlignedAlloc(arenaSize, 64);
        buckets = (Block**)NativeMemory.AllocZeroed(BucketCount, (nuint)sizeof(Block*));
        pageBuckets = (CodePage**)NativeMemory.AllocZeroed(PageBucketCount, (nuint)sizeof(CodePage*));
        cpu.State->CodeEpoch = (uint)Epoch;
    }

    /// <summary>Some processor of the machine has decoded code in the page of <paramref name="pa"/>: do not fill a WriteTag.</summary>
    internal bool IsCodePage(ulong pa) => shared.Contains(pa & Operand.PageMask);

    /// <summary>A store (of this processor, or a DMA that is known of) changed guest memory: drops the blocks that overlap it, on every processor.</summary>
    internal void CodeWritten(ulong pa, int size)
    {
        while (size > 0)
        {
            int inPage = Math.Min(size, 4096 - (int)(pa & 0xfff));
            CodePage* own = FindPage(pa & Operand.PageMask);
            bool registered = own != null && own->Registered != 0;
            if (registered)
                OwnPageWritten(own, (int)(pa & 0xfff), inPage);
            ulong granules = GranulesOf((int)(pa & 0xfff), inPage);
            if (shared.Overlaps(pa & Operand.PageMask, granules, out int owners) && owners > (registered ? 1 : 0))
                Post(MessageKind.Written, pa, inPage);
            pa += (ulong)inPage;
            size -= inPage;
        }
    }

    // A page that is written again and again is data by now: forgetting its code lets stores to it be fast again.
    private void OwnPageWritten(CodePage* page, int start, int size)
    {
        const int forgetAfter = 1024;
        if (++page->Writes >= forgetAfter)
        {
            page->Writes = 0;
            Invalidate(page, 0, 4096);
        }
        else
            Invalidate(page, start, size);
    }

    /// <summary>Called when an ExecTag of the page at <paramref name="pa"/> is filled: drops blocks whose bytes have changed behind the processor's back (DMA).</summary>
    internal void VerifyCode(ulong pa)
    {
        CodePage* page = FindPage(pa & Operand.PageMask);
        if (page != null)
            Verify(page);
    }

    /// <summary>Blocks are compared with memory once in every epoch, when they are first entered in it.</summary>
    internal ulong Epoch { get; private set; } = 1;

    /// <summary>Memory may have changed behind the processor's back: begins a new epoch.</summary>
    internal void BeginEpoch() => cpu.State->CodeEpoch = (uint)++Epoch;

    /// <summary>Compares a block from an earlier epoch with memory. Null: it has changed and is dead.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    internal Block* Revalidate(Block* b)
    {
        if (Unchanged(b))
        {
            b->Epoch = Epoch;
            for (Native.Translation* t = b->Native; t != null; t = t->Next)
                t->Word = Native.Translation.Valid(Epoch);
            return b;
        }
        Kill(b);
        Changed(FindPage(b->Page));
        return null;
    }

    /// <summary>The bytes are what was decoded, and still RAM: memory may have been withdrawn and unmapped since.</summary>
    private bool Unchanged(Block* b)
    {
        if (b->MemoryEpoch != cpu.Machine.Memory.Epoch && !StillRam(b))
            return false;
        int first = b->FirstLength, rest = b->ByteLength - first;
        byte* copy = Block.Copy(b);
        return new ReadOnlySpan<byte>(b->Code, first).SequenceEqual(new ReadOnlySpan<byte>(copy, first))
            && (rest == 0 || new ReadOnlySpan<byte>(b->SecondCode, rest).SequenceEqual(new ReadOnlySpan<byte>(copy + first, rest)));
    }

    private bool StillRam(Block* b)
    {
        PhysicalMemory memory = cpu.Machine.Memory;
        uint epoch = memory.Epoch;
        if (memory.Pointer(b->Page) != (byte*)((ulong)b->Code & Operand.PageMask) || (b->CrossesPage != 0 && memory.Pointer(b->SecondPage) != b->SecondCode))
            return false;
        b->MemoryEpoch = epoch;
        return true;
    }

    /// <summary>Drops everything. The arena is reused only after the run loop has left the current block.</summary>
    internal void Flush()
    {
        for (CodePage* page = allPages; page != null; page = page->AllNext)
        {
            for (Block* b = page->Blocks; b != null; b = b->PageNext)
            {
                (b->Dead, b->Epoch) = (1, 0);
                Native.Translation.Retire(b);
            }
            page->Blocks = page->Incoming = null;
            Reconcile(page);
        }
        new Span<nint>(buckets, BucketCount).Clear();
        flushPending = true;
    }

    private void Reset()
    {
        Flush();
        cpu.NativeEngine?.Forget();
        new Span<nint>(pageBuckets, PageBucketCount).Clear();
        allPages = null;
        used = 0;
        flushPending = false;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static nuint Hash(byte* code, uint mode) => (nuint)(((ulong)code ^ ((ulong)mode * 0x9E3779B1UL)) * 0x9E3779B97F4A7C15UL >> 49);

    /// <summary>The block at a host address, null when it is not decoded (or dead).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal Block* Lookup(byte* code, uint mode)
    {
        Block* b = buckets[Hash(code, mode)];
        while (b != null && (b->Code != code || b->Mode != mode))
            b = b->HashNext;
        return b;
    }

    private static ulong GranulesOf(int offset, int size)
    {
        int first = offset >> 6, last = (offset + size - 1) >> 6;
        return (ulong.MaxValue >> (63 - (last - first))) << first;
    }

    // ---- pages ----
    private static nuint PageHash(ulong page) => (nuint)((page >> 12) * 0x9E3779B97F4A7C15UL >> 54);

    private CodePage* FindPage(ulong page)
    {
        CodePage* p = pageBuckets[PageHash(page)];
        while (p != null && p->Page != page)
            p = p->HashNext;
        return p;
    }

    /// <summary>Makes the page a code page before its bytes are read, so that no store to it goes unnoticed.</summary>
    private CodePage* EnterPage(ulong page)
    {
        CodePage* p = FindPage(page);
        if (p == null)
        {
            p = (CodePage*)Allocate((nuint)sizeof(CodePage));
            *p = new CodePage { Page = page, HashNext = pageBuckets[PageHash(page)], AllNext = allPages };
            pageBuckets[PageHash(page)] = p;
            allPages = p;
        }
        if (p->Registered == 0)
        {
            p->Registered = 1;
            if (shared.Add(page))
            {
                cpu.Mmu.RevokeWrites(page);
                Post(MessageKind.NewCodePage, page, 0);
            }
        }
        return p;
    }

    /// <summary>Recomputes the granules of a page, and gives it up when nothing decoded is left in it.</summary>
    private void Reconcile(CodePage* p)
    {
        p->Granules = 0;
        for (Block* b = p->Blocks; b != null; b = b->PageNext)
            p->Granules |= GranulesOf((int)((ulong)b->Code & 0xfff), b->FirstLength);
        for (Block* b = p->Incoming; b != null; b = b->SecondPageNext)
            p->Granules |= GranulesOf(0, b->ByteLength - b->FirstLength);
        if (p->Registered == 0 || p->Blocks != null || p->Incoming != null)
            return;
        p->Registered = 0;
        shared.Remove(p->Page);
    }

    /// <summary>Kills this processor's blocks that overlap the bytes.</summary>
    private void Invalidate(CodePage* p, int start, int size)
    {
        if ((p->Granules & GranulesOf(start, size)) == 0)
            return;
        int end = start + size;
        bool killed = false;
        for (Block* b = p->Blocks, next; b != null; b = next)
        {
            next = b->PageNext;
            int first = (int)((ulong)b->Code & 0xfff);
            if (first < end && start < first + b->FirstLength)
                killed |= Kill(b);
        }
        for (Block* b = p->Incoming, next; b != null; b = next)
        {
            next = b->SecondPageNext;
            if (start < b->ByteLength - b->FirstLength)
                killed |= Kill(b);
        }
        if (killed)
            Changed(p);
    }

    /// <summary>Translations of a page may rely on what the code next to them does with flags. They have to be worth it again.</summary>
    private void Changed(CodePage* p)
    {
        for (Block* b = p->Blocks; b != null; b = b->PageNext)
        {
            if (b->Native != null)
                b->Heat = cpu.NativeEngine!.InitialHeat(b->Mode);
            Native.Translation.Retire(b);
            b->FlagsIn = Block.FlagsUnknown;
        }
        Reconcile(p);
    }

    private void Verify(CodePage* p)
    {
        bool killed = false;
        for (Block* b = p->Blocks, next; b != null; b = next)
        {
            next = b->PageNext;
            if (!Unchanged(b))
                killed |= Kill(b);
        }
        for (Block* b = p->Incoming, next; b != null; b = next)
        {
            next = b->SecondPageNext;
            if (!Unchanged(b))
                killed |= Kill(b);
        }
        if (killed)
            Changed(p);
    }

    /// <summary>Takes a block out of every list. The caller reconciles the page it works on; the other page of a crossing instruction is done here.</summary>
    private bool Kill(Block* b)
    {
        (b->Dead, b->Epoch) = (1, 0);
        Native.Translation.Retire(b);
        Block** link = &buckets[Hash(b->Code, b->Mode)];
        while (*link != null && *link != b)
            link = &(*link)->HashNext;
        if (*link == b)
            *link = b->HashNext;
        CodePage* p = FindPage(b->Page);
        link = &p->Blocks;
        while (*link != null && *link != b)
            link = &(*link)->PageNext;
        if (*link == b)
            *link = b->PageNext;
        if (b->CrossesPage == 0)
            return true;
        CodePage* second = FindPage(b->SecondPage);
        link = &second->Incoming;
        while (*link != null && *link != b)
            link = &(*link)->SecondPageNext;
        if (*link == b)
            *link = b->SecondPageNext;
        Reconcile(p);
        Reconcile(second);
        return true;
    }

    private byte* Allocate(nuint size)
    {
        size = (size + 63) & ~(nuint)63;
        byte* p = arena + used;
        used += size;
        return p;
    }

    public void Dispose()
    {
        Flush();
        cpu.NativeEngine?.Forget();
        NativeMemory.AlignedFree(arena);
        NativeMemory.Free(buckets);
        NativeMemory.Free(pageBuckets);
    }
}
