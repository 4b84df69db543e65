namespace Kvm.Arch.X86;

/// <summary>Reasons that keep the processor's interrupt virtualization off for a VM (bit numbers).</summary>
/// <remarks>enum kvm_apicv_inhibit, asm/kvm_host.h.</remarks>
public enum ApicvInhibit
{
    APICV_INHIBIT_REASON_DISABLE,
    APICV_INHIBIT_REASON_HYPERV,
    APICV_INHIBIT_REASON_ABSENT,
    APICV_INHIBIT_REASON_BLOCKIRQ,
    APICV_INHIBIT_REASON_APIC_ID_MODIFIED,
    APICV_INHIBIT_REASON_APIC_BASE_MODIFIED,
    APICV_INHIBIT_REASON_NESTED,
    APICV_INHIBIT_REASON_IRQWIN,
    APICV_INHIBIT_REASON_PIT_REINJ,
    APICV_INHIBIT_REASON_SEV,
}
