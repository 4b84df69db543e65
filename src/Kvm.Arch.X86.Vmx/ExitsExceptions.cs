using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Exits for exceptions, NMIs, interrupts and their windows.</summary>
public sealed unsafe partial class KvmIntel
{
    /// <summary>Exceptions of virtual-8086 mode that are real mode's too (on a processor without unrestricted guest).</summary>
    [KernelFunction("rmode_exception", File = "arch/x86/kvm/vmx/vmx.c")]
    private static bool RmodeException(VcpuVmx vmx, int vector)
    {
        switch (vector)
        {
            case BP_VECTOR:
            case DB_VECTOR:
                if (vector == BP_VECTOR)
                {
                    // Userspace may reinject it while debugging the guest.
                    vmx.EventExitInstLen = (byte)vmx.Read32(VM_EXIT_INSTRUCTION_LEN);
                    if ((vmx.GuestDebug & KVM_GUESTDBG_USE_SW_BP) != 0)
                        return false;
                }
                return (vmx.GuestDebug & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)) == 0;
            case DE_VECTOR:
            case OF_VECTOR:
            case BR_VECTOR:
            case UD_VECTOR:
            case DF_VECTOR:
            case SS_VECTOR:
            case GP_VECTOR:
            case MF_VECTOR:
                return true;
            default:
                return false;
        }
    }

    [KernelFunction("handle_rmode_exception", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleRmodeException(VcpuVmx vmx, int vector, uint errorCode)
    {
        // What real mode allows and virtual-8086 mode does not comes as #GP(0), or #SS(0) with an address-size prefix.
        if (vector is GP_VECTOR or SS_VECTOR && errorCode == 0)
        {
            if (vmx.EmulateInstruction(EmulType.None) == 0)
                return 0;
            if (vmx.HaltRequest != 0)
            {
                vmx.HaltRequest = 0;
                return vmx.EmulateHaltNoskip();
            }
            return 1;
        }
        vmx.QueueException((byte)vector);
        return 1;
    }

    /// <summary>Without split-lock detection in the host #AC is always the guest's.</summary>
    [KernelFunction("vmx_guest_inject_ac", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool GuestInjectAc(VcpuVmx vmx)
    {
        if (!BootCpuHas(X86Feature.SPLIT_LOCK_DETECT))
            return true;
        return GetCpl(vmx) == 3 && vmx.ReadCr0Bits(Cr0.AM) != 0 && (GetRflags(vmx) & Flags.AC) != 0;
    }

    [KernelFunction("handle_exception_nmi", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleExceptionNmi(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_exception_nmi");
        uint vectInfo = vmx.IdtVectoringInfo;
        uint intrInfo = GetIntrInfo(vmx);
        if (IsException(intrInfo, MC_VECTOR) || IsNmi(intrInfo))
            return 1; // done with interrupts off
        if (IsException(intrInfo, NM_VECTOR))
        {
            vmx.QueueException(NM_VECTOR);
            return 1;
        }
        if (IsException(intrInfo, UD_VECTOR))
            return vmx.HandleUd();

        uint errorCode = (intrInfo & INTR_INFO_DELIVER_CODE_MASK) != 0 ? vmx.Read32(VM_EXIT_INTR_ERROR_CODE) : 0;
        if (!vmx.Rmode.Vm86Active && IsException(intrInfo, GP_VECTOR))
        {
            // Intercepted for the VMware backdoor only: port I/O and RDPMC, whose #GP has no error code.
            if (errorCode != 0)
            {
                vmx.QueueExceptionE(GP_VECTOR, errorCode);
                return 1;
            }
            return vmx.EmulateInstruction(EmulType.EMULTYPE_VMWARE_GP);
        }

        bool pageFault = IsException(intrInfo, PF_VECTOR);
        if ((vectInfo & VECTORING_INFO_VALID_MASK) != 0 && !(pageFault && (errorCode & PFERR_RSVD_MASK) == 0))
            return SimultaneousExceptions(vmx, vectInfo, intrInfo, errorCode);
        if (pageFault)
        {
            // Here the kernel has a call of it.
            ulong cr2;
            using (FunctionTrace.Enter("vmx_get_exit_qual"))
                cr2 = GetExitQual(vmx);
            if (kvmIntel.EnableEpt)
            {
                vmx.FixupAndInjectPfError(cr2, (ushort)errorCode);
                return 1;
            }
            return vmx.HandlePageFault(errorCode, cr2, default);
        }
        int exNo = (byte)intrInfo;
        if (vmx.Rmode.Vm86Active && RmodeException(vmx, exNo))
            return HandleRmodeException(vmx, exNo, errorCode);
        return kvmIntel.HandleDebugAndOtherExceptions(vmx, exNo, intrInfo, errorCode);
    }

    private static int SimultaneousExceptions(VcpuVmx vmx, uint vectInfo, uint intrInfo, uint errorCode)
    {
        kvm_run* run = vmx.Run;
        run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
        run->@internal.suberror = KVM_INTERNAL_ERROR_SIMUL_EX;
        run->@internal.ndata = 4;
        run->@internal.data[0] = vectInfo;
        run->@internal.data[1] = intrInfo;
        run->@internal.data[2] = errorCode;
        run->@internal.data[3] = (ulong)vmx.LastVmentryCpu;
        return 0;
    }

    private int HandleDebugAndOtherExceptions(VcpuVmx vmx, int exNo, uint intrInfo, uint errorCode)
    {
        kvm_run* run = vmx.Run;
        switch (exNo)
        {
            case DB_VECTOR:
            case BP_VECTOR:
                if (exNo == DB_VECTOR)
                {
                    ulong dr6 = GetExitQual(vmx);
                    if ((vmx.GuestDebug & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)) == 0)
                    {
                        // INT1 is intercepted as an instruction although its #DB is a trap.
                        if (IsIcebp(intrInfo))
                            SkipEmulatedInstructionInner(vmx);
                        vmx.QueueExceptionP(DB_VECTOR, dr6);
                        return 1;
                    }
                    run->debug.arch.dr6 = dr6 | DR6_ACTIVE_LOW;
                    run->debug.arch.dr7 = vmx.Readl(GUEST_DR7);
                }
                vmx.EventExitInstLen = (byte)vmx.Read32(VM_EXIT_INSTRUCTION_LEN);
                run->exit_reason = KVM_EXIT_DEBUG;
                run->debug.arch.pc = vmx.GetLinearRip();
                run->debug.arch.exception = (uint)exNo;
                return 0;
            case AC_VECTOR when GuestInjectAc(vmx):
                vmx.QueueExceptionE(AC_VECTOR, errorCode);
                return 1;
            default:
                run->exit_reason = KVM_EXIT_EXCEPTION;
                run->ex.exception = (uint)exNo;
                run->ex.error_code = errorCode;
                return 0;
        }
    }

    [KernelFunction("handle_external_interrupt", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleExternalInterrupt(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        vmx.Stat.IrqExits++;
        return 1;
    }

    [KernelFunction("handle_machine_check", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleMachineCheck(KvmIntel kvmIntel, VcpuVmx vmx) => 1;

    [KernelFunction("handle_triple_fault", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleTripleFault(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        vmx.Run->exit_reason = KVM_EXIT_SHUTDOWN;
        vmx.MmioNeeded = false;
        return 0;
    }

    [KernelFunction("handle_interrupt_window", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleInterruptWindow(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_interrupt_window");
        vmx.ExecControlsClearbit(CPU_BASED_INTR_WINDOW_EXITING);
        vmx.MakeRequest(KVM_REQ_EVENT);
        vmx.Stat.IrqWindowExits++;
        return 1;
    }

    [KernelFunction("handle_nmi_window", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleNmiWindow(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        if (!kvmIntel.EnableVnmi)
        {
            vmx.Vm.BugOn(true);
            return eio;
        }
        vmx.ExecControlsClearbit(CPU_BASED_NMI_WINDOW_EXITING);
        vmx.Stat.NmiWindowExits++;
        vmx.MakeRequest(KVM_REQ_EVENT);
        return 1;
    }

    [KernelFunction("handle_task_switch", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleTaskSwitch(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_task_switch");
        uint info = vmx.IdtVectoringInfo;
        bool vectoring = (info & VECTORING_INFO_VALID_MASK) != 0;
        uint type = info & VECTORING_INFO_TYPE_MASK;
        ulong qualification = GetExitQual(vmx);
        int reason = (int)((uint)qualification >> 30);
        bool hasErrorCode = false;
        uint errorCode = 0;
        if (reason == TASK_SWITCH_GATE && vectoring)
        {
            switch (type)
            {
                case INTR_TYPE_NMI_INTR:
                    vmx.NmiInjected = false;
                    kvmIntel.SetNmiMask(vmx, true);
                    break;
                case INTR_TYPE_EXT_INTR:
                case INTR_TYPE_SOFT_INTR:
                    vmx.ClearInterruptQueue();
                    break;
                case INTR_TYPE_HARD_EXCEPTION:
                case INTR_TYPE_SOFT_EXCEPTION:
                    if (type == INTR_TYPE_HARD_EXCEPTION && (info & VECTORING_INFO_DELIVER_CODE_MASK) != 0)
                    {
                        hasErrorCode = true;
                        errorCode = vmx.Read32(IDT_VECTORING_ERROR_CODE);
                    }
                    vmx.ClearExceptionQueue();
                    break;
            }
        }
        if (!vectoring || (type != INTR_TYPE_HARD_EXCEPTION && type != INTR_TYPE_EXT_INTR && type != INTR_TYPE_NMI_INTR))
            kvmIntel.SkipEmulatedInstructionInner(vmx);
        return vmx.TaskSwitch((ushort)qualification, type == INTR_TYPE_SOFT_INTR ? (byte)info : -1, (TaskSwitchReason)reason, hasErrorCode, errorCode);
    }
}
