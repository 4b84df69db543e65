namespace Kvm.Emulator;

/// <summary>
/// What VMX non-root operation and SVM guest mode have in common, as the execution engine sees it: questions asked by system instructions and event delivery
/// before they act. Implemented by Vmx.VmxGuest and Svm.SvmGuest, one instance per processor. Only consulted while the processor is in non-root operation.
/// Each method that returns <c>true</c> has performed the VM exit: the processor is in root operation with host state loaded, and the handler must
/// return <see cref="ExecStatus.Switched"/> at once. <c>length</c> is the instruction's length in bytes (exit instruction length / next RIP).
/// RIP still addresses the instruction.
/// </summary>
public abstract unsafe class NonRootMode
{
    // ---- instructions (called after the checks that come before the exit in the manuals: most #UD, CPL where documented) ----
    public abstract bool Cpuid(int length);
    public abstract bool Hlt(int length);
    public abstract bool Pause(int length);
    public abstract bool Invd(int length);
    public abstract bool Wbinvd(int length);
    public abstract bool Monitor(int length);
    public abstract bool Mwait(int length, bool monitorArmed);
    public abstract bool Rdtsc(int length, bool rdtscp);
    public abstract bool Rdpmc(int length);
    public abstract bool Rdmsr(int length, uint index);
    public abstract bool Wrmsr(int length, uint index, ulong value);
    public abstract bool Rdrand(int length, bool seed, byte register, byte width);
    public abstract bool Xsetbv(int length);
    public abstract bool Rsm(int length);
    public abstract bool Invlpg(int length, ulong linear);
    public abstract bool Invpcid(int length, in MemoryOperand operand, ulong descriptorLinear, byte typeRegister);
    /// <summary>XSAVES/XRSTORS: exit when (requested-feature bitmap &amp; XSS exiting bitmap) != 0.</summary>
    public abstract bool Xsaves(int length, bool restore, ulong requestedFeatures);
    /// <summary>SGDT LGDT SIDT LIDT SLDT LLDT STR LTR.</summary>
    public abstract bool DescriptorTable(int length, DescriptorTableInstruction which, in MemoryOperand operand, byte register);
    /// <summary>PUSHF, POPF, software INT n, IRET, SMSW-like intercepts exist on SVM only; VMX answers false.</summary>
    public abstract bool Simple(int length, SimpleIntercept which, ulong info = 0);
    /// <summary>IN, OUT, INS, OUTS: one access (REP: before the first iteration and again when resumed).</summary>
    public abstract bool Io(int length, in IoAccess access);

    /// <summary>MOV CRn, r. Before the write; may modify <paramref name="value"/> (guest/host masks) or handle it fully (<paramref name="handled"/>, e.g. CR8 with TPR shadow).</summary>
    public abstract bool WriteCr(int length, int register, byte gpr, ref ulong value, out bool handled);
    /// <summary>MOV r, CRn: may exit or replace the value (read shadows, virtual TPR).</summary>
    public abstract bool ReadCr(int length, int register, byte gpr, ref ulong value);
    public abstract bool Clts(int length, out bool handled);
    /// <summary>LMSW with source operand <paramref name="source"/>; memory operand linear address when <paramref name="memory"/>.</summary>
    public abstract bool Lmsw(int length, ref ushort source, bool memory, ulong linear);
    public abstract bool MoveDr(int length, int register, bool write, byte gpr);
    /// <summary>CR0 as SMSW and guest-visible logic sees it.</summary>
    public abstract ulong VisibleCr0(ulong cr0);
    /// <summary>A VMX or SVM instruction executed in non-root operation (exit or #UD per vendor). Returns true when it exited; false → the caller raises #UD.</summary>
    public abstract bool VirtualizationInstruction(int length, VirtualizationInstruction which, in MemoryOperand operand, byte register1, byte register2);
    /// <summary>Task switch by CALL/JMP/IRET/task gate: reason 0 CALL, 1 IRET, 2 JMP, 3 gate.</summary>
    public abstract bool TaskSwitch(int length, ushort selector, int source, bool hasErrorCode, uint errorCode);

    // ---- events ----
    /// <summary>An exception is about to be delivered. May exit; <paramref name="softwareLength"/> != 0 for INT3/INTO/INT1.</summary>
    public abstract bool Exception(in Fault fault, int softwareLength);
    public abstract bool TripleFault();
    /// <summary>A physical interrupt, NMI, INIT or SIPI is pending. Exits or says that the guest takes it (false).</summary>
    public abstract bool PhysicalInterrupt();
    public abstract bool PhysicalNmi();
    public abstract bool PhysicalInit();
    public abstract bool PhysicalSipi(byte vector);
    /// <summary>
    /// At an instruction boundary, once for each place in the order of events: exits and virtual events of the guest that are due there.
    /// True when an exit or a virtual-interrupt delivery changed state.
    /// </summary>
    public abstract bool Boundary(BoundaryStage stage);
    /// <summary>A virtual event waits for the guest to become interruptible: an interrupt shadow is followed by a look at the very next boundary.</summary>
    public virtual bool VirtualEventPending => false;
    /// <summary>An NMI that exits is taken by the exit (VMX) or stays pending for the host (SVM: until GIF is set again).</summary>
    public virtual bool NmiExitTakesNmi => true;
    /// <summary>Whether RFLAGS.IF gates physical interrupts here (SVM V_INTR_MASKING uses the host's IF; VMX external-interrupt exiting ignores it).</summary>
    public abstract bool PhysicalInterruptsEnabled { get; }
    /// <summary>An event is being delivered through the IDT (IDT-vectoring information / EXITINTINFO for exits meanwhile). Called with delivering=false when done.</summary>
    public abstract void EventDelivery(bool delivering, in EventInfo info);

    // ---- memory ----
    /// <summary>True when guest-physical addresses go through EPT or NPT.</summary>
    public abstract bool NestedPaging { get; }
    /// <summary>
    /// Translates guest-physical to host-physical for one access. On failure the exit is recorded as pending (not taken) and false is returned;
    /// the run loop takes it through <see cref="TakePendingMemoryExit"/>.
    /// </summary>
    public abstract bool TranslateGpa(ulong gpa, in NestedAccess access, out NestedTranslation translation);
    /// <summary>Takes the recorded exit. <c>Processor.PendingLength</c> is the length of the instruction whose access failed.</summary>
    public abstract void TakePendingMemoryExit();
    /// <summary>True when the host-physical page needs virtual-APIC treatment (APIC-access page): the TLB must not cache it.</summary>
    public abstract bool IsSpecialPage(ulong hpa);
    /// <summary>An access to a special page. Performs it (virtualized) or records a pending exit and returns false.</summary>
    public abstract bool SpecialPageAccess(ulong hpa, in NestedAccess access, int size, ref ulong value);

    /// <summary>An instruction that non-root operation can hide: false → #UD.</summary>
    public virtual bool Enabled(NonRootFeature feature) => true;
    /// <summary>
    /// RDMSR or WRMSR that did not exit, of an MSR that is virtualized (x2APIC range): true when done here; <paramref name="fault"/>: it is #GP(0) instead.
    /// </summary>
    public virtual bool VirtualMsr(bool write, uint index, ref ulong value, out bool fault)
    {
        fault = false;
        return false;
    }
    /// <summary>An IRET has succeeded; true when it ends NMI blocking.</summary>
    public virtual bool IretCompleted() => true;

    /// <summary>RDTSC value seen by the guest.</summary>
    public abstract ulong AdjustTsc(ulong tsc);
    /// <summary>Tag of guest TLB entries: VPID or ASID (0 = shared with the host, flushed on every transition by the implementation).</summary>
    public abstract ushort TlbTag { get; }
    /// <summary>EPTP or nCR3 root, 0 without nested paging.</summary>
    public abstract ulong NestedRoot { get; }
    /// <summary>VMX "unrestricted guest": CR0.PE and CR0.PG are exempt from the FIXED0 rule.</summary>
    public virtual bool UnrestrictedGuest => false;
}

/// <summary>Where events of a guest stand among those of the processor (SDM vol 3A, "Prioritization of Concurrent Events"; vol 3C, "Other Causes of VM Exits").</summary>
public enum BoundaryStage : byte
{
    /// <summary>After INIT, before debug traps: trap-like exits, monitor trap flag.</summary>
    Traps,
    /// <summary>After debug traps: preemption timer, NMI window.</summary>
    BeforeNmi,
    /// <summary>Between NMIs and interrupts: interrupt window, virtual interrupts of VMX.</summary>
    BeforeInterrupts,
    /// <summary>Virtual interrupts of SVM.</summary>
    AfterInterrupts,
}

/// <summary>Instructions that exist in non-root operation only when a control enables them.</summary>
public enum NonRootFeature : byte { Rdtscp, Invpcid, Xsaves, UserWait }

public enum DescriptorTableInstruction : byte { Sgdt, Sidt, Lgdt, Lidt, Sldt, Str, Lldt, Ltr }

public enum SimpleIntercept : byte { Pushf, Popf, IntN, Iret, Icebp, ReadCr0Smsw, FerrFreeze }

public enum VirtualizationInstruction : byte
{
    Vmcall, Vmclear, Vmlaunch, Vmptrld, Vmptrst, Vmread, Vmresume, Vmwrite, Vmxoff, Vmxon, Invept, Invvpid, Vmfunc,
    Vmrun, Vmmcall, Vmload, Vmsave, Stgi, Clgi, Skinit, Invlpga, Getsec,
}

/// <summary>One port access. Count and addresses of string forms are those at the start of the instruction.</summary>
public readonly record struct IoAccess(ushort Port, byte Size, bool In, bool String, bool Rep, bool Immediate, byte AddressSize, Seg Segment, ulong Linear);

/// <summary>A memory operand for exit instruction information: registers as in <see cref="Engine.Op"/>, effective offset already computed.</summary>
public readonly record struct MemoryOperand(bool Memory, Seg Segment, byte Base, byte Index, byte Scale, byte AddressSize, long Displacement, ulong Offset, byte OperandSize);

/// <summary>
/// An access to be translated by EPT/NPT. Linear is the guest linear address when <see cref="LinearValid"/>; LinearRights what the guest's own paging says of it:
/// bit 0 user-mode address, bit 1 writable, bit 2 execute-disable (user and writable without paging).
/// </summary>
public readonly record struct NestedAccess(bool Read, bool Write, bool Execute, bool User, bool PageWalk, bool LinearValid, ulong Linear, bool WalkWritesAd, byte LinearRights = 0);

/// <summary>Host-physical address, rights and page size (bytes) of a nested translation; Dirty = further writes need no A/D update.</summary>
public readonly record struct NestedTranslation(ulong Hpa, bool Write, bool Execute, bool Dirty, ulong PageSize, bool Read = true);

/// <summary>An event in VMX interruption-information terms: type 0 external, 2 NMI, 3 hardware exception, 4 software interrupt, 5 privileged software exception, 6 software exception.</summary>
public readonly record struct EventInfo(byte Vector, byte Type, bool HasErrorCode, uint ErrorCode, int InstructionLength);
