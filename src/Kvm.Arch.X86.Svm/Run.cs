using Kvm.Core.Tracing;
using Kvm.Emulator;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>One entry into the guest.</summary>
public sealed unsafe partial class KvmAmd
{
    /// <summary>Only the PDPTEs are read on demand; everything else is taken from the VMCB after each exit.</summary>
    private const uint SVM_REGS_LAZY_LOAD_SET = 1u << (int)KvmReg.VCPU_EXREG_PDPTR;

    [KernelFunction("svm_vcpu_pre_run", File = "arch/x86/kvm/svm/svm.c")]
    public int VcpuPreRun(X86Vcpu vcpu)
    {
        FunctionTrace.Leaf("svm_vcpu_pre_run");
        return 1;
    }

    /// <summary>Clean bits and ASIDs are per processor: on a new one everything is dirty and the ASID is stale.</summary>
    [KernelFunction("pre_svm_run", File = "arch/x86/kvm/svm/svm.c")]
    private void PreSvmRun(VcpuSvm svm)
    {
        ref SvmCpuData sd = ref svmData[svm.Cpu];
        if (svm.CurrentVmcb.Cpu != svm.Cpu)
        {
            svm.CurrentVmcb.AsidGeneration = 0;
            MarkAllDirty(svm.Vmcb);
            svm.CurrentVmcb.Cpu = svm.Cpu;
        }

        if (svm.CurrentVmcb.AsidGeneration != sd.AsidGeneration)
            NewAsid(svm, ref sd);
    }

    private static void SyncLapicToCr8(VcpuSvm svm)
    {
        ulong cr8 = svm.GetCr8();
        uint ctl = (uint)svm.Vmcb->Control.IntControl & ~V_TPR_MASK;
        svm.Vmcb->Control.IntControl = (SvmIntControl)(ctl | ((uint)cr8 & V_TPR_MASK));
    }

    private static void SyncCr8ToLapic(VcpuSvm svm)
    {
        if (!IsIntercept(svm, SvmIntercept.INTERCEPT_CR8_WRITE))
            svm.SetCr8((uint)svm.Vmcb->Control.IntControl & V_TPR_MASK);
    }

    [KernelFunction("svm_vcpu_run", File = "arch/x86/kvm/svm/svm.c")]
    public ExitFastpathCompletion VcpuRun(X86Vcpu vcpu, KvmX86RunFlags runFlags)
    {
        using var _ = FunctionTrace.Enter("svm_vcpu_run");
        VcpuSvm svm = ToSvm(vcpu);
        bool forceImmediateExit = (runFlags & KvmX86RunFlags.KVM_RUN_FORCE_IMMEDIATE_EXIT) != 0;
        bool specCtrlIntercepted = MsrWriteIntercepted(svm, MSR_IA32_SPEC_CTRL);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_entry", $"vcpu {svm.VcpuId}, rip 0x{svm.Rip:x}{(forceImmediateExit ? "[immediate exit]" : "")}");
        PrepareVmcb(svm, ref forceImmediateExit, runFlags);

        Processor cpu = svm.Processor;
        Expect(cpu.Clgi());
        vcpu.LoadGuestXsaveState();
        KvmLapic.WaitLapicExpire(vcpu);
        VcpuEnterExit(svm, cpu, specCtrlIntercepted);
        VmcbControlArea* control = &svm.Vmcb->Control;
        ulong* regs = vcpu.Regs;
        vcpu.Cr2 = svm.Vmcb->Save.Cr2;
        regs[0] = svm.Vmcb->Save.Rax;
        regs[4] = svm.Vmcb->Save.Rsp;
        regs[16] = svm.Vmcb->Save.Rip;
        vcpu.RegsDirty = 0;
        vcpu.LoadHostXsaveState();
        Expect(cpu.Stgi());
        // A pending NMI is taken here.
        if (control->ExitCode == SVM_EXIT_NMI)
            svm.LoadedCpu.HandleNmi();

        SyncCr8ToLapic(svm);
        svm.NextRip = 0;
        control->TlbControl = TlbControl.DoNothing;
        MarkAllClean(svm.Vmcb);
        vcpu.RegsAvail &= ~SVM_REGS_LAZY_LOAD_SET;
        // Before the vCPU can move to another CPU.
        if (control->ExitCode == SVM_EXIT_EXCP_BASE + MC_VECTOR)
            HandleMce(svm);
        CompleteInterrupts(svm);
        return ExitHandlersFastpath(svm);
    }

    private void PrepareVmcb(VcpuSvm svm, ref bool forceImmediateExit, KvmX86RunFlags runFlags)
    {
        ulong* regs = svm.Regs;
        svm.Vmcb->Save.Rax = regs[0];
        svm.Vmcb->Save.Rsp = regs[4];
        svm.Vmcb->Save.Rip = regs[16];
        // The single step's TF must not be pushed with an injected event; the NMI window is looked at again right after it.
        if (svm.NmiSinglestep && svm.Vmcb->Control.EventInj != 0)
        {
            DisableNmiSinglestep(svm);
            forceImmediateExit = true;
        }

        if (forceImmediateExit)
            Host.CurrentCpu.SendReschedule();
        PreSvmRun(svm);
        SyncLapicToCr8(svm);
        if (svm.Asid != svm.Vmcb->Control.Asid)
        {
            svm.Vmcb->Control.Asid = svm.Asid;
            MarkDirty(svm.Vmcb, VMCB_ASID);
        }

        svm.Vmcb->Save.Cr2 = svm.Cr2;
        // Unless the guest writes DR6 without exits it runs with DR6 clear, so that the cause of a #DB is exact.
        if ((runFlags & KvmX86RunFlags.KVM_RUN_LOAD_GUEST_DR6) != 0)
            SetDr6(svm, svm.Dr6);
        else if ((svm.SwitchDbRegs & KVM_DEBUGREG_WONT_EXIT) == 0)
            SetDr6(svm, DR6_ACTIVE_LOW);
    }

    /// <summary>
    /// Host RFLAGS.IF is set around VMRUN: with V_INTR_MASKING it says whether physical interrupts exit, and GIF = 0 keeps host code itself undisturbed.
    /// STI before VMRUN would leak an interrupt shadow into the guest.
    /// </summary>
    [KernelFunction("svm_vcpu_enter_exit", File = "arch/x86/kvm/svm/svm.c")]
    private void VcpuEnterExit(VcpuSvm svm, Processor cpu, bool specCtrlIntercepted)
    {
        cpu.Rflags |= X86_EFLAGS_IF;
        RunAsm(svm, cpu, specCtrlIntercepted);
        cpu.Rflags &= ~X86_EFLAGS_IF;
    }

    /// <summary>
    /// __svm_vcpu_run: guest FS…SYSENTER state in (VMLOAD), general registers, VMRUN, general registers out, VMSAVE, and the host's own state back from its save area.
    /// Afterwards reload_tss() has nothing to do: VMLOAD restored the hidden part of TR.
    /// </summary>
    [KernelFunction("__svm_vcpu_run", File = "arch/x86/kvm/svm/vmenter.S")]
    private void RunAsm(VcpuSvm svm, Processor cpu, bool specCtrlIntercepted)
    {
        bool switchSpecCtrl = BootCpuHas(X86Feature.MSR_SPEC_CTRL) && !BootCpuHas(X86Feature.V_SPEC_CTRL);
        if (switchSpecCtrl && svm.SpecCtrl != HostSpecCtrl)
            cpu.WriteMsr(MSR_IA32_SPEC_CTRL, svm.SpecCtrl);
        Expect(cpu.Vmload(svm.Vmcb01.Pa));
        new ReadOnlySpan<ulong>(svm.Regs, 16).CopyTo(new Span<ulong>(cpu.State->Gpr, 16));
        Expect(cpu.Vmrun(svm.CurrentVmcb.Pa));
        new ReadOnlySpan<ulong>(cpu.State->Gpr, 16).CopyTo(new Span<ulong>(svm.Regs, 16));
        Expect(cpu.Vmsave(svm.Vmcb01.Pa));
        Expect(cpu.Vmload(svmData[svm.Cpu].SaveAreaPa));
        if (!switchSpecCtrl)
            return;
        if (!specCtrlIntercepted && cpu.ReadMsr(MSR_IA32_SPEC_CTRL, out ulong value).Ok)
            svm.SpecCtrl = value;
        if (svm.SpecCtrl != HostSpecCtrl)
            cpu.WriteMsr(MSR_IA32_SPEC_CTRL, HostSpecCtrl);
    }

    /// <summary>x86_spec_ctrl_current: the modelled kernel runs with the MSR clear.</summary>
    private const ulong HostSpecCtrl = 0;

    /// <summary>The next RIP must be known: guest memory can't be read here.</summary>
    private ExitFastpathCompletion ExitHandlersFastpath(VcpuSvm svm)
    {
        VmcbControlArea* control = &svm.Vmcb->Control;
        if (control->ExitCode == SVM_EXIT_MSR && control->ExitInfo1 != 0 && Params.Nrips != 0 && control->NextRip != 0)
            return svm.HandleFastpathSetMsrIrqoff();
        return ExitFastpathCompletion.EXIT_FASTPATH_NONE;
    }

    [KernelFunction("svm_handle_exit_irqoff", File = "arch/x86/kvm/svm/svm.c")]
    public void HandleExitIrqoff(X86Vcpu vcpu)
    {
        FunctionTrace.Leaf("svm_handle_exit_irqoff");
        if (ToSvm(vcpu).Vmcb->Control.ExitCode == SVM_EXIT_INTR)
            vcpu.AtInstructionBoundary = true;
    }

    /// <summary>A machine check intercepted in the guest: the host's handler runs by hand. Erratum 383 has corrupted the guest, which is shut down.</summary>
    [KernelFunction("svm_handle_mce", File = "arch/x86/kvm/svm/svm.c")]
    private void HandleMce(VcpuSvm svm)
    {
        if (!IsErratum383())
            return;
        PrErr("KVM: Guest triggered AMD Erratum 383");
        svm.MakeRequest(X86Request.KVM_REQ_TRIPLE_FAULT);
    }

    [KernelFunction("is_erratum_383", File = "arch/x86/kvm/svm/svm.c")]
    private bool IsErratum383()
    {
        const ulong multiMatch = 0xb600000000010015, overflow = 1ul << 62, mcip = 1ul << 2;
        HostX86Cpu cpu = ThisCpu;
        if (!erratum383Found || !cpu.RdmsrSafe(MSR_IA32_MC0_STATUS, out ulong value) || (value & ~overflow) != multiMatch)
            return false;
        for (uint bank = 0; bank < 6; bank++)
            cpu.WrmsrSafe(MSR_IA32_MC0_STATUS + (4 * bank), 0);
        if (cpu.RdmsrSafe(MSR_IA32_MCG_STATUS, out value))
            cpu.WrmsrSafe(MSR_IA32_MCG_STATUS, value & ~mcip);
        return true;
    }
}
