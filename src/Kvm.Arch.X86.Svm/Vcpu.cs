using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Arch.X86.Errnos;

namespace Kvm.Arch.X86.Svm;

/// <summary>Creation and destruction of vCPUs.</summary>
public sealed unsafe partial class KvmAmd
{
    /// <summary>Gives a vCPU its VMCB and MSR permission map. -ENOMEM: nothing is left allocated.</summary>
    [KernelFunction("svm_vcpu_create", File = "arch/x86/kvm/svm/svm.c", Formerly = "svm_create_vcpu")]
    public int VcpuCreate(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_vcpu_create");
        VcpuSvm svm = ToSvm(vcpu);
        int err = -ENOMEM;
        ulong vmcb01Page = Host.Pages.AllocPage("svm_vcpu_create");
        if (vmcb01Page == 0)
            goto @out;

        err = AvicInitVcpu(svm);
        if (err != 0)
            goto error_free_vmcb_page;

        svm.Msrpm = VcpuAllocMsrpm();
        if (svm.Msrpm == null)
        {
            err = -ENOMEM;
            goto error_free_vmcb_page;
        }

        svm.Vmcb01.Ptr = (Vmcb*)vmcb01Page;
        svm.Vmcb01.Pa = vmcb01Page;
        SwitchVmcb(svm, svm.Vmcb01);
        svm.GuestStateLoaded = false;
        return 0;

    error_free_vmcb_page:
        Host.Pages.FreePage(vmcb01Page);
    @out:
        return err;
    }

    /// <summary>Nothing to set up without AVIC and an in-kernel local APIC.</summary>
    [KernelFunction("avic_init_vcpu", File = "arch/x86/kvm/svm/avic.c")]
    private static int AvicInitVcpu(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("avic_init_vcpu");
        return svm.Vm.IrqchipInKernel && svm.Arch.EnableApicv ? -EINVAL : 0;
    }

    [KernelFunction("svm_switch_vmcb", File = "arch/x86/kvm/svm/svm.c")]
    private static void SwitchVmcb(VcpuSvm svm, KvmVmcbInfo target)
    {
        svm.CurrentVmcb = target;
        svm.Vmcb = target.Ptr;
    }

    /// <summary>The page may become another VMCB: no CPU may believe that it ran it last.</summary>
    private void ClearCurrentVmcb(Vmcb* vmcb)
    {
        for (int i = 0; i < svmData.Length; i++)
        {
            if (svmData[i].CurrentVmcb == vmcb)
                svmData[i].CurrentVmcb = null;
        }
    }

    [KernelFunction("svm_vcpu_free", File = "arch/x86/kvm/svm/svm.c", Formerly = "svm_free_vcpu")]
    public void VcpuFree(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_vcpu_free");
        VcpuSvm svm = ToSvm(vcpu);
        ClearCurrentVmcb(svm.Vmcb);
        NestedOps.LeaveNested(vcpu);
        FunctionTrace.Leaf("svm_free_nested");
        FunctionTrace.Leaf("sev_free_vcpu");

        Host.Pages.FreePage(svm.Vmcb01.Pa);
        Host.Pages.FreePage((ulong)svm.Msrpm);
        svm.Vmcb = svm.Vmcb01.Ptr = null;
        svm.Msrpm = null;
    }

    /// <summary>A guest that would never exit on PAUSE is one without the pause filter.</summary>
    [KernelFunction("svm_vm_init", File = "arch/x86/kvm/svm/svm.c")]
    public int VmInit(X86Vm vm)
    {
        using var _ = FunctionTrace.Enter("svm_vm_init");
        if (Params.PauseFilterCount == 0 || Params.PauseFilterThresh == 0)
            vm.PauseInGuest = true;
        return 0;
    }

    [KernelFunction("svm_vm_destroy", File = "arch/x86/kvm/svm/svm.c")]
    public void VmDestroy(X86Vm vm)
    {
        using var _ = FunctionTrace.Enter("svm_vm_destroy");
        FunctionTrace.Leaf("avic_vm_destroy");
        FunctionTrace.Leaf("sev_vm_destroy");
    }
}
