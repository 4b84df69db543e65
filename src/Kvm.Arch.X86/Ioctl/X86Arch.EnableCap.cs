using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>KVM_ENABLE_CAP on a VM (x86.c:kvm_vm_ioctl_enable_cap).</remarks>
public sealed partial class X86Arch
{
    public KvmResult VmIoctlEnableCap(KvmVm kvm, in kvm_enable_cap cap)
    {
        if (cap.flags != 0)
            return -EINVAL;
        var vm = (X86Vm)kvm;
        ulong arg = cap.args[0];
        switch (cap.cap)
        {
            case KVM_CAP_DISABLE_QUIRKS2 when (arg & ~KVM_X86_VALID_QUIRKS) != 0:
                return -EINVAL;
            case KVM_CAP_DISABLE_QUIRKS2 or KVM_CAP_DISABLE_QUIRKS:
                vm.DisabledQuirks = arg;
                return 0;
            case KVM_CAP_SPLIT_IRQCHIP:
                return CreateSplitIrqchip(vm, arg);
            case KVM_CAP_X2APIC_API:
                if ((arg & ~3ul) != 0)
                    return -EINVAL;
                vm.X2apicFormat |= (arg & KVM_X2APIC_API_USE_32BIT_IDS) != 0;
                vm.X2apicBroadcastQuirkDisabled |= (arg & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK) != 0;
                return 0;
            case KVM_CAP_X86_DISABLE_EXITS:
                return EnableDisableExits(vm, arg);
            case KVM_CAP_MSR_PLATFORM_INFO:
                vm.GuestCanReadMsrPlatformInfo = arg != 0;
                return 0;
            case KVM_CAP_EXCEPTION_PAYLOAD:
                vm.ExceptionPayloadEnabled = arg != 0;
                return 0;
            case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
                vm.TripleFaultEvent = arg != 0;
                return 0;
            case KVM_CAP_X86_USER_SPACE_MSR:
                if ((arg & ~7ul) != 0)
                    return -EINVAL;
                vm.UserSpaceMsrMask = (uint)arg;
                return 0;
            case KVM_CAP_X86_BUS_LOCK_EXIT:
                if ((arg & ~3ul) != 0 || arg == 3)
                    return -EINVAL;
                if (KvmCaps.HasBusLockExit && (arg & KVM_BUS_LOCK_DETECTION_EXIT) != 0)
                    vm.BusLockDetectionEnabled = true;
                return 0;
            case KVM_CAP_VM_COPY_ENC_CONTEXT_FROM:
                return Ops.VmCopyEncContextFrom(vm, (uint)arg);
            case KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM:
                return Ops.VmMoveEncContextFrom(vm, (uint)arg);
            case KVM_CAP_EXIT_HYPERCALL:
                if ((arg & ~KVM_EXIT_HYPERCALL_VALID_MASK) != 0)
                    return -EINVAL;
                vm.HypercallExitEnabled = (uint)arg;
                return 0;
            case KVM_CAP_EXIT_ON_EMULATION_FAILURE:
                if ((arg & ~1ul) != 0)
                    return -EINVAL;
                vm.ExitOnEmulationError = arg != 0;
                return 0;
            default:
                return EnableCapBeforeVcpus(vm, cap.cap, arg);
        }
    }

    private KvmResult EnableDisableExits(X86Vm vm, ulong arg)
    {
        if ((arg & ~15ul) != 0)
            return -EINVAL;
        if ((arg & KVM_X86_DISABLE_EXITS_PAUSE) != 0)
            vm.PauseInGuest = true;
        if (Params.MitigateSmtRsb)
            return 0;
        if (HostX86.BootCpuHasBug(X86Bug.SMT_RSB) && (arg & ~(ulong)KVM_X86_DISABLE_EXITS_PAUSE) != 0)
        {
            Host.Log.Once(LogLevel.Warning, "This processor is affected by the Cross-Thread Return Predictions vulnerability. "
                + "KVM_CAP_X86_DISABLE_EXITS should only be used with SMT disabled or trusted guests.");
        }

        if ((arg & KVM_X86_DISABLE_EXITS_MWAIT) != 0 && CanMwaitInGuest)
            vm.MwaitInGuest = true;
        if ((arg & KVM_X86_DISABLE_EXITS_HLT) != 0)
            vm.HltInGuest = true;
        if ((arg & KVM_X86_DISABLE_EXITS_CSTATE) != 0)
            vm.CstateInGuest = true;
        return 0;
    }

    /// <summary>Capabilities that can only change while the VM has no vCPU, or only once.</summary>
    private KvmResult EnableCapBeforeVcpus(X86Vm vm, uint cap, ulong arg)
    {
        switch (cap)
        {
            case KVM_CAP_PMU_CAPABILITY:
                if (!Params.EnablePmu || (arg & ~(ulong)KVM_PMU_CAP_DISABLE) != 0)
                    return -EINVAL;
                using (vm.Lock.Enter())
                {
                    if (vm.CreatedVcpus != 0)
                        return -EINVAL;
                    vm.EnablePmu = (arg & KVM_PMU_CAP_DISABLE) == 0;
                    return 0;
                }

            case KVM_CAP_MAX_VCPU_ID:
                if (arg > KVM_MAX_VCPU_IDS)
                    return -EINVAL;
                using (vm.Lock.Enter())
                {
                    if (vm.MaxVcpuIds == arg)
                        return 0;
                    if (vm.MaxVcpuIds != 0)
                        return -EINVAL;
                    vm.MaxVcpuIds = (uint)arg;
                    return 0;
                }

            case KVM_CAP_X86_NOTIFY_VMEXIT:
                uint flags = (uint)arg;
                if ((flags & ~3u) != 0 || !KvmCaps.HasNotifyVmexit || (flags & KVM_X86_NOTIFY_VMEXIT_ENABLED) == 0)
                    return -EINVAL;
                using (vm.Lock.Enter())
                {
                    if (vm.CreatedVcpus != 0)
                        return -EINVAL;
                    vm.NotifyWindow = (uint)(arg >> 32);
                    vm.NotifyVmexitFlags = flags;
                    return 0;
                }

            case KVM_CAP_VM_DISABLE_NX_HUGE_PAGES:
                if (arg != 0)
                    return -EINVAL;
                using (vm.Lock.Enter())
                {
                    if (vm.CreatedVcpus != 0)
                        return -EINVAL;
                    vm.DisableNxHugePages = true;
                    return 0;
                }

            default:
                return -EINVAL;
        }
    }
}
