namespace Kvm.Arch.X86;

/// <summary>The vendor's view of the performance counters that a guest sees.</summary>
/// <remarks>struct kvm_pmu_ops, pmu.h. The machine has no host performance events: counters hold what is written and never overflow.</remarks>
public interface IKvmPmuOps
{
    /// <summary>Sets up the counters of a new vCPU.</summary>
    void Init(X86Vcpu vcpu);

    /// <summary>Recomputes counter numbers and masks from the guest's CPUID.</summary>
    void Refresh(X86Vcpu vcpu);

    void Reset(X86Vcpu vcpu);

    bool IsValidMsr(X86Vcpu vcpu, uint msr);

    /// <summary>0, or 1 when the access faults.</summary>
    int GetMsr(X86Vcpu vcpu, ref MsrData msr);

    /// <summary>0, or 1 when the access faults.</summary>
    int SetMsr(X86Vcpu vcpu, ref MsrData msr);

    /// <summary>True if RDPMC with this index would not fault.</summary>
    bool IsValidRdpmcEcx(X86Vcpu vcpu, uint idx);

    /// <summary>An event that the kernel saw for the guest, an emulated instruction: each counter is asked whether it counts that; none does.</summary>
    void TriggerEvent(X86Vcpu vcpu)
    {
    }

    /// <summary>RDPMC: 0 and the counter, or 1 when it faults.</summary>
    int Rdpmc(X86Vcpu vcpu, uint idx, out ulong data);
}
