using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Hyper-V's enlightened VMCS, as far as a guest sees it without running guests of its own: controls for which that structure has no field.</summary>
/// <remarks>arch/x86/kvm/vmx/evmcs.c.</remarks>
internal static class Evmcs
{
    /// <summary>Version 1 is the lowest and the highest.</summary>
    public const ushort Versions = 0x0101;

    private const uint unsupportedSecondary = SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY | SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES | SECONDARY_EXEC_APIC_REGISTER_VIRT
        | SECONDARY_EXEC_ENABLE_PML | SECONDARY_EXEC_ENABLE_VMFUNC | SECONDARY_EXEC_SHADOW_VMCS | SECONDARY_EXEC_TSC_SCALING | SECONDARY_EXEC_PAUSE_LOOP_EXITING;

    private const uint vmfuncEptpSwitching = 1;

    /// <summary>nested_evmcs_filter_control_msr: Hyper-V would use these although there are no fields for them.</summary>
    [KernelFunction("nested_evmcs_filter_control_msr", File = "arch/x86/kvm/vmx/evmcs.c")]
    public static ulong FilterControlMsr(VcpuVmx vmx, uint index, ulong data)
    {
        bool perfGlobalCtrl = vmx.Hv?.HasEvmcsPerfGlobalCtrl ?? false;
        return index switch
        {
            Msr.IA32_VMX_EXIT_CTLS or Msr.IA32_VMX_TRUE_EXIT_CTLS =>
                High(data, VM_EXIT_SAVE_VMX_PREEMPTION_TIMER | (perfGlobalCtrl ? 0 : VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL)),
            Msr.IA32_VMX_ENTRY_CTLS or Msr.IA32_VMX_TRUE_ENTRY_CTLS => High(data, perfGlobalCtrl ? 0 : VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL),
            Msr.IA32_VMX_PROCBASED_CTLS2 => High(data, unsupportedSecondary),
            Msr.IA32_VMX_PINBASED_CTLS or Msr.IA32_VMX_TRUE_PINBASED_CTLS => High(data, PIN_BASED_POSTED_INTR | PIN_BASED_VMX_PREEMPTION_TIMER),
            Msr.IA32_VMX_VMFUNC => data & ~(ulong)vmfuncEptpSwitching,
            _ => data,
        };
    }

    /// <summary>The allowed-1 settings are the upper half.</summary>
    private static ulong High(ulong data, uint without) => data & ~((ulong)without << 32);
}
