using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>VMs: creation with its unwinding, destruction.</remarks>
public sealed partial class KvmModule
{
    /// <summary>KVM_CREATE_VM: a descriptor of "anon_inode:kvm-vm", or what failed; then nothing is left behind.</summary>
    [KernelFunction("kvm_dev_ioctl_create_vm", File = "virt/kvm/kvm_main.c")]
    internal KvmResult DevIoctlCreateVm(ulong type)
    {
        FileTable files = HostTask.Current.Process.Files;
        KvmResult fd = files.GetUnusedFd(Fcntl.O_CLOEXEC);
        if (fd.IsError) return fd;
        KvmResult r = CreateVm(type, fd.Value, out KvmVm? vm);
        if (r.IsError) goto put_fd;
        r = Host.AnonInodeGetFile("kvm-vm", VmOperations, vm!, Fcntl.O_RDWR, out KvmFile? file);
        if (r.IsError) goto put_kvm;
        // From here on release owns the VM.
        UeventNotifyChange(create: true, vm!);
        files.Install(fd.Value, file!);
        return fd;

    put_kvm:
        vm!.Put();
    put_fd:
        files.PutUnusedFd(fd.Value);
        return r;
    }

    /// <summary>The file is a VM.</summary>
    [KernelFunction("file_is_kvm", File = "virt/kvm/kvm_main.c")]
    public static bool FileIsKvm(KvmFile? file) => file?.Operations is KvmVmOperations;

    [KernelFunction("kvm_create_vm", File = "virt/kvm/kvm_main.c")]
    private KvmResult CreateVm(ulong type, int fd, out KvmVm? result)
    {
        result = null;
        HostTask current = HostTask.Current;
        if (Host.Faults.ShouldFail("kvm_arch_alloc_vm")) return Errno.ENOMEM;
        KvmVm? vm;
        using (FunctionTrace.Enter("__vmalloc")) vm = Arch.AllocVm(this);
        if (vm is null) return Errno.ENOMEM;
        Vendor!.Get();
        vm.Mm = current.Mm;
        EventfdInit(vm);
        vm.StatsId = $"kvm-{current.Pid}";
        KvmResult r = Errno.ENOMEM;
        if (InitSrcu() is not { } srcu) goto out_err_no_srcu;
        vm.Srcu = srcu;
        if (InitSrcu() is not { } irqSrcu) goto out_err_no_irq_srcu;
        vm.IrqSrcu = irqSrcu;
        vm.SetUsersCount(1);
        vm.InitMemslots();
        if (!vm.InitBuses()) goto out_err_no_arch_destroy_vm;
        r = Arch.InitVm(vm, type);
        if (r.IsError) goto out_err_no_arch_destroy_vm;
        r = HardwareEnableAll();
        if (r.IsError) goto out_err_no_disable;
        r = vm.Mm.RegisterNotifier(vm);
        if (r.IsError) goto out_err_no_mmu_notifier;
        r = vm.CoalescedMmio.Init();
        if (r.IsError) goto out_no_coalesced_mmio;
        r = CreateVmDebugfs(vm, fd);
        if (r.IsError) goto out_err_no_debugfs;
        r = Arch.PostInitVm(vm);
        if (r.IsError) goto out_err;
        using (_kvmLock.Enter())
            lock (_vmList) vm.VmListNode = _vmList.AddFirst(vm);
        PreemptNotifierInc();
        vm.PmNotifier = Host.RegisterPmNotifier(state => Arch.PmNotifier(vm, state));
        result = vm;
        return 0;

    out_err:
        DestroyVmDebugfs(vm);
    out_err_no_debugfs:
        vm.CoalescedMmio.Free();
    out_no_coalesced_mmio:
        vm.Mm.UnregisterNotifier(vm);
    out_err_no_mmu_notifier:
        HardwareDisableAll();
    out_err_no_disable:
        Arch.DestroyVm(vm);
    out_err_no_arch_destroy_vm:
        Host.Log.WarnOnce(vm.UsersCount != 1, "kvm_create_vm", "kvm: a failed VM is referenced");
        vm.SetUsersCount(0);
        vm.FreeBuses();
        CleanupSrcu();
    out_err_no_irq_srcu:
        CleanupSrcu();
    out_err_no_srcu:
        Arch.FreeVm(vm);
        Vendor!.Put();
        return r;
    }

    /// <summary>The last reference is gone.</summary>
    [KernelFunction("kvm_destroy_vm", File = "virt/kvm/kvm_main.c")]
    internal void DestroyVm(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_destroy_vm");
        vm.PmNotifier?.Dispose();
        UeventNotifyChange(create: false, vm);
        DestroyVmDebugfs(vm);
        Arch.SyncEvents(vm);
        using (_kvmLock.Enter())
            lock (_vmList) _vmList.Remove(vm.VmListNode!);
        Arch.PreDestroyVm(vm);
        vm.FreeIrqRouting();
        vm.DestroyBuses();
        vm.CoalescedMmio.Free();
        vm.Mm.UnregisterNotifier(vm);
        // A change of process memory that was cut off by the unregistration can't be waited for any more.
        vm.MnActiveInvalidateCount = 0;
        Arch.DestroyVm(vm);
        foreach (KvmVmDevice device in vm.Devices) device.Release();
        vm.Devices.Clear();
        vm.FreeMemslots();
        CleanupSrcu();
        CleanupSrcu();
        Arch.FreeVm(vm);
        PreemptNotifierDec();
        HardwareDisableAll();
        FunctionTrace.Leaf("module_put");
        Vendor!.Put();
    }

    [KernelFunction("init_srcu_struct", File = "kernel/rcu/srcutree.c")]
    private Srcu? InitSrcu()
    {
        using var _ = FunctionTrace.Enter("init_srcu_struct");
        return Host.Faults.ShouldFail("init_srcu_struct") ? null : new Srcu(Host.Cpus.Count);
    }

    /// <summary>cleanup_srcu_struct: nobody reads any more.</summary>
    [KernelFunction("cleanup_srcu_struct", File = "kernel/rcu/srcutree.c")]
    private static void CleanupSrcu() => FunctionTrace.Leaf("cleanup_srcu_struct");

    [KernelFunction("kvm_eventfd_init", File = "virt/kvm/eventfd.c")]
    private static void EventfdInit(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_eventfd_init");
    }

    [KernelFunction("preempt_notifier_inc", File = "kernel/sched/core.c")]
    private static void PreemptNotifierInc()
    {
        using var _ = FunctionTrace.Enter("preempt_notifier_inc");
    }

    [KernelFunction("preempt_notifier_dec", File = "kernel/sched/core.c")]
    private static void PreemptNotifierDec()
    {
        using var _ = FunctionTrace.Enter("preempt_notifier_dec");
    }

    /// <summary>kvm_uevent_notify_change: counts, and tells listeners what udev would get.</summary>
    [KernelFunction("kvm_uevent_notify_change.part.0", File = "virt/kvm/kvm_main.c")]
    private void UeventNotifyChange(bool create, KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_uevent_notify_change.part.0");
        using (_kvmLock.Enter())
        {
            if (create)
            {
                CreatedVms++;
                ActiveVms++;
            }
            else
            {
                ActiveVms--;
            }
        }

        if (create) vm.UserspacePid = HostTask.Current.Pid;
        if (Uevent is not { } handler) return;
        var env = new List<string> { $"CREATED={CreatedVms}", $"COUNT={ActiveVms}", create ? "EVENT=create" : "EVENT=destroy", $"PID={vm.UserspacePid}" };
        if (vm.DebugfsDirectory is { } dir) env.Add("STATS_PATH=/" + dir);
        handler(env);
    }

    /// <summary>The uevents of /devices/virtual/misc/kvm: their variables.</summary>
    public event Action<IReadOnlyList<string>>? Uevent;
}
