using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Sessions;

/// <summary>What the programs that were run against the real kernel have in common: the same calls with the same arguments, by the names of the recordings.</summary>
internal abstract unsafe class RecordedProgram
{
    private readonly List<(string Name, Func<KvmResult> Call)> steps = [];
    private ulong mmapSize;

    protected RecordedProgram(Host host)
    {
        Process = host.Process;
        Cpuid = Process.MapAnonymous(0x4000);
    }

    /// <summary>Names of the steps, without the numbers of the recording's files.</summary>
    protected IEnumerable<string> Names => steps.Select(static s => s.Name);

    protected int StepCount => steps.Count;

    protected HostProcess Process { get; }

    protected ulong Cpuid { get; }

    protected int Kvm { get; private set; } = -1;

    protected int Vm { get; private set; } = -1;

    protected int Vcpu0 { get; private set; } = -1;

    protected int Vcpu1 { get; private set; } = -1;

    protected kvm_run* RunPage { get; private set; }

    /// <summary>The CPU that this thread is bound to from now on.</summary>
    public void RunOn(int cpu) => Process.Task.SetAffinity(cpu);

    public KvmResult Run(int step) => steps[step].Call();

    protected void Step(string name, Func<KvmResult> call) => steps.Add((name, call));

    /// <summary>To the VM with its addresses for real mode.</summary>
    protected void CreateVm()
    {
        Step("open-dev-kvm", () => Kvm = Process.Open("/dev/kvm").Value);
        Step("KVM_GET_API_VERSION", () => Process.Ioctl(Kvm, KVM_GET_API_VERSION));
        Step("KVM_CHECK_EXTENSION-NR_VCPUS", () => Process.Ioctl(Kvm, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS));
        Step("KVM_GET_VCPU_MMAP_SIZE", () =>
        {
            KvmResult r = Process.Ioctl(Kvm, KVM_GET_VCPU_MMAP_SIZE);
            mmapSize = (ulong)r.Raw;
            return r;
        });
        Step("KVM_GET_SUPPORTED_CPUID", () =>
        {
            ((kvm_cpuid2*)Cpuid)->nent = 256;
            return Process.Ioctl(Kvm, KVM_GET_SUPPORTED_CPUID, Cpuid);
        });
        Step("KVM_CREATE_VM", () => Vm = Process.Ioctl(Kvm, KVM_CREATE_VM).Value);
        Step("KVM_SET_TSS_ADDR", () => Process.Ioctl(Vm, KVM_SET_TSS_ADDR, 0xfffbd000));
        Step("KVM_SET_IDENTITY_MAP_ADDR", () =>
        {
            ulong address = 0xfffbc000;
            return Process.Ioctl(Vm, KVM_SET_IDENTITY_MAP_ADDR, ref address);
        });
    }

    /// <summary>Slot 0, at address 0.</summary>
    protected KvmResult SetMemory(uint flags, ulong size, ulong at)
    {
        var region = new kvm_userspace_memory_region { slot = 0, flags = flags, guest_phys_addr = 0, memory_size = size, userspace_addr = at };
        return Process.Ioctl(Vm, KVM_SET_USER_MEMORY_REGION, ref region);
    }

    protected void CreateVcpus()
    {
        Step("KVM_CREATE_VCPU-0", () => Vcpu0 = Process.Ioctl(Vm, KVM_CREATE_VCPU, 0).Value);
        Step("mmap-vcpu", () =>
        {
            KvmResult r = Process.Mmap(mmapSize, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, Vcpu0);
            RunPage = (kvm_run*)r.Raw;
            return r;
        });
        Step("touch-kvm_run-page", () => (KvmResult)(int)RunPage->exit_reason);
        Step("KVM_CREATE_VCPU-1", () => Vcpu1 = Process.Ioctl(Vm, KVM_CREATE_VCPU, 1).Value);
    }

    /// <summary>The first vCPU's CPUID and state. <paramref name="mode"/> is how the recording calls what <paramref name="setMode"/> does.</summary>
    protected void SetUpVcpu(string mode, Func<KvmResult> setMode)
    {
        kvm_sregs sregs = default;
        kvm_regs regs = default;
        Step("KVM_SET_CPUID2", () => Process.Ioctl(Vcpu0, KVM_SET_CPUID2, Cpuid));
        Step("KVM_GET_SREGS", () => Process.Ioctl(Vcpu0, KVM_GET_SREGS, ref sregs));
        Step("KVM_GET_REGS", () => Process.Ioctl(Vcpu0, KVM_GET_REGS, ref regs));
        Step("KVM_GET_MP_STATE", Get<kvm_mp_state>(KVM_GET_MP_STATE));
        Step("KVM_SET_SREGS+SET_REGS-" + mode, setMode);
        Step("KVM_GET_MSRS-TSC", () => Msr(KVM_GET_MSRS, 0x10));
        Step("KVM_SET_MSRS-SYSENTER_CS", () => Msr(KVM_SET_MSRS, 0x174));
        Step("KVM_GET_MSRS-APICBASE", () => Msr(KVM_GET_MSRS, 0x1b));
        Step("KVM_GET_FPU", Get<kvm_fpu>(KVM_GET_FPU));
        Step("KVM_GET_VCPU_EVENTS", Get<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS));
        Step("KVM_GET_LAPIC", Get<kvm_lapic_state>(KVM_GET_LAPIC));
    }

    protected void RunAtOnce(Action before) => Step("KVM_RUN-immediate_exit", () =>
    {
        before();
        RunPage->immediate_exit = 1;
        KvmResult r = Process.Ioctl(Vcpu0, KVM_RUN);
        RunPage->immediate_exit = 0;
        return r;
    });

    /// <summary>The dirty log of <paramref name="frames"/> frames is read.</summary>
    protected void GetDirtyLog(ulong frames) => Step("KVM_GET_DIRTY_LOG", () =>
    {
        ulong* bitmap = stackalloc ulong[(int)(frames + 63) / 64];
        var log = new kvm_dirty_log { dirty_bitmap = (ulong)bitmap };
        return Process.Ioctl(Vm, KVM_GET_DIRTY_LOG, ref log);
    });

    protected void Close()
    {
        Step("munmap-vcpu", () => Process.Munmap((ulong)RunPage, mmapSize));
        Step("close-vcpu1", () => Process.Close(Vcpu1));
        Step("close-vcpu0", () => Process.Close(Vcpu0));
        Step("close-vm", () => Process.Close(Vm));
        Step("close-dev-kvm", () => Process.Close(Kvm));
    }

    private Func<KvmResult> Get<T>(uint request) where T : unmanaged => () =>
    {
        T state = default;
        return Process.Ioctl(Vcpu0, request, ref state);
    };

    private KvmResult Msr(uint ioctl, uint index)
    {
        byte* buffer = stackalloc byte[sizeof(kvm_msrs) + sizeof(kvm_msr_entry)];
        var msrs = (kvm_msrs*)buffer;
        *msrs = new kvm_msrs { nmsrs = 1 };
        *kvm_msrs.entries(msrs) = new kvm_msr_entry { index = index };
        return Process.Ioctl(Vcpu0, ioctl, (ulong)buffer);
    }
}
