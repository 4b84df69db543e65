namespace Kvm.Arch.X86;

/// <summary>Registers and bits of the local APIC, by their names in asm/apicdef.h.</summary>
/// <remarks>SDM vol 3A, chapter "Advanced Programmable Interrupt Controller (APIC)".</remarks>
public static class ApicConst
{
    public const int APIC_ID = 0x20;
    public const int APIC_LVR = 0x30;
    public const int APIC_TASKPRI = 0x80;
    public const int APIC_ARBPRI = 0x90;
    public const int APIC_PROCPRI = 0xa0;
    public const int APIC_EOI = 0xb0;
    public const int APIC_LDR = 0xd0;
    public const int APIC_DFR = 0xe0;
    public const int APIC_SPIV = 0xf0;
    public const int APIC_ISR = 0x100;
    public const int APIC_TMR = 0x180;
    public const int APIC_IRR = 0x200;
    public const int APIC_ESR = 0x280;
    public const int APIC_LVTCMCI = 0x2f0;
    public const int APIC_ICR = 0x300;
    public const int APIC_ICR2 = 0x310;
    public const int APIC_LVTT = 0x320;
    public const int APIC_LVTTHMR = 0x330;
    public const int APIC_LVTPC = 0x340;
    public const int APIC_LVT0 = 0x350;
    public const int APIC_LVT1 = 0x360;
    public const int APIC_LVTERR = 0x370;
    public const int APIC_TMICT = 0x380;
    public const int APIC_TMCCT = 0x390;
    public const int APIC_TDCR = 0x3e0;
    public const int APIC_SELF_IPI = 0x3f0;

    /// <summary>First of the x2APIC MSRs.</summary>
    public const uint APIC_BASE_MSR = 0x800;
    public const ulong MSR_IA32_APICBASE_BASE = 0xffffful << 12;
    public const int LAPIC_MMIO_LENGTH = 0x1000;

    public const uint APIC_VERSION = 0x14;
    public const uint APIC_LVR_DIRECTED_EOI = 1u << 24;
    public const uint APIC_SPIV_APIC_ENABLED = 1u << 8;
    public const uint APIC_SPIV_DIRECTED_EOI = 1u << 12;
    public const uint APIC_DFR_FLAT = 0xffffffff;
    public const uint APIC_DFR_CLUSTER = 0x0fffffff;
    public const uint APIC_LDR_MASK = 0xffu << 24;

    public const uint APIC_VECTOR_MASK = 0xff;
    public const uint APIC_MODE_MASK = 0x700;
    public const uint APIC_SEND_PENDING = 1u << 12;
    public const uint APIC_INPUT_POLARITY = 1u << 13;
    public const uint APIC_LVT_REMOTE_IRR = 1u << 14;
    public const uint APIC_LVT_LEVEL_TRIGGER = 1u << 15;
    public const uint APIC_LVT_MASKED = 1u << 16;
    public const uint APIC_LVT_TIMER_ONESHOT = 0;
    public const uint APIC_LVT_TIMER_PERIODIC = 1u << 17;
    public const uint APIC_LVT_TIMER_TSCDEADLINE = 2u << 17;

    // Delivery modes: bits 10:8 of an LVT entry and of ICR.
    public const int APIC_DM_FIXED = 0x000;
    public const int APIC_DM_LOWEST = 0x100;
    public const int APIC_DM_SMI = 0x200;
    public const int APIC_DM_REMRD = 0x300;
    public const int APIC_DM_NMI = 0x400;
    public const int APIC_DM_INIT = 0x500;
    public const int APIC_DM_STARTUP = 0x600;
    public const int APIC_DM_EXTINT = 0x700;

    public const uint APIC_ICR_BUSY = 1u << 12;
    public const uint APIC_INT_ASSERT = 1u << 14;
    public const uint APIC_INT_LEVELTRIG = 1u << 15;
    public const uint APIC_DEST_PHYSICAL = 0;
    public const uint APIC_DEST_LOGICAL = 0x800;
    public const uint APIC_DEST_MASK = 0x800;
    public const uint APIC_SHORT_MASK = 0xc0000;
    public const uint APIC_DEST_NOSHORT = 0;
    public const uint APIC_DEST_SELF = 0x40000;
    public const uint APIC_DEST_ALLINC = 0x80000;
    public const uint APIC_DEST_ALLBUT = 0xc0000;

    public const uint APIC_BROADCAST = 0xff;
    public const uint X2APIC_BROADCAST = 0xffffffff;

    /// <summary>One tick of the bus clock, in nanoseconds.</summary>
    public const uint APIC_BUS_CYCLE_NS = 1;

    /// <summary>Bits of KvmLapic.PendingEvents.</summary>
    public const int KVM_APIC_INIT = 0;
    public const int KVM_APIC_SIPI = 1;

    /// <summary>Bits of X86Vcpu.ApicAttention.</summary>
    public const int KVM_APIC_CHECK_VAPIC = 0;
    public const int KVM_APIC_PV_EOI_PENDING = 1;

    // LVT entries by index; their register is APIC_LVTT + 16 * index, but for CMCI's.
    public const int LVT_TIMER = 0;
    public const int LVT_CMCI = 6;
    public const int KVM_APIC_MAX_NR_LVT_ENTRIES = 7;

    /// <summary>kvm_lapic_irq_dest_mode.</summary>
    public static uint DestMode(bool logical) => logical ? APIC_DEST_LOGICAL : APIC_DEST_PHYSICAL;
}
