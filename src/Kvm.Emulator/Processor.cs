using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Kvm.Emulator.Native;

namespace Kvm.Emulator;

/// <summary>One emulated processor: registers, MSRs, memory management, VMX and SVM, and the loop that executes instructions.</summary>
/// <remarks>
/// One thread occupies a processor at a time. Only the physical inputs (RaiseInterrupt, RaiseNmi, RaiseInit, RaiseSipi, RequestStop) may be called from others.
/// </remarks>
public sealed unsafe partial class Processor : IDisposable
{
    internal Processor(Machine machine, int index, CpuModel model, BiosSettings bios)
    {
        model = ExecutableModel.Of(model);
        Machine = machine;
        Index = index;
        Model = model;
        tscRatio = new ClockRatio((ulong)machine.Time.TimestampFrequency, model.TscHz);
        Bios = bios;
        if (machine.Engine.Engine == ExecutionEngine.Native)
            nativeCode = CodeMemory.TryCreate(machine.Engine.CodeBytes);
        State = nativeCode is not null ? (CpuState*)nativeCode.State : (CpuState*)NativeMemory.AlignedAlloc((nuint)sizeof(CpuState), 64);
        Unsafe.InitBlock(State, 0, (uint)sizeof(CpuState));
        VectorArea = (byte*)NativeMemory.AlignedAlloc(Vector.VectorUnit.AreaSize, 64);
        Unsafe.InitBlock(VectorArea, 0, Vector.VectorUnit.AreaSize);
        HostArithmetic = machine.VectorEngine != Vector.VectorEngine.Managed && Engine.HostArithmetic.Supported;
        if (HostArithmetic)
            Engine.HostArithmetic.Prepare(State);
        Fpu = new Vector.FpuTraits(model);
        Cr4Mask = SupportedCr4(model);
        msrs = new MsrFile(this);
        Counters = PerformanceMonitor.Of(this);
        Mmu = new Mmu(this);
        if (nativeCode is not null)
            NativeEngine = new NativeEngine(this, nativeCode, machine.Engine);
        Reset(init: false);
    }

    public int Index { get; }
    public Machine Machine { get; }
    /// <summary>The model the machine was given, less the CPUID bits of instructions that do not execute here.</summary>
    public CpuModel Model { get; }
    public BiosSettings Bios { get; }

    /// <summary>The state block, at a fixed native address for the processor's life.</summary>
    public CpuState* State { get; private set; }
    /// <summary>Operands of vector instructions, see <see cref="Vector.VectorUnit"/>; used by the occupant only.</summary>
    internal byte* VectorArea { get; private set; }
    /// <summary>Ordinary SSE arithmetic is the host's, flags and all.</summary>
    internal bool HostArithmetic { get; }
    public Mmu Mmu { get; }
    /// <summary>Translates hot code to the host's; null: the interpreter does everything.</summary>
    internal NativeEngine? NativeEngine { get; }
    /// <summary>Where generated code lies, and next to it <see cref="State"/>.</summary>
    private readonly CodeMemory? nativeCode;
    /// <summary>Non-null exactly while in VMX non-root operation or SVM guest mode. A change ends whatever the other side's last instruction left behind.</summary>
    public NonRootMode? NonRoot
    {
        get;
        internal set
        {
            field = value;
            CancelDelivery();
        }
    }
    public IHardwareObserver? Observer { get; set; }

    /// <summary>Performance counters, of models that have them.</summary>
    internal PerformanceMonitor? Counters { get; }

    /// <summary>The fault an instruction handler ended with (ExecStatus.Fault), unless <see cref="PendingMemoryExit"/>.</summary>
    public Fault PendingFault;
    /// <summary>The last failed memory access failed in EPT or NPT: NonRoot.TakePendingMemoryExit is to be called instead of delivering a fault.</summary>
    public bool PendingMemoryExit;

    /// <summary>Records a fault for the loop to deliver.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    public ExecStatus Raise(Fault fault)
    {
        PendingFault = fault;
        PendingMemoryExit = false;
        return ExecStatus.Fault;
    }

    internal ExecStatus RaiseUd() => Raise(Fault.Ud);
    internal ExecStatus RaiseGp(uint errorCode = 0) => Raise(Fault.Gp(errorCode));

    // ---- mode predicates ----
    internal bool ProtectedMode => (State->Cr0 & Cr0.PE) != 0;
    internal bool Virtual8086 => (State->Rflags & Flags.VM) != 0;
    internal bool LongMode => (State->Efer & Efer.LMA) != 0;
    /// <summary>64-bit code segment in IA-32e mode.</summary>
    internal bool Code64 => (State->Efer & Efer.LMA) != 0 && (State->Segs[(int)Seg.CS].AccessRights & SegmentRights.L) != 0;
    internal int Iopl => (int)(State->Rflags >> 12) & 3;
    internal ref SegmentCache Segment(Seg seg) => ref Unsafe.Add(ref Unsafe.As<CpuState.SegmentArray, SegmentCache>(ref State->Segs), (int)seg);

    /// <summary>Asks the run loop to look up at its next block head.</summary>
    internal void Request(ExitRequests bits) => Interlocked.Or(ref State->ExitRequest, (uint)bits);
    internal void ClearRequest(ExitRequests bits)
    {
        if ((Volatile.Read(ref State->ExitRequest) & (uint)bits) != 0)
            Interlocked.And(ref State->ExitRequest, ~(uint)bits);
    }

    public void Dispose()
    {
        DisposeCode();
        NativeEngine?.Free();
        DisposeVmx();
        Mmu.Dispose();
        wake.Dispose();
        svm?.Dispose();
        NativeMemory.AlignedFree(VectorArea);
        VectorArea = null;
        if (nativeCode is not null)
            nativeCode.Dispose();
        else
            NativeMemory.AlignedFree(State);
        State = null;
    }
}
