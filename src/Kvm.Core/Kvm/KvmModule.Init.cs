using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>kvm_init and kvm_exit: what a vendor module does with the generic part.</remarks>
public sealed partial class KvmModule
{
    private const int VfioType = (int)kvm_device_type.KVM_DEV_TYPE_VFIO;

    private IDisposable? _hotplugState;
    private IDisposable? _rebootNotifier;
    private IDisposable? _syscore;
    private MiscDevice? _miscDevice;
    private KvmDeviceOperations? _deviceOperations;

    internal KvmVmOperations VmOperations { get; } = new();
    internal KvmVcpuOperations VcpuOperations { get; } = new();

    /// <summary>
    /// kvm_init: sets the architecture up with the vendor's <paramref name="opaque"/>, checks every online CPU, and shows /dev/kvm last. A negative result has
    /// undone everything.
    /// </summary>
    [KernelFunction("kvm_init", File = "virt/kvm/kvm_main.c")]
    public KvmResult KvmInit(object? opaque, HostModule vendor)
    {
        using Host.KernelScope scope = Host.EnterKernel("modprobe");
        using var trace = FunctionTrace.Enter("kvm_init");
        KvmResult r = Arch.Init(opaque);
        if (r.IsError) goto out_fail;
        r = IrqfdInit();
        if (r.IsError) goto out_irqfd;
        if (Host.Faults.ShouldFail("zalloc_cpumask_var"))
        {
            r = Errno.ENOMEM;
            goto out_free_0;
        }

        CpusHardwareEnabled = new CpuMask(Host.Cpus.Count);
        r = Arch.HardwareSetup(opaque);
        if (r.IsError) goto out_free_1;
        foreach (HostCpu cpu in Host.OnlineCpus)
        {
            KvmResult compat = 0;
            Host.SmpCallFunctionSingle(cpu.Id, _ =>
            {
                compat = CheckProcessorCompat(opaque);
            });
            r = compat;
            if (r.IsError) goto out_free_2;
        }

        r = Host.CpuHotplugSetupNoCalls("kvm/cpu:starting", StartingCpu, DyingCpu, out _hotplugState);
        if (r.IsError) goto out_free_2;
        _rebootNotifier = Host.RegisterRebootNotifier(Reboot);
        if (Host.Faults.ShouldFail("kmem_cache_create", "kvm_vcpu"))
        {
            r = Errno.ENOMEM;
            goto out_free_3;
        }

        foreach (HostCpu cpu in Host.Cpus)
        {
            if (!Host.Faults.ShouldFail("alloc_cpumask_var", "cpu_kick_mask")) continue;
            r = Errno.ENOMEM;
            goto out_free_4;
        }

        r = AsyncPfInit();
        if (r.IsError) goto out_free_4;
        _deviceOperations = new KvmDeviceOperations(new KvmDevice(this)) { Owner = vendor };
        _syscore = Host.RegisterSyscoreOps(Suspend, Resume);
        InitDebug();
        r = VfioOpsInit();
        if (r.IsError) goto err_vfio;

        // Last: this is what user space sees.
        Vendor = vendor;
        _miscDevice = new MiscDevice("/dev/kvm", 232, 0x180, _deviceOperations, _deviceOperations.Device);
        r = Host.Devices.Register(_miscDevice);
        if (r.IsError)
        {
            Host.Log.Err("kvm: misc device register failed");
            goto err_register;
        }

        return 0;

    err_register:
        Vendor = null;
        VfioOpsExit();
    err_vfio:
        // DIVERGES: D-CORE-3
        _syscore?.Dispose();
        Host.Debugfs.Remove("kvm");
    out_free_4:
    out_free_3:
        _rebootNotifier?.Dispose();
        _hotplugState?.Dispose();
    out_free_2:
        Arch.HardwareUnsetup();
    out_free_1:
        CpusHardwareEnabled = null;
    out_free_0:
        IrqfdCleanup.Dispose();
    out_irqfd:
        Arch.Exit();
    out_fail:
        return r;
    }

    /// <summary>kvm_exit: /dev/kvm goes first, then everything that <see cref="KvmInit"/> made.</summary>
    [KernelFunction("kvm_exit", File = "virt/kvm/kvm_main.c")]
    public void KvmExit()
    {
        using Host.KernelScope scope = Host.EnterKernel("rmmod");
        using var trace = FunctionTrace.Enter("kvm_exit");
        Host.Devices.Deregister(_miscDevice!);
        Host.Debugfs.Remove("kvm");
        FunctionTrace.Leaf("kvm_async_pf_deinit");
        _syscore?.Dispose();
        _rebootNotifier?.Dispose();
        _hotplugState?.Dispose();
        Host.OnEachCpu(HardwareDisableNolock);
        Arch.HardwareUnsetup();
        Arch.Exit();
        FunctionTrace.Leaf("kvm_irqfd_exit");
        IrqfdCleanup.Dispose();
        CpusHardwareEnabled = null;
        VfioOpsExit();
        Vendor = null;
    }

    [KernelFunction("check_processor_compat", File = "virt/kvm/kvm_main.c")]
    private KvmResult CheckProcessorCompat(object? opaque)
    {
        using var _ = FunctionTrace.Enter("check_processor_compat");
        return Arch.CheckProcessorCompat(opaque);
    }

    [KernelFunction("kvm_irqfd_init", File = "virt/kvm/eventfd.c")]
    private KvmResult IrqfdInit()
    {
        using var _ = FunctionTrace.Enter("kvm_irqfd_init");
        if (Host.Faults.ShouldFail("alloc_workqueue", "kvm-irqfd-cleanup")) return Errno.ENOMEM;
        IrqfdCleanup = new HostWorker("kvm-irqfd-cleanup");
        return 0;
    }

    /// <summary>irqfd_cleanup_wq: ends irqfds whose eventfd was closed.</summary>
    internal HostWorker IrqfdCleanup { get; private set; } = null!;

    [KernelFunction("kvm_async_pf_init", File = "virt/kvm/async_pf.c")]
    private KvmResult AsyncPfInit()
    {
        using var _ = FunctionTrace.Enter("kvm_async_pf_init");
        return Host.Faults.ShouldFail("kmem_cache_create", "kvm_async_pf") ? Errno.ENOMEM : 0;
    }

    [KernelFunction("kvm_vfio_ops_init", File = "virt/kvm/vfio.c")]
    private KvmResult VfioOpsInit()
    {
        using var _ = FunctionTrace.Enter("kvm_vfio_ops_init");
        if (Host.Faults.ShouldFail("kvm_vfio_ops_init")) return Errno.EEXIST;
        return RegisterDevice(VfioType, static vm => new KvmVfioDevice(vm));
    }

    [KernelFunction("kvm_vfio_ops_exit", File = "virt/kvm/vfio.c")]
    [KernelFunction("kvm_async_pf_deinit", File = "virt/kvm/async_pf.c")]
    [KernelFunction("kvm_irqfd_exit", File = "virt/kvm/eventfd.c")]
    private void VfioOpsExit()
    {
        using var _ = FunctionTrace.Enter("kvm_vfio_ops_exit");
        UnregisterDevice(VfioType);
    }
}
