using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>vCPU life and the generic vCPU calls: kvm_arch_vcpu_*.</remarks>
public sealed partial class X86Arch
{
    [KernelFunction("kvm_arch_vcpu_precreate", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuPrecreate(KvmVm kvm, uint id)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_precreate");
        var vm = (X86Vm)kvm;
        if (HostX86.TscUnstable && vm.CreatedVcpus != 0)
            Host.Log.Once(LogLevel.Warning, "kvm: SMP vm created on host with unstable TSC; guest TSC will not be reliable");
        if (vm.MaxVcpuIds == 0)
            vm.MaxVcpuIds = KVM_MAX_VCPU_IDS;
        if (id >= vm.MaxVcpuIds)
            return -EINVAL;
        return Ops.VcpuPrecreate(vm);
    }

    public KvmVcpu AllocVcpu(KvmVm vm) => Ops.AllocVcpu((X86Vm)vm);

    [KernelFunction("kvm_arch_vcpu_create", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuCreate(KvmVcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_create");
        return ((X86Vcpu)vcpu).Create();
    }

    [KernelFunction("kvm_arch_vcpu_postcreate", File = "arch/x86/kvm/x86.c")]
    public void VcpuPostcreate(KvmVcpu v)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_postcreate");
        var vcpu = (X86Vcpu)v;
        using (vcpu.Mutex.Enter())
        {
            vcpu.Load();
            vcpu.SynchronizeTsc(0);
            vcpu.Put();
            vcpu.MsrKvmPollControl = 1;
        }

        // DIVERGES: D-X86-8, no work every 300 s (kvmclock_periodic_sync).
    }

    [KernelFunction("kvm_arch_vcpu_destroy", File = "arch/x86/kvm/x86.c")]
    public void VcpuDestroy(KvmVcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_destroy");
        ((X86Vcpu)vcpu).Destroy();
    }

    [KernelFunction("kvm_arch_vcpu_load", File = "arch/x86/kvm/x86.c")]
    public void VcpuLoad(KvmVcpu vcpu, HostCpu cpu)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_load");
        var x86 = (X86Vcpu)vcpu;
        x86.LoadedCpu = (HostX86Cpu)cpu.Hardware!;
        x86.LoadOn(cpu.Id);
        x86.PmuLoad();
        // ARCHITECTURE D7: userspace may have written guest code through its own pointer since this CPU last ran it.
        x86.LoadedCpu.Processor.CodeMayHaveChanged();
    }

    [KernelFunction("kvm_arch_vcpu_put", File = "arch/x86/kvm/x86.c")]
    public void VcpuPut(KvmVcpu v)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_put");
        var vcpu = (X86Vcpu)v;
        if (vcpu.Preempted)
        {
            vcpu.PreemptedInKernel = Ops.GetCpl(vcpu) == 0;
            if (vcpu.AtInstructionBoundary)
                vcpu.Stat.PreemptionReported++;
            else
                vcpu.Stat.PreemptionOther++;
        }

        vcpu.PmuPut();
        Ops.VcpuPut(vcpu);
        vcpu.LastHostTsc = vcpu.LoadedCpu.Rdtsc();

        // Once for all exits since the vCPU was loaded: only loading it again looks at the guest's last counter value.
        if (vcpu.LastGuestTscDue)
        {
            vcpu.LastGuestTscDue = false;
            vcpu.LastGuestTsc = vcpu.ReadL1Tsc(vcpu.LastHostTsc);
        }
    }

    [KernelFunction("kvm_arch_sched_in", File = "arch/x86/kvm/x86.c")]
    public void SchedIn(KvmVcpu v, HostCpu cpu)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_sched_in");
        var vcpu = (X86Vcpu)v;
        vcpu.L1tfFlushL1d = true;
        if (vcpu.Pmu.Version != 0 && vcpu.Pmu.EventCount != 0)
        {
            vcpu.Pmu.NeedCleanup = true;
            vcpu.MakeRequest(X86Request.KVM_REQ_PMU);
        }

        Ops.SchedIn(vcpu, cpu.Id);
    }

    public KvmResult VcpuIoctlRun(KvmVcpu vcpu) => ((X86Vcpu)vcpu).IoctlRun();

    [KernelFunction("kvm_arch_vcpu_ioctl_get_regs", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlGetRegs(KvmVcpu vcpu, ref kvm_regs regs)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_get_regs");
        vcpu.Load();
        ((X86Vcpu)vcpu).GetRegs(ref regs);
        vcpu.Put();
        return 0;
    }

    [KernelFunction("kvm_arch_vcpu_ioctl_set_regs", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlSetRegs(KvmVcpu vcpu, in kvm_regs regs)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_set_regs");
        vcpu.Load();
        ((X86Vcpu)vcpu).SetRegs(in regs);
        vcpu.Put();
        return 0;
    }

    [KernelFunction("kvm_arch_vcpu_ioctl_get_sregs", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlGetSregs(KvmVcpu vcpu, ref kvm_sregs sregs)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_get_sregs");
        vcpu.Load();
        ((X86Vcpu)vcpu).GetSregs(ref sregs);
        vcpu.Put();
        return 0;
    }

    [KernelFunction("kvm_arch_vcpu_ioctl_set_sregs", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlSetSregs(KvmVcpu vcpu, in kvm_sregs sregs)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_set_sregs");
        vcpu.Load();
        int r = ((X86Vcpu)vcpu).SetSregs(in sregs);
        vcpu.Put();
        return r;
    }

    [KernelFunction("kvm_arch_vcpu_ioctl_get_fpu", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlGetFpu(KvmVcpu vcpu, ref kvm_fpu fpu)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_get_fpu");
        vcpu.Load();
        ((X86Vcpu)vcpu).GetFpu(ref fpu);
        vcpu.Put();
        return 0;
    }

    [KernelFunction("kvm_arch_vcpu_ioctl_set_fpu", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlSetFpu(KvmVcpu vcpu, in kvm_fpu fpu)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_set_fpu");
        vcpu.Load();
        ((X86Vcpu)vcpu).SetFpu(fpu);
        vcpu.Put();
        return 0;
    }

    [KernelFunction("kvm_arch_vcpu_ioctl_translate", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlTranslate(KvmVcpu vcpu, ref kvm_translation translation)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_translate");
        vcpu.Load();
        int index = vcpu.Vm.Srcu.ReadLock();
        ulong gpa = ((X86Vcpu)vcpu).GvaToGpaSystem(translation.linear_address, out X86Exception _);
        vcpu.Vm.Srcu.ReadUnlock(index);
        translation.physical_address = gpa;
        translation.valid = gpa != INVALID_GPA ? (byte)1 : (byte)0;
        translation.writeable = 1;
        translation.usermode = 0;
        vcpu.Put();
        return 0;
    }

    [KernelFunction("kvm_arch_vcpu_ioctl_get_mpstate", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlGetMpState(KvmVcpu v, ref kvm_mp_state state)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_get_mpstate");
        var vcpu = (X86Vcpu)v;
        vcpu.Load();
        vcpu.SrcuReadLock();
        int r = vcpu.ApicAcceptEvents();
        if (r >= 0)
        {
            bool woken = vcpu.MpState is KVM_MP_STATE_HALTED or KVM_MP_STATE_AP_RESET_HOLD && vcpu.PvUnhalted;
            state.mp_state = woken ? KVM_MP_STATE_RUNNABLE : (uint)vcpu.MpState;
            r = 0;
        }

        vcpu.SrcuReadUnlock();
        vcpu.Put();
        return r;
    }

    [KernelFunction("kvm_arch_vcpu_ioctl_set_mpstate", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlSetMpState(KvmVcpu vcpu, in kvm_mp_state state)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_set_mpstate");
        vcpu.Load();
        KvmResult r = ((X86Vcpu)vcpu).SetMpState(state.mp_state);
        vcpu.Put();
        return r;
    }

    [KernelFunction("kvm_arch_vcpu_ioctl_set_guest_debug", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctlSetGuestDebug(KvmVcpu vcpu, in kvm_guest_debug debug)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl_set_guest_debug");
        vcpu.Load();
        KvmResult r = ((X86Vcpu)vcpu).SetGuestDebug(in debug);
        vcpu.Put();
        return r;
    }

    public bool VcpuRunnable(KvmVcpu vcpu) => ((X86Vcpu)vcpu).IsRunnable;

    [KernelFunction("kvm_arch_vcpu_should_kick", File = "arch/x86/kvm/x86.c")]
    public bool VcpuShouldKick(KvmVcpu vcpu)
    {
        FunctionTrace.Leaf("kvm_arch_vcpu_should_kick");
        return vcpu.ExitingGuestMode() == VcpuMode.IN_GUEST_MODE;
    }

    public bool CpuHasPendingTimer(KvmVcpu vcpu) => ((X86Vcpu)vcpu).CpuHasPendingTimer();

    /// <summary>kvm_arch_dy_runnable: worth a CPU, as far as another thread can tell.</summary>
    public bool DyRunnable(KvmVcpu v)
    {
        var vcpu = (X86Vcpu)v;
        return vcpu.PvUnhalted || vcpu.TestRequest(X86Request.KVM_REQ_NMI) || vcpu.TestRequest(X86Request.KVM_REQ_SMI) || vcpu.TestRequest(X86Request.KVM_REQ_EVENT)
            || DyHasPendingInterrupt(v);
    }

    public bool DyHasPendingInterrupt(KvmVcpu v) => v is X86Vcpu { ApicvActive: true } vcpu && Ops.DyApicvHasPendingInterrupt(vcpu);

    public bool VcpuInKernel(KvmVcpu vcpu) => ((X86Vcpu)vcpu).PreemptedInKernel;

    /// <summary>kvm_arch_no_poll: the guest asked the host not to poll for it.</summary>
    public bool NoPoll(KvmVcpu vcpu) => (((X86Vcpu)vcpu).MsrKvmPollControl & 1) == 0;

    public void VcpuBlocking(KvmVcpu vcpu) => Ops.VcpuBlocking((X86Vcpu)vcpu);

    public void VcpuUnblocking(KvmVcpu vcpu) => Ops.VcpuUnblocking((X86Vcpu)vcpu);

    public int VcpuMemslotsId(KvmVcpu vcpu) => ((X86Vcpu)vcpu).IsSmm ? 1 : 0;

    public unsafe ulong PioDataPage(KvmVcpu vcpu) => (ulong)((X86Vcpu)vcpu).PioData;
}
