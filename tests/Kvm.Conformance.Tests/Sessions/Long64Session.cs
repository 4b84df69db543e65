using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Sessions;

/// <summary>
/// The other program that was run against the real kernel, up to its guest: two vCPUs, interrupt controllers, an interval timer and a 64-bit guest, whose code is not
/// recorded. Steps have the names of the recordings, without their numbers.
/// </summary>
internal sealed unsafe class Long64Session
{
    private const ulong memorySize = 0x200000;
    private readonly HostProcess process;
    private readonly ulong cpuid;
    private readonly List<(string Name, Func<KvmResult> Call)> steps = [];
    private int kvm = -1, vm = -1, vcpu0 = -1, vcpu1 = -1, irqEvent = -1, ioEvent = -1;
    private readonly ulong memory;
    private ulong mmapSize;
    private int guestEnd;
    private kvm_run* run;

    public Long64Session(Host host)
    {
        process = host.Process;
        cpuid = process.MapAnonymous(0x4000);
        memory = process.MapAnonymous(memorySize);
        Open();
        CreateVm();
        SetUpVcpu();
        Events();
        Close();
    }

    public IReadOnlyList<string> Steps => [.. steps.Select(static s => s.Name)];

    /// <summary>These steps undo what the guest did.</summary>
    public bool AfterGuest(int step) => step >= guestEnd;

    /// <summary>The CPU that this thread is bound to from now on.</summary>
    public void RunOn(int cpu) => process.Task.SetAffinity(cpu);

    public KvmResult Run(int step) => steps[step].Call();

    private void Step(string name, Func<KvmResult> call) => steps.Add((name, call));

    private void Open()
    {
        Step("open-dev-kvm", () => kvm = process.Open("/dev/kvm").Value);
        Step("KVM_GET_API_VERSION", () => process.Ioctl(kvm, KVM_GET_API_VERSION));
        Step("KVM_CHECK_EXTENSION-NR_VCPUS", () => process.Ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS));
        Step("KVM_GET_VCPU_MMAP_SIZE", () =>
        {
            KvmResult r = process.Ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE);
            mmapSize = (ulong)r.Raw;
            return r;
        });
        Step("KVM_GET_SUPPORTED_CPUID", () =>
        {
            ((kvm_cpuid2*)cpuid)->nent = 256;
            return process.Ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
        });
    }

    private void CreateVm()
    {
        Step("KVM_CREATE_VM", () => vm = process.Ioctl(kvm, KVM_CREATE_VM).Value);
        Step("KVM_SET_TSS_ADDR", () => process.Ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000));
        Step("KVM_SET_IDENTITY_MAP_ADDR", () =>
        {
            ulong address = 0xfffbc000;
            return process.Ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, ref address);
        });
        Step("KVM_CREATE_IRQCHIP", () => process.Ioctl(vm, KVM_CREATE_IRQCHIP));
        Step("KVM_CREATE_PIT2", () =>
        {
            kvm_pit_config config = default;
            return process.Ioctl(vm, KVM_CREATE_PIT2, ref config);
        });
        Step("KVM_SET_USER_MEMORY_REGION", () => SetMemory(0));
        Step("KVM_CREATE_VCPU-0", () => vcpu0 = process.Ioctl(vm, KVM_CREATE_VCPU, 0).Value);
        Step("mmap-vcpu", () =>
        {
            KvmResult r = process.Mmap(mmapSize, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, vcpu0);
            run = (kvm_run*)r.Raw;
            return r;
        });
        Step("touch-kvm_run-page", () => (KvmResult)(int)run->exit_reason);
        Step("KVM_CREATE_VCPU-1", () => vcpu1 = process.Ioctl(vm, KVM_CREATE_VCPU, 1).Value);
    }

    private KvmResult SetMemory(uint flags)
    {
        var region = new kvm_userspace_memory_region { slot = 0, flags = flags, guest_phys_addr = 0, memory_size = memorySize, userspace_addr = memory };
        return process.Ioctl(vm, KVM_SET_USER_MEMORY_REGION, ref region);
    }

    private void SetUpVcpu()
    {
        kvm_sregs sregs = default;
        kvm_regs regs = default;
        Step("KVM_SET_CPUID2", () => process.Ioctl(vcpu0, KVM_SET_CPUID2, cpuid));
        Step("KVM_GET_SREGS", () => process.Ioctl(vcpu0, KVM_GET_SREGS, ref sregs));
        Step("KVM_GET_REGS", () => process.Ioctl(vcpu0, KVM_GET_REGS, ref regs));
        Step("KVM_GET_MP_STATE", () =>
        {
            kvm_mp_state state = default;
            return process.Ioctl(vcpu0, KVM_GET_MP_STATE, ref state);
        });
        Step("KVM_SET_SREGS+SET_REGS-long64", SetLongMode);
        Step("KVM_GET_MSRS-TSC", () => Msr(KVM_GET_MSRS, 0x10));
        Step("KVM_SET_MSRS-SYSENTER_CS", () => Msr(KVM_SET_MSRS, 0x174));
        Step("KVM_GET_MSRS-APICBASE", () => Msr(KVM_GET_MSRS, 0x1b));
        Step("KVM_GET_FPU", () =>
        {
            kvm_fpu fpu = default;
            return process.Ioctl(vcpu0, KVM_GET_FPU, ref fpu);
        });
        Step("KVM_GET_VCPU_EVENTS", () =>
        {
            kvm_vcpu_events events = default;
            return process.Ioctl(vcpu0, KVM_GET_VCPU_EVENTS, ref events);
        });
        Step("KVM_GET_LAPIC", () =>
        {
            kvm_lapic_state state = default;
            return process.Ioctl(vcpu0, KVM_GET_LAPIC, ref state);
        });
    }

    private KvmResult SetLongMode()
    {
        kvm_sregs s = default;
        process.Ioctl(vcpu0, KVM_GET_SREGS, ref s);
        (s.cr0, s.cr3, s.cr4, s.efer) = (0x80000033, 0x2000, 0x620, 0x500);
        s.cs = new kvm_segment { selector = 8, limit = 0xffffffff, type = 11, present = 1, s = 1, l = 1, g = 1 };
        var data = new kvm_segment { selector = 16, limit = 0xffffffff, type = 3, present = 1, db = 1, s = 1, g = 1 };
        s.ds = s.es = s.fs = s.gs = s.ss = data;
        KvmResult r = process.Ioctl(vcpu0, KVM_SET_SREGS, ref s);
        if (r.IsError)
            return r;
        var regs = new kvm_regs { rip = 0x10000, rsp = 0x8000, rflags = 2 };
        return process.Ioctl(vcpu0, KVM_SET_REGS, ref regs);
    }

    private KvmResult Msr(uint ioctl, uint index)
    {
        byte* buffer = stackalloc byte[sizeof(kvm_msrs) + sizeof(kvm_msr_entry)];
        var msrs = (kvm_msrs*)buffer;
        *msrs = new kvm_msrs { nmsrs = 1 };
        *kvm_msrs.entries(msrs) = new kvm_msr_entry { index = index };
        return process.Ioctl(vcpu0, ioctl, (ulong)buffer);
    }

    private void Events()
    {
        Step("KVM_IRQFD-assign", () =>
        {
            irqEvent = process.Eventfd().Value;
            return Irqfd(0);
        });
        Step("KVM_IRQFD-deassign", () => Irqfd((uint)KVM_IRQFD_FLAG_DEASSIGN));
        Step("KVM_IOEVENTFD-pio", () =>
        {
            ioEvent = process.Eventfd().Value;
            var args = new kvm_ioeventfd { addr = 0x77, len = 1, fd = ioEvent, flags = (uint)KVM_IOEVENTFD_FLAG_PIO };
            return process.Ioctl(vm, KVM_IOEVENTFD, ref args);
        });
        Step("KVM_RUN-immediate_exit", () =>
        {
            run->immediate_exit = 1;
            KvmResult r = process.Ioctl(vcpu0, KVM_RUN);
            run->immediate_exit = 0;
            return r;
        });
    }

    private KvmResult Irqfd(uint flags)
    {
        var args = new kvm_irqfd { fd = (uint)irqEvent, gsi = 4, flags = flags };
        return process.Ioctl(vm, KVM_IRQFD, ref args);
    }

    private void Close()
    {
        guestEnd = steps.Count;
        Step("KVM_SET_USER_MEMORY_REGION-dirtylog-on", () => SetMemory((uint)KVM_MEM_LOG_DIRTY_PAGES));
        Step("KVM_GET_DIRTY_LOG", () =>
        {
            ulong* bitmap = stackalloc ulong[8];
            var log = new kvm_dirty_log { dirty_bitmap = (ulong)bitmap };
            return process.Ioctl(vm, KVM_GET_DIRTY_LOG, ref log);
        });
        Step("munmap-vcpu", () => process.Munmap((ulong)run, mmapSize));
        Step("close-vcpu1", () => process.Close(vcpu1));
        Step("close-vcpu0", () => process.Close(vcpu0));
        Step("close-vm", () => process.Close(vm));
        Step("close-dev-kvm", () => process.Close(kvm));
    }
}
