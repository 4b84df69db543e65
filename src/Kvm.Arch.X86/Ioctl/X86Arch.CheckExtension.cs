using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>KVM_CHECK_EXTENSION and KVM_ENABLE_CAP of the x86 part.</remarks>
public sealed partial class X86Arch
{
    private const ulong KVM_X86_VALID_QUIRKS = KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_CD_NW_CLEARED | KVM_X86_QUIRK_LAPIC_MMIO_HOLE
        | KVM_X86_QUIRK_OUT_7E_INC_RIP | KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_FIX_HYPERCALL_INSN | KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS;

    private const ulong KVM_EXIT_HYPERCALL_VALID_MASK = 1 << KVM_HC_MAP_GPA_RANGE;

    /// <summary>What needs Xen's interfaces answers 0: the model lacks them.</summary>
    [KernelFunction("kvm_vm_ioctl_check_extension", File = "arch/x86/kvm/x86.c")]
    public KvmResult CheckExtension(KvmVm? vm, ulong extension)
    {
        using var _ = FunctionTrace.Enter("kvm_vm_ioctl_check_extension");
        switch (extension)
        {
            case KVM_CAP_HLT or KVM_CAP_MMU_SHADOW_CACHE_CONTROL or KVM_CAP_SET_TSS_ADDR or KVM_CAP_EXT_CPUID or KVM_CAP_EXT_EMUL_CPUID
                or KVM_CAP_CLOCKSOURCE or KVM_CAP_NOP_IO_DELAY or KVM_CAP_MP_STATE or KVM_CAP_SYNC_MMU or KVM_CAP_USER_NMI
                or KVM_CAP_SET_IDENTITY_MAP_ADDR or KVM_CAP_VCPU_EVENTS or KVM_CAP_PCI_SEGMENT or KVM_CAP_DEBUGREGS or KVM_CAP_X86_ROBUST_SINGLESTEP
                or KVM_CAP_XSAVE or KVM_CAP_ASYNC_PF or KVM_CAP_ASYNC_PF_INT or KVM_CAP_GET_TSC_KHZ or KVM_CAP_KVMCLOCK_CTRL or KVM_CAP_READONLY_MEM
                or KVM_CAP_DISABLE_QUIRKS or KVM_CAP_SET_BOOT_CPU_ID or KVM_CAP_IMMEDIATE_EXIT or KVM_CAP_GET_MSR_FEATURES or KVM_CAP_MSR_PLATFORM_INFO
                or KVM_CAP_EXCEPTION_PAYLOAD or KVM_CAP_X86_TRIPLE_FAULT_EVENT or KVM_CAP_SET_GUEST_DEBUG or KVM_CAP_LAST_CPU or KVM_CAP_X86_USER_SPACE_MSR
                or KVM_CAP_X86_MSR_FILTER or KVM_CAP_ENFORCE_PV_FEATURE_CPUID or KVM_CAP_SREGS2 or KVM_CAP_EXIT_ON_EMULATION_FAILURE
                or KVM_CAP_VCPU_ATTRIBUTES or KVM_CAP_SYS_ATTRIBUTES or KVM_CAP_VAPIC or KVM_CAP_ENABLE_CAP or KVM_CAP_VM_DISABLE_NX_HUGE_PAGES
                or KVM_CAP_VM_COPY_ENC_CONTEXT_FROM or KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM or KVM_CAP_PMU_EVENT_FILTER
                or KVM_CAP_IRQCHIP or KVM_CAP_PIT or KVM_CAP_REINJECT_CONTROL or KVM_CAP_IRQ_INJECT_STATUS or KVM_CAP_PIT2 or KVM_CAP_PIT_STATE2
                or KVM_CAP_TSC_DEADLINE_TIMER or KVM_CAP_IOAPIC_POLARITY_IGNORED or KVM_CAP_SPLIT_IRQCHIP
                or KVM_CAP_IOEVENTFD or KVM_CAP_IOEVENTFD_NO_LENGTH or KVM_CAP_SGX_ATTRIBUTE
                or KVM_CAP_HYPERV or KVM_CAP_HYPERV_VAPIC or KVM_CAP_HYPERV_SPIN or KVM_CAP_HYPERV_TIME or KVM_CAP_HYPERV_SYNIC or KVM_CAP_HYPERV_SYNIC2
                or KVM_CAP_HYPERV_VP_INDEX or KVM_CAP_HYPERV_EVENTFD or KVM_CAP_HYPERV_TLBFLUSH or KVM_CAP_HYPERV_SEND_IPI or KVM_CAP_HYPERV_CPUID
                or KVM_CAP_SYS_HYPERV_CPUID or KVM_CAP_HYPERV_ENFORCE_CPUID:
                return 1;
            case KVM_CAP_EXIT_HYPERCALL:
                return (int)KVM_EXIT_HYPERCALL_VALID_MASK;
            case KVM_CAP_SET_GUEST_DEBUG2:
                return KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_INJECT_DB
                    | KVM_GUESTDBG_INJECT_BP | KVM_GUESTDBG_BLOCKIRQ;
            case KVM_CAP_SYNC_REGS:
                return KVM_SYNC_X86_VALID_FIELDS;
            case KVM_CAP_ADJUST_CLOCK:
                return KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
            case KVM_CAP_X86_DISABLE_EXITS:
                return DisableExits();
            case KVM_CAP_X86_SMM:
                return Ops.HasEmulatedMsr(vm as X86Vm, MsrIndex.MSR_IA32_SMBASE) ? 1 : 0;
            case KVM_CAP_NR_VCPUS:
                return Math.Min(Host.OnlineCpuCount, KVM_MAX_VCPUS);
            case KVM_CAP_MAX_VCPUS:
                return KVM_MAX_VCPUS;
            case KVM_CAP_MAX_VCPU_ID:
                return KVM_MAX_VCPU_IDS;
            case KVM_CAP_MCE:
                return KVM_MAX_MCE_BANKS;
            case KVM_CAP_XCRS:
                return HostX86.BootCpuHas(X86Feature.XSAVE) ? 1 : 0;
            case KVM_CAP_TSC_CONTROL or KVM_CAP_VM_TSC_CONTROL:
                return KvmCaps.HasTscControl ? 1 : 0;
            case KVM_CAP_X2APIC_API:
                return KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
            case KVM_CAP_NESTED_STATE:
                return Ops.NestedOps.MaxStateSize;
            case KVM_CAP_HYPERV_DIRECT_TLBFLUSH:
                return Ops.HasDirectTlbflush ? 1 : 0;
            case KVM_CAP_HYPERV_ENLIGHTENED_VMCS:
                return Ops.NestedOps.HasEnableEvmcs ? 1 : 0;
            case KVM_CAP_SMALLER_MAXPHYADDR:
                return AllowSmallerMaxphyaddr ? 1 : 0;
            case KVM_CAP_STEAL_TIME:
                return 1;
            case KVM_CAP_X86_BUS_LOCK_EXIT:
                return KvmCaps.HasBusLockExit ? KVM_BUS_LOCK_DETECTION_OFF | KVM_BUS_LOCK_DETECTION_EXIT : 0;
            case KVM_CAP_XSAVE2:
                return Math.Max((int)XstateRequiredSize(KvmCaps.SupportedXcr0 & ~XFEATURE_MASK_XTILE, false), 4096);
            case KVM_CAP_PMU_CAPABILITY:
                return Params.EnablePmu ? KVM_PMU_CAP_DISABLE : 0;
            case KVM_CAP_DISABLE_QUIRKS2:
                return (int)KVM_X86_VALID_QUIRKS;
            case KVM_CAP_X86_NOTIFY_VMEXIT:
                return KvmCaps.HasNotifyVmexit ? 1 : 0;
            default:
                return 0;
        }
    }

    private int DisableExits()
    {
        int r = KVM_X86_DISABLE_EXITS_PAUSE;
        if (!Params.MitigateSmtRsb)
        {
            r |= KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_CSTATE;
            if (CanMwaitInGuest)
                r |= KVM_X86_DISABLE_EXITS_MWAIT;
        }

        return r;
    }

    /// <summary>kvm_can_mwait_in_guest.</summary>
    private bool CanMwaitInGuest =>
        HostX86.BootCpuHas(X86Feature.MWAIT) && !HostX86.BootCpuHasBug(X86Bug.MONITOR) && HostX86.BootCpuHas(X86Feature.ARAT);
}
