using Kvm.Abi;
using Kvm.Core;

namespace Kvm.Arch.X86;

/// <summary>
/// The operations that kvm_intel and kvm_amd implement for the shared x86 code, named as the members of struct kvm_x86_ops.
/// </summary>
/// <remarks>
/// asm/kvm_host.h, asm/kvm-x86-ops.h. Members that are KVM_X86_OP_OPTIONAL there have a default here. All run on the CPU that the vCPU is
/// loaded on, with the vCPU's mutex held, unless they say otherwise. int results follow C: 0 or -errno, except where noted.
/// </remarks>
public interface IKvmX86Ops
{
    /// <summary>Module name: "kvm_intel" or "kvm_amd".</summary>
    string Name { get; }

    // ---- hardware, per CPU ----

    /// <summary>Turns the extension on for the current CPU: 0, -EBUSY, -EFAULT, -EINVAL.</summary>
    int HardwareEnable();

    void HardwareDisable();

    void HardwareUnsetup();

    /// <summary>Whether KVM emulates the MSR for <paramref name="vm"/> (null: for any VM).</summary>
    bool HasEmulatedMsr(X86Vm? vm, uint index);

    // ---- VM ----

    /// <summary>kvm_arch_alloc_vm: a new KvmVmx / KvmSvm. The model's stand-in for vm_size.</summary>
    X86Vm AllocVm(KvmModule module);

    int VmInit(X86Vm vm);

    void VmDestroy(X86Vm vm) { }

    // ---- vCPU life ----

    /// <summary>kmem_cache_zalloc(kvm_vcpu_cache): a new VcpuVmx / VcpuSvm, not yet set up.</summary>
    X86Vcpu AllocVcpu(X86Vm vm);

    int VcpuPrecreate(X86Vm vm) => 0;

    int VcpuCreate(X86Vcpu vcpu);

    void VcpuFree(X86Vcpu vcpu);

    void VcpuReset(X86Vcpu vcpu, bool initEvent);

    void VcpuAfterSetCpuid(X86Vcpu vcpu);

    void VcpuLoad(X86Vcpu vcpu, int cpu);

    void VcpuPut(X86Vcpu vcpu);

    void PrepareSwitchToGuest(X86Vcpu vcpu);

    void SchedIn(X86Vcpu vcpu, int cpu);

    void VcpuBlocking(X86Vcpu vcpu) { }

    void VcpuUnblocking(X86Vcpu vcpu) { }

    // ---- registers ----

    /// <summary>DEBUGCTL bits that must match the host's value while the guest runs.</summary>
    ulong HostOwnedDebugctl => 0;

    void UpdateExceptionBitmap(X86Vcpu vcpu);

    /// <summary>0, or 1 when the access faults (KVM_MSR_RET_UNSUPPORTED 2 for an unknown MSR).</summary>
    int GetMsr(X86Vcpu vcpu, ref MsrData msr);

    /// <summary>0, or 1 when the access faults (KVM_MSR_RET_UNSUPPORTED 2 for an unknown MSR).</summary>
    int SetMsr(X86Vcpu vcpu, ref MsrData msr);

    /// <summary>Fills <see cref="MsrData.Data"/> with a feature MSR: 0, or KVM_MSR_RET_UNSUPPORTED.</summary>
    int GetMsrFeature(ref MsrData entry);

    ulong GetSegmentBase(X86Vcpu vcpu, int seg);

    void GetSegment(X86Vcpu vcpu, out kvm_segment var, int seg);

    int GetCpl(X86Vcpu vcpu);

    void SetSegment(X86Vcpu vcpu, in kvm_segment var, int seg);

    void GetCsDbLBits(X86Vcpu vcpu, out bool db, out bool l);

    bool IsValidCr0(X86Vcpu vcpu, ulong cr0);

    void SetCr0(X86Vcpu vcpu, ulong cr0);

    void PostSetCr3(X86Vcpu vcpu, ulong cr3) { }

    bool IsValidCr4(X86Vcpu vcpu, ulong cr4);

    void SetCr4(X86Vcpu vcpu, ulong cr4);

    int SetEfer(X86Vcpu vcpu, ulong efer);

    void GetIdt(X86Vcpu vcpu, out DescPtr dt);

    void SetIdt(X86Vcpu vcpu, in DescPtr dt);

    void GetGdt(X86Vcpu vcpu, out DescPtr dt);

    void SetGdt(X86Vcpu vcpu, in DescPtr dt);

    void SyncDirtyDebugRegs(X86Vcpu vcpu);

    void SetDr7(X86Vcpu vcpu, ulong value);

    /// <summary>Reads a register that is not available yet into the vCPU and marks it available.</summary>
    void CacheReg(X86Vcpu vcpu, KvmReg reg);

    ulong GetRflags(X86Vcpu vcpu);

    void SetRflags(X86Vcpu vcpu, ulong rflags);

    bool GetIfFlag(X86Vcpu vcpu);

    // ---- TLB and paging ----

    void FlushTlbAll(X86Vcpu vcpu);

    void FlushTlbCurrent(X86Vcpu vcpu);

    void FlushTlbGva(X86Vcpu vcpu, ulong addr);

    void FlushTlbGuest(X86Vcpu vcpu);

    /// <summary>-ENOTSUPP (the default) makes common code send KVM_REQ_TLB_FLUSH to every vCPU.</summary>
    int TlbRemoteFlush(X86Vm vm) => -Errnos.ENOTSUPP;

    void LoadMmuPgd(X86Vcpu vcpu, ulong rootHpa, int rootLevel);

    /// <summary>Memory-type bits of a leaf entry.</summary>
    byte GetMtMask(X86Vcpu vcpu, ulong gfn, bool isMmio) => 0;

    // ---- run ----

    /// <summary>1 to go on, 0 to exit to userspace, -errno.</summary>
    int VcpuPreRun(X86Vcpu vcpu);

    ExitFastpathCompletion VcpuRun(X86Vcpu vcpu, KvmX86RunFlags runFlags);

    /// <summary>1: re-enter the guest; 0: exit to userspace; -errno.</summary>
    int HandleExit(X86Vcpu vcpu, ExitFastpathCompletion exitFastpath);

    void HandleExitIrqoff(X86Vcpu vcpu);

    /// <summary>1 when RIP was advanced, 0 to exit to userspace with an internal error.</summary>
    int SkipEmulatedInstruction(X86Vcpu vcpu);

    void UpdateEmulatedInstruction(X86Vcpu vcpu) { }

    void SetInterruptShadow(X86Vcpu vcpu, uint mask);

    uint GetInterruptShadow(X86Vcpu vcpu);

    /// <summary>Writes VMCALL or VMMCALL (3 bytes) over a hypercall instruction.</summary>
    void PatchHypercall(X86Vcpu vcpu, Span<byte> hypercall);

    void InjectIrq(X86Vcpu vcpu, bool reinjected);

    void InjectNmi(X86Vcpu vcpu);

    void InjectException(X86Vcpu vcpu);

    void CancelInjection(X86Vcpu vcpu);

    /// <summary>1 allowed, 0 blocked, -EBUSY when a nested VM exit is pending.</summary>
    int InterruptAllowed(X86Vcpu vcpu, bool forInjection);

    /// <summary>1 allowed, 0 blocked, -EBUSY when a nested VM exit is pending.</summary>
    int NmiAllowed(X86Vcpu vcpu, bool forInjection);

    bool GetNmiMask(X86Vcpu vcpu);

    void SetNmiMask(X86Vcpu vcpu, bool masked);

    void EnableNmiWindow(X86Vcpu vcpu);

    void EnableIrqWindow(X86Vcpu vcpu);

    void UpdateCr8Intercept(X86Vcpu vcpu, int tpr, int irr) { }

    void GetExitInfo(X86Vcpu vcpu, out uint reason, out ulong info1, out ulong info2, out uint exitIntInfo, out uint exitIntInfoErrCode);

    /// <summary>False: the instruction cannot be emulated now (the vendor queued what must happen instead).</summary>
    bool CanEmulateInstruction(X86Vcpu vcpu, EmulType emulType, ReadOnlySpan<byte> insn);

    /// <summary>Completes a RDMSR/WRMSR exit that userspace answered: 1 or 0 as an exit handler.</summary>
    int CompleteEmulatedMsr(X86Vcpu vcpu, int err);

    void MsrFilterChanged(X86Vcpu vcpu);

    bool HasWbinvdExit();

    void MigrateTimers(X86Vcpu vcpu) { }

    // ---- time ----

    ulong GetL2TscOffset(X86Vcpu vcpu) => 0;

    ulong GetL2TscMultiplier(X86Vcpu vcpu) => vcpu.Arch.KvmCaps.DefaultTscScalingRatio;

    void WriteTscOffset(X86Vcpu vcpu, ulong offset);

    void WriteTscMultiplier(X86Vcpu vcpu, ulong multiplier);

    // ---- dirty logging ----

    /// <summary>Entries of the processor's dirty-page log (PML); 0: not used.</summary>
    int CpuDirtyLogSize => 0;

    void UpdateCpuDirtyLogging(X86Vcpu vcpu) { }

    // ---- interrupt controller (in-kernel) ----

    bool X2apicIcrIsSplit => false;

    /// <summary>Hands a fixed interrupt to the vCPU: into IRR with a kick, or to the processor. Any thread.</summary>
    void DeliverInterrupt(X86Vcpu vcpu, int deliveryMode, uint trigMode, int vector);

    /// <summary>pi_has_pending_interrupt: the processor holds an interrupt for the vCPU that IRR does not show yet.</summary>
    bool DyApicvHasPendingInterrupt(X86Vcpu vcpu) => false;

    /// <summary>set_hv_timer is there: the processor has a timer that ends a guest's run.</summary>
    bool HasHvTimer => false;

    /// <summary>Sets it to a time of the guest's TSC; <paramref name="expired"/>: that has passed already. -ERANGE when it is too far off.</summary>
    int SetHvTimer(X86Vcpu vcpu, ulong guestDeadlineTsc, out bool expired)
    {
        expired = false;
        return -Errnos.ERANGE;
    }

    void CancelHvTimer(X86Vcpu vcpu) { }

    bool CheckApicvInhibitReasons(ApicvInhibit reason);

    void RefreshApicvExecCtrl(X86Vcpu vcpu);

    void HwapicIrrUpdate(X86Vcpu vcpu, int maxIrr) { }

    void HwapicIsrUpdate(X86Vcpu vcpu, int isr) { }

    void LoadEoiExitmap(X86Vcpu vcpu, ReadOnlySpan<ulong> eoiExitBitmap) { }

    void SetVirtualApicMode(X86Vcpu vcpu) { }

    void SetApicAccessPageAddr(X86Vcpu vcpu) { }

    /// <summary>sync_pir_to_irr is there.</summary>
    bool HasSyncPirToIrr => false;

    /// <summary>Takes posted interrupts into IRR; the highest vector there.</summary>
    int SyncPirToIrr(X86Vcpu vcpu) => -1;

    void ApicvPreStateRestore(X86Vcpu vcpu) { }

    void ApicvPostStateRestore(X86Vcpu vcpu) { }

    bool ApicInitSignalBlocked(X86Vcpu vcpu) => false;

    void VcpuDeliverSipiVector(X86Vcpu vcpu, byte vector);

    ulong VcpuGetApicvInhibitReasons(X86Vcpu vcpu) => 0;

    // ---- rest ----

    int SetTssAddr(X86Vm vm, uint addr) => 0;

    int SetIdentityMapAddr(X86Vm vm, ulong identAddr) => 0;

    void SetupMce(X86Vcpu vcpu);

    /// <summary>1 allowed, 0 blocked, -EBUSY.</summary>
    int SmiAllowed(X86Vcpu vcpu, bool forInjection);

    int EnterSmm(X86Vcpu vcpu, Span<byte> smstate);

    int LeaveSmm(X86Vcpu vcpu, ReadOnlySpan<byte> smstate);

    void EnableSmiWindow(X86Vcpu vcpu);

    void GuestMemoryReclaimed(X86Vm vm)
    {
    }

    /// <summary>KVM_MEMORY_ENCRYPT_OP; -ENOTTY where the vendor has none.</summary>
    int MemEncIoctl(X86Vm vm, ulong argp) => -Errnos.ENOTTY;

    int MemEncRegisterRegion(X86Vm vm, in kvm_enc_region region) => -Errnos.ENOTTY;

    int MemEncUnregisterRegion(X86Vm vm, in kvm_enc_region region) => -Errnos.ENOTTY;

    int VmCopyEncContextFrom(X86Vm vm, uint sourceFd) => -Errnos.EINVAL;

    int VmMoveEncContextFrom(X86Vm vm, uint sourceFd) => -Errnos.EINVAL;

    /// <summary>True if enable_direct_tlbflush exists (KVM_CAP_HYPERV_DIRECT_TLBFLUSH).</summary>
    bool HasDirectTlbflush => false;

    int EnableDirectTlbflush(X86Vcpu vcpu) => -Errnos.ENOTTY;

    IKvmX86NestedOps NestedOps { get; }
}
