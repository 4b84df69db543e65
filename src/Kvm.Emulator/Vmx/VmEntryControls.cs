namespace Kvm.Emulator.Vmx;

/// <summary>VM-entry controls (<see cref="VmcsField.VM_ENTRY_CONTROLS"/>).</summary>
[Flags]
public enum VmEntryControls : uint
{
    LoadDebugControls = 1u << 2,
    Ia32eModeGuest = 1u << 9,
    EntryToSmm = 1u << 10,
    DeactivateDualMonitor = 1u << 11,
    LoadPerfGlobalCtrl = 1u << 13,
    LoadPat = 1u << 14,
    LoadEfer = 1u << 15,
    LoadBndcfgs = 1u << 16,
    ConcealVmxFromPt = 1u << 17,
    LoadRtitCtl = 1u << 18,
}
