using Kvm.Core;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>Host time as KVM uses it.</remarks>
public sealed partial class X86Arch
{
    /// <summary>get_kvmclock_base_ns: nanoseconds since boot.</summary>
    internal long KvmclockBaseNs() => Host.KtimeNs;

    /// <summary>ktime_get_real_ns.</summary>
    internal ulong RealtimeNs() => (ulong)(Host.Time.GetUtcNow().UtcTicks - DateTime.UnixEpoch.Ticks) * 100;

    /// <summary>kvm_get_walltime_and_clockread: the wall clock and the TSC at the same moment; false when the TSC is not the host's clock.</summary>
    internal bool GetWalltimeAndClockread(out long sec, out long nsec, out ulong cycle)
    {
        cycle = HostX86.Rdtsc();
        ulong ns = RealtimeNs();
        sec = (long)(ns / 1_000_000_000);
        nsec = (long)(ns % 1_000_000_000);
        return !HostX86.TscUnstable;
    }

    internal static ulong MulShift(ulong a, ulong b, int shift) => TscMath.MulShift(a, b, shift);

    /// <summary>kvm_scale_tsc.</summary>
    public ulong ScaleTsc(ulong tsc, ulong ratio) =>
        ratio == KvmCaps.DefaultTscScalingRatio ? tsc : TscMath.MulShift(tsc, ratio, KvmCaps.TscScalingRatioFracBits);

    /// <summary>kvm_calc_nested_tsc_offset.</summary>
    public ulong CalcNestedTscOffset(ulong l1Offset, ulong l2Offset, ulong l2Multiplier)
    {
        ulong nested = l2Multiplier == KvmCaps.DefaultTscScalingRatio
            ? l1Offset
            : (ulong)(((Int128)(long)l1Offset * l2Multiplier) >> KvmCaps.TscScalingRatioFracBits);
        return nested + l2Offset;
    }

    /// <summary>kvm_calc_nested_tsc_multiplier.</summary>
    public ulong CalcNestedTscMultiplier(ulong l1Multiplier, ulong l2Multiplier) =>
        l2Multiplier == KvmCaps.DefaultTscScalingRatio ? l1Multiplier : TscMath.MulShift(l1Multiplier, l2Multiplier, KvmCaps.TscScalingRatioFracBits);

    /// <summary>A CPU whose counter is behind what its vCPUs have seen (suspend reset it): every vCPU gets the difference at its next load.</summary>
    private void CompensateBackwardsTsc()
    {
        ulong local = HostX86.Rdtsc();
        bool stable = !HostX86.TscUnstable;
        int cpu = Host.CurrentCpu.Id;
        ulong max = 0;
        IReadOnlyList<KvmVm> vms = Module.VmList;
        foreach (KvmVm vm in vms)
        {
            foreach (KvmVcpu v in vm.Vcpus)
            {
                var vcpu = (X86Vcpu)v;
                if (!stable && vcpu.Cpu == cpu)
                    vcpu.MakeRequest(KVM_REQ_CLOCK_UPDATE);
                if (stable && vcpu.LastHostTsc > local)
                    max = Math.Max(max, vcpu.LastHostTsc);
            }
        }

        if (max == 0)
            return;
        foreach (KvmVm v in vms)
        {
            var vm = (X86Vm)v;
            vm.BackwardsTscObserved = true;
            foreach (KvmVcpu c in vm.Vcpus)
            {
                var vcpu = (X86Vcpu)c;
                vcpu.TscOffsetAdjustment += max - local;
                vcpu.LastHostTsc = local;
                vcpu.MakeRequest(KVM_REQ_MASTERCLOCK_UPDATE);
            }

            vm.LastTscNsec = 0;
            vm.LastTscWrite = 0;
        }
    }
}
