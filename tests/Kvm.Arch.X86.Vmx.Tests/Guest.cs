using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>64 KiB of memory and the kvm_run page of a vCPU.</summary>
internal sealed unsafe class Guest : IDisposable
{
    public const ulong MemorySize = 0x10000;
    private readonly IntelHost host;
    private readonly int vcpu;
    private readonly ulong mmapSize;

    public Guest(IntelHost host, int vcpu, int vm = -1)
    {
        this.host = host;
        this.vcpu = vcpu;
        int kvm = host.OpenKvm();
        mmapSize = (ulong)host.Process.Ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE).Raw;
        host.Process.Close(kvm);
        KvmResult map = host.Process.Mmap(mmapSize, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, vcpu);
        map.IsError.Should().BeFalse(map.ToString());
        RunPage = (kvm_run*)map.Raw;
        Memory = (byte*)host.Process.MapAnonymous(MemorySize);
        VmFd = vm;
    }

    public kvm_run* RunPage { get; }
    public byte* Memory { get; }
    public int VmFd { get; private set; }

    /// <summary>A host with kvm_intel, a VM and a vCPU.</summary>
    public static Guest Create(out IntelHost host, string parameters = "")
    {
        host = IntelHost.Loaded(parameters);
        int vm = host.CreateVm();
        if (!host.Vmx.EnableUnrestrictedGuest)
            host.Process.Ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000).Should().Be((KvmResult)0);
        return new Guest(host, host.CreateVcpu(vm), vm);
    }

    /// <summary>Memory from 0, the code at 0x1000, real mode with all bases 0.</summary>
    public void Load(ReadOnlySpan<byte> code, uint slotFlags = 0)
    {
        code.CopyTo(new Span<byte>(Memory + 0x1000, 0x1000));
        SetSlot(slotFlags);
        Sregs(static (ref kvm_sregs s) =>
        {
            s.cs.selector = 0;
            s.cs.@base = 0;
        });
        var regs = new kvm_regs { rip = 0x1000, rsp = 0x8000, rflags = 2 };
        host.Process.Ioctl(vcpu, KVM_SET_REGS, ref regs).Should().Be((KvmResult)0);
    }

    public void SetSlot(uint flags)
    {
        var region = new kvm_userspace_memory_region { flags = flags, memory_size = MemorySize, userspace_addr = (ulong)Memory };
        if (VmFd < 0)
            VmFd = host.VmFd;
        host.Process.Ioctl(VmFd, KVM_SET_USER_MEMORY_REGION, ref region).Should().Be((KvmResult)0);
    }

    public delegate void Change(ref kvm_sregs sregs);

    public KvmResult Sregs(Change change)
    {
        kvm_sregs sregs = default;
        host.Process.Ioctl(vcpu, KVM_GET_SREGS, ref sregs).Should().Be((KvmResult)0);
        change(ref sregs);
        return host.Process.Ioctl(vcpu, KVM_SET_SREGS, ref sregs);
    }

    public kvm_sregs GetSregs()
    {
        kvm_sregs sregs = default;
        host.Process.Ioctl(vcpu, KVM_GET_SREGS, ref sregs).Should().Be((KvmResult)0);
        return sregs;
    }

    public kvm_regs Regs()
    {
        kvm_regs regs = default;
        host.Process.Ioctl(vcpu, KVM_GET_REGS, ref regs).Should().Be((KvmResult)0);
        return regs;
    }

    public void SetRegs(kvm_regs regs) => host.Process.Ioctl(vcpu, KVM_SET_REGS, ref regs).Should().Be((KvmResult)0);

    /// <summary>KVM_GET_SUPPORTED_CPUID, given to the vCPU after a change.</summary>
    public void SetCpuid(Func<kvm_cpuid_entry2, kvm_cpuid_entry2>? change = null)
    {
        int kvm = host.OpenKvm();
        var cpuid = (kvm_cpuid2*)host.Process.MapAnonymous(0x4000);
        cpuid->nent = 256;
        host.Process.Ioctl(kvm, KVM_GET_SUPPORTED_CPUID, (ulong)cpuid).Should().Be((KvmResult)0);
        for (int i = 0; i < cpuid->nent; i++)
            kvm_cpuid2.entries(cpuid)[i] = change?.Invoke(kvm_cpuid2.entries(cpuid)[i]) ?? kvm_cpuid2.entries(cpuid)[i];
        host.Process.Ioctl(vcpu, KVM_SET_CPUID2, (ulong)cpuid).Should().Be((KvmResult)0);
        host.Process.Close(kvm);
    }

    public (KvmResult Result, ulong Data) GetMsr(uint index)
    {
        byte* buffer = stackalloc byte[sizeof(kvm_msrs) + sizeof(kvm_msr_entry)];
        *(kvm_msrs*)buffer = new kvm_msrs { nmsrs = 1 };
        *kvm_msrs.entries((kvm_msrs*)buffer) = new kvm_msr_entry { index = index };
        KvmResult r = host.Process.Ioctl(vcpu, KVM_GET_MSRS, (ulong)buffer);
        return (r, kvm_msrs.entries((kvm_msrs*)buffer)->data);
    }

    public KvmResult SetMsr(uint index, ulong data)
    {
        byte* buffer = stackalloc byte[sizeof(kvm_msrs) + sizeof(kvm_msr_entry)];
        *(kvm_msrs*)buffer = new kvm_msrs { nmsrs = 1 };
        *kvm_msrs.entries((kvm_msrs*)buffer) = new kvm_msr_entry { index = index, data = data };
        return host.Process.Ioctl(vcpu, KVM_SET_MSRS, (ulong)buffer);
    }

    /// <summary>KVM_RUN; the exit reason.</summary>
    public uint Run()
    {
        KvmResult r = host.Process.Ioctl(vcpu, KVM_RUN);
        r.IsError.Should().BeFalse(r.ToString());
        return RunPage->exit_reason;
    }

    public KvmResult RunRaw() => host.Process.Ioctl(vcpu, KVM_RUN);

    public void Dispose()
    {
        host.Process.Munmap((ulong)RunPage, mmapSize);
        host.Process.Munmap((ulong)Memory, MemorySize);
    }
}
