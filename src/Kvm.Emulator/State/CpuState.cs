using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Kvm.Emulator;

/// <summary>
/// The state block of one processor (ARCHITECTURE D4), in native memory at a fixed address: used by the interpreter and, later, by generated code.
/// Only the thread that occupies the processor touches it, except <see cref="ExitRequest"/>, which any thread sets with Interlocked.Or.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct CpuState
{
    /// <summary>RAX RCX RDX RBX RSP RBP RSI RDI R8–R15.</summary>
    public fixed ulong Gpr[16];
    /// <summary>Address (offset in CS) of the current instruction while one executes, of the next one between instructions.</summary>
    public ulong Rip;
    /// <summary>RFLAGS; CF PF AF ZF SF OF in it are valid only while <see cref="LazyOp"/> is 0. Read and write whole RFLAGS through Processor.Rflags.</summary>
    public ulong Rflags;

    // Lazy arithmetic flags: owned by the engine.
    public uint LazyOp;
    public uint LazyReserved;
    public ulong LazyResult;
    public ulong LazySrc1;
    public ulong LazySrc2;
    /// <summary>Engine: RIP at the start of the block in execution, a zero, and an address that no TLB tag matches (operand terms of <see cref="Engine.Op"/>).</summary>
    internal ulong BlockRip, Zero, Unmatchable;
    /// <summary>Engine: where a slow read leaves its value.</summary>
    internal fixed ulong Scratch[2];

    /// <summary>Bits of <see cref="ExitRequests"/>, set by any thread, polled at block heads; cleared by the occupant when serviced.</summary>
    public uint ExitRequest;
    /// <summary>Engine: low half of the epoch that decoded code is compared in. Generated code looks at it and <see cref="ExitRequest"/> as one word.</summary>
    internal uint CodeEpoch;
    /// <summary>Decoding and execution mode derived from CR0, CR4, EFER, CS, SS, RFLAGS.VM/TF, CPL (<see cref="CodeMode"/>): part of the key of decoded blocks. Recomputed by Processor.UpdateMode.</summary>
    public uint Mode;
    /// <summary>Software TLB of the current address space and privilege (supervisor or user), <see cref="TlbEntry.Entries"/> entries.</summary>
    public TlbEntry* Tlb;
    /// <summary>Retired instructions since reset (all modes).</summary>
    public ulong InstructionsRetired;

    public SegmentArray Segs;
    public DescriptorTableRegister Gdtr;
    public DescriptorTableRegister Idtr;

    public ulong Cr0;
    public ulong Cr2;
    public ulong Cr3;
    public ulong Cr4;
    /// <summary>CR8 (TPR 7:4), 0–15.</summary>
    public ulong Cr8;
    public ulong Efer;
    public ulong Xcr0;
    /// <summary>Protection-key rights: per key, access disable and write disable. Change through Processor.WritePkru.</summary>
    public uint Pkru;
    /// <summary>Bits 31:16 of MXCSR: AMD's misaligned exception mask (MM). The rest is in <see cref="Fx"/>, which host code loads.</summary>
    public uint MxcsrHigh;
    /// <summary>IA32_XSS.</summary>
    public ulong Xss;
    /// <summary>Selectors that go with the last x87 instruction's and operand's offsets in <see cref="Fx"/>.</summary>
    public ushort FxCs, FxDs;
    /// <summary>DR0–DR7 (4 and 5 unused).</summary>
    public fixed ulong Dr[8];
    /// <summary>PDPTE registers of PAE paging.</summary>
    public fixed ulong Pdpte[4];
    public byte Cpl;
    /// <summary>Bit 0: blocking by STI, bit 1: blocking by MOV SS / POP SS. Cleared by the loop after the next instruction.</summary>
    public byte InterruptShadow;
    /// <summary>NMIs are blocked until IRET.</summary>
    public byte NmiBlocked;
    public ActivityState Activity;
    /// <summary>A single-step or data-breakpoint trap is due at the next boundary: DR6 bits.</summary>
    public ulong PendingDebug;

    // MSRs with architectural effect on execution; the rest live in Processor's MSR file.
    public ulong Star, Lstar, Cstar, Sfmask, KernelGsBase;
    public ulong SysenterCs, SysenterEsp, SysenterEip;
    public ulong TscAux, Pat, DebugCtl;
    /// <summary>Added to the machine's time to give this processor's IA32_TIME_STAMP_COUNTER.</summary>
    public ulong TscAdjust;

    /// <summary>Keeps what follows at a multiple of 16 in the block, whatever comes before: FXRSTOR faults otherwise.</summary>
    private readonly Vector128<byte> alignment;
    /// <summary>x87, MMX and SSE state in the 64-bit FXSAVE format; 16-byte aligned. The MXCSR_MASK field is scratch.</summary>
    public fixed byte Fx[512];
    /// <summary>Bits 255:128 of YMM0–YMM15.</summary>
    public fixed byte YmmHi[256];
    /// <summary>Engine: the block that <see cref="Engine.VectorLoop"/> has come to, what is left of the budget, the epoch of the code, and whether arithmetic has begun.</summary>
    internal Engine.Block* LoopBlock;
    internal long LoopBudget;
    internal ulong LoopEpoch;
    internal uint LoopReady;
    /// <summary>Generated code (<see cref="Native.NativeEngine"/>): the jump cache that goes with <see cref="Tlb"/>, and the budget.</summary>
    internal ulong* Jumps;
    internal long NativeBudget;
    /// <summary>Generated code: scratch, the target of an indirect branch, and the host code for it.</summary>
    internal ulong NativeScratch, NativeTarget, NativeEntry;
    /// <summary>Generated code: where it was left, an index into the table of sites.</summary>
    internal uint NativeSite;
    /// <summary>Generated code: the arithmetic flags as SETO and LAHF give them: OF in the low byte, the others in the high one.</summary>
    internal ushort NativeFlags;
    /// <summary>Generated code: the host's vector registers and MXCSR hold the guest's.</summary>
    internal byte NativeVectors;
    /// <summary>Generated code: the host's own MXCSR meanwhile.</summary>
    internal uint NativeHostMxcsr;

    [InlineArray(8)]
    public struct SegmentArray
    {
        private SegmentCache first;
    }
}

/// <summary>Activity state, numbered as in the VMCS (SDM vol 3C, "Guest Non-Register State").</summary>
public enum ActivityState : byte { Active, Hlt, Shutdown, WaitForSipi }

/// <summary>Bits of <see cref="CpuState.ExitRequest"/>.</summary>
[Flags]
public enum ExitRequests : uint
{
    None = 0,
    /// <summary>A physical interrupt is pending (see Processor.RaiseInterrupt).</summary>
    Interrupt = 1,
    Nmi = 2,
    Init = 4,
    Sipi = 8,
    /// <summary>The embedder wants Run to return.</summary>
    Stop = 0x10,
    /// <summary>Interrupt flag/shadow/window conditions changed: re-evaluate events at the next boundary (set by the processor itself).</summary>
    Reevaluate = 0x20,
    /// <summary>The VMX-preemption timer or another processor-local deadline may have passed.</summary>
    Timer = 0x40,
    /// <summary>Single step (RFLAGS.TF), monitor trap flag or another per-instruction condition: execute one instruction at a time while set.</summary>
    SingleStep = 0x80,
    /// <summary>Another thread asks this processor to flush its TLB and decoded code (memory withdrawn).</summary>
    Flush = 0x100,
    /// <summary>Engine: another processor has written to or decoded code this processor must know of.</summary>
    Code = 0x200,
    /// <summary>A trap-like VM exit follows the instruction being executed: the block is left right after it.</summary>
    Trap = 0x400,
}

/// <summary>Bits of <see cref="CpuState.Mode"/>.</summary>
[Flags]
public enum CodeMode : uint
{
    /// <summary>Default operand/address size of CS: 0 = 16-bit, 1 = 32-bit, 2 = 64-bit.</summary>
    SizeMask = 3,
    Code16 = 0,
    Code32 = 1,
    Code64 = 2,
    /// <summary>SS.B: stack pointer is ESP (ignored in 64-bit code).</summary>
    Stack32 = 4,
    /// <summary>CPL 3 (selects the user TLB).</summary>
    User = 8,
    /// <summary>CR0.PE.</summary>
    Protected = 0x10,
    /// <summary>RFLAGS.VM.</summary>
    Virtual8086 = 0x20,
    /// <summary>EFER.LMA.</summary>
    Long = 0x40,
    /// <summary>CS, DS, ES, SS have base 0 and limit 4 GiB - 1 (or code is 64-bit): no base add, no limit check.</summary>
    Flat = 0x80,
    /// <summary>VMX non-root operation or SVM guest mode.</summary>
    NonRoot = 0x100,
    /// <summary>Alignment checks are on (CR0.AM, RFLAGS.AC, CPL 3).</summary>
    AlignmentCheck = 0x200,
    /// <summary>CR0.EM and CR0.TS are clear, CR4.OSFXSR is set: nothing stands in the way of legacy-encoded SSE instructions.</summary>
    Sse = 0x400,
    /// <summary>Protected mode, CR0.TS clear, CR4.OSXSAVE and XCR0[2:1] set: nor of VEX-encoded ones.</summary>
    Avx = 0x800,
}
