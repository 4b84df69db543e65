namespace Kvm.Emulator.Vmx;

/// <summary>
/// The VMX capability MSRs (0x480–0x493) of a processor model. Everything the VMX unit accepts or refuses follows from these values,
/// so that a model announcing less behaves as less.
/// </summary>
/// <remarks>SDM vol 3D, appendix "VMX Capability Reporting Facility". The defaults describe a Skylake-class processor without MPX, PT and SGX.</remarks>
public sealed record VmxCapabilities
{
    /// <summary>IA32_VMX_BASIC: revision 4, region 1 KiB, write-back, INS/OUTS information, TRUE controls.</summary>
    public ulong Basic { get; init; } = 0x00DA_0400_0000_0004;
    public ulong PinBased { get; init; } = 0x0000_00FF_0000_0016;
    public ulong ProcBased { get; init; } = 0xFFF9_FFFE_0401_E172;
    public ulong Exit { get; init; } = 0x007F_FFFF_0003_6DFF;
    public ulong Entry { get; init; } = 0x0000_FFFF_0000_11FF;
    public ulong Misc { get; init; } = 0x0000_0000_7004_81E7;
    public ulong Cr0Fixed0 { get; init; } = 0x8000_0021;
    public ulong Cr0Fixed1 { get; init; } = 0xFFFF_FFFF;
    public ulong Cr4Fixed0 { get; init; } = 0x2000;
    public ulong Cr4Fixed1 { get; init; } = 0x0037_67FF;
    public ulong VmcsEnum { get; init; } = 0x2E;
    public ulong ProcBased2 { get; init; } = 0x0217_7FFF_0000_0000;
    public ulong EptVpid { get; init; } = 0x0000_0F01_0633_4141;
    public ulong TruePinBased { get; init; } = 0x0000_00FF_0000_0016;
    public ulong TrueProcBased { get; init; } = 0xFFF9_FFFE_0400_6172;
    public ulong TrueExit { get; init; } = 0x007F_FFFF_0003_6DFB;
    public ulong TrueEntry { get; init; } = 0x0000_FFFF_0000_11FB;
    public ulong VmFunc { get; init; } = 1;
    /// <summary>IA32_VMX_PROCBASED_CTLS3: present only when the tertiary controls can be activated.</summary>
    public ulong ProcBased3 { get; init; }

    public uint RevisionId => (uint)Basic & 0x7fff_ffff;
    /// <summary>Bytes of a VMCS or VMXON region.</summary>
    public int RegionSize => (int)(Basic >> 32) & 0x1fff;
    /// <summary>Physical addresses used by VMX are limited to 32 bits.</summary>
    public bool AddressesLimitedTo32Bits => (Basic >> 48 & 1) != 0;
    public bool ReportsInsOutsInformation => (Basic >> 54 & 1) != 0;
    public bool HasTrueControls => (Basic >> 55 & 1) != 0;
    public bool HasSecondaryControls => (ProcBased >> 63 & 1) != 0;
    public bool HasTertiaryControls => (ProcBased >> 49 & 1) != 0;
    public bool HasVmFunctions => SecondaryAllowed(SecondaryControls.EnableVmFunctions);
    public bool HasEptOrVpid => SecondaryAllowed(SecondaryControls.EnableEpt) || SecondaryAllowed(SecondaryControls.EnableVpid);
    /// <summary>Recommended maximum of MSRs in an MSR list; this processor signals a machine check for longer ones.</summary>
    public uint MaxMsrListCount => 512 * ((uint)(Misc >> 25) & 7) + 512;
    public int Cr3TargetCount => (int)(Misc >> 16) & 0x1ff;
    /// <summary>VMWRITE may write any supported field, exit information included.</summary>
    public bool VmwriteAnyField => (Misc >> 29 & 1) != 0;
    public bool ZeroLengthInjection => (Misc >> 30 & 1) != 0;
    /// <summary>The preemption timer counts down by 1 each time this bit of the TSC changes.</summary>
    public int PreemptionTimerShift => (int)Misc & 0x1f;

    public bool PinAllowed(PinBasedControls control) => (PinBased >> 32 & (uint)control) != 0;
    public bool PrimaryAllowed(PrimaryControls control) => (ProcBased >> 32 & (uint)control) != 0;
    public bool SecondaryAllowed(SecondaryControls control) => HasSecondaryControls && (ProcBased2 >> 32 & (uint)control) != 0;
    public bool ExitAllowed(VmExitControls control) => (Exit >> 32 & (uint)control) != 0;
    public bool EntryAllowed(VmEntryControls control) => (Entry >> 32 & (uint)control) != 0;

    /// <summary>The capabilities that a model's MSR values describe; an MSR that is not listed reads as 0 here: that feature is absent.</summary>
    public static VmxCapabilities From(IReadOnlyDictionary<uint, ulong> msrs)
    {
        ArgumentNullException.ThrowIfNull(msrs);
        ulong Value(uint index) => msrs.TryGetValue(index, out ulong value) ? value : 0;
        return new VmxCapabilities
        {
            Basic = Value(Msr.IA32_VMX_BASIC),
            PinBased = Value(Msr.IA32_VMX_PINBASED_CTLS),
            ProcBased = Value(Msr.IA32_VMX_PROCBASED_CTLS),
            Exit = Value(Msr.IA32_VMX_EXIT_CTLS),
            Entry = Value(Msr.IA32_VMX_ENTRY_CTLS),
            Misc = Value(Msr.IA32_VMX_MISC),
            Cr0Fixed0 = Value(Msr.IA32_VMX_CR0_FIXED0),
            Cr0Fixed1 = Value(Msr.IA32_VMX_CR0_FIXED1),
            Cr4Fixed0 = Value(Msr.IA32_VMX_CR4_FIXED0),
            Cr4Fixed1 = Value(Msr.IA32_VMX_CR4_FIXED1),
            VmcsEnum = Value(Msr.IA32_VMX_VMCS_ENUM),
            ProcBased2 = Value(Msr.IA32_VMX_PROCBASED_CTLS2),
            EptVpid = Value(Msr.IA32_VMX_EPT_VPID_CAP),
            TruePinBased = Value(Msr.IA32_VMX_TRUE_PINBASED_CTLS),
            TrueProcBased = Value(Msr.IA32_VMX_TRUE_PROCBASED_CTLS),
            TrueExit = Value(Msr.IA32_VMX_TRUE_EXIT_CTLS),
            TrueEntry = Value(Msr.IA32_VMX_TRUE_ENTRY_CTLS),
            VmFunc = Value(Msr.IA32_VMX_VMFUNC),
            ProcBased3 = Value(Msr.IA32_VMX_PROCBASED_CTLS3),
        };
    }

    /// <summary>The MSRs of these capabilities, for a processor model's MSR list.</summary>
    public IReadOnlyDictionary<uint, ulong> ToMsrs()
    {
        var msrs = new Dictionary<uint, ulong>();
        for (uint index = Msr.IA32_VMX_BASIC; index <= Msr.IA32_VMX_PROCBASED_CTLS3; index++)
            if (TryRead(index, out ulong value))
                msrs[index] = value;
        return msrs;
    }

    /// <summary>The value of a VMX capability MSR; false (RDMSR faults with #GP) for one that this processor does not have.</summary>
    public bool TryRead(uint msr, out ulong value)
    {
        bool present;
        (present, value) = msr switch
        {
            0x480 => (true, Basic),
            0x481 => (true, PinBased),
            0x482 => (true, ProcBased),
            0x483 => (true, Exit),
            0x484 => (true, Entry),
            0x485 => (true, Misc),
            0x486 => (true, Cr0Fixed0),
            0x487 => (true, Cr0Fixed1),
            0x488 => (true, Cr4Fixed0),
            0x489 => (true, Cr4Fixed1),
            0x48a => (true, VmcsEnum),
            0x48b => (HasSecondaryControls, ProcBased2),
            0x48c => (HasEptOrVpid, EptVpid),
            0x48d => (HasTrueControls, TruePinBased),
            0x48e => (HasTrueControls, TrueProcBased),
            0x48f => (HasTrueControls, TrueExit),
            0x490 => (HasTrueControls, TrueEntry),
            0x491 => (HasVmFunctions, VmFunc),
            0x492 => (HasTertiaryControls, ProcBased3),
            _ => (false, 0UL),
        };
        return present;
    }
}
