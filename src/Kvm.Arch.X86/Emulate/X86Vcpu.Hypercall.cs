using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86;

/// <remarks>KVM hypercalls.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>
    /// kvm_emulate_hypercall: RAX number, RBX RCX RDX RSI arguments; the answer, 0 or -KVM_E*, in RAX. A guest that has turned Hyper-V's hypercalls on makes those.
    /// </summary>
    [KernelFunction("kvm_emulate_hypercall", File = "arch/x86/kvm/x86.c")]
    public int EmulateHypercall()
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_hypercall");
        if (HvHypercallEnabled)
            return Hv!.Hypercall();
        bool wide = Is64BitHypercall;
        ulong mask = wide ? ~0ul : uint.MaxValue;
        ulong nr = Rax & mask;
        ulong a0 = Rbx & mask;
        ulong a1 = Rcx & mask;
        ulong a2 = Rdx & mask;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hypercall", $"nr 0x{nr:x} a0 0x{a0:x} a1 0x{a1:x} a2 0x{a2:x} a3 0x{Rsi & mask:x}");

        long ret;
        if (Ops.GetCpl(this) != 0)
        {
            ret = -KVM_EPERM;
        }
        else if (nr == KVM_HC_MAP_GPA_RANGE && (Vm.HypercallExitEnabled & (1u << (int)KVM_HC_MAP_GPA_RANGE)) != 0)
        {
            if ((a0 & 0xfff) == 0 && a1 != 0 && (a0 >> 12) + a1 > a0 >> 12)
                return HypercallExit(nr, a0, a1, a2, wide);
            ret = -KVM_EINVAL;
        }
        else
        {
            ret = Hypercall(nr, a0, a1, a2, Rsi & mask, wide);
        }

        return FinishHypercall((ulong)ret, wide);
    }

    private long Hypercall(ulong nr, ulong a0, ulong a1, ulong a2, ulong a3, bool wide)
    {
        switch (nr)
        {
            case KVM_HC_VAPIC_POLL_IRQ:
                return 0;
            case KVM_HC_KICK_CPU:
                if (!GuestPvHas((int)KVM_FEATURE_PV_UNHALT))
                    return -KVM_ENOSYS;
                PvKickCpu((uint)a1);
                SchedYield((uint)a1);
                return 0;
            case KVM_HC_CLOCK_PAIRING:
                return PvClockPairing(a0, a1);
            case KVM_HC_SEND_IPI:
                return GuestPvHas((int)KVM_FEATURE_PV_SEND_IPI) ? Vm.PvSendIpi(a0, a1, (uint)a2, a3, wide) : -KVM_ENOSYS;
            case KVM_HC_SCHED_YIELD:
                if (!GuestPvHas((int)KVM_FEATURE_PV_SCHED_YIELD))
                    return -KVM_ENOSYS;
                SchedYield((uint)a0);
                return 0;
            default:
                return -KVM_ENOSYS;
        }
    }

    /// <summary>kvm_pv_kick_cpu_op: wakes the vCPU with this APIC id from HLT.</summary>
    private void PvKickCpu(uint apicId)
    {
        var irq = new KvmLapicIrq { DeliveryMode = ApicConst.APIC_DM_REMRD, DestMode = ApicConst.APIC_DEST_PHYSICAL, DestId = apicId };
        Vm.IrqDeliveryToApic(null, ref irq, null);
    }

    /// <summary>kvm_sched_yield: gives this vCPU's CPU to a preempted one that it waits for.</summary>
    private void SchedYield(uint apicId)
    {
        Stat.DirectedYieldAttempted++;
        if (Host.RunQueueLength == 0 || Vm.VcpuByApicId(apicId) is not { } target || target == this || !Volatile.Read(ref target.Preempted))
            return;
        Host.Yield();
        Stat.DirectedYieldSuccessful++;
    }

    private int HypercallExit(ulong nr, ulong a0, ulong a1, ulong a2, bool wide)
    {
        Run->exit_reason = KVM_EXIT_HYPERCALL;
        Run->hypercall.nr = nr;
        Run->hypercall.args[0] = a0;
        Run->hypercall.args[1] = a1;
        Run->hypercall.args[2] = a2;
        Run->hypercall.longmode = wide ? 1u : 0u;
        CompleteUserspaceIo = &CompleteHypercallExit;
        return 0;
    }

    [KernelFunction("complete_hypercall_exit", File = "arch/x86/kvm/x86.c")]
    private static int CompleteHypercallExit(X86Vcpu vcpu) => vcpu.FinishHypercall(vcpu.Run->hypercall.ret, vcpu.Is64BitHypercall);

    private int FinishHypercall(ulong ret, bool wide)
    {
        Rax = wide ? ret : (uint)ret;
        Stat.Hypercalls++;
        return SkipEmulatedInstruction();
    }

    [KernelFunction("kvm_pv_clock_pairing", File = "arch/x86/kvm/x86.c")]
    private long PvClockPairing(ulong paddr, ulong clockType)
    {
        if (clockType != KVM_CLOCK_PAIRING_WALLCLOCK || TscAlwaysCatchup)
            return -KVM_EOPNOTSUPP;
        if (!Arch.GetWalltimeAndClockread(out long sec, out long nsec, out ulong cycle))
            return -KVM_EOPNOTSUPP;
        kvm_clock_pairing pairing = default;
        pairing.sec = sec;
        pairing.nsec = nsec;
        pairing.tsc = ReadL1Tsc(cycle);
        return Vm.WriteGuest(paddr, new ReadOnlySpan<byte>(&pairing, sizeof(kvm_clock_pairing))).IsError ? -KVM_EFAULT : 0;
    }
}
