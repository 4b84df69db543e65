using System.Runtime.CompilerServices;
using Kvm.Emulator;
using Kvm.Emulator.Vmx;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Access to the current VMCS (vmcs_read*, vmcs_write*) and the shadows of its control fields.</summary>
/// <remarks>arch/x86/kvm/vmx/vmx_ops.h, vmx.h BUILD_CONTROLS_SHADOW. A failing access is reported and otherwise ignored, reads give 0.</remarks>
public sealed unsafe partial class VcpuVmx
{
    /// <summary>The processor this vCPU is loaded on; set by vmx_vcpu_load.</summary>
    internal Processor Hw = null!;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal ulong Readl(VmcsField field)
    {
        InstructionResult result = Hw.Vmread((uint)field, out ulong value);
        return result.Outcome == InstructionOutcome.Success ? value : VmreadFailed(field, result);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal ulong Read64(VmcsField field) => Readl(field);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal uint Read32(VmcsField field) => (uint)Readl(field);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal ushort Read16(VmcsField field) => (ushort)Readl(field);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Writel(VmcsField field, ulong value)
    {
        InstructionResult result = Hw.Vmwrite((uint)field, value);
        if (result.Outcome != InstructionOutcome.Success)
            VmwriteFailed(field, value, result);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Write64(VmcsField field, ulong value) => Writel(field, value);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Write32(VmcsField field, uint value) => Writel(field, value);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Write16(VmcsField field, ushort value) => Writel(field, value);

    internal void SetBits(VmcsField field, uint mask) => Writel(field, Readl(field) | mask);
    internal void ClearBits(VmcsField field, uint mask) => Writel(field, Readl(field) & ~(ulong)mask);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private ulong VmreadFailed(VmcsField field, InstructionResult result)
    {
        Vmx.VmreadError((uint)field, result.IsFault);
        return 0;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void VmwriteFailed(VmcsField field, ulong value, InstructionResult result)
    {
        if (result.IsFault)
            Vmx.KvmSpuriousFault();
        else
            Vmx.VmwriteError(Hw, (uint)field, value);
    }

    internal uint VmEntryControlsGet() => LoadedVmcs.ControlsShadow.VmEntry;
    internal uint VmExitControlsGet() => LoadedVmcs.ControlsShadow.VmExit;
    internal uint PinControlsGet() => LoadedVmcs.ControlsShadow.Pin;
    internal uint ExecControlsGet() => LoadedVmcs.ControlsShadow.Exec;
    internal uint SecondaryExecControlsGet() => LoadedVmcs.ControlsShadow.SecondaryExec;
    internal ulong TertiaryExecControlsGet() => LoadedVmcs.ControlsShadow.TertiaryExec;

    internal void VmEntryControlsSet(uint value) => SetControl(ref LoadedVmcs.ControlsShadow.VmEntry, VM_ENTRY_CONTROLS, value);
    internal void VmExitControlsSet(uint value) => SetControl(ref LoadedVmcs.ControlsShadow.VmExit, VM_EXIT_CONTROLS, value);
    internal void PinControlsSet(uint value) => SetControl(ref LoadedVmcs.ControlsShadow.Pin, PIN_BASED_VM_EXEC_CONTROL, value);
    internal void ExecControlsSet(uint value) => SetControl(ref LoadedVmcs.ControlsShadow.Exec, CPU_BASED_VM_EXEC_CONTROL, value);
    internal void SecondaryExecControlsSet(uint value) => SetControl(ref LoadedVmcs.ControlsShadow.SecondaryExec, SECONDARY_VM_EXEC_CONTROL, value);
    internal void TertiaryExecControlsSet(ulong value)
    {
        if (LoadedVmcs.ControlsShadow.TertiaryExec == value)
            return;
        Write64(TERTIARY_VM_EXEC_CONTROL, value);
        LoadedVmcs.ControlsShadow.TertiaryExec = value;
    }

    internal void VmEntryControlsSetbit(uint bits) => VmEntryControlsSet(VmEntryControlsGet() | bits);
    internal void VmEntryControlsClearbit(uint bits) => VmEntryControlsSet(VmEntryControlsGet() & ~bits);
    internal void VmExitControlsSetbit(uint bits) => VmExitControlsSet(VmExitControlsGet() | bits);
    internal void VmExitControlsClearbit(uint bits) => VmExitControlsSet(VmExitControlsGet() & ~bits);
    internal void ExecControlsSetbit(uint bits) => ExecControlsSet(ExecControlsGet() | bits);
    internal void ExecControlsClearbit(uint bits) => ExecControlsSet(ExecControlsGet() & ~bits);
    internal void SecondaryExecControlsSetbit(uint bits) => SecondaryExecControlsSet(SecondaryExecControlsGet() | bits);
    internal void SecondaryExecControlsClearbit(uint bits) => SecondaryExecControlsSet(SecondaryExecControlsGet() & ~bits);
    internal void TertiaryExecControlsSetbit(ulong bits) => TertiaryExecControlsSet(TertiaryExecControlsGet() | bits);
    internal void TertiaryExecControlsClearbit(ulong bits) => TertiaryExecControlsSet(TertiaryExecControlsGet() & ~bits);

    private void SetControl(ref uint shadow, VmcsField field, uint value)
    {
        if (shadow == value)
            return;
        Write32(field, value);
        shadow = value;
    }
}
