using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>Exits of control and debug register accesses.</summary>
public sealed unsafe partial class KvmAmd
{
    /// <summary>MOV to and from CR with decode assists; CLTS, LMSW, SMSW and processors without them are emulated.</summary>
    [KernelFunction("cr_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int CrInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("cr_interception");
        VmcbControlArea* control = &svm.Vmcb->Control;
        if (!BootCpuHas(X86Feature.DECODEASSISTS) || (control->ExitInfo1 & CR_VALID) == 0)
            return svm.EmulateInstruction(EmulType.None);

        int reg = (int)(control->ExitInfo1 & SVM_EXITINFO_REG_MASK);
        int code = (int)control->ExitCode;
        int cr = code == SVM_EXIT_CR0_SEL_WRITE ? 16 : code - SVM_EXIT_READ_CR0;
        int err = 0;
        if (cr >= 16)
        {
            cr -= 16;
            ulong value = svm.RegisterRead(reg);
            TraceCr("write", cr, value);
            switch (cr)
            {
                case 0: err = svm.SetCr0(value); break;
                case 3: err = svm.SetCr3(value); break;
                case 4: err = svm.SetCr4(value); break;
                default: err = svm.SetCr8(value); break;
            }
        }
        else
        {
            ulong value = cr switch { 0 => svm.ReadCr0(), 2 => svm.Cr2, 3 => svm.ReadCr3(), 4 => svm.ReadCr4(), _ => svm.GetCr8() };
            svm.RegisterWrite(reg, value);
            TraceCr("read", cr, value);
        }

        return svm.CompleteInsnGp(err);
    }

    private static void TraceCr(string direction, int cr, ulong value)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_cr", $"cr_{direction} {cr:x} = 0x{value:x}");
    }

    /// <summary>With the local APIC in userspace a lowered TPR is reported to it.</summary>
    [KernelFunction("cr8_write_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int Cr8WriteInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("cr8_write_interception");
        ulong previous = svm.GetCr8();
        int r = CrInterception(svm);
        if (svm.LapicInKernel || previous <= svm.GetCr8())
            return r;
        svm.Run->exit_reason = (uint)KVM_EXIT_SET_TPR;
        return 0;
    }

    /// <summary>Write traps exist only for guests with encrypted state, whose processors announce them.</summary>
    [KernelFunction("cr_trap", File = "arch/x86/kvm/svm/svm.c")]
    private int CrTrap(VcpuSvm svm)
    {
        ulong value = svm.Vmcb->Control.ExitInfo1;
        int ret = 0;
        switch ((int)svm.Vmcb->Control.ExitCode - SVM_EXIT_CR0_WRITE_TRAP)
        {
            case 0:
                ulong oldCr0 = svm.ReadCr0();
                SetCr0(svm, value);
                svm.PostSetCr0(oldCr0, value);
                break;
            case 4:
                ulong oldCr4 = svm.ReadCr4();
                SetCr4(svm, value);
                svm.PostSetCr4(oldCr4, value);
                break;
            default:
                ret = svm.SetCr8(value);
                break;
        }

        return svm.CompleteInsnGp(ret);
    }

    [KernelFunction("efer_trap", File = "arch/x86/kvm/svm/svm.c")]
    private static int EferTrap(VcpuSvm svm)
    {
        // SVME is KVM's own bit in the VMCB; the guest's CPUID may not allow it.
        var msr = new MsrData(MSR_EFER, svm.Vmcb->Control.ExitInfo1 & ~EFER_SVME, false);
        return svm.CompleteInsnGp(svm.SetMsrCommon(ref msr));
    }

    /// <summary>The first access hands the debug registers to the guest, unless userspace debugs it.</summary>
    [KernelFunction("dr_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int DrInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("dr_interception");
        if (svm.GuestDebug == 0)
        {
            ClrDrIntercepts(svm);
            svm.SwitchDbRegs |= KVM_DEBUGREG_WONT_EXIT;
            return 1;
        }

        if (!BootCpuHas(X86Feature.DECODEASSISTS))
            return svm.EmulateInstruction(EmulType.None);
        int reg = (int)(svm.Vmcb->Control.ExitInfo1 & SVM_EXITINFO_REG_MASK);
        int dr = (int)svm.Vmcb->Control.ExitCode - SVM_EXIT_READ_DR0;
        int err = 0;
        if (dr >= 16)
            err = svm.SetDr(dr - 16, svm.RegisterRead(reg));
        else
            svm.RegisterWrite(reg, svm.GetDr(dr));
        return svm.CompleteInsnGp(err);
    }
}
