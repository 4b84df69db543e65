using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>vCPUs: creation with its unwinding, destruction.</remarks>
public sealed unsafe partial class KvmModule
{
    /// <summary>KVM_CREATE_VCPU: a descriptor of "anon_inode:kvm-vcpu:ID", or what failed; then nothing is left behind.</summary>
    [KernelFunction("kvm_vm_ioctl_create_vcpu", File = "virt/kvm/kvm_main.c")]
    internal KvmResult VmIoctlCreateVcpu(KvmVm vm, uint id)
    {
        if (id >= (uint)MaxVcpuIds) return Errno.EINVAL;
        KvmResult r;
        using (vm.Lock.Enter())
        {
            if (vm.CreatedVcpus >= vm.MaxVcpus) return Errno.EINVAL;
            r = Arch.VcpuPrecreate(vm, id);
            if (r.IsError) return r;
            vm.CreatedVcpus++;
        }

        KvmVcpu vcpu;
        using (FunctionTrace.Enter("kmem_cache_alloc"))
        {
            if (Host.Faults.ShouldFail("kmem_cache_zalloc", "kvm_vcpu"))
            {
                r = Errno.ENOMEM;
                goto vcpu_decrement;
            }

            vcpu = Arch.AllocVcpu(vm);
        }

        vcpu.Run = (kvm_run*)Host.Pages.AllocPage("kvm_run");
        if (vcpu.Run == null)
        {
            r = Errno.ENOMEM;
            goto vcpu_free;
        }

        VcpuInit(vcpu, id);
        r = Arch.VcpuCreate(vcpu);
        if (r.IsError) goto vcpu_free_run_page;
        if (vm.DirtyRingSize != 0)
        {
            vcpu.DirtyRing = KvmDirtyRing.Alloc(vm, (int)id, vm.DirtyRingSize);
            if (vcpu.DirtyRing is null)
            {
                r = Errno.ENOMEM;
                goto arch_vcpu_destroy;
            }
        }

        vm.Lock.Lock();
        if (vm.GetVcpuById((int)id) is not null)
        {
            r = Errno.EEXIST;
            goto unlock_vcpu_destroy;
        }

        vcpu.VcpuIdx = vm.OnlineVcpus;
        if (Host.Faults.ShouldFail("xa_reserve", "vcpu_array"))
        {
            r = Errno.ENOMEM;
            goto unlock_vcpu_destroy;
        }

        // All set up: user space can reach it from here, before it is in the VM's array.
        vm.Get();
        r = CreateVcpuFd(vcpu);
        if (r.IsError) goto kvm_put_xa_release;
        vm.PublishVcpu(vcpu);
        vm.Lock.Unlock();
        Arch.VcpuPostcreate(vcpu);
        CreateVcpuDebugfs(vcpu);
        return r;

    kvm_put_xa_release:
        vm.PutNoDestroy();
    unlock_vcpu_destroy:
        vm.Lock.Unlock();
        vcpu.DirtyRing?.Free();
    arch_vcpu_destroy:
        Arch.VcpuDestroy(vcpu);
    vcpu_free_run_page:
        Host.Pages.FreePage((ulong)vcpu.Run);
        vcpu.Run = null;
    vcpu_free:
    vcpu_decrement:
        using (vm.Lock.Enter()) vm.CreatedVcpus--;
        return r;
    }

    [KernelFunction("kvm_vcpu_init", File = "virt/kvm/kvm_main.c")]
    private static void VcpuInit(KvmVcpu vcpu, uint id)
    {
        vcpu.Cpu = -1;
        vcpu.VcpuId = (int)id;
        AsyncPfVcpuInit();
        vcpu.StatsId = $"kvm-{HostTask.Current.Pid}/vcpu-{id}";
    }

    [KernelFunction("kvm_async_pf_vcpu_init", File = "virt/kvm/async_pf.c")]
    private static void AsyncPfVcpuInit()
    {
        using var _ = FunctionTrace.Enter("kvm_async_pf_vcpu_init");
    }

    [KernelFunction("create_vcpu_fd", File = "virt/kvm/kvm_main.c")]
    private KvmResult CreateVcpuFd(KvmVcpu vcpu)
    {
        string name = Host.Options.Profile == KernelProfile.Legacy ? "kvm-vcpu" : $"kvm-vcpu:{vcpu.VcpuId}";
        return Host.AnonInodeGetFd(name, VcpuOperations, vcpu, Fcntl.O_RDWR | Fcntl.O_CLOEXEC);
    }

    /// <summary>kvm_vcpu_destroy: all its descriptors are closed.</summary>
    [KernelFunction("kvm_vcpu_destroy", File = "virt/kvm/kvm_main.c")]
    internal void DestroyVcpu(KvmVcpu vcpu)
    {
        Arch.VcpuDestroy(vcpu);
        FunctionTrace.Leaf("kvm_dirty_ring_free");
        vcpu.DirtyRing?.Free();
        vcpu.DirtyRing = null;
        vcpu.Pid = null;
        Host.Pages.FreePage((ulong)vcpu.Run);
        vcpu.Run = null;
    }
}
