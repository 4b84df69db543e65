using System.Runtime.CompilerServices;
using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <summary>struct kvm_vcpu: a virtual processor. The architecture derives from it (kvm_vcpu_arch), vendors from that.</summary>
public abstract unsafe partial class KvmVcpu : IPreemptNotifier
{
    protected KvmVcpu(KvmVm vm)
    {
        Vm = vm;
        Host = vm.Host;
        Arch = vm.Arch;
    }

    /// <summary>vcpu->kvm.</summary>
    public KvmVm Vm { get; }

    public Host Host { get; }

    protected internal IKvmArch Arch { get; }

    /// <summary>The CPU it is or was last loaded on; -1 before.</summary>
    public int Cpu = -1;

    /// <summary>The id that user space chose (APIC id).</summary>
    public int VcpuId
    {
        get;
        internal set
        {
            field = value;
            Moves = Host.NewForcedMoves((ulong)value);
        }
    }

    /// <summary>Where it goes when <see cref="HostOptions.PreemptionSeed"/> has it preempted.</summary>
    public ForcedMoves? Moves { get; private set; }

    /// <summary>Its index in the VM: the order of creation.</summary>
    public int VcpuIdx { get; internal set; }

    /// <summary>See <see cref="VcpuMode"/>.</summary>
    public int Mode;

    /// <summary>Pending requests, one bit each.</summary>
    public ulong Requests;

    /// <summary>KVM_GUESTDBG_* flags.</summary>
    public uint GuestDebug;

    /// <summary>Held during every vCPU ioctl.</summary>
    public KernelMutex Mutex { get; } = new();

    /// <summary>The shared page: page 0 of the vCPU file's mapping.</summary>
    public kvm_run* Run;

    /// <summary>Where the vCPU's thread sleeps.</summary>
    public RcuWait Wait { get; } = new();

    /// <summary>vcpu->pid: the task that runs it (KVM_RUN); null before the first.</summary>
    public HostTask? Pid;

    /// <summary>KVM_SET_SIGNAL_MASK is in effect.</summary>
    public bool SigsetActive;

    /// <summary>The mask of KVM_SET_SIGNAL_MASK.</summary>
    public ulong Sigset;

    public uint HaltPollNs;
    public bool ValidWakeup;

    // MMIO that user space has to complete.
    public bool MmioNeeded;
    public bool MmioReadCompleted;
    public bool MmioIsWrite;
    public int MmioCurFragment;
    public int MmioNrFragments;
    public readonly KvmMmioFragment[] MmioFragments = new KvmMmioFragment[KvmLimits.KVM_MAX_MMIO_FRAGMENTS];

    public bool InSpinLoop;
    public bool DyEligible;

    /// <summary>KVM_RUN without immediate_exit is in progress.</summary>
    public bool WantsToRun;

    /// <summary>Its thread was preempted in KVM_RUN.</summary>
    public bool Preempted;

    /// <summary>Its thread waits for a CPU.</summary>
    public bool Ready;

    /// <summary>Counters.</summary>
    public KvmVcpuStat Stat;

    /// <summary>"kvm-PID/vcpu-ID".</summary>
    public string StatsId { get; internal set; } = "";

    /// <summary>Dirty ring; null without.</summary>
    public KvmDirtyRing? DirtyRing { get; internal set; }

    internal KvmMemorySlot? LastUsedSlot;
    internal ulong LastUsedSlotGen;
    private int _srcuIndex;

    /// <summary>kvm_vcpu_srcu_read_lock.</summary>
    public void SrcuReadLock() => SrcuReadLock(HostTask.Current);

    /// <summary>kvm_vcpu_srcu_read_lock by <paramref name="current"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void SrcuReadLock(HostTask current) => _srcuIndex = Vm.Srcu.ReadLock(current);

    /// <summary>kvm_vcpu_srcu_read_unlock.</summary>
    public void SrcuReadUnlock() => SrcuReadUnlock(HostTask.Current);

    /// <summary>kvm_vcpu_srcu_read_unlock by <paramref name="current"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void SrcuReadUnlock(HostTask current) => Vm.Srcu.ReadUnlock(_srcuIndex, current);

    /// <summary>Switches to this vCPU until <see cref="Put()"/>. The caller holds the mutex.</summary>
    public void Load() => Load(HostTask.Current);

    /// <summary>vcpu_load by <paramref name="task"/>.</summary>
    [KernelFunction("vcpu_load", File = "virt/kvm/kvm_main.c")]
    public void Load(HostTask task)
    {
        using var _ = FunctionTrace.Enter("vcpu_load");
        task.PreemptCount++;
        HostCpu cpu = task.Cpu!;
        Vm.Module.RunningVcpu[cpu.Id] = this;
        task.RegisterPreemptNotifier(this);
        Arch.VcpuLoad(this, cpu);
        task.PreemptEnable();
    }

    /// <summary>Ends what <see cref="Load()"/> began.</summary>
    public void Put() => Put(HostTask.Current);

    /// <summary>vcpu_put by <paramref name="task"/>.</summary>
    [KernelFunction("vcpu_put", File = "virt/kvm/kvm_main.c")]
    public void Put(HostTask task)
    {
        using var _ = FunctionTrace.Enter("vcpu_put");
        task.PreemptCount++;
        Arch.VcpuPut(this);
        task.UnregisterPreemptNotifier(this);
        Vm.Module.RunningVcpu[task.Cpu!.Id] = null;
        task.PreemptEnable();
    }

    /// <summary>The vCPU's thread got a CPU again.</summary>
    [KernelFunction("kvm_sched_in", File = "virt/kvm/kvm_main.c")]
    void IPreemptNotifier.SchedIn(HostCpu cpu)
    {
        using var _ = FunctionTrace.Enter("kvm_sched_in");
        Volatile.Write(ref Preempted, false);
        Volatile.Write(ref Ready, false);
        Vm.Module.RunningVcpu[cpu.Id] = this;
        HostTask task = HostTask.Current;
        task.PreemptCount++;
        Arch.SchedIn(this, cpu);
        Arch.VcpuLoad(this, cpu);
        task.PreemptCount--;
    }

    /// <summary>The vCPU's thread leaves its CPU.</summary>
    [KernelFunction("kvm_sched_out", File = "virt/kvm/kvm_main.c")]
    void IPreemptNotifier.SchedOut(bool preempted)
    {
        using var _ = FunctionTrace.Enter("kvm_sched_out");
        if (preempted)
        {
            Volatile.Write(ref Preempted, true);
            Volatile.Write(ref Ready, true);
        }

        HostTask task = HostTask.Current;
        task.PreemptCount++;
        Arch.VcpuPut(this);
        Vm.Module.RunningVcpu[task.Cpu!.Id] = null;
        task.PreemptCount--;
    }

    public override string ToString() => $"vcpu{VcpuId}";
}
