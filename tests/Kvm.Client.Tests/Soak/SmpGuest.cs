using System.Buffers.Binary;
using Iced.Intel;
using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Client.Tests.Soak;

/// <summary>
/// A guest of 1 to 64 processors in long mode that interrupt each other without end, and can tell of each interrupt whether it came. In every round a processor does one of these, and sleeps
/// with HLT until the answer is there, which nothing but an interrupt brings: a request to another processor, which replies (a vector for each sender, so that none can hide another);
/// a one-shot timer; a TSC deadline; a broadcast, answered by the last one that got it; an interrupt to a random set of a cluster; an NMI; an interrupt to itself.
/// Besides it counts in shared memory, in memory of its own, in an XMM register, and keeps a number in a debug register.
/// </summary>
/// <remarks>A lost interrupt stops the processor that waits for its answer for good; one too many makes the sums differ at the end.</remarks>
internal sealed unsafe class SmpGuest
{
    public const int MostProcessors = 64;
    public const ulong MemorySize = 0x200000;
    private const ulong Gdt = 0x1000, Idt = 0x2000, Pml4 = 0x4000, Pdpt = 0x5000, Pd = 0x6000, Code = 0x10000, PerCpu = 0x100000, PerCpuSize = 0x4000;

    // Shared words, a cache line each or so.
    private const uint Halt = 0x8000, Done = 0x8040, Ready = 0x8080, Shared = 0x80c0;
    private const uint BroadcastLock = 0x8100, BroadcastCount = 0x8140, BroadcastOwner = 0x8148, BroadcastExpect = 0x8150;
    private const uint NmiLock = 0x8180, NmiOwner = 0x8188;
    private const uint ClusterLock = 0x81c0, ClusterCount = 0x8200, ClusterOwner = 0x8208, ClusterExpect = 0x8210;

    // A processor's own words.
    private const int Self = 0, Rounds = 0x10, Error = 0x18, ErrorDetail = 0x20, Phase = 0x28, WaitAddress = 0x30, Ticks = 0x38, Armed = 0x40, LastTsc = 0x48, Deadline = 0x50,
        BroadcastsIn = 0x58, NmisIn = 0x60, ClustersIn = 0x68, SelfIn = 0x70, SelfOut = 0x78, BroadcastReplies = 0x80, NmiReplies = 0x88, ClusterReplies = 0x90,
        BroadcastsOut = 0x98, NmisOut = 0xa0, ClustersOut = 0xa8, SharedOut = 0xb0, Halts = 0xb8, ClusterTargets = 0xc0, WaitValue = 0xc8, SpuriousTicks = 0xd0,
        RequestsFrom = 0x200, RepliesFrom = 0x400, RequestsTo = 0x600, NmisTo = 0x800, StackTop = 0x2000, Work = 0x2000;

    private const byte RequestVector = 0x40, ReplyVector = 0x80, BroadcastVector = 0xc0, BroadcastReply = 0xc1, NmiReply = 0xc2, ClusterVector = 0xc3, ClusterReply = 0xc4,
        SelfVector = 0xc5, TimerVector = 0xd0, SpuriousVector = 0xff;

    private const uint Icr = 0x830, Eoi = 0x80b, Svr = 0x80f, LvtTimer = 0x832, InitialCount = 0x838, Divide = 0x83e, SelfIpi = 0x83f, TscDeadline = 0x6e0;
    private const ulong DebugPattern = 0x5a5a0000;

    private static readonly string[] s_phases = ["computes", "waits for a reply", "waits for its one-shot timer", "waits for its TSC deadline", "waits for a broadcast's answer",
        "waits for a cluster's answer", "waits for its own interrupt", "waits for an NMI's answer"];

    public SmpGuest(int processors)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(processors, MostProcessors);
        Processors = processors;
    }

    public int Processors { get; }

    /// <summary>Puts tables, code and each processor's words into zeroed memory of <see cref="MemorySize"/> bytes at address 0.</summary>
    public void Load(Span<byte> memory)
    {
        Write(memory, Gdt + 8, 0x00af9b000000ffff);
        Write(memory, Gdt + 16, 0x00cf93000000ffff);
        Write(memory, Pml4, Pdpt | 7);
        Write(memory, Pdpt, Pd | 7);
        for (ulong i = 0; i < 512; i++) Write(memory, Pd + i * 8, i << 21 | 0x87);
        for (ulong i = 0; i < (ulong)Processors; i++) Write(memory, PerCpu + i * PerCpuSize + Self, PerCpu + i * PerCpuSize);

        var assembler = new Assembler(64);
        Label[] stubs = Handlers(assembler);
        Label start = assembler.CreateLabel();
        assembler.Label(ref start);
        Processor(assembler);
        using var code = new MemoryStream();
        AssemblerResult result = assembler.Assemble(new StreamCodeWriter(code), Code, BlockEncoderOptions.ReturnNewInstructionOffsets);
        code.ToArray().CopyTo(memory[(int)Code..]);
        _start = result.GetLabelRIP(start);
        for (int vector = 0; vector < 256; vector++)
        {
            ulong at = result.GetLabelRIP(stubs[vector]);
            Write(memory, Idt + (ulong)vector * 16, at & 0xffff | 8UL << 16 | 0x8e00UL << 32 | at >> 16 << 48);
            Write(memory, Idt + (ulong)vector * 16 + 8, at >> 32);
        }
    }

    private ulong _start;

    /// <summary>Makes a vCPU with the APIC in the kernel one of this guest's processors. Its CPUID must be set.</summary>
    public void SetUp(Vcpu vcpu)
    {
        ulong own = PerCpu + vcpu.Id * PerCpuSize;
        kvm_sregs s = vcpu.SRegs;
        s.cr0 = 0x80010033;
        s.cr3 = Pml4;
        s.cr4 = 0x620;
        s.efer = 0x500;
        s.cs = new kvm_segment { selector = 8, limit = 0xffffffff, type = 11, present = 1, s = 1, l = 1, g = 1 };
        s.ds = s.es = s.ss = s.fs = s.gs = new kvm_segment { selector = 16, limit = 0xffffffff, type = 3, present = 1, s = 1, db = 1, g = 1 };
        s.gs.@base = own;
        s.tr = new kvm_segment { limit = 0x67, type = 11, present = 1 };
        s.gdt = new kvm_dtable { @base = Gdt, limit = 0x17 };
        s.idt = new kvm_dtable { @base = Idt, limit = 0xfff };
        s.apic_base = 0xfee00c00 | (vcpu.Id == 0 ? 0x100u : 0);
        vcpu.SRegs = s;
        vcpu.Regs = new kvm_regs
        {
            rip = _start,
            rflags = 2,
            rsp = own + StackTop,
            r12 = own,
            r13 = vcpu.Id,
            r14 = (ulong)Processors,
            r15 = (vcpu.Id + 1) * 0x9e3779b97f4a7c15,
        };
        vcpu.MpState = (uint)Uapi.KVM_MP_STATE_RUNNABLE;
    }

    // ---- what the host sees ----

    /// <summary>Asks the processors to stop after their round; they go on to answer others.</summary>
    public static void RequestStop(Span<byte> memory) => Write(memory, Halt, 1);

    public bool IsDone(ReadOnlySpan<byte> memory) => Read(memory, Done) == (ulong)Processors;

    public ulong RoundsOf(ReadOnlySpan<byte> memory, int processor) => Own(memory, processor, Rounds);

    public bool IsStopping(ReadOnlySpan<byte> memory) => Read(memory, Halt) != 0;

    public bool HasStopped(ReadOnlySpan<byte> memory, int processor) => Own(memory, processor, Phase) == 100;

    public ulong TicksOf(ReadOnlySpan<byte> memory, int processor) => Own(memory, processor, Ticks);

    /// <summary>What a processor does.</summary>
    public string Describe(ReadOnlySpan<byte> memory, int processor)
    {
        ulong phase = Own(memory, processor, Phase), at = Own(memory, processor, WaitAddress);
        string what = phase < (ulong)s_phases.Length ? s_phases[phase] : "has stopped";
        string wait = phase is > 0 and < 8 && at < MemorySize ? $", [{at:x}] is {Read(memory, at)} and shall be {Own(memory, processor, WaitValue)}" : "";
        return $"round {Own(memory, processor, Rounds)}, {what}{wait}, halts {Own(memory, processor, Halts)}, ticks {Own(memory, processor, Ticks)}/{Own(memory, processor, Armed)}";
    }

    /// <summary>What was done so far.</summary>
    public SmpFigures Figures(ReadOnlySpan<byte> memory)
    {
        ulong ipis = 0, nmis = 0, timers = 0, halts = 0, rounds = 0;
        for (int i = 0; i < Processors; i++)
        {
            for (int j = 0; j < Processors; j++) ipis += Own(memory, i, RequestsFrom + j * 8) + Own(memory, i, RepliesFrom + j * 8);
            ipis += Own(memory, i, BroadcastsIn) + Own(memory, i, BroadcastReplies) + Own(memory, i, ClustersIn) + Own(memory, i, ClusterReplies) +
                    Own(memory, i, SelfIn) + Own(memory, i, NmiReplies);
            nmis += Own(memory, i, NmisIn);
            timers += Own(memory, i, Ticks);
            halts += Own(memory, i, Halts);
            rounds += Own(memory, i, Rounds);
        }

        return new SmpFigures(rounds, ipis, nmis, timers, halts);
    }

    /// <summary>What is wrong after all have stopped: interrupts lost or doubled, counts that are not exact, errors that the guest found itself.</summary>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="restored">
    /// The machine was saved and restored meanwhile: KVM_SET_LAPIC starts a one-shot timer whose initial count is set and whose current count is 0 (it has fired, or is about to) as one that
    /// is due at once, so that an interrupt that was on its way is not lost; one that was delivered already comes again.
    /// </param>
    public IReadOnlyList<string> Faults(ReadOnlySpan<byte> memory, bool restored = false)
    {
        var faults = new List<string>();
        ulong shared = 0, broadcasts = 0, clustersOut = 0, clustersIn = 0, nmisOut = 0, nmisIn = 0;
        for (int i = 0; i < Processors; i++) broadcasts += Own(memory, i, BroadcastsOut);
        for (int i = 0; i < Processors; i++)
        {
            Expect(faults, 0, Own(memory, i, Error), $"processor {i}: error code (detail 0x{Own(memory, i, ErrorDetail):x})");
            for (int j = 0; j < Processors; j++)
            {
                Expect(faults, Own(memory, i, RequestsTo + j * 8), Own(memory, j, RequestsFrom + i * 8), $"requests from {i} to {j}");
                Expect(faults, Own(memory, i, RequestsTo + j * 8), Own(memory, i, RepliesFrom + j * 8), $"replies to {i} from {j}");
                nmisOut += Own(memory, i, NmisTo + j * 8);
            }

            Expect(faults, Own(memory, i, Armed), Own(memory, i, Ticks), $"timer interrupts of {i}");
            if (!restored) Expect(faults, 0, Own(memory, i, SpuriousTicks), $"timer interrupts of {i} that nobody asked for");
            Expect(faults, broadcasts - Own(memory, i, BroadcastsOut), Own(memory, i, BroadcastsIn), $"broadcasts to {i}");
            Expect(faults, Own(memory, i, SelfOut), Own(memory, i, SelfIn), $"interrupts of {i} to itself");
            ulong work = 0;
            for (int k = 0; k < 1024; k++) work += Own(memory, i, Work + k * 8);
            Expect(faults, Own(memory, i, SharedOut), work, $"work of {i}");
            shared += Own(memory, i, SharedOut);
            clustersOut += Own(memory, i, ClusterTargets);
            clustersIn += Own(memory, i, ClustersIn);
            nmisIn += Own(memory, i, NmisIn);
        }

        Expect(faults, shared, Read(memory, Shared), "the shared counter");
        Expect(faults, clustersOut, clustersIn, "interrupts to clusters");
        Expect(faults, nmisOut, nmisIn, "NMIs");
        return faults;
    }

    private static void Expect(List<string> faults, ulong expected, ulong found, string what)
    {
        if (expected != found) faults.Add($"{what}: {found} instead of {expected}");
    }

    private static ulong Own(ReadOnlySpan<byte> memory, int processor, int offset) => Read(memory, PerCpu + (ulong)processor * PerCpuSize + (ulong)offset);

    private static ulong Read(ReadOnlySpan<byte> memory, ulong at) => BinaryPrimitives.ReadUInt64LittleEndian(memory[(int)at..]);

    private static void Write(Span<byte> memory, ulong at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(memory[(int)at..], value);

    // ---- the guest's code; R12: own words, R13: id, R14: processors, R15: random numbers ----

    private static Label[] Handlers(Assembler c)
    {
        Label common = c.CreateLabel(), fault = c.CreateLabel(), nmi = c.CreateLabel();
        var stubs = new Label[256];
        for (int vector = 0; vector < 256; vector++)
        {
            stubs[vector] = c.CreateLabel();
            c.Label(ref stubs[vector]);
            if (vector == 2)
            {
                c.jmp(nmi);
                continue;
            }

            c.push(vector);
            c.jmp(vector < 32 ? fault : common);
        }

        c.Label(ref fault);
        {
            Label forever = c.CreateLabel();
            c.pop(rax);
            c.add(rax, 0x100);
            c.mov(rbx, __qword_ptr.gs[0]);
            c.mov(__qword_ptr[rbx + Error], rax);
            c.mov(rax, __qword_ptr[rsp]);
            c.mov(__qword_ptr[rbx + ErrorDetail], rax);
            c.Label(ref forever);
            c.hlt();
            c.jmp(forever);
        }

        c.Label(ref nmi);
        Save(c);
        c.inc(__qword_ptr[rbx + NmisIn]);
        c.mov(rdx, __qword_ptr[NmiOwner]);
        Send(c, NmiReply);
        Restore(c);
        c.iretq();

        c.Label(ref common);
        Save(c);
        c.mov(esi, __dword_ptr[rsp + 40]); // the vector, sign-extended: its low byte
        c.movzx(esi, sil);
        Interrupt(c);
        return stubs;
    }

    private static void Interrupt(Assembler c)
    {
        Label eoi = c.CreateLabel(), reply = c.CreateLabel(), others = c.CreateLabel();
        c.cmp(esi, ReplyVector);
        c.jae(reply);
        c.lea(rdx, __[rsi - RequestVector]);
        c.inc(__qword_ptr[rbx + rdx * 8 + RequestsFrom]);
        c.mov(rax, rbx);
        c.sub(rax, (int)PerCpu);
        c.shr(rax, 14);
        c.add(eax, 0x4000 | ReplyVector);
        c.mov(ecx, Icr);
        c.wrmsr();
        c.jmp(eoi);
        c.Label(ref reply);
        c.cmp(esi, BroadcastVector);
        c.jae(others);
        c.inc(__qword_ptr[rbx + rsi * 8 + (RepliesFrom - ReplyVector * 8)]);
        c.jmp(eoi);
        c.Label(ref others);
        Case(c, BroadcastReply, BroadcastReplies, eoi);
        Case(c, NmiReply, NmiReplies, eoi);
        Case(c, ClusterReply, ClusterReplies, eoi);
        Case(c, SelfVector, SelfIn, eoi);
        Gathered(c, BroadcastVector, BroadcastsIn, BroadcastCount, BroadcastExpect, BroadcastOwner, BroadcastReply, eoi);
        Gathered(c, ClusterVector, ClustersIn, ClusterCount, ClusterExpect, ClusterOwner, ClusterReply, eoi);
        Timer(c, eoi);
        c.Label(ref eoi);
        c.mov(ecx, Eoi);
        c.xor(eax, eax);
        c.xor(edx, edx);
        c.wrmsr();
        Restore(c);
        c.add(rsp, 8);
        c.iretq();
    }

    private static void Timer(Assembler c, Label eoi)
    {
        Label monotonic = c.CreateLabel(), spurious = c.CreateLabel();
        c.cmp(esi, TimerVector);
        c.jne(eoi);
        c.mov(rax, __qword_ptr[rbx + Ticks]);
        c.cmp(rax, __qword_ptr[rbx + Armed]);
        c.jae(spurious);
        c.inc(__qword_ptr[rbx + Ticks]);
        c.rdtsc();
        c.shl(rdx, 32);
        c.or(rax, rdx);
        c.cmp(rax, __qword_ptr[rbx + LastTsc]);
        c.jae(monotonic);
        c.mov(__qword_ptr[rbx + Error], 1);
        c.mov(__qword_ptr[rbx + ErrorDetail], rax);
        c.Label(ref monotonic);
        c.mov(__qword_ptr[rbx + LastTsc], rax);
        c.cmp(rax, __qword_ptr[rbx + Deadline]);
        c.jae(eoi);
        c.mov(__qword_ptr[rbx + Error], 2); // before its deadline
        c.sub(rax, __qword_ptr[rbx + Deadline]);
        c.mov(__qword_ptr[rbx + ErrorDetail], rax);
        c.jmp(eoi);
        c.Label(ref spurious);
        c.inc(__qword_ptr[rbx + SpuriousTicks]);
    }

    private static void Case(Assembler c, byte vector, int counter, Label eoi)
    {
        Label next = c.CreateLabel();
        c.cmp(esi, vector);
        c.jne(next);
        c.inc(__qword_ptr[rbx + counter]);
        c.jmp(eoi);
        c.Label(ref next);
    }

    /// <summary>One of several that get an interrupt; the last one tells the sender.</summary>
    private static void Gathered(Assembler c, byte vector, int counter, uint count, uint expect, uint owner, byte reply, Label eoi)
    {
        Label next = c.CreateLabel();
        c.cmp(esi, vector);
        c.jne(next);
        c.inc(__qword_ptr[rbx + counter]);
        c.mov(eax, 1);
        c.@lock.xadd(__qword_ptr[count], rax);
        c.inc(rax);
        c.cmp(rax, __qword_ptr[expect]);
        c.jne(eoi);
        c.mov(rdx, __qword_ptr[owner]);
        Send(c, reply);
        c.jmp(eoi);
        c.Label(ref next);
    }

    private static void Save(Assembler c)
    {
        c.push(rax);
        c.push(rcx);
        c.push(rdx);
        c.push(rbx);
        c.push(rsi);
        c.mov(rbx, __qword_ptr.gs[Self]);
    }

    private static void Restore(Assembler c)
    {
        c.pop(rsi);
        c.pop(rbx);
        c.pop(rdx);
        c.pop(rcx);
        c.pop(rax);
    }

    /// <summary>A fixed interrupt to the processor in EDX.</summary>
    private static void Send(Assembler c, byte vector)
    {
        c.mov(ecx, Icr);
        c.mov(eax, 0x4000 | vector);
        c.wrmsr();
    }

    private static void Wrmsr(Assembler c, uint msr, uint low)
    {
        c.mov(ecx, msr);
        c.mov(eax, low);
        c.xor(edx, edx);
        c.wrmsr();
    }

    private static void Processor(Assembler c)
    {
        Label all = c.CreateLabel(), loop = c.CreateLabel(), wait = c.CreateLabel(), finish = c.CreateLabel(), asleep = c.CreateLabel();
        Wrmsr(c, Svr, 0x100 | SpuriousVector);
        Wrmsr(c, Divide, 0xb);
        c.mov(eax, 1);
        c.movq(xmm9, rax);
        c.pxor(xmm8, xmm8);
        c.lea(rax, __[r13 + (int)DebugPattern]);
        c.mov(dr1, rax);
        c.@lock.inc(__qword_ptr[Ready]);
        c.Label(ref all);
        c.pause();
        c.cmp(__qword_ptr[Ready], r14);
        c.jb(all);
        c.sti();
        c.jmp(loop);

        Wait(c, ref wait);
        c.Label(ref loop);
        c.mov(__qword_ptr[r12 + Phase], 0);
        c.cmp(__qword_ptr[Halt], 0);
        c.jne(finish);
        Compute(c);
        OneThing(c, loop, wait);

        c.Label(ref finish);
        c.mov(__qword_ptr[r12 + Phase], 100);
        c.@lock.inc(__qword_ptr[Done]);
        c.Label(ref asleep);
        c.sti();
        c.hlt();
        c.jmp(asleep);
    }

    /// <summary>RDI: where, RSI: for which value, EBX: why. Sleeps; interrupts are on afterwards.</summary>
    private static void Wait(Assembler c, ref Label wait)
    {
        Label again = c.CreateLabel(), over = c.CreateLabel();
        c.Label(ref wait);
        c.mov(__qword_ptr[r12 + WaitAddress], rdi);
        c.mov(__qword_ptr[r12 + WaitValue], rsi);
        c.mov(__qword_ptr[r12 + Phase], rbx);
        c.Label(ref again);
        c.cli();
        c.cmp(__qword_ptr[rdi], rsi);
        c.jae(over);
        c.inc(__qword_ptr[r12 + Halts]);
        c.sti(); // its shadow reaches over HLT: an interrupt after the comparison wakes it
        c.hlt();
        c.jmp(again);
        c.Label(ref over);
        c.sti();
        c.ret();
    }

    private static void Compute(Assembler c)
    {
        Label right = c.CreateLabel(), same = c.CreateLabel();
        c.inc(__qword_ptr[r12 + Rounds]);
        foreach ((int shift, bool left) in ((int, bool)[])[(13, true), (7, false), (17, true)])
        {
            c.mov(rax, r15);
            if (left) c.shl(rax, (byte)shift);
            else c.shr(rax, (byte)shift);
            c.xor(r15, rax);
        }

        c.@lock.inc(__qword_ptr[Shared]);
        c.inc(__qword_ptr[r12 + SharedOut]);
        c.mov(rax, r15);
        c.shr(rax, 20);
        c.and(eax, 1023);
        c.inc(__qword_ptr[r12 + rax * 8 + Work]);
        c.paddq(xmm8, xmm9);
        c.movq(rax, xmm8);
        c.cmp(rax, __qword_ptr[r12 + Rounds]);
        c.je(right);
        c.mov(__qword_ptr[r12 + Error], 3);
        c.mov(__qword_ptr[r12 + ErrorDetail], rax);
        c.Label(ref right);
        c.test(__byte_ptr[r12 + Rounds], 15);
        c.jne(same);
        c.mov(rax, dr1);
        c.sub(rax, r13);
        c.cmp(rax, (int)DebugPattern);
        c.je(same);
        c.mov(__qword_ptr[r12 + Error], 4);
        c.mov(__qword_ptr[r12 + ErrorDetail], rax);
        c.Label(ref same);
    }

    /// <summary>What the round does, by three random bits; 0 to 2 is a request.</summary>
    private static void OneThing(Assembler c, Label loop, Label wait)
    {
        Label oneShot = c.CreateLabel(), deadline = c.CreateLabel(), broadcast = c.CreateLabel(), cluster = c.CreateLabel(), self = c.CreateLabel(), nmi = c.CreateLabel();
        c.mov(eax, r15d);
        c.shr(eax, 8);
        c.and(eax, 7);
        c.cmp(eax, 3);
        c.je(oneShot);
        c.cmp(eax, 4);
        c.je(deadline);
        c.cmp(eax, 5);
        c.je(broadcast);
        c.cmp(eax, 6);
        c.je(cluster);
        c.cmp(eax, 7);
        c.je(self);
        Request(c, loop, wait);
        c.Label(ref oneShot);
        OneShot(c, loop, wait);
        c.Label(ref deadline);
        TscDeadlineTimer(c, loop, wait);
        c.Label(ref broadcast);
        Broadcast(c, loop, wait);
        c.Label(ref cluster);
        Cluster(c, loop, wait);
        c.Label(ref self);
        c.test(r15d, 0x800);
        c.jne(nmi);
        c.inc(__qword_ptr[r12 + SelfOut]);
        Wrmsr(c, SelfIpi, SelfVector);
        WaitUntil(c, SelfIn, SelfOut, phase: 6, wait);
        c.jmp(loop);
        c.Label(ref nmi);
        Nmi(c, loop, wait);
    }

    private static void WaitUntil(Assembler c, int counter, int value, int phase, Label wait)
    {
        c.lea(rdi, __[r12 + counter]);
        c.mov(rsi, __qword_ptr[r12 + value]);
        c.mov(ebx, phase);
        c.call(wait);
    }

    /// <summary>EDX: another processor, at random; on to the next round when there is none.</summary>
    private static void Other(Assembler c, Label loop)
    {
        Label found = c.CreateLabel();
        c.mov(rax, r15);
        c.shr(rax, 32);
        c.xor(edx, edx);
        c.div(r14);
        c.cmp(rdx, r13);
        c.jne(found);
        c.inc(rdx);
        c.cmp(rdx, r14);
        c.jb(found);
        c.xor(edx, edx);
        c.cmp(r14, 1);
        c.je(loop);
        c.Label(ref found);
    }

    private static void TryLock(Assembler c, uint word, Label busy)
    {
        c.mov(eax, 1);
        c.xchg(__qword_ptr[word], rax);
        c.test(rax, rax);
        c.jne(busy);
    }

    private static void Request(Assembler c, Label loop, Label wait)
    {
        Other(c, loop);
        c.inc(__qword_ptr[r12 + rdx * 8 + RequestsTo]);
        c.mov(rsi, __qword_ptr[r12 + rdx * 8 + RequestsTo]);
        c.lea(rdi, __[r12 + rdx * 8 + RepliesFrom]);
        c.lea(eax, __[r13 + (0x4000 | RequestVector)]);
        c.mov(ecx, Icr);
        c.wrmsr();
        c.mov(ebx, 1);
        c.call(wait);
        c.jmp(loop);
    }

    private static void OneShot(Assembler c, Label loop, Label wait)
    {
        c.mov(__qword_ptr[r12 + Deadline], 0);
        Wrmsr(c, LvtTimer, TimerVector);
        c.inc(__qword_ptr[r12 + Armed]);
        c.mov(rax, r15);
        c.shr(rax, 40);
        c.movzx(eax, ax);
        c.inc(eax);
        c.mov(ecx, InitialCount);
        c.xor(edx, edx);
        c.wrmsr();
        WaitUntil(c, Ticks, Armed, phase: 2, wait);
        c.jmp(loop);
    }

    private static void TscDeadlineTimer(Assembler c, Label loop, Label wait)
    {
        Label near = c.CreateLabel();
        Wrmsr(c, LvtTimer, 0x40000 | TimerVector);
        c.inc(__qword_ptr[r12 + Armed]);
        c.mov(rbx, r15);
        c.shr(rbx, 40);
        c.and(ebx, 0x3ffff);
        c.test(r15d, 0x7000);
        c.jne(near);
        c.shl(ebx, 4); // one in eight is far away
        c.Label(ref near);
        c.rdtsc();
        c.shl(rdx, 32);
        c.or(rax, rdx);
        c.add(rax, rbx);
        c.mov(__qword_ptr[r12 + Deadline], rax);
        c.mov(rdx, rax);
        c.shr(rdx, 32);
        c.mov(ecx, TscDeadline);
        c.wrmsr();
        WaitUntil(c, Ticks, Armed, phase: 3, wait);
        c.jmp(loop);
    }

    private static void Broadcast(Assembler c, Label loop, Label wait)
    {
        c.cmp(r14, 1);
        c.je(loop);
        TryLock(c, BroadcastLock, loop);
        c.mov(__qword_ptr[BroadcastCount], 0);
        c.mov(__qword_ptr[BroadcastOwner], r13);
        c.lea(rax, __[r14 - 1]);
        c.mov(__qword_ptr[BroadcastExpect], rax);
        c.inc(__qword_ptr[r12 + BroadcastsOut]);
        Wrmsr(c, Icr, 0xc4000 | BroadcastVector);
        WaitUntil(c, BroadcastReplies, BroadcastsOut, phase: 4, wait);
        c.mov(__qword_ptr[BroadcastLock], 0);
        c.jmp(loop);
    }

    private static void Cluster(Assembler c, Label loop, Label wait)
    {
        Label whole = c.CreateLabel(), some = c.CreateLabel();
        TryLock(c, ClusterLock, loop);
        c.lea(rbx, __[r14 + 15]);
        c.shr(rbx, 4);
        c.mov(rax, r15);
        c.shr(rax, 32);
        c.xor(edx, edx);
        c.div(rbx);
        c.mov(rbx, rdx); // the cluster
        c.shl(rdx, 4);
        c.mov(rcx, r14);
        c.sub(rcx, rdx);
        c.mov(rsi, r15);
        c.shr(rsi, 44);
        c.and(esi, 0xffff);
        c.cmp(rcx, 16);
        c.jae(whole);
        c.mov(eax, 1);
        c.shl(eax, cl);
        c.dec(eax);
        c.and(esi, eax);
        c.Label(ref whole);
        c.test(esi, esi);
        c.jne(some);
        c.mov(esi, 1);
        c.Label(ref some);
        c.popcnt(eax, esi);
        c.mov(__qword_ptr[ClusterCount], 0);
        c.mov(__qword_ptr[ClusterOwner], r13);
        c.mov(__qword_ptr[ClusterExpect], rax);
        c.add(__qword_ptr[r12 + ClusterTargets], rax);
        c.inc(__qword_ptr[r12 + ClustersOut]);
        c.mov(edx, ebx);
        c.shl(edx, 16);
        c.or(edx, esi);
        c.mov(ecx, Icr);
        c.mov(eax, 0x4800 | ClusterVector);
        c.wrmsr();
        WaitUntil(c, ClusterReplies, ClustersOut, phase: 5, wait);
        c.mov(__qword_ptr[ClusterLock], 0);
        c.jmp(loop);
    }

    private static void Nmi(Assembler c, Label loop, Label wait)
    {
        c.cmp(r14, 1);
        c.je(loop);
        TryLock(c, NmiLock, loop);
        c.mov(__qword_ptr[NmiOwner], r13);
        Other(c, loop);
        c.inc(__qword_ptr[r12 + NmisOut]);
        c.inc(__qword_ptr[r12 + rdx * 8 + NmisTo]);
        c.mov(ecx, Icr);
        c.mov(eax, 0x4400);
        c.wrmsr();
        WaitUntil(c, NmiReplies, NmisOut, phase: 7, wait);
        c.mov(__qword_ptr[NmiLock], 0);
        c.jmp(loop);
    }
}

/// <summary>What the processors of a guest did together.</summary>
internal readonly record struct SmpFigures(ulong Rounds, ulong Ipis, ulong Nmis, ulong Timers, ulong Halts)
{
    public override string ToString() => $"{Rounds:N0} rounds, {Ipis:N0} IPIs, {Nmis:N0} NMIs, {Timers:N0} timer interrupts, {Halts:N0} halts";
}
