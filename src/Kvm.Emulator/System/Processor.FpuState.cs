using Kvm.Emulator.Vector;
using Kvm.Emulator.Vector.Integer;

namespace Kvm.Emulator;

/// <summary>
/// x87, SSE, AVX and PKRU state as kernel code sees it: the state-saving instructions, executed on this processor by a call.
/// State->Fx holds x87, MMX and SSE in the 64-bit FXSAVE format, State->YmmHi the rest of the YMM registers.
/// </summary>
/// <remarks>The same code as the instruction stream's handlers, with 64-bit pointers, without faults for memory: areas are host memory (physical addresses are process addresses).</remarks>
public sealed unsafe partial class Processor
{
    /// <summary>MXCSR at reset.</summary>
    internal const uint MxcsrInitial = 0x1f80;

    /// <summary>What the CPU model says about x87, SSE and XSAVE state.</summary>
    internal FpuTraits Fpu { get; }

    /// <summary>All of MXCSR. Values with bits outside <see cref="FpuTraits.MxcsrMask"/> must not get here: host code loads it.</summary>
    internal uint MxcsrValue
    {
        get => VectorUnit.Mxcsr(State) | State->MxcsrHigh;
        set
        {
            VectorUnit.Mxcsr(State) = (ushort)value;
            State->MxcsrHigh = value & 0xffff_0000;
        }
    }

    /// <summary>Power-up state: FCW 40H, every register zero and tagged so, MXCSR 1F80H.</summary>
    private void ResetFpu()
    {
        CpuState* s = State;
        new Span<byte>(s->Fx, 512).Clear();
        new Span<byte>(s->YmmHi, 256).Clear();
        X87State.Control(s) = 0x40;
        X87State.Tags(s) = 0xff;
        MxcsrValue = MxcsrInitial;
        s->FxCs = s->FxDs = 0;
        s->Xss = 0;
    }

    /// <summary>#NM while CR0 says that the unit is emulated or its state is not the task's; #MF for a pending exception when the instruction waits.</summary>
    internal bool X87Available(bool waits) => VectorUnit.Available(this, State, waits ? VectorFlags.X87 | VectorFlags.Waits : VectorFlags.X87);

    private static XsaveFormat KernelFormat => new(Wide: true, Registers: 16);

    /// <summary>XSAVE64: the components of <paramref name="mask"/> that XCR0 enables, in the standard format. The area's old header is kept for the others.</summary>
    public void Xsave(byte* area, ulong mask) => XsaveUnit.Save(this, new HostXsaveArea(area), XsaveForm.Xsave, mask & State->Xcr0, KernelFormat);

    /// <summary>XRSTOR64: #GP(0) for a header or MXCSR value that the processor refuses; nothing is loaded then.</summary>
    public InstructionResult Xrstor(byte* area, ulong mask)
        => XsaveUnit.Restore(this, new HostXsaveArea(area), supervisor: false, State->Xcr0, mask & State->Xcr0, KernelFormat) ? InstructionResult.Success : InstructionResult.Faulted(PendingFault);

    /// <summary>XSAVES64: the components of <paramref name="mask"/> that XCR0 or IA32_XSS enables and that are in use, in the compacted format.</summary>
    public void Xsaves(byte* area, ulong mask) => XsaveUnit.Save(this, new HostXsaveArea(area), XsaveForm.Xsaves, mask & (State->Xcr0 | State->Xss), KernelFormat);

    /// <summary>XRSTORS64: as <see cref="Xrstor"/>, of the compacted format.</summary>
    public InstructionResult Xrstors(byte* area, ulong mask)
    {
        ulong enabled = State->Xcr0 | State->Xss;
        return XsaveUnit.Restore(this, new HostXsaveArea(area), supervisor: true, enabled, mask & enabled, KernelFormat) ? InstructionResult.Success : InstructionResult.Faulted(PendingFault);
    }

    /// <summary>FXSAVE64 to 512 bytes; not <paramref name="wide"/>: FXSAVE of 64-bit code.</summary>
    public void Fxsave(byte* image, bool wide = true) => FxsaveInstructions.Save(this, new HostXsaveArea(image), KernelFormat with { Wide = wide });

    /// <summary>FXRSTOR64 or FXRSTOR: #GP(0) for reserved MXCSR bits.</summary>
    public InstructionResult Fxrstor(byte* image, bool wide = true)
        => FxsaveInstructions.Restore(this, new HostXsaveArea(image), KernelFormat with { Wide = wide }) ? InstructionResult.Success : InstructionResult.Faulted(PendingFault);

    /// <summary>FNINIT.</summary>
    public void Fninit() => X87State.Initialize(State);

    /// <summary>FNSTCW.</summary>
    public ushort Fnstcw() => X87State.Control(State);

    /// <summary>FNSTSW.</summary>
    public ushort Fnstsw() => X87State.Status(State);

    /// <summary>FWAIT: #MF for an x87 exception that is pending.</summary>
    public InstructionResult Fwait() => X87State.Pending(State) ? InstructionResult.Faulted(new Fault(Fault.MF)) : InstructionResult.Success;

    /// <summary>MOVQ from MM<paramref name="n"/>: as every MMX instruction it ends the use of the x87 stack.</summary>
    public ulong ReadMm(int n)
    {
        MmxLanes.Enter(State);
        return MmxLanes.Register(State, n);
    }

    /// <summary>MOVQ to MM<paramref name="n"/>.</summary>
    public void WriteMm(int n, ulong value)
    {
        MmxLanes.Enter(State);
        MmxLanes.Put(State, n, value);
    }

    /// <summary>MOVDQU from XMM<paramref name="n"/>.</summary>
    public UInt128 ReadXmm(int n) => *(UInt128*)VectorUnit.Xmm(State, n);

    /// <summary>MOVDQU to XMM<paramref name="n"/>.</summary>
    public void WriteXmm(int n, UInt128 value) => *(UInt128*)VectorUnit.Xmm(State, n) = value;

    /// <summary>XGETBV with ECX = 0.</summary>
    public ulong Xgetbv() => State->Xcr0;

    /// <summary>XSETBV: only XCR0 exists; x87 must stay on, AVX needs SSE, unsupported bits fault.</summary>
    public InstructionResult Xsetbv(uint index, ulong value)
    {
        if ((State->Cr4 & Cr4.OSXSAVE) == 0)
            return InstructionResult.Faulted(Fault.Ud);
        if (index != 0 || (value & FpuTraits.X87) == 0 || (value & ~Fpu.Xcr0) != 0 || (value & (FpuTraits.Sse | FpuTraits.Avx)) == FpuTraits.Avx)
            return InstructionResult.Faulted(Fault.Gp());
        if (value != State->Xcr0)
        {
            State->Xcr0 = value;
            // Between a guest's exit and its entry the mode is still the guest's, and computed anew if XCR0 is another then.
            if (!HostContextPending)
                UpdateMode();
        }
        return InstructionResult.Success;
    }
}
