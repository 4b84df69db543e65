using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>What becomes of a VM exit: 1 = handled, enter again; 0 = kvm_run says what userspace has to do; negative = the errno of KVM_RUN.</summary>
public sealed unsafe partial class KvmIntel
{
    private const int maxExitHandlers = EXIT_REASON_NOTIFY + 1;
    private const int eio = -(int)Errno.EIO;

    /// <summary>By basic exit reason; reasons without a handler are unexpected.</summary>
    private readonly delegate*<KvmIntel, VcpuVmx, int>[] exitHandlers = ExitHandlerTable();

    private static delegate*<KvmIntel, VcpuVmx, int>[] ExitHandlerTable()
    {
        var table = new delegate*<KvmIntel, VcpuVmx, int>[maxExitHandlers];
        table[EXIT_REASON_EXCEPTION_NMI] = &HandleExceptionNmi;
        table[EXIT_REASON_EXTERNAL_INTERRUPT] = &HandleExternalInterrupt;
        table[EXIT_REASON_TRIPLE_FAULT] = &HandleTripleFault;
        table[EXIT_REASON_NMI_WINDOW] = &HandleNmiWindow;
        table[EXIT_REASON_IO_INSTRUCTION] = &HandleIo;
        table[EXIT_REASON_CR_ACCESS] = &HandleCr;
        table[EXIT_REASON_DR_ACCESS] = &HandleDr;
        table[EXIT_REASON_CPUID] = &EmulateCpuid;
        table[EXIT_REASON_MSR_READ] = &EmulateRdmsr;
        table[EXIT_REASON_MSR_WRITE] = &EmulateWrmsr;
        table[EXIT_REASON_INTERRUPT_WINDOW] = &HandleInterruptWindow;
        table[EXIT_REASON_HLT] = &EmulateHalt;
        table[EXIT_REASON_INVD] = &EmulateInvd;
        table[EXIT_REASON_INVLPG] = &HandleInvlpg;
        table[EXIT_REASON_RDPMC] = &EmulateRdpmc;
        table[EXIT_REASON_VMCALL] = &EmulateHypercall;
        table[EXIT_REASON_VMCLEAR] = &HandleVmxInstruction;
        table[EXIT_REASON_VMLAUNCH] = &HandleVmxInstruction;
        table[EXIT_REASON_VMPTRLD] = &HandleVmxInstruction;
        table[EXIT_REASON_VMPTRST] = &HandleVmxInstruction;
        table[EXIT_REASON_VMREAD] = &HandleVmxInstruction;
        table[EXIT_REASON_VMRESUME] = &HandleVmxInstruction;
        table[EXIT_REASON_VMWRITE] = &HandleVmxInstruction;
        table[EXIT_REASON_VMOFF] = &HandleVmxInstruction;
        table[EXIT_REASON_VMON] = &HandleVmxInstruction;
        table[EXIT_REASON_TPR_BELOW_THRESHOLD] = &HandleTprBelowThreshold;
        table[EXIT_REASON_APIC_ACCESS] = &HandleApicAccess;
        table[EXIT_REASON_APIC_WRITE] = &HandleApicWrite;
        table[EXIT_REASON_EOI_INDUCED] = &HandleApicEoiInduced;
        table[EXIT_REASON_WBINVD] = &EmulateWbinvd;
        table[EXIT_REASON_XSETBV] = &EmulateXsetbv;
        table[EXIT_REASON_TASK_SWITCH] = &HandleTaskSwitch;
        table[EXIT_REASON_MCE_DURING_VMENTRY] = &HandleMachineCheck;
        table[EXIT_REASON_GDTR_IDTR] = &HandleDesc;
        table[EXIT_REASON_LDTR_TR] = &HandleDesc;
        table[EXIT_REASON_EPT_VIOLATION] = &HandleEptViolation;
        table[EXIT_REASON_EPT_MISCONFIG] = &HandleEptMisconfig;
        table[EXIT_REASON_PAUSE_INSTRUCTION] = &HandlePause;
        table[EXIT_REASON_MWAIT_INSTRUCTION] = &EmulateMwait;
        table[EXIT_REASON_MONITOR_TRAP_FLAG] = &HandleMonitorTrap;
        table[EXIT_REASON_MONITOR_INSTRUCTION] = &EmulateMonitor;
        table[EXIT_REASON_INVEPT] = &HandleVmxInstruction;
        table[EXIT_REASON_INVVPID] = &HandleVmxInstruction;
        table[EXIT_REASON_RDRAND] = &HandleInvalidOp;
        table[EXIT_REASON_RDSEED] = &HandleInvalidOp;
        table[EXIT_REASON_PML_FULL] = &HandlePmlFull;
        table[EXIT_REASON_INVPCID] = &HandleInvpcid;
        table[EXIT_REASON_VMFUNC] = &HandleVmxInstruction;
        table[EXIT_REASON_PREEMPTION_TIMER] = &HandlePreemptionTimer;
        table[EXIT_REASON_ENCLS] = &HandleEncls;
        table[EXIT_REASON_BUS_LOCK] = &HandleBusLockVmexit;
        table[EXIT_REASON_NOTIFY] = &HandleNotify;
        return table;
    }

    // Exits that the common code handles as they are.
    private static int EmulateCpuid(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateCpuid();
    private static int EmulateRdmsr(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateRdmsr();
    private static int EmulateWrmsr(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateWrmsr();
    private static int EmulateHalt(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateHalt();
    private static int EmulateInvd(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateInvd();
    private static int EmulateRdpmc(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateRdpmc();
    private static int EmulateHypercall(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateHypercall();
    private static int EmulateWbinvd(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateWbinvd();
    private static int EmulateXsetbv(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateXsetbv();
    private static int EmulateMwait(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateMwait();
    private static int EmulateMonitor(KvmIntel vmx, VcpuVmx vcpu) => vcpu.EmulateMonitor();
    private static int HandleInvalidOp(KvmIntel vmx, VcpuVmx vcpu) => vcpu.HandleInvalidOp();

    [KernelFunction("__vmx_handle_exit", File = "arch/x86/kvm/vmx/vmx.c")]
    private int HandleExitInner(VcpuVmx vmx, ExitFastpathCompletion fastpath)
    {
        VmxExitReason exitReason = vmx.ExitReason;
        uint vectoringInfo = vmx.IdtVectoringInfo;
        // Before anything else, so that the dirty bitmap is complete whenever no vCPU is in guest mode.
        if (EnablePml)
            FlushPmlBuffer(vmx);
        if (vmx.EmulationRequired)
            return HandleInvalidGuestState(vmx);
        if (exitReason.FailedVmentry)
            return FailEntry(vmx, exitReason.Full);
        if (vmx.Fail)
            return FailEntry(vmx, vmx.Read32(VM_INSTRUCTION_ERROR));
        if ((vectoringInfo & VECTORING_INFO_VALID_MASK) != 0 && !MayInterruptDelivery(exitReason.Basic))
            return DeliveryEventError(vmx, vectoringInfo, exitReason);
        if (!EnableVnmi && vmx.LoadedVmcs.SoftVnmiBlocked)
            UpdateSoftVnmi(vmx);
        if (fastpath != EXIT_FASTPATH_NONE)
            return 1;
        if (exitReason.Basic < maxExitHandlers)
        {
            delegate*<KvmIntel, VcpuVmx, int> handler = exitHandlers[exitReason.Basic];
            if (handler != null)
                return handler(this, vmx);
        }
        return UnexpectedVmexit(vmx, exitReason.Full);
    }

    private static bool MayInterruptDelivery(int basic) => basic is EXIT_REASON_EXCEPTION_NMI or EXIT_REASON_EPT_VIOLATION or EXIT_REASON_PML_FULL or
        EXIT_REASON_APIC_ACCESS or EXIT_REASON_TASK_SWITCH or EXIT_REASON_NOTIFY;

    private int FailEntry(VcpuVmx vmx, uint reason)
    {
        DumpVmcs(vmx);
        vmx.Run->exit_reason = KVM_EXIT_FAIL_ENTRY;
        vmx.Run->fail_entry.hardware_entry_failure_reason = reason;
        vmx.Run->fail_entry.cpu = (uint)vmx.LastVmentryCpu;
        return 0;
    }

    private static int DeliveryEventError(VcpuVmx vmx, uint vectoringInfo, VmxExitReason exitReason)
    {
        uint n = 3;
        kvm_run* run = vmx.Run;
        run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
        run->@internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
        run->@internal.data[0] = vectoringInfo;
        run->@internal.data[1] = exitReason.Full;
        run->@internal.data[2] = vmx.ExitQualification;
        if (exitReason.Basic == EXIT_REASON_EPT_MISCONFIG)
            run->@internal.data[(int)n++] = vmx.Read64(GUEST_PHYSICAL_ADDRESS);
        run->@internal.data[(int)n++] = (ulong)vmx.LastVmentryCpu;
        run->@internal.ndata = n;
        return 0;
    }

    /// <summary>Without virtual NMIs: the blocked state ends at an open interrupt window, or by force after a second.</summary>
    private void UpdateSoftVnmi(VcpuVmx vmx)
    {
        if (!InterruptBlocked(vmx))
        {
            vmx.LoadedVmcs.SoftVnmiBlocked = false;
        }
        else if (vmx.LoadedVmcs.VnmiBlockedTime > 1_000_000_000 && vmx.NmiPending != 0)
        {
            PrWarn($"__vmx_handle_exit: Breaking out of NMI-blocked state on VCPU {vmx.VcpuId} after 1 s timeout");
            vmx.LoadedVmcs.SoftVnmiBlocked = false;
        }
    }

    private int UnexpectedVmexit(VcpuVmx vmx, uint reason)
    {
        VcpuUnimpl(vmx, $"vmx: unexpected exit reason 0x{reason:x}");
        DumpVmcs(vmx);
        kvm_run* run = vmx.Run;
        run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
        run->@internal.suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
        run->@internal.ndata = 2;
        run->@internal.data[0] = reason;
        run->@internal.data[1] = (ulong)vmx.LastVmentryCpu;
        return 0;
    }

    [KernelFunction("vmx_handle_exit", File = "arch/x86/kvm/vmx/vmx.c")]
    public int HandleExit(X86Vcpu vcpu, ExitFastpathCompletion fastpath)
    {
        using var _ = FunctionTrace.Enter("vmx_handle_exit");
        VcpuVmx vmx = ToVmx(vcpu);
        int r = HandleExitInner(vmx, fastpath);
        if (!vmx.ExitReason.BusLockDetected)
            return r;
        if (r > 0)
            vmx.Run->exit_reason = KVM_EXIT_X86_BUS_LOCK;
        vmx.Run->flags |= KVM_RUN_X86_BUS_LOCK;
        return 0;
    }

    [KernelFunction("vmx_handle_exit_irqoff", File = "arch/x86/kvm/vmx/vmx.c")]
    public void HandleExitIrqoff(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_handle_exit_irqoff");
        VcpuVmx vmx = ToVmx(vcpu);
        if (vmx.EmulationRequired)
            return;
        if (vmx.ExitReason.Basic == EXIT_REASON_EXTERNAL_INTERRUPT)
            HandleExternalInterruptIrqoff(vmx);
        else if (vmx.ExitReason.Basic == EXIT_REASON_EXCEPTION_NMI)
            HandleExceptionNmiIrqoff(vmx);
    }

    /// <summary>The exit acknowledged a physical interrupt: it is handled as the host's interrupt table would.</summary>
    [KernelFunction("handle_external_interrupt_irqoff", File = "arch/x86/kvm/vmx/vmx.c")]
    private void HandleExternalInterruptIrqoff(VcpuVmx vmx)
    {
        uint info = GetIntrInfo(vmx);
        if ((info & (INTR_INFO_VALID_MASK | INTR_INFO_INTR_TYPE_MASK)) != (INTR_INFO_VALID_MASK | INTR_TYPE_EXT_INTR))
        {
            vmx.Vm.BugOn(true, $"KVM: unexpected VM-Exit interrupt info: 0x{info:x}");
            return;
        }
        HostInterrupt(vmx, (byte)info);
        vmx.AtInstructionBoundary = true;
    }

    [KernelFunction("handle_exception_nmi_irqoff", File = "arch/x86/kvm/vmx/vmx.c")]
    private void HandleExceptionNmiIrqoff(VcpuVmx vmx)
    {
        uint info = GetIntrInfo(vmx);
        if (IsException(info, MC_VECTOR))
            HostMachineCheck();
        else if (IsNmi(info))
            HostNmi(vmx);
    }

    private static bool IsException(uint info, byte vector) =>
        (info & (INTR_INFO_VALID_MASK | INTR_INFO_INTR_TYPE_MASK | INTR_INFO_VECTOR_MASK)) == (INTR_INFO_VALID_MASK | INTR_TYPE_HARD_EXCEPTION | vector);

    private static bool IsNmi(uint info) => (info & (INTR_INFO_VALID_MASK | INTR_INFO_INTR_TYPE_MASK)) == (INTR_INFO_VALID_MASK | INTR_TYPE_NMI_INTR);

    private static bool IsIcebp(uint info) => (info & (INTR_INFO_VALID_MASK | INTR_INFO_INTR_TYPE_MASK)) == (INTR_INFO_VALID_MASK | INTR_TYPE_PRIV_SW_EXCEPTION);

    [KernelFunction("vmx_get_exit_info", File = "arch/x86/kvm/vmx/vmx.c")]
    public void GetExitInfo(X86Vcpu vcpu, out uint reason, out ulong info1, out ulong info2, out uint intrInfo, out uint errorCode)
    {
        VcpuVmx vmx = ToVmx(vcpu);
        reason = vmx.ExitReason.Full;
        info1 = GetExitQual(vmx);
        info2 = 0;
        intrInfo = 0;
        errorCode = 0;
        if (vmx.ExitReason.FailedVmentry)
            return;
        info2 = vmx.IdtVectoringInfo;
        intrInfo = GetIntrInfo(vmx);
        if ((intrInfo & (INTR_INFO_VALID_MASK | INTR_INFO_DELIVER_CODE_MASK)) == (INTR_INFO_VALID_MASK | INTR_INFO_DELIVER_CODE_MASK))
            errorCode = vmx.Read32(VM_EXIT_INTR_ERROR_CODE);
    }

    /// <summary>Guest state the processor can't enter: instructions are emulated, at most 130 before someone else gets a turn.</summary>
    [KernelFunction("handle_invalid_guest_state", File = "arch/x86/kvm/vmx/vmx.c")]
    private int HandleInvalidGuestState(VcpuVmx vmx)
    {
        bool intrWindowRequested = (vmx.ExecControlsGet() & CPU_BASED_INTR_WINDOW_EXITING) != 0;
        for (int count = 130; vmx.EmulationRequired && count != 0; count--)
        {
            if (intrWindowRequested && !InterruptBlocked(vmx))
                return HandleInterruptWindow(this, vmx);
            if (vmx.TestRequest(KVM_REQ_EVENT))
                return 1;
            if (vmx.EmulateInstruction(EmulType.None) == 0)
                return 0;
            if (EmulationRequiredWithPendingException(vmx))
            {
                vmx.PrepareEmulationFailureExit();
                return 0;
            }
            if (vmx.HaltRequest != 0)
            {
                vmx.HaltRequest = 0;
                return vmx.EmulateHaltNoskip();
            }
            if (HostTask.Current.SignalPending || Host.CurrentCpu.NeedResched)
                return 1;
        }
        return 1;
    }

    [KernelFunction("skip_emulated_instruction", File = "arch/x86/kvm/vmx/vmx.c")]
    private int SkipEmulatedInstructionInner(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("skip_emulated_instruction");
        uint length = vmx.Read32(VM_EXIT_INSTRUCTION_LEN);
        if (length != 0)
        {
            ulong origRip = vmx.Rip;
            ulong rip = origRip + length;
            // Outside 64-bit mode the upper half is cut off; asking for the mode is expensive, so only on a carry out of bit 31.
            if ((rip ^ origRip) >> 31 == 3 && !vmx.Is64BitMode)
                rip = (uint)rip;
            vmx.Rip = rip;
        }
        SetInterruptShadow(vmx, 0);
        return 1;
    }

    [KernelFunction("vmx_skip_emulated_instruction", File = "arch/x86/kvm/vmx/vmx.c")]
    public int SkipEmulatedInstruction(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_skip_emulated_instruction");
        VcpuVmx vmx = ToVmx(vcpu);
        UpdateEmulatedInstruction(vcpu);
        return SkipEmulatedInstructionInner(vmx);
    }

    /// <summary>Records a monitor-trap-flag exit that a nested guest is due; nothing without nested guests.</summary>
    [KernelFunction("vmx_update_emulated_instruction", File = "arch/x86/kvm/vmx/vmx.c")]
    public void UpdateEmulatedInstruction(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_update_emulated_instruction");
    }

    /// <summary>Instructions inside an SGX enclave can't be emulated: #UD instead.</summary>
    [KernelFunction("vmx_can_emulate_instruction", File = "arch/x86/kvm/vmx/vmx.c")]
    public bool CanEmulateInstruction(X86Vcpu vcpu, EmulType emulType, ReadOnlySpan<byte> insn)
    {
        using var _ = FunctionTrace.Enter("vmx_can_emulate_instruction");
        if (!ToVmx(vcpu).ExitReason.EnclaveMode)
            return true;
        vcpu.QueueException(UD_VECTOR);
        return false;
    }

    /// <summary>VMCALL.</summary>
    [KernelFunction("vmx_patch_hypercall", File = "arch/x86/kvm/vmx/vmx.c")]
    public void PatchHypercall(X86Vcpu vcpu, Span<byte> hypercall)
    {
        using var _ = FunctionTrace.Enter("vmx_patch_hypercall");
        hypercall[0] = 0x0f;
        hypercall[1] = 0x01;
        hypercall[2] = 0xc1;
    }
}
