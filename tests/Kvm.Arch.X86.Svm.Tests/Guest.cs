using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>A VM with memory at 0 and one vCPU on CPU 0 of an <see cref="AmdHost"/>, driven through ioctls.</summary>
internal sealed unsafe class Guest : IDisposable
{
    private const ulong memorySize = 2 << 20;
    private readonly bool ownsHost;

    public Guest(string parameters = "", CpuModel? model = null)
        : this(AmdHost.Loaded(parameters, model)) => ownsHost = true;

    public Guest(AmdHost host)
    {
        Host = host;
        Process.Task.SetAffinity(0);
        VmFd = host.CreateVm();
        Memory = (byte*)Process.MapAnonymous(memorySize);
        var region = new kvm_userspace_memory_region { slot = 0, guest_phys_addr = 0, memory_size = memorySize, userspace_addr = (ulong)Memory };
        Ok(Process.Ioctl(VmFd, KVM_SET_USER_MEMORY_REGION, (ulong)&region));
        VcpuFd = host.CreateVcpu(VmFd);
        int kvm = host.OpenKvm();
        int size = Ok(Process.Ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE));
        Process.Close(kvm);
        Run = (kvm_run*)Process.Mmap((ulong)size, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, VcpuFd).Raw;
    }

    public AmdHost Host { get; }
    public HostProcess Process => Host.Process;
    public int VmFd { get; }
    public int VcpuFd { get; }
    public byte* Memory { get; }
    public kvm_run* Run { get; }
    public VcpuSvm Vcpu => Host.Vcpu();
    public ref VmcbControlArea Control => ref Vcpu.Vmcb->Control;
    public ref VmcbSaveArea Save => ref Vcpu.Vmcb->Save;

    /// <summary>Real-mode code at 0:1000, to be run from there with IVT at 0 and stack below 8000.</summary>
    public void Load(params ReadOnlySpan<byte> code)
    {
        code.CopyTo(new Span<byte>(Memory + 0x1000, code.Length));
        kvm_sregs s = Sregs;
        s.cs.@base = 0;
        s.cs.selector = 0;
        Sregs = s;
        Regs = new kvm_regs { rip = 0x1000, rflags = 2, rsp = 0x8000 };
    }

    public kvm_regs Regs
    {
        get => Get<kvm_regs>(KVM_GET_REGS);
        set => Set(KVM_SET_REGS, value);
    }

    public kvm_sregs Sregs
    {
        get => Get<kvm_sregs>(KVM_GET_SREGS);
        set => Set(KVM_SET_SREGS, value);
    }

    public T Get<T>(uint request)
        where T : unmanaged
    {
        T value;
        Ok(Process.Ioctl(VcpuFd, request, (ulong)&value));
        return value;
    }

    public void Set<T>(uint request, T value)
        where T : unmanaged => Ok(Process.Ioctl(VcpuFd, request, (ulong)&value));

    public KvmResult RunOnce() => Process.Ioctl(VcpuFd, KVM_RUN);

    /// <summary>KVM_RUN that must succeed: the exit reason.</summary>
    public uint RunToExit()
    {
        RunOnce().Should().Be((KvmResult)0, string.Join("\n", Host.Dmesg.TakeLast(20)));
        return Run->exit_reason;
    }

    /// <summary>What the processor did during a KVM_RUN that ends with <paramref name="reason"/>.</summary>
    public List<Instruction> RunAndLog(int reason)
    {
        Host.Log.Take();
        uint exit = RunToExit();
        List<Instruction> log = Host.Log.Take();
        exit.Should().Be((uint)reason, string.Join(", ", log));
        return log;
    }

    public static int Ok(KvmResult r)
    {
        r.IsError.Should().BeFalse(r.ToString());
        return (int)r.Raw;
    }

    public void Dispose()
    {
        if (ownsHost)
            Host.Dispose();
    }
}
