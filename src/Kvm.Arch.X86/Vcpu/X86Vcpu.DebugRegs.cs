using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Debug registers of the guest, and of userspace debugging it.</remarks>
public partial class X86Vcpu
{
    private void UpdateDr0123()
    {
        if ((GuestDebug & KVM_GUESTDBG_USE_HW_BP) == 0)
            Db.CopyTo(EffDb, 0);
    }

    [KernelFunction("kvm_update_dr7", File = "arch/x86/kvm/x86.c")]
    public void UpdateDr7()
    {
        ulong dr7 = (GuestDebug & KVM_GUESTDBG_USE_HW_BP) != 0 ? GuestDebugDr7 : Dr7;
        Ops.SetDr7(this, dr7);
        SwitchDbRegs &= ~KVM_DEBUGREG_BP_ENABLED;
        if ((dr7 & DR7_BP_EN_MASK) != 0)
            SwitchDbRegs |= KVM_DEBUGREG_BP_ENABLED;
    }

    private ulong Dr6Fixed
    {
        get
        {
            ulong value = DR6_FIXED_1;
            if (!GuestCpuidHas(X86Feature.RTM))
                value |= DR6_RTM;
            if (!GuestCpuidHas(X86Feature.BUS_LOCK_DETECT))
                value |= DR6_BUS_LOCK;
            return value;
        }
    }

    /// <summary>MOV DR: 0, or 1 when bits 63:32 of DR6 or DR7 are set (#GP).</summary>
    [KernelFunction("kvm_set_dr", File = "arch/x86/kvm/x86.c")]
    public int SetDr(int dr, ulong value)
    {
        switch (dr)
        {
            case >= 0 and <= 3:
                Db[dr] = value;
                if ((GuestDebug & KVM_GUESTDBG_USE_HW_BP) == 0)
                    EffDb[dr] = value;
                break;
            case 4 or 6:
                if (value >> 32 != 0)
                    return 1;
                Dr6 = (value & DR6_VOLATILE) | Dr6Fixed;
                break;
            default:
                if (value >> 32 != 0)
                    return 1;
                Dr7 = (value & DR7_VOLATILE) | DR7_FIXED_1;
                UpdateDr7();
                break;
        }

        return 0;
    }

    [KernelFunction("kvm_get_dr", File = "arch/x86/kvm/x86.c")]
    public ulong GetDr(int dr) => dr switch
    {
        >= 0 and <= 3 => Db[dr],
        4 or 6 => Dr6,
        _ => Dr7,
    };
}
