using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Sessions;

/// <summary>
/// The program that was run against the real kernel: two vCPUs, no interrupt controllers, 64 KiB of memory and a 16-bit guest that does port I/O, MMIO, CPUID, RDMSR,
/// string I/O, a store to a fresh page and HLT. Steps have the names of the recordings, in their order.
/// </summary>
/// <remarks>The guest's bytes are not recorded: they follow from its exits, which with unrestricted_guest=0 are nearly all of its instructions.</remarks>
internal sealed unsafe class Real16Session : RecordedProgram
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
    private ulong memory;

    public Real16Session(Host host)
        : base(host)
    {
        CreateVm();
        Step("KVM_SET_USER_MEMORY_REGION", () =>
        {
            memory = Process.MapAnonymous(memorySize);
            Code.CopyTo(new Span<byte>((byte*)memory + 0x1000, 0x1000));
            "ABCD"u8.CopyTo(new Span<byte>((byte*)memory + 0x2000, 4));
            return SetMemory(0, memorySize, memory);
        });
        CreateVcpus();
        SetUpVcpu("real16", SetRealMode);
        Step("KVM_INTERRUPT-0x20", () =>
        {
            var interrupt = new kvm_interrupt { irq = 0x20 };
            return Process.Ioctl(Vcpu0, KVM_INTERRUPT, ref interrupt);
        });
        RunGuest();
        Step("KVM_SET_USER_MEMORY_REGION-dirtylog-on", () => SetMemory((uint)KVM_MEM_LOG_DIRTY_PAGES, memorySize, memory));
        GetDirtyLog(memorySize >> 12);
        Step("KVM_SET_USER_MEMORY_REGION-delete", () => SetMemory(0, 0, memory));
        Close();
    }

    /// <summary>Names of the steps, "NN-name" as the files of the recording.</summary>
    public IReadOnlyList<string> Steps => [.. Names.Select(static (name, i) => $"{i:00}-{name}")];

    /// <summary>What userspace saw at the exits of the guest.</summary>
    public List<string> Exits { get; } = [];

    private KvmResult SetRealMode()
    {
        kvm_sregs sregs = default;
        Process.Ioctl(Vcpu0, KVM_GET_SREGS, ref sregs);
        sregs.cs.@base = 0;
        sregs.cs.selector = 0;
        KvmResult r = Process.Ioctl(Vcpu0, KVM_SET_SREGS, ref sregs);
        if (r.IsError)
            return r;
        var regs = new kvm_regs { rip = 0x1000, rsp = 0x8000, rflags = 2 };
        return Process.Ioctl(Vcpu0, KVM_SET_REGS, ref regs);
    }

    private void RunGuest()
    {
        RunAtOnce(ForgetInterrupt);
        foreach (string exit in (string[])
            [
                "IO-out-port3f8-size1-count1", "IO-out-port3f8-size2-count1", "IO-out-port3f8-size4-count1", "IO-in-port60-size1-count1", "MMIO-write-d0010-len1",
                "MMIO-read-d0020-len2", "IO-out-port80-size1-count1", "IO-out-port80-size1-count1", "IO-out-port80-size1-count1", "IO-out-port80-size1-count1",
                "IO-in-port82-size2-count2", "IO-out-portf4-size1-count1", "HLT",
            ])
        {
            Step("KVM_RUN-" + exit, () =>
            {
                KvmResult r = Process.Ioctl(Vcpu0, KVM_RUN);
                Exits.Add(Describe());
                return r;
            });
        }
    }

    /// <summary>The recorded program took the queued interrupt back before the guest ran, between two steps.</summary>
    private void ForgetInterrupt()
    {
        kvm_vcpu_events events = default;
        Process.Ioctl(Vcpu0, KVM_SET_VCPU_EVENTS, ref events);
        BetweenSteps?.Invoke();
    }

    /// <summary>Called after something that belongs to no step.</summary>
    public Action? BetweenSteps { get; set; }

    private string Describe() => (int)RunPage->exit_reason switch
    {
        KVM_EXIT_IO => $"IO-{(RunPage->io.direction == KVM_EXIT_IO_OUT ? "out" : "in")}-port{RunPage->io.port:x}-size{RunPage->io.size}-count{RunPage->io.count}",
        KVM_EXIT_MMIO => $"MMIO-{(RunPage->mmio.is_write != 0 ? "write" : "read")}-{RunPage->mmio.phys_addr:x}-len{RunPage->mmio.len}",
        KVM_EXIT_HLT => "HLT",
        int reason => $"exit {reason}",
    };
}
