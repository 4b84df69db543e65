using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Sessions;

/// <summary>
/// The other program that was run against the real kernel, up to its guest: two vCPUs, interrupt controllers, an interval timer and a 64-bit guest, whose code is not
/// recorded. Steps have the names of the recordings, without their numbers.
/// </summary>
internal sealed class Long64Session : RecordedProgram
{
    private const ulong memorySize = 0x200000;
    private readonly ulong memory;
    private int irqEvent = -1, ioEvent = -1;
    private readonly int guestEnd;

    public Long64Session(Host host)
        : base(host)
    {
        memory = Process.MapAnonymous(memorySize);
        CreateVm();
        Step("KVM_CREATE_IRQCHIP", () => Process.Ioctl(Vm, KVM_CREATE_IRQCHIP));
        Step("KVM_CREATE_PIT2", () =>
        {
            kvm_pit_config config = default;
            return Process.Ioctl(Vm, KVM_CREATE_PIT2, ref config);
        });
        Step("KVM_SET_USER_MEMORY_REGION", () => SetMemory(0, memorySize, memory));
        CreateVcpus();
        SetUpVcpu("long64", SetLongMode);
        Events();
        guestEnd = StepCount;
        Step("KVM_SET_USER_MEMORY_REGION-dirtylog-on", () => SetMemory((uint)KVM_MEM_LOG_DIRTY_PAGES, memorySize, memory));
        GetDirtyLog(memorySize >> 12);
        Close();
    }

    public IReadOnlyList<string> Steps => [.. Names];

    /// <summary>These steps undo what the guest did.</summary>
    public bool AfterGuest(int step) => step >= guestEnd;

    private KvmResult SetLongMode()
    {
        kvm_sregs s = default;
        Process.Ioctl(Vcpu0, KVM_GET_SREGS, ref s);
        (s.cr0, s.cr3, s.cr4, s.efer) = (0x80000033, 0x2000, 0x620, 0x500);
        s.cs = new kvm_segment { selector = 8, limit = 0xffffffff, type = 11, present = 1, s = 1, l = 1, g = 1 };
        var data = new kvm_segment { selector = 16, limit = 0xffffffff, type = 3, present = 1, db = 1, s = 1, g = 1 };
        s.ds = s.es = s.fs = s.gs = s.ss = data;
        KvmResult r = Process.Ioctl(Vcpu0, KVM_SET_SREGS, ref s);
        if (r.IsError)
            return r;
        var regs = new kvm_regs { rip = 0x10000, rsp = 0x8000, rflags = 2 };
        return Process.Ioctl(Vcpu0, KVM_SET_REGS, ref regs);
    }

    private void Events()
    {
        Step("KVM_IRQFD-assign", () =>
        {
            irqEvent = Process.Eventfd().Value;
            return Irqfd(0);
        });
        Step("KVM_IRQFD-deassign", () => Irqfd((uint)KVM_IRQFD_FLAG_DEASSIGN));
        Step("KVM_IOEVENTFD-pio", () =>
        {
            ioEvent = Process.Eventfd().Value;
            var args = new kvm_ioeventfd { addr = 0x77, len = 1, fd = ioEvent, flags = (uint)KVM_IOEVENTFD_FLAG_PIO };
            return Process.Ioctl(Vm, KVM_IOEVENTFD, ref args);
        });
        RunAtOnce(static () => { });
    }

    private KvmResult Irqfd(uint flags)
    {
        var args = new kvm_irqfd { fd = (uint)irqEvent, gsi = 4, flags = flags };
        return Process.Ioctl(Vm, KVM_IRQFD, ref args);
    }
}
