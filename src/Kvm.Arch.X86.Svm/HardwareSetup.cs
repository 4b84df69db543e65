using System.Runtime.InteropServices;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>Detection of SVM and set-up of what all VMs share: permission maps, per-CPU host save areas, capabilities.</summary>
public sealed unsafe partial class KvmAmd
{
    /// <summary>I/O permission map that intercepts every port; one for all VMs.</summary>
    private ulong iopmBase;

    /// <summary>Slot of TSC_AUX among the user-return MSRs, -1 when the processor lacks it.</summary>
    private int tscAuxUretSlot = -1;

    private bool svmGpErratumIntercept = true;

    /// <summary>cpu_has_svm: null, or the reason why not.</summary>
    private string? CpuHasSvm()
    {
        if (system.BootCpuData.Vendor is not (CpuVendorId.Amd or CpuVendorId.Hygon))
            return "not amd or hygon";
        if (Host.Options.Profile == KernelProfile.Legacy && system.BootCpuData.ExtendedCpuidLevel < SVM_CPUID_FUNC)
            return "can't execute cpuid_8000000a";
        return BootCpuHas(X86Feature.SVM) ? null : "svm not available";
    }

    [KernelFunction("has_svm", File = "arch/x86/kvm/svm/svm.c")]
    public bool CpuHasKvmSupport()
    {
        FunctionTrace.Leaf("has_svm");
        if (CpuHasSvm() is not { } msg)
            return true;
        Host.Log.Info($"has_svm: {msg}");
        return false;
    }

    /// <summary>VM_CR.SVMDIS. Neither the lock nor the key matter to KVM: it never tries to enable what firmware disabled.</summary>
    [KernelFunction("is_disabled", File = "arch/x86/kvm/svm/svm.c")]
    public bool DisabledByBios()
    {
        FunctionTrace.Leaf("is_disabled");
        return (ThisCpu.Rdmsr(MSR_VM_CR) & (1ul << SVM_VM_CR_SVM_DISABLE)) != 0;
    }

    [KernelFunction("svm_check_processor_compat", File = "arch/x86/kvm/svm/svm.c")]
    public int CheckProcessorCompatibility()
    {
        FunctionTrace.Leaf("svm_check_processor_compat");
        return 0;
    }

    [KernelFunction("svm_hardware_setup", File = "arch/x86/kvm/svm/svm.c")]
    public int HardwareSetup()
    {
        using var _ = FunctionTrace.Enter("svm_hardware_setup");
        // NX: for shadow paging, and for NPT with the huge-page mitigation.
        if (!BootCpuHas(X86Feature.NX))
        {
            PrErr("NX (Execute Disable) not supported");
            return -EOPNOTSUPP;
        }

        arch.EnableEferBits(EFER_NX);
        iopmBase = Host.Pages.AllocPages("svm_hardware_setup", IOPM_ORDER, zero: false);
        if (iopmBase == 0)
            return -ENOMEM;
        NativeMemory.Fill((void*)iopmBase, 4096u << IOPM_ORDER, 0xff);
        InitMsrpmOffsets();
        arch.KvmCaps.SupportedXcr0 &= ~(XFEATURE_MASK_BNDREGS | XFEATURE_MASK_BNDCSR);
        if (BootCpuHas(X86Feature.FXSR_OPT))
            arch.EnableEferBits(EFER_FFXSR);
        SetupTscScaling();
        tscAuxUretSlot = system.UserReturn.Add(MSR_TSC_AUX);
        if (!BootCpuHas(X86Feature.PAUSEFILTER))
            Params.PauseFilterCount = Params.PauseFilterThresh = 0;
        else if (!BootCpuHas(X86Feature.PFTHRESHOLD))
            Params.PauseFilterThresh = 0;
        if (Params.Nested != 0)
        {
            Host.Log.Info("kvm: Nested Virtualization enabled");
            arch.EnableEferBits(EFER_SVME | EFER_LMSLE);
        }

        if (!BootCpuHas(X86Feature.NPT))
            Params.Npt = false;
        // The guest's tables have as many levels as the host's: VMRUN does not change the host's CR4.
        arch.ConfigureMmu(Params.Npt, GetNptLevel(), GetNptLevel(), PG_LEVEL_1G);
        PrInfo($"kvm: Nested Paging {(Params.Npt ? "en" : "dis")}abled");
        arch.Spte.SetMeSpteMask(0, 0);
        AdjustMmioMask();
        FunctionTrace.Leaf("sev_hardware_setup");

        foreach (HostCpu cpu in Host.Cpus)
        {
            int r = CpuInit(cpu.Id);
            if (r != 0)
            {
                HardwareUnsetup();
                return r;
            }
        }

        SetupOptionalFeatures();
        SetCpuCaps();
        // Silicon sets accessed bits before a nested fault exits, which a smaller MAXPHYADDR in the guest could see.
        arch.AllowSmallerMaxphyaddr = !Params.Npt;
        return 0;
    }

    private void SetupTscScaling()
    {
        if (Params.TscScaling != 0)
        {
            if (!BootCpuHas(X86Feature.TSCRATEMSR))
            {
                Params.TscScaling = 0;
            }
            else
            {
                PrInfo("TSC scaling supported");
                arch.KvmCaps.HasTscControl = true;
            }
        }

        arch.KvmCaps.MaxTscScalingRatio = SVM_TSC_RATIO_MAX;
        arch.KvmCaps.TscScalingRatioFracBits = 32;
    }

    private void SetupOptionalFeatures()
    {
        if (Params.Nrips != 0 && !BootCpuHas(X86Feature.NRIPS))
            Params.Nrips = 0;
        // avic_hardware_setup fails on processors without AVIC, and none here has it.
        Params.Avic = false;
        arch.EnableApicv = false;
        if (Params.Vls != 0)
        {
            if (!Params.Npt || !BootCpuHas(X86Feature.V_VMSAVE_VMLOAD))
                Params.Vls = 0;
            else
                PrInfo("Virtual VMLOAD VMSAVE supported");
        }

        if (BootCpuHas(X86Feature.SVME_ADDR_CHK))
            svmGpErratumIntercept = false;
        if (Params.Vgif != 0)
        {
            if (!BootCpuHas(X86Feature.VGIF))
                Params.Vgif = 0;
            else
                PrInfo("Virtual GIF supported");
        }

        if (Params.Lbrv != 0)
        {
            if (!BootCpuHas(X86Feature.LBRV))
                Params.Lbrv = 0;
            else
                PrInfo("LBR virtualization supported");
        }

        if (!arch.Params.EnablePmu)
            PrInfo("PMU virtualization is disabled");
    }

    [KernelFunction("get_npt_level", File = "arch/x86/kvm/svm/svm.c")]
    private int GetNptLevel()
    {
        FunctionTrace.Leaf("get_npt_level");
        return (ThisCpu.Cr4Shadow & X86_CR4_LA57) != 0 ? PT64_ROOT_5LEVEL : PT64_ROOT_4LEVEL;
    }

    /// <summary>With memory encryption on, its bit must not be one of those that mark an MMIO entry.</summary>
    [KernelFunction("svm_adjust_mmio_mask", File = "arch/x86/kvm/svm/svm.c")]
    private void AdjustMmioMask()
    {
        HostX86Cpu cpu = ThisCpu;
        cpu.Cpuid(0x80000000, 0, out uint max, out _, out _, out _);
        if (max < 0x8000001f)
            return;
        const ulong memEncrypt = 1ul << 23;
        if ((cpu.Rdmsr(MSR_AMD64_SYSCFG) & memEncrypt) == 0)
            return;
        cpu.Cpuid(0x8000001f, 0, out _, out uint ebx, out _, out _);
        int maskBit = system.BootCpuData.PhysBits;
        if ((ebx & 0x3f) == maskBit)
            maskBit++;
        ulong mask = maskBit < 52 ? X86Bits.RsvdBits(maskBit, 51) | 1 : 0;
        arch.Spte.SetMmioSpteMask(mask, mask, 6);
    }

    [KernelFunction("svm_set_cpu_caps", File = "arch/x86/kvm/svm/svm.c")]
    private void SetCpuCaps()
    {
        arch.SetCpuCaps();
        arch.KvmCaps.SupportedPerfCap = 0;
        arch.KvmCaps.SupportedXss = 0;
        if (Params.Nested != 0)
        {
            arch.CpuCapSet(X86Feature.SVM);
            arch.CpuCapSet(X86Feature.VMCBCLEAN);
            CapIf(Params.Nrips != 0, X86Feature.NRIPS);
            CapIf(Params.Npt, X86Feature.NPT);
            CapIf(Params.TscScaling != 0, X86Feature.TSCRATEMSR);
            CapIf(Params.Vls != 0, X86Feature.V_VMSAVE_VMLOAD);
            CapIf(Params.Lbrv != 0, X86Feature.LBRV);
            CapIf(BootCpuHas(X86Feature.PAUSEFILTER), X86Feature.PAUSEFILTER);
            CapIf(BootCpuHas(X86Feature.PFTHRESHOLD), X86Feature.PFTHRESHOLD);
            CapIf(Params.Vgif != 0, X86Feature.VGIF);
            arch.CpuCapSet(X86Feature.SVME_ADDR_CHK);
        }

        CapIf(BootCpuHas(X86Feature.LS_CFG_SSBD) || BootCpuHas(X86Feature.AMD_SSBD), X86Feature.VIRT_SSBD);
        CapIf(arch.Params.EnablePmu && BootCpuHas(X86Feature.PERFCTR_CORE), X86Feature.PERFCTR_CORE);
        FunctionTrace.Leaf("sev_set_cpu_caps");
        arch.CpuCapClear(X86Feature.BUS_LOCK_DETECT);
    }

    private void CapIf(bool condition, X86Feature feature)
    {
        if (condition)
            arch.CpuCapSet(feature);
    }

    [KernelFunction("svm_cpu_init", File = "arch/x86/kvm/svm/svm.c")]
    private int CpuInit(int cpu)
    {
        svmData[cpu] = default;
        ulong page = Host.Pages.AllocPage("svm_cpu_init");
        if (page == 0)
            return -ENOMEM;
        FunctionTrace.Leaf("sev_cpu_init");
        svmData[cpu].SaveAreaPa = page;
        return 0;
    }

    [KernelFunction("svm_cpu_uninit", File = "arch/x86/kvm/svm/svm.c")]
    private void CpuUninit(int cpu)
    {
        if (svmData[cpu].SaveAreaPa == 0)
            return;
        Host.Pages.FreePage(svmData[cpu].SaveAreaPa);
        svmData[cpu].SaveAreaPa = 0;
    }

    [KernelFunction("svm_hardware_unsetup", File = "arch/x86/kvm/svm/svm.c")]
    public void HardwareUnsetup()
    {
        using var _ = FunctionTrace.Enter("svm_hardware_unsetup");
        FunctionTrace.Leaf("sev_hardware_unsetup");
        foreach (HostCpu cpu in Host.Cpus)
            CpuUninit(cpu.Id);
        Host.Pages.FreePage(iopmBase);
        iopmBase = 0;
    }

    /// <summary>MSRs that common code would emulate but this vendor does not: those of Intel's machine check and VMX.</summary>
    [KernelFunction("svm_has_emulated_msr", File = "arch/x86/kvm/svm/svm.c")]
    public bool HasEmulatedMsr(X86Vm? vm, uint index)
    {
        FunctionTrace.Leaf("svm_has_emulated_msr");
        return index is not (MSR_IA32_MCG_EXT_CTL or (>= MSR_IA32_VMX_BASIC and <= MSR_IA32_VMX_VMFUNC));
    }
}
