using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Sessions;

/// <summary>
/// The program that was run against the real kernel: two vCPUs, no interrupt controllers, 64 KiB of memory and a 16-bit guest that does port I/O, MMIO, CPUID, RDMSR,
/// string I/O, a store to a fresh page and HLT. Steps have the names of the recordings, in their order.
/// </summary>
/// <remarks>The guest's bytes are not recorded: they follow from its exits, which with unrestricted_guest=0 are nearly all of its instructions.</remarks>
internal sealed unsafe class Real16Session
{
    /// <summary>The instructions at 0x1000. Exits: 1006 1007 100e 1010 1019 101d 102d 1050 105c 1067 1069 1074 1076.</summary>
    public static ReadOnlySpan<byte> Code =>
    [
        0xb8, 0x34, 0x12, // 1000 mov ax,0x1234
        0xba, 0xf8, 0x03, // 1003 mov dx,0x3f8
        0xee, // 1006 out dx,al
        0xef, // 1007 out dx,ax
        0x66, 0xb8, 0xef, 0xcd, 0xab, 0x89, // 1008 mov eax,0x89abcdef
        0x66, 0xef, // 100e out dx,eax
        0xe4, 0x60, // 1010 in al,0x60
        0xb8, 0x00, 0xd0, // 1012 mov ax,0xd000
        0x8e, 0xd8, // 1015 mov ds,ax
        0xb3, 0x5a, // 1017 mov bl,0x5a
        0x88, 0x1e, 0x10, 0x00, // 1019 mov [0x10],bl
        0x8b, 0x0e, 0x20, 0x00, // 101d mov cx,[0x20]
        0x31, 0xc0, // 1021 xor ax,ax
        0x8e, 0xd8, // 1023 mov ds,ax
        0x66, 0xb8, 0x00, 0x00, 0x00, 0x00, // 1025 mov eax,0
        0x31, 0xc9, // 102b xor cx,cx
        0x0f, 0xa2, // 102d cpuid
        0x66, 0xb9, 0x10, 0x00, 0x00, 0x00, // 102f mov ecx,0x10
        0x0f, 0x32, // 1035 rdmsr
        0x66, 0xb9, 0x74, 0x01, 0x00, 0x00, // 1037 mov ecx,0x174
        0x66, 0xb8, 0x10, 0x00, 0x00, 0x00, // 103d mov eax,0x10
        0x66, 0x31, 0xd2, // 1043 xor edx,edx
        0x0f, 0x30, // 1046 wrmsr
        0x0f, 0x32, // 1048 rdmsr
        0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, // 104a mov ecx,0x1b
        0x0f, 0x32, // 1050 rdmsr
        0xba, 0x80, 0x00, // 1052 mov dx,0x80
        0xbe, 0x00, 0x20, // 1055 mov si,0x2000
        0xb9, 0x04, 0x00, // 1058 mov cx,4
        0xfc, // 105b cld
        0xf3, 0x6e, // 105c rep outsb
        0xba, 0x82, 0x00, // 105e mov dx,0x82
        0xbf, 0x00, 0x21, // 1061 mov di,0x2100
        0xb9, 0x02, 0x00, // 1064 mov cx,2
        0xf3, 0x6d, // 1067 rep insw
        0xc7, 0x06, 0x00, 0x30, 0xef, 0xbe, // 1069 mov word [0x3000],0xbeef
        0xa1, 0x00, 0x30, // 106f mov ax,[0x3000]
        0xb0, 0xcc, // 1072 mov al,0xcc
        0xe6, 0xf4, // 1074 out 0xf4,al
        0xf4, // 1076 hlt
    ];

    private const ulong memorySize = 0x10000;
    private readonly Host host;
    private readonly HostProcess process;
    private readonly ulong cpuid;
    private readonly List<(string Name, Func<KvmResult> Call)> steps = [];
    private int kvm = -1, vm = -1, vcpu0 = -1, vcpu1 = -1;
    private ulong memory, mmapSize;
    private kvm_run* run;

    public Real16Session(Host host)
    {
        this.host = host;
        process = host.Process;
        cpuid = process.MapAnonymous(0x4000);
        Open();
        CreateVm();
        CreateVcpus();
        SetUpVcpu();
        RunGuest();
        Close();
    }

    /// <summary>Names of the steps, "NN-name" as the files of the recording.</summary>
    public IReadOnlyList<string> Steps => [.. steps.Select(static (s, i) => $"{i:00}-{s.Name}")];

    /// <summary>What userspace saw at the exits of the guest.</summary>
    public List<string> Exits { get; } = [];

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
        Step("KVM_SET_USER_MEMORY_REGION", () =>
        {
            memory = process.MapAnonymous(memorySize);
            Code.CopyTo(new Span<byte>((byte*)memory + 0x1000, 0x1000));
            "ABCD"u8.CopyTo(new Span<byte>((byte*)memory + 0x2000, 4));
            return SetMemory(0, memorySize);
        });
    }

    private KvmResult SetMemory(uint flags, ulong size)
    {
        var region = new kvm_userspace_memory_region { slot = 0, flags = flags, guest_phys_addr = 0, memory_size = size, userspace_addr = memory };
        return process.Ioctl(vm, KVM_SET_USER_MEMORY_REGION, ref region);
    }

    private void CreateVcpus()
    {
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
        Step("KVM_SET_SREGS+SET_REGS-real16", SetRealMode);
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
        Step("KVM_INTERRUPT-0x20", () =>
        {
            var interrupt = new kvm_interrupt { irq = 0x20 };
            return process.Ioctl(vcpu0, KVM_INTERRUPT, ref interrupt);
        });
    }

    private KvmResult SetRealMode()
    {
        kvm_sregs sregs = default;
        process.Ioctl(vcpu0, KVM_GET_SREGS, ref sregs);
        sregs.cs.@base = 0;
        sregs.cs.selector = 0;
        KvmResult r = process.Ioctl(vcpu0, KVM_SET_SREGS, ref sregs);
        if (r.IsError)
            return r;
        var regs = new kvm_regs { rip = 0x1000, rsp = 0x8000, rflags = 2 };
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

    private void RunGuest()
    {
        Step("KVM_RUN-immediate_exit", () =>
        {
            ForgetInterrupt();
            run->immediate_exit = 1;
            KvmResult r = process.Ioctl(vcpu0, KVM_RUN);
            run->immediate_exit = 0;
            return r;
        });
        foreach (string exit in (string[])
            [
                "IO-out-port3f8-size1-count1", "IO-out-port3f8-size2-count1", "IO-out-port3f8-size4-count1", "IO-in-port60-size1-count1", "MMIO-write-d0010-len1",
                "MMIO-read-d0020-len2", "IO-out-port80-size1-count1", "IO-out-port80-size1-count1", "IO-out-port80-size1-count1", "IO-out-port80-size1-count1",
                "IO-in-port82-size2-count2", "IO-out-portf4-size1-count1", "HLT",
            ])
        {
            Step("KVM_RUN-" + exit, () =>
            {
                KvmResult r = process.Ioctl(vcpu0, KVM_RUN);
                Exits.Add(Describe());
                return r;
            });
        }
    }

    /// <summary>The recorded program took the queued interrupt back before the guest ran, between two steps.</summary>
    private void ForgetInterrupt()
    {
        kvm_vcpu_events events = default;
        process.Ioctl(vcpu0, KVM_SET_VCPU_EVENTS, ref events);
        BetweenSteps?.Invoke();
    }

    /// <summary>Called after something that belongs to no step.</summary>
    public Action? BetweenSteps { get; set; }

    private string Describe() => (int)run->exit_reason switch
    {
        KVM_EXIT_IO => $"IO-{(run->io.direction == KVM_EXIT_IO_OUT ? "out" : "in")}-port{run->io.port:x}-size{run->io.size}-count{run->io.count}",
        KVM_EXIT_MMIO => $"MMIO-{(run->mmio.is_write != 0 ? "write" : "read")}-{run->mmio.phys_addr:x}-len{run->mmio.len}",
        KVM_EXIT_HLT => "HLT",
        int reason => $"exit {reason}",
    };

    private void Close()
    {
        Step("KVM_SET_USER_MEMORY_REGION-dirtylog-on", () => SetMemory((uint)KVM_MEM_LOG_DIRTY_PAGES, memorySize));
        Step("KVM_GET_DIRTY_LOG", () =>
        {
            ulong bitmap = 0;
            var log = new kvm_dirty_log { dirty_bitmap = (ulong)&bitmap };
            return process.Ioctl(vm, KVM_GET_DIRTY_LOG, ref log);
        });
        Step("KVM_SET_USER_MEMORY_REGION-delete", () => SetMemory(0, 0));
        Step("munmap-vcpu", () => process.Munmap((ulong)run, mmapSize));
        Step("close-vcpu1", () => process.Close(vcpu1));
        Step("close-vcpu0", () => process.Close(vcpu0));
        Step("close-vm", () => process.Close(vm));
        Step("close-dev-kvm", () => process.Close(kvm));
    }
}
