using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Time: TSC offset and multiplier, the VMX-preemption timer, pause-loop windows.</summary>
public sealed unsafe partial class KvmIntel
{
    /// <summary>The preemption timer counts down at TSC &gt;&gt; this.</summary>
    private int cpuPreemptionTimerMulti;

    [KernelFunction("vmx_write_tsc_offset", File = "arch/x86/kvm/vmx/vmx.c")]
    public void WriteTscOffset(X86Vcpu vcpu, ulong offset)
    {
        using var _ = FunctionTrace.Enter("vmx_write_tsc_offset");
        ToVmx(vcpu).Write64(TSC_OFFSET, offset);
    }

    [KernelFunction("vmx_write_tsc_multiplier", File = "arch/x86/kvm/vmx/vmx.c")]
    public void WriteTscMultiplier(X86Vcpu vcpu, ulong multiplier)
    {
        using var _ = FunctionTrace.Enter("vmx_write_tsc_multiplier");
        ToVmx(vcpu).Write64(TSC_MULTIPLIER, multiplier);
    }

    /// <summary>Offset of a nested guest's TSC: none without nested guests.</summary>
    [KernelFunction("vmx_get_l2_tsc_offset", File = "arch/x86/kvm/vmx/vmx.c")]
    public ulong GetL2TscOffset(X86Vcpu vcpu) => 0;

    [KernelFunction("vmx_get_l2_tsc_multiplier", File = "arch/x86/kvm/vmx/vmx.c")]
    public ulong GetL2TscMultiplier(X86Vcpu vcpu) => arch.KvmCaps.DefaultTscScalingRatio;

    /// <summary>0 forces an exit before the first guest instruction; all ones is as good as off.</summary>
    [KernelFunction("vmx_update_hv_timer", File = "arch/x86/kvm/vmx/vmx.c")]
    private void UpdateHvTimer(VcpuVmx vmx, bool forceImmediateExit)
    {
        LoadedVmcs loaded = vmx.LoadedVmcs;
        if (forceImmediateExit)
        {
            vmx.Write32(VMX_PREEMPTION_TIMER_VALUE, 0);
            loaded.HvTimerSoftDisabled = false;
        }
        else if (vmx.HvDeadlineTsc != ulong.MaxValue)
        {
            // SetHvTimer made sure that the distance fits.
            ulong tsc = vmx.LoadedCpu.Rdtsc();
            vmx.Write32(VMX_PREEMPTION_TIMER_VALUE, vmx.HvDeadlineTsc > tsc ? (uint)((vmx.HvDeadlineTsc - tsc) >> cpuPreemptionTimerMulti) : 0);
            loaded.HvTimerSoftDisabled = false;
        }
        else if (!loaded.HvTimerSoftDisabled)
        {
            vmx.Write32(VMX_PREEMPTION_TIMER_VALUE, uint.MaxValue);
            loaded.HvTimerSoftDisabled = true;
        }
    }

    [KernelFunction("handle_fastpath_preemption_timer", File = "arch/x86/kvm/vmx/vmx.c")]
    private static ExitFastpathCompletion HandleFastpathPreemptionTimer(VcpuVmx vmx, bool forceImmediateExit)
    {
        if (vmx.LoadedVmcs.HvTimerSoftDisabled)
            return EXIT_FASTPATH_REENTER_GUEST; // spurious: it only counts because it can't be switched off
        if (forceImmediateExit)
            return EXIT_FASTPATH_EXIT_HANDLED;
        if (vmx.IsGuestMode)
            return EXIT_FASTPATH_NONE;
        vmx.Apic?.ExpiredHvTimer();
        return EXIT_FASTPATH_REENTER_GUEST;
    }

    public bool HasHvTimer => EnablePreemptionTimer;

    /// <summary>The APIC's timer on the preemption timer: -ERANGE when the time does not fit 32 bits of its count.</summary>
    [KernelFunction("vmx_set_hv_timer", File = "arch/x86/kvm/vmx/vmx.c")]
    public int SetHvTimer(X86Vcpu vcpu, ulong guestDeadlineTsc, out bool expired)
    {
        using var _ = FunctionTrace.Enter("vmx_set_hv_timer");
        expired = false;
        VcpuVmx vmx = ToVmx(vcpu);
        ulong tsc = vmx.LoadedCpu.Rdtsc();
        ulong guestTsc = vcpu.ReadL1Tsc(tsc);
        ulong delta = Math.Max(guestDeadlineTsc, guestTsc) - guestTsc;
        ulong advance = vcpu.NsecToCycles(vcpu.Apic!.TimerAdvanceNs);
        delta = delta > advance ? delta - advance : 0;
        if (delta != 0 && vcpu.L1TscScalingRatio != arch.KvmCaps.DefaultTscScalingRatio)
        {
            UInt128 scaled = ((UInt128)delta << arch.KvmCaps.TscScalingRatioFracBits) / vcpu.L1TscScalingRatio;
            if (scaled > ulong.MaxValue)
                return -Errnos.ERANGE;
            delta = (ulong)scaled;
        }

        if (delta >> (cpuPreemptionTimerMulti + 32) != 0)
            return -Errnos.ERANGE;
        vmx.HvDeadlineTsc = tsc + delta;
        expired = delta == 0;
        return 0;
    }

    [KernelFunction("vmx_cancel_hv_timer", File = "arch/x86/kvm/vmx/vmx.c")]
    public void CancelHvTimer(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_cancel_hv_timer");
        ToVmx(vcpu).HvDeadlineTsc = ulong.MaxValue;
    }

    /// <summary>Only a timer of a nested guest gets here: without one the fast path has finished the exit.</summary>
    [KernelFunction("handle_preemption_timer", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandlePreemptionTimer(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        kvmIntel.WarnOnOnce(true);
        return 1;
    }

    [KernelFunction("vmx_migrate_timers", File = "arch/x86/kvm/vmx/vmx.c")]
    public void MigrateTimers(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_migrate_timers");
    }

    /// <summary>A factor below the base window multiplies, above it adds; clamped to the maximum. 0 turns growing off (back to the base).</summary>
    [KernelFunction("__grow_ple_window", File = "arch/x86/kvm/x86.h")]
    internal static uint GrowPleWindow(uint value, uint start, uint modifier, uint max)
    {
        if (modifier < 1)
            return start;
        ulong grown = modifier < start ? (ulong)value * modifier : (ulong)value + modifier;
        return (uint)Math.Min(grown, max);
    }

    [KernelFunction("__shrink_ple_window", File = "arch/x86/kvm/x86.h")]
    internal static uint ShrinkPleWindow(uint value, uint start, uint modifier, uint min)
    {
        if (modifier < 1)
            return start;
        if (modifier < start)
            value /= modifier;
        else
            value -= modifier;
        return Math.Max(value, min);
    }

    [KernelFunction("grow_ple_window", File = "arch/x86/kvm/vmx/vmx.c")]
    private void GrowPleWindow(VcpuVmx vmx) => SetPleWindow(vmx, GrowPleWindow(vmx.PleWindow, PleWindow, PleWindowGrow, PleWindowMax));

    [KernelFunction("shrink_ple_window", File = "arch/x86/kvm/vmx/vmx.c")]
    private void ShrinkPleWindow(VcpuVmx vmx) => SetPleWindow(vmx, ShrinkPleWindow(vmx.PleWindow, PleWindow, PleWindowShrink, PleWindow));

    private static void SetPleWindow(VcpuVmx vmx, uint value)
    {
        if (vmx.PleWindow == value)
            return;
        uint old = vmx.PleWindow;
        vmx.PleWindow = value;
        vmx.PleWindowDirty = true;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_ple_window_update", $"vcpu {vmx.VcpuId} old {old} new {value} ({(old < value ? "growed" : "shrinked")})");
    }
}
