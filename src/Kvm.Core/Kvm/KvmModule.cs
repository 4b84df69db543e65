using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <summary>kvm.ko: the architecture-independent part of the hypervisor on one host, with the architecture in it. A vendor module calls <see cref="KvmInit"/>.</summary>
public sealed partial class KvmModule : HostModule
{
    private readonly RawSpinLock _kvmCountLock = new();
    private readonly KernelMutex _kvmLock = new();
    private readonly LinkedList<KvmVm> _vmList = [];
    private int _hardwareEnableFailed;
    private int _kvmUsageCount;

    /// <summary>Makes the module; <c>host.Modules.Insert</c> loads it.</summary>
    public KvmModule(Host host, IKvmArch arch)
    {
        Host = host;
        Arch = arch;
        RunningVcpu = new PerCpu<KvmVcpu?>(host);
        Parameters.Define("halt_poll_ns", () => HaltPollNs, v => HaltPollNs = v, ModuleParameters.Writable);
        Parameters.Define("halt_poll_ns_grow", () => HaltPollNsGrow, v => HaltPollNsGrow = v, ModuleParameters.Writable);
        Parameters.Define("halt_poll_ns_grow_start", () => HaltPollNsGrowStart, v => HaltPollNsGrowStart = v, ModuleParameters.Writable);
        Parameters.Define("halt_poll_ns_shrink", () => HaltPollNsShrink, v => HaltPollNsShrink = v, ModuleParameters.Writable);
        arch.DefineParameters(Parameters);
    }

    public override string Name => "kvm";

    public IKvmArch Arch { get; }

    /// <summary>kvm_running_vcpu: the vCPU that is loaded on each CPU.</summary>
    public PerCpu<KvmVcpu?> RunningVcpu { get; }

    /// <summary>Module parameter: longest halt polling in nanoseconds (KVM_HALT_POLL_NS_DEFAULT on x86).</summary>
    public uint HaltPollNs { get; set; } = 200_000;

    public uint HaltPollNsGrow { get; set; } = 2;
    public uint HaltPollNsGrowStart { get; set; } = 10_000;
    public uint HaltPollNsShrink { get; set; }

    /// <summary>KVM_MAX_VCPUS of the modelled generation.</summary>
    public int MaxVcpus => Host.Options.Profile == KernelProfile.Legacy ? 255 : KvmLimits.KVM_MAX_VCPUS;

    /// <summary>KVM_MAX_VCPU_IDS of the modelled generation.</summary>
    public int MaxVcpuIds => Host.Options.Profile == KernelProfile.Legacy ? 255 : KvmLimits.KVM_MAX_VCPU_IDS;

    /// <summary>kvm_usage_count: live VMs.</summary>
    public int UsageCount => Volatile.Read(ref _kvmUsageCount);

    /// <summary>cpus_hardware_enabled; null while no vendor module is loaded.</summary>
    public CpuMask? CpusHardwareEnabled { get; private set; }

    /// <summary>kvm_rebooting: faulting virtualization instructions are ignored from now on.</summary>
    public bool Rebooting { get; private set; }

    /// <summary>vm_list.</summary>
    public IReadOnlyList<KvmVm> VmList
    {
        get { lock (_vmList) return [.. _vmList]; }
    }

    /// <summary>kvm_lock.</summary>
    public KernelMutex KvmLock => _kvmLock;

    /// <summary>The vendor module that is loaded into it, or null.</summary>
    public HostModule? Vendor { get; private set; }

    /// <summary>kvm_createvm_count and kvm_active_vms.</summary>
    public long CreatedVms { get; private set; }

    public long ActiveVms { get; private set; }

    /// <summary>kvm_get_running_vcpu: the vCPU loaded on this CPU, or null.</summary>
    public KvmVcpu? GetRunningVcpu() =>
        Host.CurrentCpuOrNull is { } cpu && cpu.Host == Host ? RunningVcpu[cpu.Id] : null;

    protected internal override KvmResult Init() => Arch.ModuleInit(this);

    protected internal override void Exit() => Arch.ModuleExit(this);

    [KernelFunction("hardware_enable_nolock", File = "virt/kvm/kvm_main.c")]
    private void HardwareEnableNolock(object? junk)
    {
        using var _ = FunctionTrace.Enter("hardware_enable_nolock");
        int cpu = Host.CurrentCpu.Id;
        if (CpusHardwareEnabled!.Test(cpu)) return;
        CpusHardwareEnabled.Set(cpu);
        if (!Arch.HardwareEnable().IsError) return;
        CpusHardwareEnabled.Clear(cpu);
        Interlocked.Increment(ref _hardwareEnableFailed);
        Host.Log.Info($"kvm: enabling virtualization on CPU{cpu} failed");
    }

    [KernelFunction("hardware_disable_nolock", File = "virt/kvm/kvm_main.c")]
    private void HardwareDisableNolock(object? junk)
    {
        using var _ = FunctionTrace.Enter("hardware_disable_nolock");
        int cpu = Host.CurrentCpu.Id;
        if (CpusHardwareEnabled is not { } mask || !mask.Test(cpu)) return;
        mask.Clear(cpu);
        Arch.HardwareDisable();
    }

    /// <summary>The first VM switches virtualization on, on every online CPU. 0 or -EBUSY.</summary>
    [KernelFunction("hardware_enable_all", File = "virt/kvm/kvm_main.c")]
    internal KvmResult HardwareEnableAll()
    {
        using var _ = _kvmCountLock.Enter();
        _kvmUsageCount++;
        if (_kvmUsageCount != 1) return 0;
        Volatile.Write(ref _hardwareEnableFailed, 0);
        Host.OnEachCpu(HardwareEnableNolock);
        if (Volatile.Read(ref _hardwareEnableFailed) == 0) return 0;
        HardwareDisableAllNolock();
        return Abi.Errno.EBUSY;
    }

    [KernelFunction("hardware_disable_all_nolock", File = "virt/kvm/kvm_main.c")]
    private void HardwareDisableAllNolock()
    {
        if (_kvmUsageCount == 0) throw new InvalidOperationException("BUG: kvm_usage_count is 0.");
        _kvmUsageCount--;
        if (_kvmUsageCount == 0) Host.OnEachCpu(HardwareDisableNolock);
    }

    /// <summary>The last VM switches it off.</summary>
    [KernelFunction("hardware_disable_all", File = "virt/kvm/kvm_main.c")]
    internal void HardwareDisableAll()
    {
        using var _ = _kvmCountLock.Enter();
        HardwareDisableAllNolock();
    }

    [KernelFunction("kvm_starting_cpu", File = "virt/kvm/kvm_main.c")]
    private KvmResult StartingCpu(HostCpu cpu)
    {
        using var t = FunctionTrace.Enter("kvm_starting_cpu");
        using var _ = _kvmCountLock.Enter();
        if (_kvmUsageCount != 0) HardwareEnableNolock(null);
        return 0;
    }

    [KernelFunction("kvm_dying_cpu", File = "virt/kvm/kvm_main.c")]
    private KvmResult DyingCpu(HostCpu cpu)
    {
        using var t = FunctionTrace.Enter("kvm_dying_cpu");
        using var _ = _kvmCountLock.Enter();
        if (_kvmUsageCount != 0) HardwareDisableNolock(null);
        return 0;
    }

    [KernelFunction("kvm_suspend", File = "virt/kvm/kvm_main.c")]
    private void Suspend()
    {
        if (_kvmUsageCount != 0) HardwareDisableNolock(null);
    }

    [KernelFunction("kvm_resume", File = "virt/kvm/kvm_main.c")]
    private void Resume()
    {
        if (_kvmUsageCount != 0) HardwareEnableNolock(null);
    }

    [KernelFunction("kvm_reboot", File = "virt/kvm/kvm_main.c")]
    private void Reboot()
    {
        Host.Log.Info("kvm: exiting hardware virtualization");
        Rebooting = true;
        Host.OnEachCpu(HardwareDisableNolock);
    }
}
