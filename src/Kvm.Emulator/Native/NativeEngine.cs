using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Native;

/// <summary>The native engine (T1) of one processor: translates blocks that the interpreter has executed often, and executes them.</summary>
/// <remarks>
/// Only the thread that occupies the processor comes here. It keeps the interpreter's rules: the same TLB decides what is accessed directly, blocks are dropped with the
/// decoded ones they were made from, requests are seen at the head of every block, and the budget ends the run at the same instruction.
/// </remarks>
internal sealed unsafe partial class NativeEngine
{
    private readonly Processor cpu;
    private readonly CpuState* s;
    private readonly CodeMemory memory;
    private readonly Translator translator;
    private readonly int threshold;
    private readonly byte* firstCode;
    private readonly delegate* unmanaged<byte*, void> enter;
    private byte* code;
    private Translation* nextTranslation;
    private Site* sites;
    private int siteCount, siteCapacity;
    private CodeCache cache = null!;

    internal NativeEngine(Processor cpu, CodeMemory memory, EngineOptions options)
    {
        this.cpu = cpu;
        this.memory = memory;
        s = cpu.State;
        threshold = options.Threshold;
        Decoder = new InstructionDecoder(cpu.Model, cpu.Machine.VectorEngine);
        var e = new Emitter(memory.ToExecutable) { At = memory.Code };
        enter = (delegate* unmanaged<byte*, void>)Trampolines.Enter(e, s);
        Leave = Trampolines.Leave(e, s);
        LoadVectors = Trampolines.LoadVectors(e, s, Leave);
        LoadWholeVectors = Trampolines.LoadWholeVectors(e, s, Leave);
        firstCode = code = e.At;
        nextTranslation = (Translation*)memory.Data;
        translator = new Translator(cpu, this, memory, options.StrictFlags);
    }

    /// <summary>Where generated code goes to end, and to have vector registers loaded.</summary>
    internal byte* Leave { get; }
    internal byte* LoadVectors { get; }
    internal byte* LoadWholeVectors { get; }
    internal InstructionDecoder Decoder { get; }

    internal NativeStatistics Statistics { get; } = new();

    /// <summary>Executions that a block of the mode is given before it is translated.</summary>
    internal int InitialHeat(uint mode)
    {
        const CodeMode flat32 = CodeMode.Code32 | CodeMode.Flat | CodeMode.Stack32 | CodeMode.Protected;
        var code = (CodeMode)mode;
        bool suits = (code & CodeMode.SizeMask) == CodeMode.Code64 || (code & (CodeMode.SizeMask | flat32 | CodeMode.Virtual8086)) == flat32;
        return suits && (mode & (Block.SingleInstruction | (uint)CodeMode.AlignmentCheck)) == 0 ? threshold : int.MaxValue;
    }

    /// <summary>Executes from <paramref name="block"/>, which is at State->Rip and worth translating. As <see cref="Interpreter.Execute"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal ExecStatus Execute(CodeCache from, Block* block, ref long budget)
    {
        cache = from;
        // Below zero it stays: only what cannot be translated gets a new start.
        block->Heat = 0;
        Translation* t = Find(block, s->Rip);
        if (t == null)
            return Interpreter.Execute(cpu, cache, block, ref budget);
        JumpCache jumps = cpu.Mmu.CurrentTable.Jumps!;
        jumps.SetMode(s->Mode);
        LazyFlags.Resolve(s);
        s->NativeFlags = Pack(s->Rflags);
        s->NativeBudget = budget;
        while (true)
        {
            enter(t->Entry);
            // A copy: the table may move.
            Site site = sites[s->NativeSite];
            Statistics.Exits[(int)site.Kind]++;
            if (site.Kind >= ExitKind.Link)
            {
                t = Follow(site, jumps);
                if (t != null)
                    continue;
            }
            else if (site.Kind == ExitKind.Head && s->ExitRequest == 0 && site.Block->Epoch != cache.Epoch && site.Block->Dead == 0)
            {
                // The first time in this epoch: its bytes are compared.
                t = Find(site.Block, site.Rip, cache);
                if (t != null)
                    continue;
            }
            budget = s->NativeBudget;
            s->Rflags = Unpack(s->Rflags, s->NativeFlags);
            s->Rip = site.Rip;
            if (site.Kind is not (ExitKind.Interpret or ExitKind.Indirect))
                return ExecStatus.Jumped;
            return Interpret(site, jumps, ref budget);
        }
    }

    /// <summary>The interpreter executes the rest of the block.</summary>
    private ExecStatus Interpret(in Site site, JumpCache jumps, ref long budget)
    {
        Block* block = site.Block;
        budget += block->OpCount;
        if (site.Kind == ExitKind.Indirect)
            LearnTarget(s->NativeTarget, jumps);
        else
        {
            Statistics.Interpreted(Block.Ops(block)[site.Op].Code);
            if (site.Length != 0)
                Separate(site);
        }
        return Interpreter.Execute(cpu, cache, block, ref budget, site.Op);
    }

    /// <summary>Operands that share a check don't share the page. After a while each gets its own.</summary>
    private void Separate(in Site site)
    {
        const int often = 16;
        ulong first = s->Gpr[site.Base] + (ulong)site.Low;
        if ((first & 0xfff) + (ulong)site.Length <= 4096 || ++site.Block->Crossings < often)
            return;
        site.Block->Separate = 1;
        Translation.Retire(site.Block);
    }

    /// <summary>A direct branch to a block that the code did not know. Null: it is for the run loop, or the interpreter.</summary>
    private Translation* Follow(in Site site, JumpCache jumps)
    {
        ulong rip = site.Rip;
        uint generation = Generation;
        Translation* t = Target(rip);
        if (t == null || generation != Generation)
            return t;
        if (site.Kind == ExitKind.FarLink)
            jumps.Set(rip, t->Entry);
        else
            *(int*)site.Patch = (int)(t->Entry - (site.Patch + 4 + memory.ToExecutable));
        return t;
    }

    private void LearnTarget(ulong rip, JumpCache jumps)
    {
        Translation* t = Target(rip);
        if (t != null)
            jumps.Set(rip, t->Entry);
    }

    private Translation* Target(ulong rip)
    {
        Block* block = cache.FindFast(s, rip);
        if (block == null || (block->Heat > 0 && --block->Heat > 0))
            return null;
        return Find(block, rip);
    }

    private Translation* Find(Block* block, ulong rip, CodeCache of) => of.Revalidate(block) == null ? null : Find(block, rip);

    /// <summary>The translation of a block, made if need be. Null: there is none.</summary>
    private Translation* Find(Block* block, ulong rip)
    {
        for (Translation* t = block->Native; t != null; t = t->Next)
            if (t->Rip == rip)
                return t;
        return Translate(block, rip);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private Translation* Translate(Block* block, ulong rip)
    {
        const int largest = 64 << 10;
        if (block->CrossesPage != 0 || (block->Mode & Block.SingleInstruction) != 0)
        {
            block->Heat = int.MaxValue;
            return null;
        }
        if (code + largest > memory.CodeEnd || (byte*)(nextTranslation + 1) > memory.DataEnd)
            Drop();
        Translation* t = nextTranslation;
        byte* from = code;
        int firstSite = siteCount;
        if (!translator.Translate(block, rip, t, ref code))
        {
            siteCount = firstSite;
            block->Heat = int.MaxValue;
            Statistics.Refused++;
            return null;
        }
        nextTranslation++;
        t->Word = Translation.Valid(block->Epoch);
        t->Next = block->Native;
        block->Native = t;
        Statistics.Translated(block->OpCount, (ulong)(code - from));
        return t;
    }

    // ---- what the translator asks ----

    internal int AddSite(in Site site)
    {
        if (siteCount == siteCapacity)
        {
            siteCapacity = Math.Max(4096, siteCapacity * 2);
            sites = (Site*)NativeMemory.Realloc(sites, (nuint)siteCapacity * (nuint)sizeof(Site));
        }
        sites[siteCount] = site;
        return siteCount++;
    }

    /// <summary>The decoded block at an address in the page of <paramref name="near"/>, which is executed at <paramref name="nearRip"/>.</summary>
    internal Block* BlockAt(Block* near, ulong target, ulong nearRip)
    {
        Block* block = cache.Lookup(near->Code + (long)(target - nearRip), near->Mode);
        return block == null || block->CrossesPage != 0 ? null : block;
    }

    /// <summary>The translation there, if there is one already.</summary>
    internal Translation* Known(Block* near, ulong target, ulong nearRip)
    {
        Block* block = BlockAt(near, target, nearRip);
        if (block == null)
            return null;
        for (Translation* t = block->Native; t != null; t = t->Next)
            if (t->Rip == target)
                return t;
        return null;
    }

    // ---- life ----

    /// <summary>Changes whenever all translations are dropped.</summary>
    internal uint Generation { get; private set; }

    /// <summary>The memory is full: everything is dropped, and made again as it is needed.</summary>
    private void Drop()
    {
        for (Translation* t = (Translation*)memory.Data; t < nextTranslation; t++)
            if (t->Word != Translation.Dead)
                Translation.Retire(t->Block);
        Forget();
    }

    /// <summary>All decoded blocks are gone, and with them what was made from them.</summary>
    internal void Forget()
    {
        nextTranslation = (Translation*)memory.Data;
        code = firstCode;
        siteCount = 0;
        Generation++;
        cpu.Mmu.ForgetJumps();
    }

    /// <summary>The code generated so far.</summary>
    internal byte[] DebugCode() => new ReadOnlySpan<byte>(firstCode, (int)(code - firstCode)).ToArray();

    internal void Free()
    {
        NativeMemory.Free(sites);
        sites = null;
    }

    // OF in the low byte; SF ZF AF PF CF, as in RFLAGS, in the high one.
    private static ushort Pack(ulong rflags) => (ushort)((rflags & 0xd5) << 8 | (rflags >> 11 & 1));

    private static ulong Unpack(ulong rflags, ushort packed) => (rflags & ~LazyFlags.All) | ((ulong)packed >> 8 & 0xd5) | ((ulong)packed & 1) << 11;
}
