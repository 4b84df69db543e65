using System.Runtime.CompilerServices;
using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Creation and destruction of vCPUs, and the pages they need.</summary>
public sealed unsafe partial class KvmIntel
{
    private const int enomem = -(int)Errno.ENOMEM;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static VcpuVmx ToVmx(X86Vcpu vcpu) => Unsafe.As<VcpuVmx>(vcpu);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static KvmVmx ToKvmVmx(X86Vm kvm) => Unsafe.As<KvmVmx>(kvm);

    /// <summary>A zeroed VMCS or VMXON region carrying the revision identifier; 0 when there is no memory.</summary>
    [KernelFunction("alloc_vmcs_cpu", File = "arch/x86/kvm/vmx/vmx.c")]
    private ulong AllocVmcsCpu(bool shadow)
    {
        using var _ = FunctionTrace.Enter("alloc_vmcs_cpu");
        ulong vmcs = AllocPage("alloc_vmcs_cpu");
        if (vmcs == 0)
            return 0;
        Unsafe.InitBlockUnaligned((void*)vmcs, 0, (uint)VmcsConfig.Size);
        *(uint*)vmcs = VmcsConfig.RevisionId & 0x7fffffff | (shadow ? 1u << 31 : 0);
        return vmcs;
    }

    [KernelFunction("free_vmcs", File = "arch/x86/kvm/vmx/vmx.c")]
    private void FreeVmcs(ulong vmcs) => FreePage(vmcs);

    /// <summary>Allocates a VMCS and its MSR bitmap (all intercepted); VMCLEAR makes the VMCS inactive with launch state "clear".</summary>
    [KernelFunction("alloc_loaded_vmcs", File = "arch/x86/kvm/vmx/vmx.c", Formerly = "loaded_vmcs_init")]
    private int AllocLoadedVmcs(LoadedVmcs loadedVmcs)
    {
        using var _ = FunctionTrace.Enter("alloc_loaded_vmcs");
        loadedVmcs.Vmcs = AllocVmcsCpu(shadow: false);
        if (loadedVmcs.Vmcs == 0)
            return enomem;
        VmcsClear(loadedVmcs.Vmcs);
        loadedVmcs.ShadowVmcs = 0;
        loadedVmcs.HvTimerSoftDisabled = false;
        loadedVmcs.Cpu = -1;
        loadedVmcs.Launched = false;
        if (CpuHasVmxMsrBitmap)
        {
            loadedVmcs.MsrBitmap = AllocPage("alloc_loaded_vmcs");
            if (loadedVmcs.MsrBitmap == 0)
            {
                // out_vmcs:
                FreeLoadedVmcs(loadedVmcs);
                return enomem;
            }
            Unsafe.InitBlockUnaligned((void*)loadedVmcs.MsrBitmap, 0xff, 4096);
        }
        loadedVmcs.HostState = default;
        loadedVmcs.ControlsShadow = default;
        return 0;
    }

    /// <summary>Frees a VMCS after VMCLEARing it where it was last loaded.</summary>
    [KernelFunction("free_loaded_vmcs", File = "arch/x86/kvm/vmx/vmx.c")]
    private void FreeLoadedVmcs(LoadedVmcs loadedVmcs)
    {
        if (loadedVmcs.Vmcs == 0)
            return;
        using var _ = FunctionTrace.Enter("free_loaded_vmcs");
        LoadedVmcsClear(loadedVmcs);
        FreeVmcs(loadedVmcs.Vmcs);
        loadedVmcs.Vmcs = 0;
        if (loadedVmcs.MsrBitmap != 0)
            FreePage(loadedVmcs.MsrBitmap);
        loadedVmcs.MsrBitmap = 0;
    }

    [KernelFunction("vmx_destroy_pml_buffer", File = "arch/x86/kvm/vmx/vmx.c")]
    private void DestroyPmlBuffer(VcpuVmx vmx)
    {
        if (vmx.PmlPage != 0)
            FreePage(vmx.PmlPage);
        vmx.PmlPage = 0;
    }

    [KernelFunction("vmx_vcpu_free", File = "arch/x86/kvm/vmx/vmx.c")]
    public void VcpuFree(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_free");
        VcpuVmx vmx = ToVmx(vcpu);
        if (EnablePml)
            DestroyPmlBuffer(vmx);
        FreeVpid(vmx.Vpid);
        NestedVmxFreeVcpu(vmx);
        FreeLoadedVmcs(vmx.LoadedVmcs);
        FreePage(vmx.TakeNativePage());
    }

    /// <summary>
    /// Gives a vCPU its VPID, page-modification log, VMCS and MSR bitmap, and passes the MSRs through that a guest may touch freely.
    /// -ENOMEM, or what the private memslots answer; everything acquired before is released.
    /// </summary>
    [KernelFunction("vmx_vcpu_create", File = "arch/x86/kvm/vmx/vmx.c", Formerly = "vmx_create_vcpu")]
    public int VcpuCreate(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_create");
        VcpuVmx vmx = ToVmx(vcpu);
        int err = enomem;
        ulong native = AllocPage("vcpu_vmx", zero: true);
        if (native == 0)
            return err;
        vmx.SetNativePage(native);
        vmx.Vpid = AllocateVpid();
        if (EnablePml)
        {
            // All or nothing: a vCPU without its log would leave dirty logging half enabled.
            vmx.PmlPage = AllocPage("vmx_vcpu_create", zero: true);
            if (vmx.PmlPage == 0)
                goto free_vpid;
        }
        for (int i = 0; i < arch.UserReturn.Count; i++)
            vmx.GuestUretMsrs[i].Mask = ulong.MaxValue;
        if (BootCpuHas(X86Feature.RTM))
        {
            int slot = FindUretMsr(MSR_IA32_TSX_CTRL);
            if (slot >= 0)
                vmx.GuestUretMsrs[slot].Mask = ~TSX_CTRL_CPUID_CLEAR;
        }

        err = AllocLoadedVmcs(vmx.Vmcs01);
        if (err < 0)
            goto free_pml;

        vmx.ShadowMsrInterceptRead = vmx.ShadowMsrInterceptWrite = (1u << possiblePassthroughMsrs.Length) - 1;
        DisableInterceptForMsr(vmx, MSR_IA32_TSC, MSR_TYPE_R);
        DisableInterceptForMsr(vmx, MSR_FS_BASE, MSR_TYPE_RW);
        DisableInterceptForMsr(vmx, MSR_GS_BASE, MSR_TYPE_RW);
        DisableInterceptForMsr(vmx, MSR_KERNEL_GS_BASE, MSR_TYPE_RW);
        DisableInterceptForMsr(vmx, MSR_IA32_SYSENTER_CS, MSR_TYPE_RW);
        DisableInterceptForMsr(vmx, MSR_IA32_SYSENTER_ESP, MSR_TYPE_RW);
        DisableInterceptForMsr(vmx, MSR_IA32_SYSENTER_EIP, MSR_TYPE_RW);
        if (vcpu.Vm.CstateInGuest)
        {
            DisableInterceptForMsr(vmx, MSR_CORE_C1_RES, MSR_TYPE_R);
            DisableInterceptForMsr(vmx, MSR_CORE_C3_RESIDENCY, MSR_TYPE_R);
            DisableInterceptForMsr(vmx, MSR_CORE_C6_RESIDENCY, MSR_TYPE_R);
            DisableInterceptForMsr(vmx, MSR_CORE_C7_RESIDENCY, MSR_TYPE_R);
        }

        vmx.LoadedVmcs = vmx.Vmcs01;
        if (CpuNeedVirtualizeApicAccesses(vmx))
        {
            err = AllocApicAccessPage(vcpu.Vm);
            if (err != 0)
                goto free_vmcs;
        }

        if (EnableEpt && !EnableUnrestrictedGuest)
        {
            err = InitRmodeIdentityMap(vcpu.Vm);
            if (err != 0)
                goto free_vmcs;
        }

        if (CanUseIpiv(vmx))
            *((ulong*)ToKvmVmx(vcpu.Vm).PidTable + vcpu.VcpuId) = (ulong)vmx.PiDesc | 1;
        return 0;

    free_vmcs:
        FreeLoadedVmcs(vmx.LoadedVmcs);
    free_pml:
        DestroyPmlBuffer(vmx);
    free_vpid:
        FreeVpid(vmx.Vpid);
        FreePage(vmx.TakeNativePage());
        return err;
    }
}
