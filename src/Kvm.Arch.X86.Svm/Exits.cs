using System.Collections.Frozen;
using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>What each exit code leads to. 1: re-enter the guest; 0: exit to userspace; negative: errno of KVM_RUN.</summary>
public sealed unsafe partial class KvmAmd
{
    [KernelFunction("svm_handle_exit", File = "arch/x86/kvm/svm/svm.c", Formerly = "handle_exit")]
    public int HandleExit(X86Vcpu vcpu, ExitFastpathCompletion exitFastpath)
    {
        using var _ = FunctionTrace.Enter("svm_handle_exit");
        VcpuSvm svm = ToSvm(vcpu);
        if (Tracepoints.Enabled)
            TraceExit(svm);
        if (!IsIntercept(svm, SvmIntercept.INTERCEPT_CR0_WRITE))
            vcpu.Cr0 = svm.Vmcb->Save.Cr0;
        if (Params.Npt)
            vcpu.Cr3 = svm.Vmcb->Save.Cr3;

        ulong exitCode = svm.Vmcb->Control.ExitCode;
        if ((int)exitCode == SVM_EXIT_ERR)
        {
            vcpu.Run->exit_reason = (uint)KVM_EXIT_FAIL_ENTRY;
            vcpu.Run->fail_entry.hardware_entry_failure_reason = (uint)exitCode;
            vcpu.Run->fail_entry.cpu = (uint)vcpu.LastVmentryCpu;
            DumpVmcb(svm);
            return 0;
        }

        return exitFastpath != ExitFastpathCompletion.EXIT_FASTPATH_NONE ? 1 : InvokeExitHandler(svm, (uint)exitCode);
    }

    /// <summary>svm_exit_handlers, in the order of the exit codes.</summary>
    [KernelFunction("svm_invoke_exit_handler", File = "arch/x86/kvm/svm/svm.c")]
    private int InvokeExitHandler(VcpuSvm svm, uint exitCode)
    {
        using var _ = FunctionTrace.Enter("svm_invoke_exit_handler");
        switch ((int)exitCode)
        {
            case SVM_EXIT_READ_CR0 or SVM_EXIT_READ_CR3 or SVM_EXIT_READ_CR4 or SVM_EXIT_READ_CR8: return CrInterception(svm);
            case SVM_EXIT_WRITE_CR0 or SVM_EXIT_WRITE_CR3 or SVM_EXIT_WRITE_CR4: return CrInterception(svm);
            case SVM_EXIT_WRITE_CR8: return Cr8WriteInterception(svm);
            case >= SVM_EXIT_READ_DR0 and <= SVM_EXIT_WRITE_DR7 and not (> SVM_EXIT_READ_DR7 and < SVM_EXIT_WRITE_DR0): return DrInterception(svm);
            case SVM_EXIT_EXCP_BASE + DB_VECTOR: return DbInterception(svm);
            case SVM_EXIT_EXCP_BASE + BP_VECTOR: return BpInterception(svm);
            case SVM_EXIT_EXCP_BASE + UD_VECTOR: return UdInterception(svm);
            case SVM_EXIT_EXCP_BASE + GP_VECTOR: return GpInterception(svm);
            case SVM_EXIT_EXCP_BASE + PF_VECTOR: return PfInterception(svm);
            case SVM_EXIT_EXCP_BASE + AC_VECTOR: return AcInterception(svm);
            case SVM_EXIT_EXCP_BASE + MC_VECTOR: return 1; // mc_interception: done before interrupts were enabled
            case SVM_EXIT_INTR: return IntrInterception(svm);
            case SVM_EXIT_NMI: return 1; // nmi_interception: taken at STGI
            case SVM_EXIT_SMI: return 1; // smi_interception
            case SVM_EXIT_VINTR: return InterruptWindowInterception(svm);
            case SVM_EXIT_CR0_SEL_WRITE: return CrInterception(svm);
            case SVM_EXIT_RDPMC: return svm.EmulateRdpmc();
            case SVM_EXIT_CPUID: return svm.EmulateCpuid();
            case SVM_EXIT_RSM: return RsmInterception(svm);
            case SVM_EXIT_IRET: return IretInterception(svm);
            case SVM_EXIT_INVD: return svm.EmulateInvd();
            case SVM_EXIT_PAUSE: return PauseInterception(svm);
            case SVM_EXIT_HLT: return svm.EmulateHalt();
            case SVM_EXIT_INVLPG: return InvlpgInterception(svm);
            case SVM_EXIT_INVLPGA: return InvlpgaInterception(svm);
            case SVM_EXIT_IOIO: return IoInterception(svm);
            case SVM_EXIT_MSR: return MsrInterception(svm);
            case SVM_EXIT_TASK_SWITCH: return TaskSwitchInterception(svm);
            case SVM_EXIT_SHUTDOWN: return ShutdownInterception(svm);
            case SVM_EXIT_VMRUN: return VmrunInterception(svm);
            case SVM_EXIT_VMMCALL: return svm.EmulateHypercall();
            case SVM_EXIT_VMLOAD: return VmloadVmsaveInterception(svm, vmload: true);
            case SVM_EXIT_VMSAVE: return VmloadVmsaveInterception(svm, vmload: false);
            case SVM_EXIT_STGI: return StgiInterception(svm);
            case SVM_EXIT_CLGI: return ClgiInterception(svm);
            case SVM_EXIT_SKINIT: return SkinitInterception(svm);
            case SVM_EXIT_RDTSCP: return svm.HandleInvalidOp();
            case SVM_EXIT_WBINVD: return svm.EmulateWbinvd();
            case SVM_EXIT_MONITOR: return svm.EmulateMonitor();
            case SVM_EXIT_MWAIT: return svm.EmulateMwait();
            case SVM_EXIT_XSETBV: return svm.EmulateXsetbv();
            case SVM_EXIT_RDPRU: return svm.HandleInvalidOp();
            case SVM_EXIT_EFER_WRITE_TRAP: return EferTrap(svm);
            case SVM_EXIT_CR0_WRITE_TRAP or SVM_EXIT_CR4_WRITE_TRAP or SVM_EXIT_CR8_WRITE_TRAP: return CrTrap(svm);
            case SVM_EXIT_INVPCID: return InvpcidInterception(svm);
            case SVM_EXIT_NPF: return NpfInterception(svm);
            default: return HandleInvalidExit(svm, exitCode);
        }
    }

    [KernelFunction("svm_handle_invalid_exit", File = "arch/x86/kvm/svm/svm.c")]
    private int HandleInvalidExit(VcpuSvm svm, uint exitCode)
    {
        VcpuUnimpl(svm, $"svm: unexpected exit reason 0x{exitCode:x}");
        DumpVmcb(svm);
        Abi.kvm_run* run = svm.Run;
        run->exit_reason = (uint)KVM_EXIT_INTERNAL_ERROR;
        run->@internal.suberror = (uint)KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
        run->@internal.ndata = 2;
        run->@internal.data[0] = exitCode;
        run->@internal.data[1] = (ulong)svm.LastVmentryCpu;
        return 0;
    }

    [KernelFunction("svm_get_exit_info", File = "arch/x86/kvm/svm/svm.c")]
    public void GetExitInfo(X86Vcpu vcpu, out uint reason, out ulong info1, out ulong info2, out uint exitIntInfo, out uint exitIntInfoErrCode)
    {
        VmcbControlArea* control = &ToSvm(vcpu).Vmcb->Control;
        reason = (uint)control->ExitCode;
        info1 = control->ExitInfo1;
        info2 = control->ExitInfo2;
        exitIntInfo = control->ExitIntInfo;
        bool hasError = (exitIntInfo & SVM_EVTINJ_VALID) != 0 && (exitIntInfo & SVM_EVTINJ_VALID_ERR) != 0;
        exitIntInfoErrCode = hasError ? control->ExitIntInfoError : 0;
    }

    private static readonly FrozenDictionary<uint, string> exitReasonNames = SVM_EXIT_REASONS.ToFrozenDictionary(r => (uint)r.Key, r => r.Value);

    /// <summary>__print_symbolic: the name, or the number in hexadecimal.</summary>
    private static string ExitReasonName(uint reason) => exitReasonNames.GetValueOrDefault(reason) ?? $"0x{reason:x}";

    private void TraceExit(VcpuSvm svm)
    {
        GetExitInfo(svm, out uint reason, out ulong info1, out ulong info2, out uint intr, out uint error);
        Tracepoints.Emit("kvm_exit", $"vcpu {svm.VcpuId} reason {ExitReasonName(reason)} rip 0x{svm.Rip:x} info1 0x{info1:x16} info2 0x{info2:x16} intr_info 0x{intr:x8} error_code 0x{error:x8}");
    }

    // ---- page faults ----

    private ReadOnlySpan<byte> InstructionBytes(VcpuSvm svm)
    {
        VmcbControlArea* control = &svm.Vmcb->Control;
        return BootCpuHas(X86Feature.DECODEASSISTS) ? new ReadOnlySpan<byte>(control->InstructionBytes, Math.Min((int)control->InstructionLength, 15)) : default;
    }

    /// <summary>Only without nested paging: EXITINFO1 has the error code, EXITINFO2 the address.</summary>
    [KernelFunction("pf_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int PfInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("pf_interception");
        VmcbControlArea* control = &svm.Vmcb->Control;
        return svm.HandlePageFault(control->ExitInfo1, control->ExitInfo2, InstructionBytes(svm));
    }

    [KernelFunction("npf_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int NpfInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("npf_interception");
        VmcbControlArea* control = &svm.Vmcb->Control;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_page_fault", $"vcpu {svm.VcpuId} rip 0x{svm.Rip:x} address 0x{control->ExitInfo2:x16} error_code 0x{control->ExitInfo1:x}");
        return svm.MmuPageFault(control->ExitInfo2, control->ExitInfo1, InstructionBytes(svm));
    }

    // ---- interrupts ----

    [KernelFunction("intr_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int IntrInterception(VcpuSvm svm)
    {
        svm.Stat.IrqExits++;
        return 1;
    }

    [KernelFunction("interrupt_window_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int InterruptWindowInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("interrupt_window_interception");
        svm.MakeRequest(X86Request.KVM_REQ_EVENT);
        ClearVintr(svm);
        svm.Stat.IrqWindowExits++;
        return 1;
    }

    /// <summary>The NMI handler is about to return. NMIs open when RIP has moved, that is when the IRET is over.</summary>
    [KernelFunction("iret_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int IretInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("iret_interception");
        svm.Stat.NmiWindowExits++;
        svm.Hflags |= HF_IRET_MASK;
        ClrIntercept(svm, SvmIntercept.INTERCEPT_IRET);
        svm.NmiIretRip = svm.Rip;
        svm.MakeRequest(X86Request.KVM_REQ_EVENT);
        return 1;
    }

    /// <summary>
    /// Triple fault. The VMCB is undefined afterwards, so the vCPU is put in INIT state, which is also what platforms do on shutdown.
    /// </summary>
    [KernelFunction("shutdown_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int ShutdownInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("shutdown_interception");
        *svm.Vmcb = default;
        if (svm.IsSmm)
            svm.SmmChanged(false);
        svm.Reset(true);
        svm.Run->exit_reason = (uint)KVM_EXIT_SHUTDOWN;
        return 0;
    }

    // ---- instructions ----

    [KernelFunction("io_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int IoInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("io_interception");
        svm.Stat.IoExits++;
        uint info = (uint)svm.Vmcb->Control.ExitInfo1;
        if ((info & SVM_IOIO_STR_MASK) != 0)
            return svm.EmulateInstruction(EmulType.None);
        svm.NextRip = svm.Vmcb->Control.ExitInfo2;
        int size = (int)(info & SVM_IOIO_SIZE_MASK) >> SVM_IOIO_SIZE_SHIFT;
        return svm.FastPio(size, (ushort)(info >> 16), (info & SVM_IOIO_TYPE_MASK) != 0);
    }

    [KernelFunction("msr_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int MsrInterception(VcpuSvm svm) => svm.Vmcb->Control.ExitInfo1 != 0 ? svm.EmulateWrmsr() : svm.EmulateRdmsr();

    [KernelFunction("pause_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int PauseInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("pause_interception");
        bool inKernel = GetCpl(svm) == 0;
        GrowPleWindow(svm);
        svm.OnSpin(inKernel);
        return svm.SkipEmulatedInstruction();
    }

    /// <summary>Without decode assists the instruction is read and emulated.</summary>
    [KernelFunction("invlpg_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int InvlpgInterception(VcpuSvm svm)
    {
        if (!BootCpuHas(X86Feature.DECODEASSISTS))
            return svm.EmulateInstruction(EmulType.None);
        svm.MmuInvlpg(svm.Vmcb->Control.ExitInfo1);
        return svm.SkipEmulatedInstruction();
    }

    /// <summary>EXITINFO1: linear address of the descriptor; EXITINFO2: the register operand.</summary>
    [KernelFunction("invpcid_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int InvpcidInterception(VcpuSvm svm)
    {
        if (!svm.GuestCpuidHas(X86Feature.INVPCID))
        {
            svm.QueueException(UD_VECTOR);
            return 1;
        }

        return svm.HandleInvpcid(svm.Vmcb->Control.ExitInfo2, svm.Vmcb->Control.ExitInfo1);
    }

    [KernelFunction("rsm_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static int RsmInterception(VcpuSvm svm) => svm.EmulateInstructionFromBuffer([0x0f, 0xaa]);

    [KernelFunction("task_switch_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int TaskSwitchInterception(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("task_switch_interception");
        VmcbControlArea* control = &svm.Vmcb->Control;
        ulong info2 = control->ExitInfo2;
        uint type = control->ExitIntInfo & SVM_EVTINJ_TYPE_MASK;
        int vector = (int)(control->ExitIntInfo & SVM_EVTINJ_VEC_MASK);
        TaskSwitchReason reason;
        if ((info2 >> SVM_EXITINFOSHIFT_TS_REASON_IRET & 1) != 0)
            reason = TaskSwitchReason.TASK_SWITCH_IRET;
        else if ((info2 >> SVM_EXITINFOSHIFT_TS_REASON_JMP & 1) != 0)
            reason = TaskSwitchReason.TASK_SWITCH_JMP;
        else
            reason = (control->ExitIntInfo & SVM_EVTINJ_VALID) != 0 ? TaskSwitchReason.TASK_SWITCH_GATE : TaskSwitchReason.TASK_SWITCH_CALL;

        bool hasErrorCode = false;
        uint errorCode = 0;
        if (reason == TaskSwitchReason.TASK_SWITCH_GATE)
        {
            if (type == SVM_EVTINJ_TYPE_NMI)
            {
                svm.NmiInjected = false;
            }
            else if (type == SVM_EVTINJ_TYPE_EXEPT)
            {
                hasErrorCode = (info2 >> SVM_EXITINFOSHIFT_TS_HAS_ERROR_CODE & 1) != 0;
                errorCode = hasErrorCode ? (uint)info2 : 0;
                svm.ClearExceptionQueue();
            }
            else if (type is SVM_EVTINJ_TYPE_INTR or SVM_EVTINJ_TYPE_SOFT)
            {
                svm.ClearInterruptQueue();
            }
        }

        // The switch was made by an instruction, which is over once the new task runs.
        if ((reason != TaskSwitchReason.TASK_SWITCH_GATE || type == SVM_EVTINJ_TYPE_SOFT || (type == SVM_EVTINJ_TYPE_EXEPT && ExceptionIsSoft(vector)))
            && SkipEmulatedInstruction(svm) == 0)
            return 0;
        return svm.TaskSwitch((ushort)control->ExitInfo1, type == SVM_EVTINJ_TYPE_SOFT ? vector : -1, reason, hasErrorCode, errorCode);
    }
}
