namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    private readonly MsrFile msrs;
    public InstructionResult ReadMsr(uint index, out ulong value) => throw new NotSupportedException();
    public InstructionResult WriteMsr(uint index, ulong value) => throw new NotSupportedException();
    /// <summary>MSR access without CPL check, interception or observer: VM-entry and VM-exit MSR lists. False: #GP would be raised.</summary>
    internal bool TryReadMsr(uint index, out ulong value) => throw new NotSupportedException();
    internal bool TryWriteMsr(uint index, ulong value) => throw new NotSupportedException();
    public ulong ReadCr(int register) => throw new NotSupportedException();
    public InstructionResult WriteCr(int register, ulong value) => throw new NotSupportedException();
    public ulong ReadDr(int register) => throw new NotSupportedException();
    public InstructionResult WriteDr(int register, ulong value) => throw new NotSupportedException();
    public void Cpuid(uint leaf, uint subleaf, out uint eax, out uint ebx, out uint ecx, out uint edx) => throw new NotSupportedException();
    public ulong ReadTsc() => throw new NotSupportedException();
    public InstructionResult Xsetbv(uint index, ulong value) => throw new NotSupportedException();
    public InstructionResult Invlpg(ulong linear) => throw new NotSupportedException();
    public void Wbinvd() { }

    public void RaiseInterrupt(byte vector) => throw new NotSupportedException();
    public void RaiseNmi() => Request(ExitRequests.Nmi);
    public void RaiseInit() => Request(ExitRequests.Init);
    public void RaiseSipi(byte page) => throw new NotSupportedException();
    public void RequestStop() => Request(ExitRequests.Stop);
    public bool InterruptPending => throw new NotSupportedException();
    /// <summary>Removes and returns the highest pending vector; -1: none.</summary>
    public int AcknowledgeInterrupt() => throw new NotSupportedException();
    public bool AcknowledgeNmi() => throw new NotSupportedException();

    /// <summary>Power-up (false) or INIT (true) state.</summary>
    public void Reset(bool init) { }
    public void EnterKernelMode(in KernelContext context) => throw new NotSupportedException();

    /// <summary>
    /// Called by the run loop at a block head with ExitRequest != 0 or Activity != Active: takes pending events in priority order.
    /// True: leave the loop with <paramref name="reason"/>. False: go on at State->Rip, which may have changed.
    /// </summary>
    internal bool ServiceEvents(out StopReason reason) => throw new NotSupportedException();
    /// <summary>Delivers <see cref="PendingFault"/> (or takes the pending memory exit) after ExecStatus.Fault; afterwards the loop starts over at a block head.</summary>
    internal void DeliverPending() => throw new NotSupportedException();
    /// <summary>
    /// Delivers an event through the IVT or IDT as VM-entry injection does: no interception. Types 4–6 push RIP + InstructionLength.
    /// Fault: a fault during delivery is pending and goes through <see cref="DeliverPending"/>.
    /// </summary>
    internal ExecStatus InjectEvent(in EventInfo info) => throw new NotSupportedException();
    /// <summary>Recomputes State->Mode and State->Tlb after any change of CR0, CR4, EFER, CS, SS, DS, ES, RFLAGS (VM, AC, TF) or CPL.</summary>
    internal void UpdateMode() => throw new NotSupportedException();
}
