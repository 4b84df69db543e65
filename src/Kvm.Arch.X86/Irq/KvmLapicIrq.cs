using static Kvm.Arch.X86.ApicConst;

namespace Kvm.Arch.X86;

/// <summary>struct kvm_lapic_irq: a message on the interrupt bus.</summary>
public struct KvmLapicIrq
{
    public byte Vector;

    /// <summary>APIC_DM_*.</summary>
    public int DeliveryMode;

    /// <summary>APIC_DEST_PHYSICAL or APIC_DEST_LOGICAL.</summary>
    public uint DestMode;

    public bool Level;

    /// <summary>0: edge.</summary>
    public uint TrigMode;

    /// <summary>APIC_DEST_NOSHORT, _SELF, _ALLINC, _ALLBUT.</summary>
    public uint Shorthand;
    public uint DestId;

    /// <summary>An MSI with the redirection hint: to one of its targets only.</summary>
    public bool MsiRedirHint;

    /// <summary>kvm_lowest_prio_delivery.</summary>
    public readonly bool IsLowestPrio => DeliveryMode == APIC_DM_LOWEST || MsiRedirHint;
}
