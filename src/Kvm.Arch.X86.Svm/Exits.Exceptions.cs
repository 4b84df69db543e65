using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>Exits of exceptions, except #PF.</summary>
public sealed unsafe partial class KvmAmd
{
    /// <summary>The guest's own #DB, KVM's single step to an NMI window, or userspace's breakpoint.</summary>
    [KernelFunction("db_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int DbInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("db_interception");
        bool userDebugs = (svm.GuestDebug & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)) != 0;
        if (!userDebugs && !svm.NmiSinglestep)
        {
            svm.QueueExceptionP(DB_VECTOR, (uint)(svm.Vmcb->Save.Dr6 ^ DR6_ACTIVE_LOW));
            return 1;
        }

        if (svm.NmiSinglestep)
        {
            DisableNmiSinglestep(svm);
            svm.MakeRequest(X86Request.KVM_REQ_EVENT);
        }

        if (!userDebugs)
            return 1;
        Abi.kvm_run* run = svm.Run;
        run->exit_reason = (uint)KVM_EXIT_DEBUG;
        run->debug.arch.dr6 = svm.Vmcb->Save.Dr6;
        run->debug.arch.dr7 = svm.Vmcb->Save.Dr7;
        run->debug.arch.pc = svm.Vmcb->Save.Cs.Base + svm.Vmcb->Save.Rip;
        run->debug.arch.exception = DB_VECTOR;
        return 0;
    }

    [KernelFunction("bp_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int BpInterception(VcpuSvm svm)
    {
        Abi.kvm_run* run = svm.Run;
        run->exit_reason = (uint)KVM_EXIT_DEBUG;
        run->debug.arch.pc = svm.Vmcb->Save.Cs.Base + svm.Vmcb->Save.Rip;
        run->debug.arch.exception = BP_VECTOR;
        return 0;
    }

    [KernelFunction("ud_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int UdInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("ud_interception");
        return svm.HandleUd();
    }

    [KernelFunction("ac_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int AcInterception(VcpuSvm svm)
    {
        svm.QueueExceptionE(AC_VECTOR, 0);
        return 1;
    }

    /// <summary>
    /// #GP with error code 0 may be a VMware backdoor access, or VMRUN, VMLOAD or VMSAVE with an operand that some processors refuse: emulated then.
    /// Every other #GP is the guest's.
    /// </summary>
    [KernelFunction("gp_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int GpInterception(VcpuSvm svm)
    {
        uint errorCode = (uint)svm.Vmcb->Control.ExitInfo1;
        if (errorCode == 0 && svm.DecodeEmulatedInstruction(EmulType.None, default))
        {
            byte modrm = SvmInstructionModrm(svm);
            if (modrm == 0)
            {
                if (arch.Params.EnableVmwareBackdoor)
                    return svm.EmulateInstruction(EmulType.EMULTYPE_VMWARE_GP | EmulType.EMULTYPE_NO_DECODE);
            }
            else if ((svm.Vmcb->Save.Rax & 0xfff) == 0)
            {
                return modrm switch
                {
                    0xd8 => VmrunInterception(svm),
                    0xda => VmloadVmsaveInterception(svm, vmload: true),
                    _ => VmloadVmsaveInterception(svm, vmload: false),
                };
            }
        }

        svm.QueueExceptionE(GP_VECTOR, errorCode);
        return 1;
    }

    /// <summary>svm_instr_opcode: the ModRM byte of VMRUN (D8), VMLOAD (DA) or VMSAVE (DB); 0 for anything else.</summary>
    private static byte SvmInstructionModrm(VcpuSvm svm)
    {
        Span<byte> bytes = stackalloc byte[MAX_INSN_SIZE];
        if (svm.FetchGuestVirt(svm.GetLinearRip(), bytes, out X86Exception _) != 0)
            return 0;
        int i = 0;
        while (i < bytes.Length && bytes[i] is 0x66 or 0x67 or 0xf2 or 0xf3 or 0x2e or 0x36 or 0x3e or 0x26 or 0x64 or 0x65 or (>= 0x40 and <= 0x4f))
            i++;
        return i + 2 < bytes.Length && bytes[i] == 0x0f && bytes[i + 1] == 0x01 && bytes[i + 2] is 0xd8 or 0xda or 0xdb ? bytes[i + 2] : (byte)0;
    }
}
