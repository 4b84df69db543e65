using System.Collections.Concurrent;
using Kvm.Abi;

namespace Kvm.Core.Tests;

/// <summary>An architecture that does nothing but keep books: what was called, on which CPU, and what it was told to fail.</summary>
internal sealed class FakeArch(Host host) : IKvmArch
{
    public ConcurrentQueue<string> Calls { get; } = new();
    public ConcurrentDictionary<int, bool> Enabled { get; } = new();

    /// <summary>CPUs whose hardware_enable fails.</summary>
    public HashSet<int> BrokenCpus { get; } = [];

    /// <summary>CPUs that fail the compatibility check.</summary>
    public HashSet<int> OddCpus { get; } = [];

    public Func<FakeVcpu, KvmResult> Run { get; set; } = _ => 0;
    public Func<FakeVcpu, bool> Runnable { get; set; } = _ => false;
    public List<string> Shadow { get; } = [];
    public bool UnmapWantsFlush { get; set; }
    public Action<KvmMemorySlot>? OnFlushShadowMemslot { get; set; }
    public bool NoPollFlag { get; set; }
    public int PmlEntries { get; set; }

    public int Count(string call) => Calls.Count(c => c == call);

    private KvmResult Log(string call, Errno error = Errno.ENOMEM)
    {
        Calls.Enqueue(call);
        return host.Faults.ShouldFail("arch", call) ? error : 0;
    }

    public KvmResult Init(object? opaque) => Log("init", Errno.EEXIST);
    public void Exit() => Log("exit");
    public KvmResult HardwareSetup(object? opaque) => Log("hardware_setup", Errno.EIO);
    public void HardwareUnsetup() => Log("hardware_unsetup");

    public KvmResult CheckProcessorCompat(object? opaque)
    {
        int cpu = host.CurrentCpu.Id;
        Log($"compat {cpu}");
        return OddCpus.Contains(cpu) ? Errno.EIO : 0;
    }

    public KvmResult HardwareEnable()
    {
        int cpu = host.CurrentCpu.Id;
        HostTask.Current.IrqDepth.Should().BePositive("hardware is enabled with interrupts off");
        Log($"enable {cpu}");
        if (BrokenCpus.Contains(cpu)) return Errno.EFAULT;
        Enabled.TryAdd(cpu, true).Should().BeTrue("a CPU is enabled once");
        return 0;
    }

    public void HardwareDisable()
    {
        int cpu = host.CurrentCpu.Id;
        Log($"disable {cpu}");
        Enabled.TryRemove(cpu, out _).Should().BeTrue("only an enabled CPU is disabled");
    }

    public IoctlTable<KvmDevice> DevIoctls { get; } = [];
    public IoctlTable<KvmVm> VmIoctls { get; } = [];
    public IoctlTable<KvmVcpu> VcpuIoctls { get; } = [];

    public KvmResult VcpuIoctl(KvmVcpu vcpu, uint request, ulong arg)
    {
        vcpu.Load();
        KvmResult r = VcpuIoctls.Dispatch(vcpu, request, arg, Errno.EINVAL);
        vcpu.Put();
        return r;
    }

    public KvmResult CheckExtension(KvmVm? vm, ulong extension) => extension == 0x1234 ? vm is null ? 1 : 2 : 0;

    public KvmVm? AllocVm(KvmModule module) => Log("alloc_vm").IsError ? null : new FakeVm(module);
    public void FreeVm(KvmVm vm) => Log("free_vm");

    public KvmResult InitVm(KvmVm vm, ulong type)
    {
        if (type != 0) return Errno.EINVAL;
        KvmResult r = Log("init_vm");
        if (r.IsError) return r;
        ((FakeVm)vm).ArchPage = host.Pages.AllocPage("arch_vm");
        return ((FakeVm)vm).ArchPage == 0 ? Errno.ENOMEM : 0;
    }

    public KvmResult PostInitVm(KvmVm vm) => Log("post_init_vm", Errno.EAGAIN);
    public void PreDestroyVm(KvmVm vm) => Log("pre_destroy_vm");
    public void SyncEvents(KvmVm vm) => Log("sync_events");

    public void DestroyVm(KvmVm vm)
    {
        Log("destroy_vm");
        vm.DestroyVcpus();
        host.Pages.FreePage(((FakeVm)vm).ArchPage);
        ((FakeVm)vm).ArchPage = 0;
    }

    public KvmResult CreateVmDebugfs(KvmVm vm, string directory) => Log("create_vm_debugfs");

    public void FreeMemslot(KvmVm vm, KvmMemorySlot slot)
    {
        Log($"free_memslot {slot.Id}");
        if (slot.Arch is ulong page) host.Pages.FreePage(page);
        slot.Arch = null;
    }

    public void MemslotsUpdated(KvmVm vm, ulong generation) => Log($"memslots_updated {generation}");

    public KvmResult PrepareMemoryRegion(KvmVm vm, KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change)
    {
        KvmResult r = Log($"prepare {change}", Errno.ENOMEM);
        if (r.IsError) return r;
        if (change == KvmMrChange.Create) @new!.Arch = host.Pages.AllocPage("arch_memslot");
        else if (@new is not null) @new.Arch = old!.Arch;
        return 0;
    }

    public void CommitMemoryRegion(KvmVm vm, KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change) => Log($"commit {change}");
    public void FlushShadowAll(KvmVm vm) => Log("flush_shadow_all");

    public void FlushShadowMemslot(KvmVm vm, KvmMemorySlot slot)
    {
        Log($"flush_shadow_memslot {slot.Id}");
        OnFlushShadowMemslot?.Invoke(slot);
    }

    public void MmuEnableLogDirtyPtMasked(KvmVm vm, KvmMemorySlot slot, ulong gfnOffset, ulong mask)
    {
        vm.MmuLock.WriteLocked.Should().BeTrue();
        Log($"protect {gfnOffset:x} {mask:x}");
    }

    public void FlushRemoteTlbsMemslot(KvmVm vm, KvmMemorySlot slot) => Log("flush_memslot");

    public bool UnmapGfnRange(KvmVm vm, in KvmGfnRange range)
    {
        Log($"unmap {range.Slot.Id} {range.Start:x}-{range.End:x}");
        return UnmapWantsFlush;
    }

    public KvmResult VcpuPrecreate(KvmVm vm, uint id) => Log("vcpu_precreate", Errno.EINVAL);
    public KvmVcpu AllocVcpu(KvmVm vm) => new FakeVcpu(vm);

    public KvmResult VcpuCreate(KvmVcpu vcpu)
    {
        KvmResult r = Log("vcpu_create");
        if (r.IsError) return r;
        ((FakeVcpu)vcpu).PioPage = host.Pages.AllocPage("pio_data");
        if (((FakeVcpu)vcpu).PioPage == 0) return Errno.ENOMEM;
        vcpu.Load();
        vcpu.Put();
        return 0;
    }

    public void VcpuPostcreate(KvmVcpu vcpu) => Log("vcpu_postcreate");

    public void VcpuDestroy(KvmVcpu vcpu)
    {
        Log($"vcpu_destroy {vcpu.VcpuId}");
        host.Pages.FreePage(((FakeVcpu)vcpu).PioPage);
        ((FakeVcpu)vcpu).PioPage = 0;
    }

    public void VcpuLoad(KvmVcpu vcpu, HostCpu cpu)
    {
        vcpu.Cpu = cpu.Id;
        ((FakeVcpu)vcpu).Loads.Enqueue(cpu.Id);
    }

    public void VcpuPut(KvmVcpu vcpu) => ((FakeVcpu)vcpu).Puts++;
    public KvmResult VcpuIoctlRun(KvmVcpu vcpu) => Run((FakeVcpu)vcpu);

    public KvmResult VcpuIoctlGetRegs(KvmVcpu vcpu, ref kvm_regs regs)
    {
        regs = ((FakeVcpu)vcpu).Regs;
        return 0;
    }

    public KvmResult VcpuIoctlSetRegs(KvmVcpu vcpu, in kvm_regs regs)
    {
        ((FakeVcpu)vcpu).Regs = regs;
        return 0;
    }

    public KvmResult VcpuIoctlGetSregs(KvmVcpu vcpu, ref kvm_sregs sregs)
    {
        sregs.efer = 0x500;
        return 0;
    }

    public KvmResult VcpuIoctlSetSregs(KvmVcpu vcpu, in kvm_sregs sregs) => sregs.efer == 1 ? Errno.EINVAL : 0;

    public KvmResult VcpuIoctlGetFpu(KvmVcpu vcpu, ref kvm_fpu fpu)
    {
        fpu.fcw = 0x37f;
        return 0;
    }

    public KvmResult VcpuIoctlSetFpu(KvmVcpu vcpu, in kvm_fpu fpu) => 0;

    public KvmResult VcpuIoctlTranslate(KvmVcpu vcpu, ref kvm_translation translation)
    {
        translation.physical_address = translation.linear_address + 1;
        return 0;
    }

    public KvmResult VcpuIoctlGetMpState(KvmVcpu vcpu, ref kvm_mp_state state) => 0;
    public KvmResult VcpuIoctlSetMpState(KvmVcpu vcpu, in kvm_mp_state state) => state.mp_state == 9 ? Errno.EINVAL : 0;
    public KvmResult VcpuIoctlSetGuestDebug(KvmVcpu vcpu, in kvm_guest_debug debug) => debug.control == 0xff ? Errno.EBUSY : 0;
    public bool VcpuRunnable(KvmVcpu vcpu) => Runnable((FakeVcpu)vcpu);
    public ulong PioDataPage(KvmVcpu vcpu) => ((FakeVcpu)vcpu).PioPage;
    public bool NoPoll(KvmVcpu vcpu) => NoPollFlag;
    public int CpuDirtyLogSize => PmlEntries;
}

internal sealed class FakeVm(KvmModule module) : KvmVm(module)
{
    public ulong ArchPage;
}

internal sealed class FakeVcpu(KvmVm vm) : KvmVcpu(vm)
{
    public ulong PioPage;
    public kvm_regs Regs;
    public int Puts;
    public ConcurrentQueue<int> Loads { get; } = new();
}

internal sealed class FakeVendor : HostModule
{
    public override string Name => "kvm_fake";
    public override IReadOnlyList<string> DependsOn => ["kvm"];
    public int Speed { get; private set; } = 7;
    public bool Flag { get; private set; } = true;

    public FakeVendor()
    {
        Parameters.Define("speed", () => Speed, v => Speed = v);
        Parameters.Define("flag", () => Flag, v => Flag = v, ModuleParameters.Writable);
    }

    protected internal override KvmResult Init() => ((KvmModule)Host.Modules.Find("kvm")!).KvmInit(null, this);
    protected internal override void Exit() => ((KvmModule)Host.Modules.Find("kvm")!).KvmExit();
}

/// <summary>Interrupt lines of a CPU without a processor behind it.</summary>
internal sealed class FakeHardware : ICpuHardware
{
    private readonly ConcurrentQueue<byte> _pending = new();
    public int Raised;
    public List<string> Events { get; } = [];

    public void RaiseInterrupt(byte vector)
    {
        Interlocked.Increment(ref Raised);
        _pending.Enqueue(vector);
    }

    public bool InterruptPending => !_pending.IsEmpty;
    public int AcknowledgeInterrupt() => _pending.TryDequeue(out byte v) ? v : -1;
    public void OnStarting() => Events.Add("starting");
    public void OnDead() => Events.Add("dead");
}
