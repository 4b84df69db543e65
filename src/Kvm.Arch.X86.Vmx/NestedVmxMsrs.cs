using Kvm.Emulator;

namespace Kvm.Arch.X86.Vmx;

/// <summary>The VMX capability MSRs that a guest sees; the "true" versions are stored, the others derived.</summary>
/// <remarks><c>struct nested_vmx_msrs</c> (arch/x86/kvm/vmx/capabilities.h).</remarks>
public record struct NestedVmxMsrs
{
    public uint ProcbasedCtlsLow, ProcbasedCtlsHigh;
    public uint SecondaryCtlsLow, SecondaryCtlsHigh;
    public uint PinbasedCtlsLow, PinbasedCtlsHigh;
    public uint ExitCtlsLow, ExitCtlsHigh;
    public uint EntryCtlsLow, EntryCtlsHigh;
    public uint MiscLow, MiscHigh;
    public uint EptCaps, VpidCaps;
    public ulong Basic;
    public ulong Cr0Fixed0, Cr0Fixed1;
    public ulong Cr4Fixed0, Cr4Fixed1;
    public ulong VmcsEnum;
    public ulong VmfuncControls;

    /// <summary>The value a guest reads from capability MSR <paramref name="index"/>; false when it does not exist.</summary>
    internal readonly bool TryRead(uint index, out ulong value)
    {
        value = index switch
        {
            Msr.IA32_VMX_BASIC => Basic,
            Msr.IA32_VMX_TRUE_PINBASED_CTLS => Pair(PinbasedCtlsLow, PinbasedCtlsHigh),
            Msr.IA32_VMX_PINBASED_CTLS => Pair(PinbasedCtlsLow, PinbasedCtlsHigh) | VmxControls.PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR,
            Msr.IA32_VMX_TRUE_PROCBASED_CTLS => Pair(ProcbasedCtlsLow, ProcbasedCtlsHigh),
            Msr.IA32_VMX_PROCBASED_CTLS => Pair(ProcbasedCtlsLow, ProcbasedCtlsHigh) | VmxControls.CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR,
            Msr.IA32_VMX_TRUE_EXIT_CTLS => Pair(ExitCtlsLow, ExitCtlsHigh),
            Msr.IA32_VMX_EXIT_CTLS => Pair(ExitCtlsLow, ExitCtlsHigh) | VmxControls.VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR,
            Msr.IA32_VMX_TRUE_ENTRY_CTLS => Pair(EntryCtlsLow, EntryCtlsHigh),
            Msr.IA32_VMX_ENTRY_CTLS => Pair(EntryCtlsLow, EntryCtlsHigh) | VmxControls.VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR,
            Msr.IA32_VMX_MISC => Pair(MiscLow, MiscHigh),
            Msr.IA32_VMX_CR0_FIXED0 => Cr0Fixed0,
            Msr.IA32_VMX_CR0_FIXED1 => Cr0Fixed1,
            Msr.IA32_VMX_CR4_FIXED0 => Cr4Fixed0,
            Msr.IA32_VMX_CR4_FIXED1 => Cr4Fixed1,
            Msr.IA32_VMX_VMCS_ENUM => VmcsEnum,
            Msr.IA32_VMX_PROCBASED_CTLS2 => Pair(SecondaryCtlsLow, SecondaryCtlsHigh),
            Msr.IA32_VMX_EPT_VPID_CAP => Pair(EptCaps, VpidCaps),
            Msr.IA32_VMX_VMFUNC => VmfuncControls,
            _ => 0,
        };
        return index is >= Msr.IA32_VMX_BASIC and <= Msr.IA32_VMX_VMFUNC;
    }

    private static ulong Pair(uint low, uint high) => low | (ulong)high << 32;
}
