using Kvm.Abi;
using Kvm.Client;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm;

/// <summary>The CPUID that a guest sees: everything KVM supports, told apart for this vCPU; and an MSR that belongs to it.</summary>
public static class GuestCpuid
{
    private const ulong ApicBaseEnable = 1 << 11;  // IA32_APIC_BASE
    private const uint MiscEnable = 0x1a0;         // IA32_MISC_ENABLE
    private const ulong FastStrings = 1;
    private const uint ApicBit = 1 << 9;           // leaf 1 EDX
    private const uint X2ApicBit = 1 << 21;        // leaf 1 ECX
    private const uint TscDeadlineBit = 1 << 24;   // leaf 1 ECX
    private const uint HypervisorBit = 1u << 31;   // leaf 1 ECX
    private const uint PowerFeatures = 0x80000007, InvariantTscBit = 1 << 8; // EDX
    private const uint AddressSizes = 0x80000008;

    /// <summary>Paravirtual features that KVM offers but refuses to enable without a local APIC in the kernel.</summary>
    private const uint NeedLapic = (1u << KVM_FEATURE_ASYNC_PF) | (1u << KVM_FEATURE_PV_EOI) | (1u << KVM_FEATURE_PV_UNHALT) |
        (1u << KVM_FEATURE_ASYNC_PF_VMEXIT) | (1u << KVM_FEATURE_PV_SEND_IPI) | (1u << KVM_FEATURE_ASYNC_PF_INT);

    /// <summary>Sets the vCPU's CPUID, and switches its local APIC off where nobody emulates one.</summary>
    /// <param name="kvm">Says what is supported.</param>
    /// <param name="vcpu">Not run yet.</param>
    /// <param name="irqchip">There is a local APIC, in the kernel.</param>
    /// <param name="physicalBits">At most so many bits of physical addresses; null: as many as the host has.</param>
    /// <param name="hyperv">The hypervisor's leaves are Hyper-V's in place of KVM's.</param>
    /// <param name="processors">How many there are: cores of one package.</param>
    public static void Apply(KvmSystem kvm, Vcpu vcpu, bool irqchip, int? physicalBits = null, bool hyperv = false, int processors = 1)
    {
        if (!irqchip)
        {
            // KVM shows the APIC bit of leaf 1 as IA32_APIC_BASE.EN is, whatever KVM_SET_CPUID2 says; and a guest that believes it waits for registers that nobody answers.
            kvm_sregs sregs = vcpu.SRegs;
            sregs.apic_base &= ~ApicBaseEnable;
            vcpu.SRegs = sregs;
        }

        kvm_cpuid_entry2[] entries = CpuTopology.WithLevels(kvm.GetSupportedCpuid(), processors);
        foreach (ref kvm_cpuid_entry2 entry in entries.AsSpan())
        {
            Adjust(ref entry, kvm, irqchip);
            CpuTopology.Adjust(ref entry, vcpu.Id, processors);
            if (entry.function == AddressSizes && physicalBits is { } bits) entry.eax = (entry.eax & ~0xffu) | Math.Min(entry.eax & 0xff, (uint)bits);
        }

        vcpu.SetCpuid(hyperv ? WithHyperv(entries, vcpu) : entries);
        // KVM starts it as 0. Firmware sets the bit on real machines; a kernel that finds it clear believes REP MOVS slow and does without.
        vcpu.SetMsr(MiscEnable, vcpu.GetMsr(MiscEnable) | FastStrings);
    }

    /// <summary>All that KVM has of Hyper-V, under the name that guests look for; KVM's own leaves have the same numbers.</summary>
    private static kvm_cpuid_entry2[] WithHyperv(kvm_cpuid_entry2[] entries, Vcpu vcpu)
    {
        kvm_cpuid_entry2[] hyperv = vcpu.GetSupportedHvCpuid();
        (hyperv[0].ebx, hyperv[0].ecx, hyperv[0].edx) = (0x7263694d, 0x666f736f, 0x76482074); // "Microsoft Hv"
        return [.. entries.Where(static e => e.function >> 8 != 0x400000), .. hyperv];
    }

    private static void Adjust(ref kvm_cpuid_entry2 entry, KvmSystem kvm, bool irqchip)
    {
        switch (entry.function)
        {
            case 1:
                entry.ecx |= HypervisorBit;
                if (irqchip && kvm.CheckExtension(KVM_CAP_TSC_DEADLINE_TIMER) != 0) entry.ecx |= TscDeadlineBit;
                if (!irqchip)
                {
                    // No local APIC anywhere: the guest must not look for one.
                    entry.edx &= ~ApicBit;
                    entry.ecx &= ~(X2ApicBit | TscDeadlineBit);
                }

                break;
            case PowerFeatures:
                // A guest that could be moved to another host must not count on it; and Linux then keeps kvmclock for its clock.
                entry.edx &= ~InvariantTscBit;
                break;
            case (uint)KVM_CPUID_FEATURES when !irqchip:
                entry.eax &= ~NeedLapic;
                break;
        }
    }
}
