using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Putting a vCPU on a CPU and taking it off; switching the registers that VM entry and exit leave alone.</summary>
public sealed unsafe partial class KvmIntel
{
    /// <summary>FS base of the thread that runs a vCPU (its thread-local storage); never dereferenced.</summary>
    private const ulong threadFsBase = 0x7ffff7d7e380;

    /// <summary>
    /// Makes the VMCS current on <paramref name="cpu"/>. A VMCS last loaded elsewhere is VMCLEARed there first (by IPI); the new CPU may hold stale translations,
    /// so everything is flushed before the next entry.
    /// </summary>
    [KernelFunction("vmx_vcpu_load_vmcs", File = "arch/x86/kvm/vmx/vmx.c")]
    private void VcpuLoadVmcs(VcpuVmx vmx, int cpu)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_load_vmcs");
        LoadedVmcs loadedVmcs = vmx.LoadedVmcs;
        bool alreadyLoaded = loadedVmcs.Cpu == cpu;
        HostX86Cpu host = vmx.LoadedCpu;
        Processor processor = vmx.Hw = host.Processor;
        if (!alreadyLoaded)
        {
            LoadedVmcsClear(loadedVmcs);
            // Cpu is read before the list is touched: pairs with the order of writes in __loaded_vmcs_clear.
            loadedVmcssOnCpu[cpu].Add(loadedVmcs);
        }
        if (currentVmcs[cpu] != loadedVmcs.Vmcs)
        {
            currentVmcs[cpu] = loadedVmcs.Vmcs;
            VmcsLoad(processor, loadedVmcs.Vmcs);
        }
        if (alreadyLoaded)
            return;

        vmx.MakeRequest(KVM_REQ_TLB_FLUSH);
        // Linux has a TSS, a GDT and an entry stack per CPU.
        vmx.Writel(HOST_TR_BASE, host.TssAddress);
        vmx.Writel(HOST_GDTR_BASE, host.GdtAddress);
        vmx.Writel(HOST_IA32_SYSENTER_ESP, host.EntryStackTop);
        loadedVmcs.Cpu = cpu;
    }

    [KernelFunction("vmx_vcpu_load", File = "arch/x86/kvm/vmx/vmx.c")]
    public void VcpuLoad(X86Vcpu vcpu, int cpu)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_load");
        VcpuVmx vmx = ToVmx(vcpu);
        VcpuLoadVmcs(vmx, cpu);
        VcpuPiLoad(vmx, cpu);
    }

    /// <summary>The VMCS stays loaded: it is VMCLEARed only when the vCPU runs elsewhere, its CPU goes away or the vCPU is freed.</summary>
    [KernelFunction("vmx_vcpu_put", File = "arch/x86/kvm/vmx/vmx.c")]
    public void VcpuPut(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_put");
        VcpuVmx vmx = ToVmx(vcpu);
        VcpuPiPut(vmx);
        PrepareSwitchToHost(vmx);
    }

    /// <summary>Host values for FS and GS, written only when they differ from those in the VMCS. Selectors with RPL or TI set can't be in the host state: null then, reloaded by hand.</summary>
    [KernelFunction("vmx_set_host_fs_gs", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void SetHostFsGs(VcpuVmx vmx, ushort fsSel, ushort gsSel, ulong fsBase, ulong gsBase)
    {
        using var _ = FunctionTrace.Enter("vmx_set_host_fs_gs");
        ref VmcsHostState host = ref vmx.LoadedVmcs.HostState;
        if (fsSel != host.FsSel)
        {
            vmx.Write16(HOST_FS_SELECTOR, (fsSel & 7) == 0 ? fsSel : (ushort)0);
            host.FsSel = fsSel;
        }
        if (gsSel != host.GsSel)
        {
            vmx.Write16(HOST_GS_SELECTOR, (gsSel & 7) == 0 ? gsSel : (ushort)0);
            host.GsSel = gsSel;
        }
        if (fsBase != host.FsBase)
        {
            vmx.Writel(HOST_FS_BASE, fsBase);
            host.FsBase = fsBase;
        }
        if (gsBase != host.GsBase)
        {
            vmx.Writel(HOST_GS_BASE, gsBase);
            host.GsBase = gsBase;
        }
    }

    /// <summary>Loads the guest's SYSCALL MSRs, TSC_AUX and KERNEL_GS_BASE; they stay until the vCPU is put or the thread returns to userspace.</summary>
    [KernelFunction("vmx_prepare_switch_to_guest", File = "arch/x86/kvm/vmx/vmx.c", Formerly = "vmx_save_host_state")]
    public void PrepareSwitchToGuest(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_prepare_switch_to_guest");
        VcpuVmx vmx = ToVmx(vcpu);
        if (!vmx.GuestUretMsrsLoaded)
        {
            vmx.GuestUretMsrsLoaded = true;
            for (int i = 0; i < arch.UserReturn.Count; i++)
            {
                ref VmxUretMsr msr = ref vmx.GuestUretMsrs[i];
                if (msr.LoadIntoHardware)
                    arch.UserReturn.Set(i, msr.Data, msr.Mask);
            }
        }
        if (vmx.GuestStateLoaded)
            return;

        // A 64-bit thread: null selectors, thread-local storage at the FS base, no user GS base; the kernel's GS base is this CPU's.
        vmx.LoadedVmcs.HostState.LdtSel = 0;
        vmx.LoadedVmcs.HostState.DsSel = vmx.LoadedVmcs.HostState.EsSel = 0;
        vmx.MsrHostKernelGsBase = 0;
        vmx.Hw.WriteMsr(MSR_KERNEL_GS_BASE, vmx.MsrGuestKernelGsBase);
        SetHostFsGs(vmx, 0, 0, threadFsBase, vmx.LoadedCpu.PerCpuBase);
        vmx.GuestStateLoaded = true;
    }

    [KernelFunction("vmx_prepare_switch_to_host", File = "arch/x86/kvm/vmx/vmx.c", Formerly = "vmx_load_host_state")]
    private void PrepareSwitchToHost(VcpuVmx vmx)
    {
        if (!vmx.GuestStateLoaded)
            return;
        vmx.Stat.HostStateReload++;
        vmx.Hw.ReadMsr(MSR_KERNEL_GS_BASE, out vmx.MsrGuestKernelGsBase);
        vmx.Hw.WriteMsr(MSR_KERNEL_GS_BASE, vmx.MsrHostKernelGsBase);
        vmx.GuestStateLoaded = false;
        vmx.GuestUretMsrsLoaded = false;
    }

    [KernelFunction("vmx_read_guest_kernel_gs_base", File = "arch/x86/kvm/vmx/vmx.c")]
    private static ulong ReadGuestKernelGsBase(VcpuVmx vmx)
    {
        if (vmx.GuestStateLoaded)
            vmx.Hw.ReadMsr(MSR_KERNEL_GS_BASE, out vmx.MsrGuestKernelGsBase);
        return vmx.MsrGuestKernelGsBase;
    }

    [KernelFunction("vmx_write_guest_kernel_gs_base", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void WriteGuestKernelGsBase(VcpuVmx vmx, ulong data)
    {
        if (vmx.GuestStateLoaded)
            vmx.Hw.WriteMsr(MSR_KERNEL_GS_BASE, data);
        vmx.MsrGuestKernelGsBase = data;
    }

    [KernelFunction("vmx_sched_in", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SchedIn(X86Vcpu vcpu, int cpu)
    {
        using var _ = FunctionTrace.Enter("vmx_sched_in");
        if (!vcpu.Vm.PauseInGuest)
            ShrinkPleWindow(ToVmx(vcpu));
    }
}
