using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <summary>struct kvm: a virtual machine. The architecture derives from it (kvm_arch), vendors from that.</summary>
public abstract unsafe partial class KvmVm : IMmuNotifier
{
    private int _usersCount;
    private readonly KvmVcpu?[] _vcpuArray = new KvmVcpu?[KvmLimits.KVM_MAX_VCPUS];
    private int _onlineVcpus;

    protected KvmVm(KvmModule module)
    {
        Module = module;
        Host = module.Host;
        Arch = module.Arch;
        MaxVcpus = module.MaxVcpus;
        _memslotSets = new KvmMemslots[KvmLimits.KVM_ADDRESS_SPACE_NUM, 2];
        _memslots = new KvmMemslots[KvmLimits.KVM_ADDRESS_SPACE_NUM];
        CoalescedMmio = new KvmCoalescedMmio(this);
    }

    /// <summary>The kvm module that made it.</summary>
    public KvmModule Module { get; }

    public Host Host { get; }

    protected internal IKvmArch Arch { get; }

    /// <summary>Guards the MMU's tables.</summary>
    public KernelRwLock MmuLock { get; } = new();

    /// <summary>Taken to change the slots. Order: Lock → SlotsLock → IrqLock.</summary>
    public KernelMutex SlotsLock { get; } = new();

    /// <summary>Guards the architecture's part of slots.</summary>
    public KernelMutex SlotsArchLock { get; } = new();

    /// <summary>kvm->lock.</summary>
    public KernelMutex Lock { get; } = new();

    /// <summary>kvm->irq_lock.</summary>
    public KernelMutex IrqLock { get; } = new();

    /// <summary>Read sections of slots and buses.</summary>
    public Srcu Srcu { get; internal set; } = null!;

    /// <summary>Read sections of interrupt routing.</summary>
    public Srcu IrqSrcu { get; internal set; } = null!;

    /// <summary>The address space the VM belongs to.</summary>
    public Mm Mm { get; internal set; } = null!;

    /// <summary>userspace_pid: who created it.</summary>
    public int UserspacePid { get; internal set; }

    /// <summary>Vcpus that can be created at most.</summary>
    public int MaxVcpus;

    /// <summary>KVM_CREATE_VCPU calls in progress or done; guarded by <see cref="Lock"/>.</summary>
    public int CreatedVcpus { get; internal set; }

    /// <summary>vCPUs that readers can see.</summary>
    public int OnlineVcpus => Volatile.Read(ref _onlineVcpus);

    public int LastBoostedVcpu;

    /// <summary>refcount users_count: the VM file, each vCPU file, and whoever else holds it.</summary>
    public int UsersCount => Volatile.Read(ref _usersCount);

    /// <summary>Pages in all slots.</summary>
    public ulong NrMemslotPages { get; internal set; }

    public ulong ManualDirtyLogProtect { get; internal set; }

    /// <summary>Bytes of each vCPU's dirty ring; 0 = bitmaps are used.</summary>
    public uint DirtyRingSize { get; internal set; }

    public bool OverrideHaltPollNs { get; internal set; }
    public uint MaxHaltPollNs { get; internal set; }

    /// <summary>KVM_BUG_ON hit.</summary>
    public bool VmBugged { get; private set; }

    /// <summary>Every ioctl answers -EIO.</summary>
    public bool VmDead { get; private set; }

    /// <summary>Counters.</summary>
    public KvmVmStat Stat;

    /// <summary>"kvm-PID".</summary>
    public string StatsId { get; internal set; } = "";

    /// <summary>Coalesced MMIO zones and their ring.</summary>
    public KvmCoalescedMmio CoalescedMmio { get; }

    /// <summary>kvm->devices; guarded by <see cref="Lock"/>.</summary>
    public List<KvmVmDevice> Devices { get; } = [];

    internal IDisposable? PmNotifier { get; set; }

    /// <summary>vm_list.</summary>
    internal LinkedListNode<KvmVm>? VmListNode { get; set; }

    /// <summary>The VM's directory in debugfs, or null.</summary>
    public string? DebugfsDirectory { get; internal set; }

    /// <summary>kvm_get_kvm.</summary>
    public void Get() => Interlocked.Increment(ref _usersCount);

    /// <summary>kvm_get_kvm_safe: false when the last reference is gone already.</summary>
    public bool GetSafe()
    {
        int n = Volatile.Read(ref _usersCount);
        while (n > 0)
        {
            int seen = Interlocked.CompareExchange(ref _usersCount, n + 1, n);
            if (seen == n) return true;
            n = seen;
        }

        return false;
    }

    /// <summary>kvm_put_kvm: the last reference destroys the VM.</summary>
    [KernelFunction("kvm_put_kvm", File = "virt/kvm/kvm_main.c")]
    public void Put()
    {
        using var _ = FunctionTrace.Enter("kvm_put_kvm");
        if (Interlocked.Decrement(ref _usersCount) == 0) Module.DestroyVm(this);
    }

    /// <summary>kvm_put_kvm_no_destroy: gives back a reference that can't be the last.</summary>
    public void PutNoDestroy()
    {
        if (Interlocked.Decrement(ref _usersCount) == 0) throw new InvalidOperationException("BUG: kvm_put_kvm_no_destroy dropped the last reference.");
    }

    internal void SetUsersCount(int value) => Volatile.Write(ref _usersCount, value);

    /// <summary>kvm_vm_dead.</summary>
    public void Dead()
    {
        VmDead = true;
        MakeAllCpusRequest(KvmRequest.KVM_REQ_VM_DEAD);
    }

    /// <summary>KVM_BUG_ON: warns once and kills the VM when the condition holds. Returns it.</summary>
    public bool BugOn(bool condition, string text = "KVM_BUG_ON")
    {
        if (!condition) return false;
        Host.Log.WarnOnce(!VmBugged, text, text);
        if (!VmBugged)
        {
            VmBugged = true;
            Dead();
        }

        return true;
    }

    /// <summary>kvm_get_vcpu: by index, or null.</summary>
    public KvmVcpu? GetVcpu(int index)
    {
        int online = Volatile.Read(ref _onlineVcpus); // pairs with the release in publication: the count before the pointer
        return (uint)index < (uint)online ? Volatile.Read(ref _vcpuArray[index]) : null;
    }

    /// <summary>kvm_get_vcpu_by_id, or null.</summary>
    public KvmVcpu? GetVcpuById(int id)
    {
        if (id < 0) return null;
        if (id < KvmLimits.KVM_MAX_VCPUS && GetVcpu(id) is { } guess && guess.VcpuId == id) return guess;
        int n = OnlineVcpus;
        for (int i = 0; i < n; i++)
            if (_vcpuArray[i] is { } vcpu && vcpu.VcpuId == id) return vcpu;
        return null;
    }

    /// <summary>kvm_for_each_vcpu: those that are online now, by index.</summary>
    public ReadOnlySpan<KvmVcpu> Vcpus => new(_vcpuArray!, 0, OnlineVcpus);

    internal void PublishVcpu(KvmVcpu vcpu)
    {
        // The pointer before the count: whoever sees the count sees the pointer.
        Volatile.Write(ref _vcpuArray[vcpu.VcpuIdx], vcpu);
        Interlocked.Increment(ref _onlineVcpus);
    }

    /// <summary>kvm_destroy_vcpus.</summary>
    [KernelFunction("kvm_destroy_vcpus", File = "virt/kvm/kvm_main.c")]
    public void DestroyVcpus()
    {
        using var _ = FunctionTrace.Enter("kvm_destroy_vcpus");
        int n = OnlineVcpus;
        for (int i = 0; i < n; i++)
        {
            Module.DestroyVcpu(_vcpuArray[i]!);
            _vcpuArray[i] = null;
        }

        Volatile.Write(ref _onlineVcpus, 0);
    }
}
