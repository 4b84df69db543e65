using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Core;

/// <summary>kvm_vm_fops: VM files.</summary>
internal sealed class KvmVmOperations : FileOperations
{
    /// <summary>The generic VM ioctls.</summary>
    public static readonly IoctlTable<KvmVm> Table = Build();

    [KernelFunction("kvm_vm_ioctl", File = "virt/kvm/kvm_main.c")]
    public override KvmResult Ioctl(KvmFile file, uint request, ulong arg)
    {
        using var _ = FunctionTrace.Enter("kvm_vm_ioctl");
        var vm = (KvmVm)file.PrivateData!;
        if (vm.Mm != HostTask.Current.Mm || vm.VmDead) return Errno.EIO;
        return Table.Find(request) is { } row ? row.Invoke(vm, arg) : vm.Arch.VmIoctl(vm, request, arg);
    }

    [KernelFunction("kvm_vm_release", File = "virt/kvm/kvm_main.c")]
    public override void Release(KvmFile file)
    {
        using var _ = FunctionTrace.Enter("kvm_vm_release");
        var vm = (KvmVm)file.PrivateData!;
        vm.IrqfdRelease();
        vm.Put();
    }

    private static KvmResult IrqLine(KvmVm vm, kvm_irq_level level) => vm.Arch.VmIoctlIrqLine(vm, ref level, lineStatus: false);

    private static IoctlTable<KvmVm> Build()
    {
        var t = new IoctlTable<KvmVm>();
        t.Add(KVM_CHECK_EXTENSION, nameof(KVM_CHECK_EXTENSION), static (vm, arg) => vm.Module.CheckExtensionGeneric(vm, arg));
        t.Add(KVM_CREATE_VCPU, nameof(KVM_CREATE_VCPU), static (vm, arg) => vm.Module.VmIoctlCreateVcpu(vm, (uint)arg));
        t.AddIn(KVM_GET_DIRTY_LOG, nameof(KVM_GET_DIRTY_LOG), static (KvmVm vm, in kvm_dirty_log log) => vm.IoctlGetDirtyLog(in log));
        t.AddIn(KVM_SET_USER_MEMORY_REGION, nameof(KVM_SET_USER_MEMORY_REGION), static (KvmVm vm, in kvm_userspace_memory_region mem) => vm.IoctlSetMemoryRegion(in mem));
        t.AddIn(KVM_IRQ_LINE, nameof(KVM_IRQ_LINE), static (KvmVm vm, in kvm_irq_level level) => IrqLine(vm, level));
        t.AddRef(KVM_IRQ_LINE_STATUS, nameof(KVM_IRQ_LINE_STATUS), static (KvmVm vm, ref kvm_irq_level level) => vm.Arch.VmIoctlIrqLine(vm, ref level, lineStatus: true));
        t.AddIn(KVM_REGISTER_COALESCED_MMIO, nameof(KVM_REGISTER_COALESCED_MMIO), static (KvmVm vm, in kvm_coalesced_mmio_zone z) => vm.CoalescedMmio.Register(in z));
        t.AddIn(KVM_UNREGISTER_COALESCED_MMIO, nameof(KVM_UNREGISTER_COALESCED_MMIO), static (KvmVm vm, in kvm_coalesced_mmio_zone z) => vm.CoalescedMmio.Unregister(in z));
        t.AddPtr<kvm_irq_routing>(KVM_SET_GSI_ROUTING, nameof(KVM_SET_GSI_ROUTING), static (vm, argp) => vm.IoctlSetGsiRouting(argp));
        t.AddIn(KVM_IRQFD, nameof(KVM_IRQFD), static (KvmVm vm, in kvm_irqfd args) => vm.IoctlIrqfd(in args));
        t.AddIn(KVM_IOEVENTFD, nameof(KVM_IOEVENTFD), static (KvmVm vm, in kvm_ioeventfd args) => vm.IoctlIoeventfd(in args));
        t.AddIn(KVM_ENABLE_CAP, nameof(KVM_ENABLE_CAP), static (KvmVm vm, in kvm_enable_cap cap) => vm.Module.EnableCapGeneric(vm, in cap));
        t.AddIn(KVM_SIGNAL_MSI, nameof(KVM_SIGNAL_MSI), static (KvmVm vm, in kvm_msi msi) => vm.Arch.SendUserspaceMsi(vm, in msi));
        t.AddIn(KVM_CLEAR_DIRTY_LOG, nameof(KVM_CLEAR_DIRTY_LOG), static (KvmVm vm, in kvm_clear_dirty_log log) => vm.IoctlClearDirtyLog(in log));
        t.Add(KVM_RESET_DIRTY_RINGS, nameof(KVM_RESET_DIRTY_RINGS), static (vm, arg) => vm.ResetDirtyPages());
        t.Add(KVM_GET_STATS_FD, nameof(KVM_GET_STATS_FD), static (vm, arg) => vm.Module.GetStatsFd("kvm-vm-stats", vm, vm));
        t.AddRef(KVM_CREATE_DEVICE, nameof(KVM_CREATE_DEVICE), static (KvmVm vm, ref kvm_create_device cd) => vm.Module.IoctlCreateDevice(vm, ref cd));
        return t;
    }
}
