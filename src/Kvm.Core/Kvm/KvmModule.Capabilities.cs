using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Core;

/// <remarks>KVM_CHECK_EXTENSION, KVM_ENABLE_CAP, statistics descriptors.</remarks>
public sealed unsafe partial class KvmModule
{
    /// <summary>kvm_vm_ioctl_check_extension_generic: never an error; 0 for what is not there.</summary>
    [KernelFunction("kvm_vm_ioctl_check_extension_generic", File = "virt/kvm/kvm_main.c")]
    public KvmResult CheckExtensionGeneric(KvmVm? vm, ulong extension)
    {
        using var _ = FunctionTrace.Enter("kvm_vm_ioctl_check_extension_generic");
        switch (extension)
        {
            case KVM_CAP_USER_MEMORY:
            case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
            case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
            case KVM_CAP_INTERNAL_ERROR_DATA:
            case KVM_CAP_SIGNAL_MSI:
            case KVM_CAP_IRQFD:
            case KVM_CAP_IRQFD_RESAMPLE:
            case KVM_CAP_IOEVENTFD_ANY_LENGTH:
            case KVM_CAP_CHECK_EXTENSION_VM:
            case KVM_CAP_ENABLE_CAP_VM:
            case KVM_CAP_HALT_POLL:
            case KVM_CAP_COALESCED_PIO:
            case KVM_CAP_BINARY_STATS_FD:
            case KVM_CAP_SYSTEM_EVENT_DATA:
                return 1;
            case KVM_CAP_COALESCED_MMIO:
                return KvmLimits.KVM_COALESCED_MMIO_PAGE_OFFSET;
            case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
                return KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
            case KVM_CAP_IRQ_ROUTING:
                return KvmLimits.KVM_MAX_IRQ_ROUTES;
            case KVM_CAP_MULTI_ADDRESS_SPACE:
                return KvmLimits.KVM_ADDRESS_SPACE_NUM;
            case KVM_CAP_NR_MEMSLOTS:
                return KvmLimits.KVM_USER_MEM_SLOTS;
            case KVM_CAP_DIRTY_LOG_RING:
            case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
                return KvmLimits.KVM_DIRTY_RING_MAX_ENTRIES * sizeof(kvm_dirty_gfn);
            default:
                return Arch.CheckExtension(vm, extension);
        }
    }

    /// <summary>kvm_vm_ioctl_enable_cap_generic.</summary>
    [KernelFunction("kvm_vm_ioctl_enable_cap_generic", File = "virt/kvm/kvm_main.c")]
    internal KvmResult EnableCapGeneric(KvmVm vm, in kvm_enable_cap cap)
    {
        kvm_enable_cap c = cap;
        ulong arg0 = c.args[0];
        switch (c.cap)
        {
            case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
                ulong allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
                if ((arg0 & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) != 0) allowed |= KVM_DIRTY_LOG_INITIALLY_SET;
                if (c.flags != 0 || (arg0 & ~allowed) != 0) return Errno.EINVAL;
                vm.ManualDirtyLogProtect = arg0;
                return 0;
            case KVM_CAP_HALT_POLL:
                if (c.flags != 0 || arg0 != (uint)arg0) return Errno.EINVAL;
                vm.MaxHaltPollNs = (uint)arg0;
                Interlocked.MemoryBarrier(); // the value before the switch
                vm.OverrideHaltPollNs = true;
                return 0;
            case KVM_CAP_DIRTY_LOG_RING:
            case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
                return vm.EnableDirtyLogRing((uint)arg0);
            default:
                return Arch.VmIoctlEnableCap(vm, in cap);
        }
    }

    /// <summary>KVM_GET_STATS_FD: a read-only descriptor that holds the VM.</summary>
    [KernelFunction("kvm_vm_ioctl_get_stats_fd", File = "virt/kvm/kvm_main.c")]
    [KernelFunction("kvm_vcpu_ioctl_get_stats_fd", File = "virt/kvm/kvm_main.c")]
    internal KvmResult GetStatsFd(string name, object owner, KvmVm vm)
    {
        FileTable files = HostTask.Current.Process.Files;
        KvmResult fd = files.GetUnusedFd(Fcntl.O_CLOEXEC);
        if (fd.IsError) return fd;
        KvmResult r = Host.AnonInodeGetFile(name, StatsOperations, owner, Fcntl.O_RDONLY, out KvmFile? file);
        if (r.IsError)
        {
            files.PutUnusedFd(fd.Value);
            return r;
        }

        vm.Get();
        files.Install(fd.Value, file!);
        return fd;
    }
}
