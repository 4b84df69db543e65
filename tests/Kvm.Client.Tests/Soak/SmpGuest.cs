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
internal sealed unsafe partial class SmpGuest
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
}
