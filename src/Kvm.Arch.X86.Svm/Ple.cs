using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Arch.X86.Svm.SvmConst;

namespace Kvm.Arch.X86.Svm;

/// <summary>Pause-loop exiting: the filter count grows with each PAUSE exit and shrinks when the vCPU is scheduled in.</summary>
public sealed unsafe partial class KvmAmd
{
    /// <summary>A modifier below 1 resets, one below the base multiplies, others add; never beyond the maximum.</summary>
    private static uint GrowPleWindow(uint val, uint @base, uint modifier, uint max)
    {
        ulong result = val;
        if (modifier < 1)
            return @base;
        result = modifier < @base ? result * modifier : result + modifier;
        return (uint)Math.Min(result, max);
    }

    internal static uint ShrinkPleWindow(uint val, uint @base, uint modifier, uint min)
    {
        if (modifier < 1)
            return @base;
        val = modifier < @base ? val / modifier : val > modifier ? val - modifier : 0;
        return Math.Max(val, min);
    }

    [KernelFunction("grow_ple_window", File = "arch/x86/kvm/svm/svm.c")]
    private void GrowPleWindow(VcpuSvm svm)
    {
        if (svm.Vm.PauseInGuest)
            return;
        SetPleWindow(svm, GrowPleWindow(svm.Vmcb->Control.PauseFilterCount, Params.PauseFilterCount, Params.PauseFilterCountGrow, Params.PauseFilterCountMax));
    }

    [KernelFunction("shrink_ple_window", File = "arch/x86/kvm/svm/svm.c")]
    private void ShrinkPleWindow(VcpuSvm svm)
    {
        if (svm.Vm.PauseInGuest)
            return;
        SetPleWindow(svm, ShrinkPleWindow(svm.Vmcb->Control.PauseFilterCount, Params.PauseFilterCount, Params.PauseFilterCountShrink, Params.PauseFilterCount));
    }

    private static void SetPleWindow(VcpuSvm svm, uint value)
    {
        ushort old = svm.Vmcb->Control.PauseFilterCount;
        if (old == (ushort)value)
            return;
        svm.Vmcb->Control.PauseFilterCount = (ushort)value;
        MarkDirty(svm.Vmcb, VMCB_INTERCEPTS);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_ple_window_update", $"vcpu {svm.VcpuId} old {old} new {(ushort)value} ({(old < (ushort)value ? "growed" : "shrinked")})");
    }
}
