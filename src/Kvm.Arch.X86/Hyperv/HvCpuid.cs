using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.HypervConst;

namespace Kvm.Arch.X86;

/// <summary>KVM_GET_SUPPORTED_HV_CPUID: the Hyper-V leaves that KVM can give a guest.</summary>
/// <remarks>hyperv.c:kvm_get_hv_cpuid. Which of them a guest gets is for userspace to choose: they overlap with KVM's own leaves.</remarks>
internal static class HvCpuid
{
    private const int Entries = 10;

    /// <summary>
    /// -EFAULT, -E2BIG for fewer than ten entries (the count is not written back then); otherwise ten. <paramref name="vcpu"/> is null for the call on /dev/kvm, which
    /// answers for a vCPU with everything.
    /// </summary>
    public static unsafe KvmResult Ioctl(X86Arch arch, X86Vcpu? vcpu, ulong arg)
    {
        var argp = new UserPtr<kvm_cpuid2>(arg);
        if (!argp.Read(out kvm_cpuid2 cpuid))
            return -EFAULT;
        if (cpuid.nent < Entries)
            return -E2BIG;
        cpuid.nent = Entries;
        Span<kvm_cpuid_entry2> entries = stackalloc kvm_cpuid_entry2[Entries];
        entries.Clear();
        Get(arch, vcpu, entries);
        if (!argp.Offset<kvm_cpuid_entry2>(sizeof(kvm_cpuid2)).Write(entries))
            return -EFAULT;
        return argp.Write(in cpuid) ? 0 : -EFAULT;
    }

    [KernelFunction("kvm_get_hv_cpuid", File = "arch/x86/kvm/hyperv.c")]
    private static void Get(X86Arch arch, X86Vcpu? vcpu, Span<kvm_cpuid_entry2> entries)
    {
        ushort evmcs = arch.Ops.NestedOps.GetEvmcsVersion(vcpu);
        bool lapic = vcpu is null || vcpu.LapicInKernel;
        entries[0] = Signature(HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS, HYPERV_CPUID_SYNDBG_PLATFORM_CAPABILITIES);
        entries[1] = new() { function = HYPERV_CPUID_INTERFACE, eax = HYPERV_CPUID_SIGNATURE_EAX };

        // Build and version of Hyper-V 2016.
        entries[2] = new() { function = HYPERV_CPUID_VERSION, eax = 0x00003839, ebx = 0x000a0000 };
        entries[3] = Features(lapic);
        entries[4] = Enlightenments(lapic, evmcs != 0, arch.HostX86.SmtPossible);

        // As many virtual processors as KVM has; 64 logical ones as in Hyper-V 2016.
        entries[5] = new() { function = HYPERV_CPUID_IMPLEMENT_LIMITS, eax = X86Const.KVM_MAX_VCPUS, ebx = 64 };
        entries[6] = Signature(HYPERV_CPUID_SYNDBG_VENDOR_AND_MAX_FUNCTIONS, 0);
        entries[7] = new() { function = HYPERV_CPUID_SYNDBG_INTERFACE, eax = HYPERV_VS_INTERFACE_EAX_SIGNATURE };
        entries[8] = new() { function = HYPERV_CPUID_SYNDBG_PLATFORM_CAPABILITIES, eax = HV_X64_SYNDBG_CAP_ALLOW_KERNEL_DEBUGGING };
        entries[9] = new() { function = HYPERV_CPUID_NESTED_FEATURES, eax = evmcs | HV_X64_NESTED_MSR_BITMAP, ebx = HV_X64_NESTED_EVMCS1_PERF_GLOBAL_CTRL };
    }

    /// <summary>"Linux KVM Hv".</summary>
    private static kvm_cpuid_entry2 Signature(uint function, uint max) => new() { function = function, eax = max, ebx = 0x756e694c, ecx = 0x564b2078, edx = 0x7648204d };

    private static kvm_cpuid_entry2 Features(bool lapic) => new()
    {
        function = HYPERV_CPUID_FEATURES,
        eax = HV_MSR_VP_RUNTIME_AVAILABLE | HV_MSR_TIME_REF_COUNT_AVAILABLE | HV_MSR_SYNIC_AVAILABLE | HV_MSR_SYNTIMER_AVAILABLE | HV_MSR_APIC_ACCESS_AVAILABLE
            | HV_MSR_HYPERCALL_AVAILABLE | HV_MSR_VP_INDEX_AVAILABLE | HV_MSR_RESET_AVAILABLE | HV_MSR_REFERENCE_TSC_AVAILABLE | HV_ACCESS_FREQUENCY_MSRS
            | HV_ACCESS_REENLIGHTENMENT,
        ebx = HV_POST_MESSAGES | HV_SIGNAL_EVENTS | HV_DEBUGGING,
        edx = HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE | HV_FEATURE_FREQUENCY_MSRS_AVAILABLE | HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE | HV_X64_GUEST_DEBUGGING_AVAILABLE
            | HV_FEATURE_DEBUG_MSRS_AVAILABLE | (lapic ? HV_STIMER_DIRECT_MODE_AVAILABLE : 0),
    };

    private static kvm_cpuid_entry2 Enlightenments(bool lapic, bool evmcs, bool smtPossible) => new()
    {
        function = HYPERV_CPUID_ENLIGHTMENT_INFO,
        eax = HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED | HV_X64_APIC_ACCESS_RECOMMENDED | HV_X64_RELAXED_TIMING_RECOMMENDED | HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED
            | HV_DEPRECATING_AEOI_RECOMMENDED | (lapic ? HV_X64_CLUSTER_IPI_RECOMMENDED : 0) | (evmcs ? HV_X64_ENLIGHTENED_VMCS_RECOMMENDED : 0)
            | (smtPossible ? 0 : HV_X64_NO_NONARCH_CORESHARING),

        // Retries of a spinlock before the guest tells the hypervisor; the value of Hyper-V 2016.
        ebx = 0xfff,
    };
}
