using System.Runtime.CompilerServices;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Entering the guest and coming back.</summary>
public sealed unsafe partial class KvmIntel
{
    private const uint vmxRunVmresume = 1 << 0, vmxRunSaveSpecCtrl = 1 << 1;
    /// <summary>What HOST_RIP names: where the kernel's code continues after a VM exit. Entered from C#, never executed.</summary>
    internal const ulong VmExitEntryPoint = 0xffffffffc0000000;

    /// <summary>Registers that stay in the VMCS until someone asks.</summary>
    private const uint vmxRegsLazyLoadSet = 1u << (int)VCPU_REGS_RIP | 1u << (int)VCPU_REGS_RSP | 1u << (int)VCPU_EXREG_RFLAGS | 1u << (int)VCPU_EXREG_PDPTR | 1u << (int)VCPU_EXREG_SEGMENTS |
        1u << (int)VCPU_EXREG_CR0 | 1u << (int)VCPU_EXREG_CR3 | 1u << (int)VCPU_EXREG_CR4 | 1u << (int)VCPU_EXREG_EXIT_INFO_1 | 1u << (int)VCPU_EXREG_EXIT_INFO_2;

    /// <summary>Exit qualification, read once per exit.</summary>
    [KernelFunction("vmx_get_exit_qual", File = "arch/x86/kvm/vmx/vmx.h")]
    private static ulong GetExitQual(VcpuVmx vmx)
    {
        if (!vmx.RegisterIsAvailable(VCPU_EXREG_EXIT_INFO_1))
        {
            vmx.RegisterMarkAvailable(VCPU_EXREG_EXIT_INFO_1);
            vmx.ExitQualificationCached = vmx.Readl(EXIT_QUALIFICATION);
        }
        return vmx.ExitQualificationCached;
    }

    /// <summary>VM-exit interruption information, read once per exit.</summary>
    [KernelFunction("vmx_get_intr_info", File = "arch/x86/kvm/vmx/vmx.h")]
    private static uint GetIntrInfo(VcpuVmx vmx)
    {
        if (!vmx.RegisterIsAvailable(VCPU_EXREG_EXIT_INFO_2))
        {
            vmx.RegisterMarkAvailable(VCPU_EXREG_EXIT_INFO_2);
            vmx.ExitIntrInfo = vmx.Read32(VM_EXIT_INTR_INFO);
        }
        return vmx.ExitIntrInfo;
    }

    [KernelFunction("__vmx_vcpu_run_flags", File = "arch/x86/kvm/vmx/vmx.c")]
    private uint VcpuRunFlags(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("__vmx_vcpu_run_flags");
        uint flags = vmx.LoadedVmcs.Launched ? vmxRunVmresume : 0;
        // A guest that writes SPEC_CTRL without exits may have changed it.
        if (!MsrWriteIntercepted(vmx, MSR_IA32_SPEC_CTRL))
            flags |= vmxRunSaveSpecCtrl;
        return flags;
    }

    [KernelFunction("vmx_update_host_rsp", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void UpdateHostRsp(VcpuVmx vmx, ulong hostRsp)
    {
        if (hostRsp == vmx.LoadedVmcs.HostState.Rsp)
            return;
        vmx.LoadedVmcs.HostState.Rsp = hostRsp;
        vmx.Writel(HOST_RSP, hostRsp);
    }

    /// <summary>
    /// The assembly of VM entry: host stack pointer, general registers in, VMLAUNCH or VMRESUME, general registers out. True when the entry failed.
    /// </summary>
    [KernelFunction("__vmx_vcpu_run", File = "arch/x86/kvm/vmx/vmenter.S")]
    private bool VcpuRunRaw(VcpuVmx vmx, uint flags)
    {
        Processor cpu = vmx.Hw;
        UpdateHostRsp(vmx, vmx.LoadedCpu.KernelStackTop - vmx.KstackOffset);
        if (CpuHasSpecCtrl && vmx.SpecCtrl != HostSpecCtrl)
            cpu.WriteMsr(MSR_IA32_SPEC_CTRL, vmx.SpecCtrl);

        ulong* gpr = cpu.State->Gpr;
        ulong* regs = vmx.Regs;
        ulong hostRsp = gpr[(int)VCPU_REGS_RSP];
        Unsafe.CopyBlock(gpr, regs, 16 * sizeof(ulong));
        gpr[(int)VCPU_REGS_RSP] = hostRsp;
        InstructionResult result = (flags & vmxRunVmresume) != 0 ? cpu.Vmresume() : cpu.Vmlaunch();
        bool fail = !result.Ok;
        if (fail)
        {
            if (result.IsFault)
                KvmSpuriousFault();
        }
        else
        {
            // RSP and RIP are in the VMCS.
            ulong guestRsp = regs[(int)VCPU_REGS_RSP];
            Unsafe.CopyBlock(regs, gpr, 16 * sizeof(ulong));
            regs[(int)VCPU_REGS_RSP] = guestRsp;
        }
        // Nothing of the guest's stays in the registers.
        hostRsp = gpr[(int)VCPU_REGS_RSP];
        Unsafe.InitBlock(gpr, 0, 16 * sizeof(ulong));
        gpr[(int)VCPU_REGS_RSP] = hostRsp;

        SpecCtrlRestoreHost(vmx, flags);
        return fail;
    }

    [KernelFunction("vmx_spec_ctrl_restore_host", File = "arch/x86/kvm/vmx/vmx.c")]
    private void SpecCtrlRestoreHost(VcpuVmx vmx, uint flags)
    {
        if (!CpuHasSpecCtrl)
            return;
        if ((flags & vmxRunSaveSpecCtrl) != 0)
            vmx.Hw.ReadMsr(MSR_IA32_SPEC_CTRL, out vmx.SpecCtrl);
        if (vmx.SpecCtrl != HostSpecCtrl)
            vmx.Hw.WriteMsr(MSR_IA32_SPEC_CTRL, HostSpecCtrl);
    }

    [KernelFunction("vmx_vcpu_enter_exit", File = "arch/x86/kvm/vmx/vmx.c")]
    private void VcpuEnterExit(VcpuVmx vmx, uint flags)
    {
        if (L1dShouldFlush)
            L1dFlush(vmx);
        Processor cpu = vmx.Hw;
        if (vmx.Cr2 != cpu.ReadCr(2))
            cpu.WriteCr(2, vmx.Cr2);
        vmx.Fail = VcpuRunRaw(vmx, flags);
        vmx.Cr2 = cpu.ReadCr(2);
    }

    /// <summary>
    /// Runs the guest until its next VM exit. Invalid guest state, a failed entry and real exits all leave a reason in ExitReason; the result says whether the exit
    /// was finished already.
    /// </summary>
    [KernelFunction("vmx_vcpu_run", File = "arch/x86/kvm/vmx/vmx.c")]
    public ExitFastpathCompletion VcpuRun(X86Vcpu vcpu, KvmX86RunFlags runFlags)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_run");
        VcpuVmx vmx = ToVmx(vcpu);
        bool forceImmediateExit = (runFlags & KVM_RUN_FORCE_IMMEDIATE_EXIT) != 0;
        if (!EnableVnmi && vmx.LoadedVmcs.SoftVnmiBlocked)
            vmx.LoadedVmcs.EntryTime = KtimeGet();

        // The exit handler emulates until the state is valid; to the caller this looks like an entry that failed its checks.
        if (vmx.EmulationRequired)
        {
            vmx.Fail = false;
            vmx.ExitReason.Full = EXIT_REASON_INVALID_STATE | VMX_EXIT_REASONS_FAILED_VMENTRY;
            vmx.RegisterMarkAvailable(VCPU_EXREG_EXIT_INFO_1);
            vmx.ExitQualificationCached = ENTRY_FAIL_DEFAULT;
            vmx.RegisterMarkAvailable(VCPU_EXREG_EXIT_INFO_2);
            vmx.ExitIntrInfo = 0;
            return EXIT_FASTPATH_NONE;
        }

        TraceEntry(vcpu, forceImmediateExit);
        PrepareEntry(vmx, runFlags, forceImmediateExit);
        VcpuEnterExit(vmx, VcpuRunFlags(vmx));

        if (vcpu.HostDebugctl != 0)
            vmx.Hw.WriteMsr(MSR_IA32_DEBUGCTLMSR, vcpu.HostDebugctl);
        vcpu.RegsAvail &= ~vmxRegsLazyLoadSet;
        vcpu.LoadHostXsaveState();

        vmx.IdtVectoringInfo = 0;
        if (vmx.Fail)
        {
            vmx.ExitReason.Full = 0xdead;
            return EXIT_FASTPATH_NONE;
        }
        vmx.ExitReason.Full = vmx.Read32(VM_EXIT_REASON);
        if (!vmx.ExitReason.FailedVmentry)
            vmx.IdtVectoringInfo = vmx.Read32(IDT_VECTORING_INFO_FIELD);
        TraceExit(vmx);
        if (vmx.ExitReason.FailedVmentry)
            return EXIT_FASTPATH_NONE;

        vmx.LoadedVmcs.Launched = true;
        RecoverNmiBlocking(vmx);
        CompleteInterrupts(vmx, vmx.IdtVectoringInfo, VM_EXIT_INSTRUCTION_LEN, IDT_VECTORING_ERROR_CODE);
        return ExitHandlersFastpath(vmx, forceImmediateExit);
    }

    private void PrepareEntry(VcpuVmx vmx, KvmX86RunFlags runFlags, bool forceImmediateExit)
    {
        if (vmx.PleWindowDirty)
        {
            vmx.PleWindowDirty = false;
            vmx.Write32(PLE_WINDOW, vmx.PleWindow);
        }
        if (vmx.RegisterIsDirty(VCPU_REGS_RSP))
            vmx.Writel(GUEST_RSP, vmx.Regs[(int)VCPU_REGS_RSP]);
        if (vmx.RegisterIsDirty(VCPU_REGS_RIP))
            vmx.Writel(GUEST_RIP, vmx.Regs[(int)VCPU_REGS_RIP]);
        vmx.RegsDirty = 0;

        if ((runFlags & KVM_RUN_LOAD_GUEST_DR6) != 0)
            vmx.Hw.WriteDr(6, vmx.Dr6);
        if ((runFlags & KVM_RUN_LOAD_DEBUGCTL) != 0)
            ReloadGuestDebugctl(vmx);

        // Late, because the kernel may have switched address spaces (PCIDs) or CR4 bits since the values were written.
        ref VmcsHostState host = ref vmx.LoadedVmcs.HostState;
        ulong cr3 = vmx.Hw.ReadCr(3);
        if (cr3 != host.Cr3)
        {
            vmx.Writel(HOST_CR3, cr3);
            host.Cr3 = cr3;
        }
        ulong cr4 = vmx.LoadedCpu.Cr4Shadow;
        if (cr4 != host.Cr4)
        {
            vmx.Writel(HOST_CR4, cr4);
            host.Cr4 = cr4;
        }
        // VM entry would demand a pending trap when single-stepping over STI or MOV SS, which is wrong for a debugger's stepping.
        if ((vmx.GuestDebug & KVM_GUESTDBG_SINGLESTEP) != 0)
            SetInterruptShadow(vmx, 0);
        vmx.LoadGuestXsaveState();
        if (vmx.LoadedCpu.Pmu is { } pmu && (pmu.GuestMask | vmx.PerfSwitched) != 0)
            AtomicSwitchPerfMsrs(vmx, pmu);

        if (EnablePreemptionTimer)
            UpdateHvTimer(vmx, forceImmediateExit);
        else if (forceImmediateExit)
            Host.Cpus[vmx.LoadedVmcs.Cpu].SendReschedule();
        KvmLapic.WaitLapicExpire(vmx);
    }

    /// <summary>Counters of guests only count between entry and exit: the processor switches IA32_PERF_GLOBAL_CTRL.</summary>
    [KernelFunction("atomic_switch_perf_msrs", File = "arch/x86/kvm/vmx/vmx.c")]
    private void AtomicSwitchPerfMsrs(VcpuVmx vmx, CpuPmu pmu)
    {
        (ulong host, ulong guest) = pmu.GlobalControl;
        vmx.PerfSwitched = host ^ guest;
        if (host == guest)
            ClearAtomicSwitchMsr(vmx, MSR_CORE_PERF_GLOBAL_CTRL);
        else
            AddAtomicSwitchMsr(vmx, MSR_CORE_PERF_GLOBAL_CTRL, guest, host);
    }

    [KernelFunction("vmx_exit_handlers_fastpath", File = "arch/x86/kvm/vmx/vmx.c")]
    private ExitFastpathCompletion ExitHandlersFastpath(VcpuVmx vmx, bool forceImmediateExit) => (int)vmx.ExitReason.Basic switch
    {
        EXIT_REASON_MSR_WRITE => vmx.HandleFastpathSetMsrIrqoff(),
        EXIT_REASON_PREEMPTION_TIMER => HandleFastpathPreemptionTimer(vmx, forceImmediateExit),
        _ => EXIT_FASTPATH_NONE,
    };

    [KernelFunction("vmx_emulation_required_with_pending_exception", File = "arch/x86/kvm/vmx/vmx.c")]
    private static bool EmulationRequiredWithPendingException(VcpuVmx vmx) =>
        vmx.EmulationRequired && !vmx.Rmode.Vm86Active && (vmx.IsExceptionPending || vmx.Exception.Injected);

    [KernelFunction("vmx_vcpu_pre_run", File = "arch/x86/kvm/vmx/vmx.c")]
    public int VcpuPreRun(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_vcpu_pre_run");
        if (EmulationRequiredWithPendingException(ToVmx(vcpu)))
        {
            vcpu.PrepareEmulationFailureExit();
            return 0;
        }
        return 1;
    }
}
