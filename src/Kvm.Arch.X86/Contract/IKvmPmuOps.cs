namespace Kvm.Arch.X86;

/// <summary>The vendor's view of the performance counters that a guest sees.</summary>
/// <remarks>struct kvm_pmu_ops, pmu.h.</remarks>
public interface IKvmPmuOps
{
    /// <summary>Sets up the counters of a new vCPU.</summary>
    void Init(X86Vcpu vcpu);

    /// <summary>Recomputes counter numbers and masks from the guest's CPUID.</summary>
    void Refresh(X86Vcpu vcpu);

    void Reset(X86Vcpu vcpu);

    /// <summary>False when the guest's CPUID says that the processor does not have the event.</summary>
    bool HwEventAvailable(KvmPmc pmc);

    /// <summary>Its bit in the global control register, where there is one.</summary>
    bool PmcIsEnabled(KvmPmc pmc);

    KvmPmc? PmcIdxToPmc(KvmPmu pmu, int index);

    KvmPmc? MsrIdxToPmc(X86Vcpu vcpu, uint msr);

    /// <summary>The counter that RDPMC names; null when it faults.</summary>
    KvmPmc? RdpmcEcxToPmc(X86Vcpu vcpu, uint idx);

    bool IsValidMsr(X86Vcpu vcpu, uint msr);

    /// <summary>0, or 1 when the access faults.</summary>
    int GetMsr(X86Vcpu vcpu, ref MsrData msr);

    /// <summary>0, or 1 when the access faults.</summary>
    int SetMsr(X86Vcpu vcpu, ref MsrData msr);

    /// <summary>True if RDPMC with this index would not fault.</summary>
    bool IsValidRdpmcEcx(X86Vcpu vcpu, uint idx);
}
