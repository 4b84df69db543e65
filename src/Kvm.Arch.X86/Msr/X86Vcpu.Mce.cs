using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.MsrBits;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The machine-check registers of the guest, and errors that userspace injects.</remarks>
public partial class X86Vcpu
{
    private uint MceBankCount => (uint)(McgCap & 0xff);

    private bool CanSetMciStatus => IsAmdCompatible && (MsrHwcr & K7_HWCR_MC_STATUS_WR_EN) != 0;

    [KernelFunction("set_msr_mce", File = "arch/x86/kvm/x86.c")]
    private int SetMsrMce(in MsrData msr)
    {
        ulong data = msr.Data;
        switch (msr.Index)
        {
            case MSR_IA32_MCG_STATUS:
                McgStatus = data;
                return 0;
            case MSR_IA32_MCG_CTL:
                if ((McgCap & MCG_CTL_P) == 0 && (data != 0 || !msr.HostInitiated))
                    return 1;
                if (data != 0 && data != ~0ul)
                    return 1;
                McgCtl = data;
                return 0;
            case >= MSR_IA32_MC0_CTL2 and < Mc0Ctl2End:
                uint ctl2 = msr.Index - MSR_IA32_MC0_CTL2;
                if (ctl2 >= MceBankCount)
                    return 1;
                if ((McgCap & MCG_CMCI_P) == 0 && (data != 0 || !msr.HostInitiated))
                    return 1;
                if ((data & ~(MCI_CTL2_CMCI_EN | MCI_CTL2_CMCI_THRESHOLD_MASK)) != 0)
                    return 1;
                MciCtl2Banks[ctl2] = data;
                return 0;
            default:
                return SetMceBank(msr.Index - MSR_IA32_MC0_CTL, data, msr.HostInitiated);
        }
    }

    private int SetMceBank(uint offset, ulong data, bool host)
    {
        if (offset >= MceBankCount * 4)
            return 1;

        // CTL takes all zeros or all ones; guests that clear bit 10 (bank 4 of K8) or bit 0 are tolerated.
        if ((offset & 3) == 0 && data != 0 && (data | (1 << 10) | 1) != ~0ul)
            return 1;

        // STATUS is cleared by writing 0; other values need HWCR.McStatusWrEn on AMD.
        if (!host && (offset & 3) == 1 && data != 0 && !CanSetMciStatus)
            return 1;
        MceBanks[offset] = data;
        return 0;
    }

    [KernelFunction("get_msr_mce", File = "arch/x86/kvm/x86.c")]
    private int GetMsrMce(ref MsrData msr)
    {
        switch (msr.Index)
        {
            case MSR_IA32_P5_MC_ADDR:
            case MSR_IA32_P5_MC_TYPE:
                return Value(ref msr, 0);
            case MSR_IA32_MCG_CAP:
                return Value(ref msr, McgCap);
            case MSR_IA32_MCG_CTL:
                return (McgCap & MCG_CTL_P) == 0 && !msr.HostInitiated ? 1 : Value(ref msr, McgCtl);
            case MSR_IA32_MCG_STATUS:
                return Value(ref msr, McgStatus);
            case >= MSR_IA32_MC0_CTL2 and < Mc0Ctl2End:
                uint ctl2 = msr.Index - MSR_IA32_MC0_CTL2;
                if (ctl2 >= MceBankCount || ((McgCap & MCG_CMCI_P) == 0 && !msr.HostInitiated))
                    return 1;
                return Value(ref msr, MciCtl2Banks[ctl2]);
            default:
                uint offset = msr.Index - MSR_IA32_MC0_CTL;
                return offset >= MceBankCount * 4 ? 1 : Value(ref msr, MceBanks[offset]);
        }
    }

    /// <summary>KVM_X86_SETUP_MCE: -EINVAL for no bank, more than 32, or a capability that the host lacks.</summary>
    [KernelFunction("kvm_vcpu_ioctl_x86_setup_mce", File = "arch/x86/kvm/x86.c")]
    internal int SetupMce(ulong mcgCap)
    {
        uint banks = (uint)(mcgCap & 0xff);
        if (banks == 0 || banks > KVM_MAX_MCE_BANKS)
            return -EINVAL;
        if ((mcgCap & ~(Arch.KvmCaps.SupportedMceCap | 0xff | 0xff0000)) != 0)
            return -EINVAL;
        McgCap = mcgCap;
        if ((mcgCap & MCG_CTL_P) != 0)
            McgCtl = ~0ul;
        for (uint bank = 0; bank < banks; bank++)
        {
            MceBanks[bank * 4] = ~0ul;
            if ((mcgCap & MCG_CMCI_P) != 0)
                MciCtl2Banks[bank] = 0;
        }

        Apic?.AfterSetMcgCap();
        Ops.SetupMce(this);
        return 0;
    }

    /// <summary>KVM_X86_SET_MCE: records an error in a bank and raises #MC for an uncorrected one.</summary>
    [KernelFunction("kvm_vcpu_ioctl_x86_set_mce", File = "arch/x86/kvm/x86.c")]
    internal int SetMce(in kvm_x86_mce mce)
    {
        if (mce.bank >= MceBankCount || (mce.status & MCI_STATUS_VAL) == 0)
            return -EINVAL;
        Span<ulong> bank = MceBanks.AsSpan(4 * mce.bank, 4);
        ulong status = mce.status;

        // UCNA: uncorrected, neither signalled nor requiring action: CMCI, when the bank has it enabled.
        const ulong signalled = (1ul << 57) | (1ul << 56) | (1ul << 55);
        if (mce.mcg_status == 0 && (status & signalled) == 0 && (status & MCI_STATUS_UC) != 0)
        {
            bank[1] = status;
            bank[2] = mce.addr;
            bank[3] = mce.misc;
            McgStatus = mce.mcg_status;
            const ulong cmciEnabled = 1ul << 30;
            if ((McgCap & MCG_CMCI_P) != 0 && (MciCtl2Banks[mce.bank] & cmciEnabled) != 0)
                Apic?.LocalDeliver(ApicConst.APIC_LVTCMCI);
            return 0;
        }

        bool uncorrected = (status & MCI_STATUS_UC) != 0;
        if (uncorrected && (McgCap & MCG_CTL_P) != 0 && McgCtl != ~0ul)
            return 0;
        if (uncorrected && bank[0] != ~0ul)
            return 0;
        if (uncorrected)
        {
            if ((McgStatus & MCG_STATUS_MCIP) != 0 || ReadCr4Bits(X86_CR4_MCE) == 0)
            {
                MakeRequest(KVM_REQ_TRIPLE_FAULT);
                return 0;
            }

            if ((bank[1] & MCI_STATUS_VAL) != 0)
                status |= MCI_STATUS_OVER;
            bank[2] = mce.addr;
            bank[3] = mce.misc;
            McgStatus = mce.mcg_status;
            bank[1] = status;
            QueueException(MC_VECTOR);
        }
        else if ((bank[1] & MCI_STATUS_VAL) == 0 || (bank[1] & MCI_STATUS_UC) == 0)
        {
            if ((bank[1] & MCI_STATUS_VAL) != 0)
                status |= MCI_STATUS_OVER;
            bank[2] = mce.addr;
            bank[3] = mce.misc;
            bank[1] = status;
        }
        else
        {
            bank[1] |= MCI_STATUS_OVER;
        }

        return 0;
    }
}
