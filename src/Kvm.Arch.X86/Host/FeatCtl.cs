using Kvm.Core;
using static Kvm.Arch.X86.MsrBits;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86;

/// <summary>IA32_FEATURE_CONTROL at boot: the kernel locks it when firmware did not, and believes it when firmware did.</summary>
/// <remarks>arch/x86/kernel/cpu/feat_ctl.c:init_ia32_feat_ctl, init_vmx_capabilities.</remarks>
internal static class FeatCtl
{
    public static void Init(CpuInfoX86 c, HostX86Cpu cpu, Printk log)
    {
        if (!cpu.RdmsrSafe(MSR_IA32_FEAT_CTL, out ulong msr))
        {
            c.Clear(X86Feature.VMX);
            c.Clear(X86Feature.SGX);
            return;
        }

        if ((msr & FEAT_CTL_LOCKED) == 0)
        {
            // Lock it in the state that KVM needs; without a measured launch only the bit outside SMX.
            msr = FEAT_CTL_LOCKED;
            if (c.Has(X86Feature.VMX))
                msr |= FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX;
            cpu.WrmsrSafe(MSR_IA32_FEAT_CTL, msr);
        }

        c.Set(X86Feature.MSR_IA32_FEAT_CTL);
        if (c.Has(X86Feature.VMX))
        {
            if ((msr & FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX) == 0)
            {
                log.Err("x86/cpu: VMX (outside TXT) disabled by BIOS");
                c.Clear(X86Feature.VMX);
            }
            else
            {
                InitVmxCapabilities(c, cpu);
            }
        }

        // No SGX driver in the model.
        c.Clear(X86Feature.SGX);
        c.Clear(X86Feature.SGX_LC);
    }

    /// <summary>Allowed-1 settings of the execution controls and the EPT/VPID features, as /proc/cpuinfo "vmx flags" shows them.</summary>
    private static void InitVmxCapabilities(CpuInfoX86 c, HostX86Cpu cpu)
    {
        const int miscFeatures = 0;
        const int primary = 1;
        const int secondary = 2;
        cpu.RdmsrSafe(MSR_IA32_VMX_PROCBASED_CTLS, out ulong ctls);
        c.VmxCapability[primary] = (uint)(ctls >> 32);
        if (cpu.RdmsrSafe(MSR_IA32_VMX_PROCBASED_CTLS2, out ulong ctls2))
            c.VmxCapability[secondary] = (uint)(ctls2 >> 32);
        if (cpu.RdmsrSafe(MSR_IA32_VMX_PROCBASED_CTLS3, out ulong ctls3))
        {
            c.VmxCapability[3] = (uint)ctls3;
            c.VmxCapability[4] = (uint)(ctls3 >> 32);
        }

        cpu.RdmsrSafe(MSR_IA32_VMX_PINBASED_CTLS, out ulong pin);
        cpu.RdmsrSafe(MSR_IA32_VMX_VMFUNC, out ulong func);
        cpu.RdmsrSafe(MSR_IA32_VMX_EPT_VPID_CAP, out ulong eptVpid);

        // Pin controls 0–15 scattered, EPT features 16–23 and VMFUNC 28 (asm/vmxfeatures.h, word 0).
        uint misc = (uint)(pin >> 32) & 0xf9;
        if ((eptVpid & 1) != 0)
            misc |= 1u << 24;
        if ((eptVpid & (1 << 21)) != 0)
            misc |= 1u << 25;
        if ((eptVpid & (1 << 17)) != 0)
            misc |= 1u << 26;
        if ((func & 1) != 0)
            misc |= 1u << 28;
        c.VmxCapability[miscFeatures] = misc;

        c.Set(X86Feature.TPR_SHADOW);
        if ((ctls >> 32 & (1 << 21)) == 0)
            c.Clear(X86Feature.TPR_SHADOW);
        uint second = c.VmxCapability[secondary];
        if ((ctls >> 32 & (1 << 21)) != 0 && (second & 1) != 0)
            c.Set(X86Feature.FLEXPRIORITY);
        if ((pin >> 32 & (1 << 5)) != 0)
            c.Set(X86Feature.VNMI);
        if ((second & (1 << 1)) != 0)
            c.Set(X86Feature.EPT);
        if ((eptVpid & (1 << 21)) != 0)
            c.Set(X86Feature.EPT_AD);
        if ((second & (1 << 5)) != 0)
            c.Set(X86Feature.VPID);
    }
}
