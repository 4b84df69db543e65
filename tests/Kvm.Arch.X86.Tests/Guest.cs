using Kvm.Abi;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Vmx;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests;

/// <summary>A host with a vendor module, one process with /dev/kvm open, a VM, a vCPU in real mode, and memory at 0.</summary>
internal sealed unsafe class Guest : IDisposable
{
    public const ulong MemorySize = 8 << 20;

    public Guest(string vendor = "amd", int cpus = 1, bool vm = true, string parameters = "", string kvmParameters = "", bool irqchip = false, Action<Guest>? beforeVcpus = null, ulong dirtyRing = 0)
    {
        Kernel = KernelHost.Create(MachineOptions.Uniform(vendor == "amd" ? CpuModel.AmdZen : CpuModel.IntelSkylake, cpus));
        Kernel.LoadKvm(kvmParameters).IsError.Should().BeFalse();
        KvmResult loaded = Kernel.LoadVendor(vendor == "amd" ? new KvmAmd(Kernel.Arch) : new KvmIntel(Kernel.Arch), parameters);
        loaded.IsError.Should().BeFalse(string.Join("\n", Kernel.Host.Log.Lines));
        Process = Kernel.Host.CreateProcess("test");
        KvmFd = Ok(Process.Open("/dev/kvm", 2));
        if (vm)
            CreateVm(irqchip, beforeVcpus, dirtyRing);
    }

    public KernelHost Kernel { get; }

    public HostProcess Process { get; }

    public int KvmFd { get; }

    public int VmFd { get; private set; } = -1;

    public int VcpuFd { get; private set; } = -1;

    public kvm_run* Run { get; private set; }

    /// <summary>Host address of guest-physical 0.</summary>
    public byte* Memory { get; private set; }

    /// <summary>Where kvm_run says that the port data is.</summary>
    public byte* IoData => (byte*)Run + Run->io.data_offset;

    public KvmVm Vm => Kernel.Kvm.VmList[^1];

    public X86Vcpu Vcpu => (X86Vcpu)Vm.Vcpus[0];

    private void CreateVm(bool irqchip, Action<Guest>? beforeVcpus, ulong dirtyRing)
    {
        VmFd = Ok(Process.Ioctl(KvmFd, KVM_CREATE_VM));
        beforeVcpus?.Invoke(this);
        if (dirtyRing != 0)
        {
            var cap = new kvm_enable_cap { cap = KVM_CAP_DIRTY_LOG_RING };
            cap.args[0] = dirtyRing;
            Ok(Process.Ioctl(VmFd, KVM_ENABLE_CAP, ref cap));
        }

        if (irqchip)
            Ok(Process.Ioctl(VmFd, KVM_CREATE_IRQCHIP));
        Memory = (byte*)Process.MapAnonymous(MemorySize);
        AddMemory(0, 0, dirtyRing == 0 ? MemorySize : 2 << 20, (ulong)Memory);
        if (Kernel.Machine.Processors[0].Model.Vendor == CpuVendor.Intel)
            Ok(Process.Ioctl(VmFd, KVM_SET_TSS_ADDR, 0xfffbd000)); // before real mode is entered
        VcpuFd = CreateVcpu(0, out kvm_run* run);
        Run = run;
    }

    public int CreateVcpu(uint id, out kvm_run* run)
    {
        int fd = Ok(Process.Ioctl(VmFd, KVM_CREATE_VCPU, id));
        int size = Ok(Process.Ioctl(KvmFd, KVM_GET_VCPU_MMAP_SIZE));
        KvmResult mapped = Process.Mmap((ulong)size, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, fd);
        mapped.IsError.Should().BeFalse();
        run = (kvm_run*)mapped.Raw;
        return fd;
    }

    public KvmResult AddMemory(uint slot, ulong gpa, ulong size, ulong hva, uint flags = 0)
    {
        var region = new kvm_userspace_memory_region { slot = slot, guest_phys_addr = gpa, memory_size = size, userspace_addr = hva, flags = flags };
        return Process.Ioctl(VmFd, KVM_SET_USER_MEMORY_REGION, (ulong)&region);
    }

    /// <summary>Real-mode code at 0:<paramref name="at"/>, to be run from there.</summary>
    public void Load(ReadOnlySpan<byte> code, ushort at = 0x1000)
    {
        code.CopyTo(new Span<byte>(Memory + at, code.Length));
        kvm_sregs s = Sregs;
        s.cs.@base = 0;
        s.cs.selector = 0;
        Sregs = s;
        kvm_regs r = default;
        r.rip = at;
        r.rflags = 2;
        r.rsp = 0x8000;
        Regs = r;
    }

    public kvm_regs Regs
    {
        get
        {
            kvm_regs r;
            Ok(VcpuIoctl(KVM_GET_REGS, &r));
            return r;
        }

        set => Ok(VcpuIoctl(KVM_SET_REGS, &value));
    }

    public kvm_sregs Sregs
    {
        get
        {
            kvm_sregs s;
            Ok(VcpuIoctl(KVM_GET_SREGS, &s));
            return s;
        }

        set => Ok(VcpuIoctl(KVM_SET_SREGS, &value));
    }

    public kvm_vcpu_events Events
    {
        get
        {
            kvm_vcpu_events e;
            Ok(VcpuIoctl(KVM_GET_VCPU_EVENTS, &e));
            return e;
        }

        set => Ok(VcpuIoctl(KVM_SET_VCPU_EVENTS, &value));
    }

    public KvmResult VcpuIoctl(uint request, void* arg) => Process.Ioctl(VcpuFd, request, (ulong)arg);

    public KvmResult RunOnce() => Process.Ioctl(VcpuFd, KVM_RUN);

    /// <summary>The instruction emulator on these bytes, as an exit handler calls it: 1 or 0.</summary>
    public int Emulate(params byte[] insn) => OnVcpu(v => v.EmulateInstructionFromBuffer(insn));

    /// <summary>What an exit handler does, on the loaded vCPU: 1 or 0.</summary>
    public int OnVcpu(Func<X86Vcpu, int> handler)
    {
        using (Kernel.Host.Enter(Process.Task))
        using (Vcpu.Mutex.Enter())
        {
            Vcpu.Load();
            Vcpu.SrcuReadLock();
            int r = handler(Vcpu);
            Vcpu.SrcuReadUnlock();
            Vcpu.Put();
            return r;
        }
    }

    /// <summary>Drops what an emulated instruction left for the next KVM_RUN.</summary>
    public void ForgetExit()
    {
        Vcpu.CompleteUserspaceIo = null;
        Vcpu.Pio.Count = 0;
        Vcpu.MmioNeeded = false;
        kvm_mp_state state = default;
        Ok(VcpuIoctl(KVM_SET_MP_STATE, &state));
    }

    /// <summary>KVM_RUN that must succeed: the exit reason.</summary>
    public uint RunToExit()
    {
        KvmResult r = RunOnce();
        r.Raw.Should().Be(0, string.Join("\n", Kernel.Host.Log.Lines.TakeLast(20)));
        return Run->exit_reason;
    }

    public static int Ok(KvmResult r)
    {
        r.IsError.Should().BeFalse($"errno {-r.Raw}");
        return (int)r.Raw;
    }

    public void Dispose() => Kernel.Dispose();
}
