using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vmx;

/// <summary>What the VM-entry checks share: naming the rule that failed, and small predicates over addresses and values.</summary>
internal sealed unsafe partial class VmxUnit
{
    private const ulong EptpRootMask = 0x000f_ffff_ffff_f000;

    // The control fields of the current VMCS as the checks and the guest's exits see them: secondary and tertiary controls are 0 unless activated.
    internal PinBasedControls Pin;
    internal PrimaryControls Primary;
    internal SecondaryControls Secondary;
    internal ulong Tertiary;
    internal VmExitControls ExitControls;
    internal VmEntryControls EntryControls;

    /// <summary>Text of the rule that the last failed VM entry broke; null after an entry that passed.</summary>
    internal string? FailedRule { get; private set; }

    /// <summary>Returns <paramref name="broken"/>; when true, records the text of the condition as the broken rule.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private bool Failed(bool broken, [CallerArgumentExpression(nameof(broken))] string rule = "")
    {
        if (broken)
            RecordFailure(rule);
        return broken;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void RecordFailure(string rule)
    {
        FailedRule = rule;
        cpu.Observer?.EntryCheckFailed(cpu, rule);
    }

    private bool Has(PinBasedControls control) => (Pin & control) != 0;
    private bool Has(PrimaryControls control) => (Primary & control) != 0;
    private bool Has(SecondaryControls control) => (Secondary & control) != 0;
    private bool Has(VmExitControls control) => (ExitControls & control) != 0;
    private bool Has(VmEntryControls control) => (EntryControls & control) != 0;

    /// <summary>Every bit that must be 1 is, and no bit that must be 0 is set (a capability MSR: allowed 0-settings low, allowed 1-settings high).</summary>
    private static bool RespectsCapability(uint controls, ulong capability) =>
        (controls & (uint)capability) == (uint)capability && (controls & ~(uint)(capability >> 32)) == 0;

    private bool IsPage(ulong address) => IsValidStructureAddress(address);

    private bool IsWithinWidth(ulong address) => address < PhysicalLimit;

    /// <summary>An MSR area: 16-byte aligned, first and last byte within the physical-address width.</summary>
    private bool IsValidMsrArea(ulong address, uint count) =>
        (address & 0xf) == 0 && IsWithinWidth(address) && IsWithinWidth(address + (count * 16UL) - 1) && address + (count * 16UL) > address;

    /// <summary>EPT pointer: memory type, walk length, accessed/dirty flags, reserved bits, address width.</summary>
    internal bool IsValidEptp(ulong eptp)
    {
        ulong capability = Capabilities.EptVpid;
        bool memoryType = (eptp & 7) switch { 0 => (capability >> 8 & 1) != 0, 6 => (capability >> 14 & 1) != 0, _ => false };
        bool walkLength = (eptp >> 3 & 7) switch { 3 => (capability >> 6 & 1) != 0, 4 => (capability >> 7 & 1) != 0, _ => false };
        bool accessedDirty = (eptp >> 6 & 1) == 0 || (capability >> 21 & 1) != 0;
        return memoryType && walkLength && accessedDirty && (eptp & 0xf80) == 0 && eptp < 1UL << cpu.PhysicalAddressBits;
    }

    /// <summary>Each byte of IA32_PAT is one of UC 0, WC 1, WT 4, WP 5, WB 6, UC- 7.</summary>
    private static bool IsValidPat(ulong pat) =>
        // Bits 7:3 of each byte zero, and no byte 2 or 3 (bit 1 without bit 2).
        (pat & 0xf8f8_f8f8_f8f8_f8f8) == 0 && ((pat >> 1) & ~(pat >> 2) & 0x0101_0101_0101_0101) == 0;

    private readonly ulong reservedEferBits, reservedPerfGlobalBits, reservedDebugCtlBits;

    /// <summary>Reads the controls of the VMCS; secondary and tertiary controls count only when activated.</summary>
    internal void ReadControls(Vmcs* v)
    {
        Pin = (PinBasedControls)v->PinBasedVmExecControl;
        Primary = (PrimaryControls)v->CpuBasedVmExecControl;
        Secondary = Has(PrimaryControls.ActivateSecondaryControls) ? (SecondaryControls)v->SecondaryVmExecControl : 0;
        Tertiary = Has(PrimaryControls.ActivateTertiaryControls) ? v->TertiaryVmExecControl : 0;
        ExitControls = (VmExitControls)v->VmExitControls;
        EntryControls = (VmEntryControls)v->VmEntryControls;
    }
}
