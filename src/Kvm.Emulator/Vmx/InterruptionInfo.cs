namespace Kvm.Emulator.Vmx;

/// <summary>Format of the VM-entry and VM-exit interruption-information and IDT-vectoring information fields.</summary>
/// <remarks>SDM vol 3C, "VM-Entry Controls for Event Injection", "Information for VM Exits Due to Vectored Events".</remarks>
public static class InterruptionInfo
{
    public const uint Valid = 1u << 31;
    public const uint DeliverErrorCode = 1u << 11;
    /// <summary>In VM-exit interruption information: NMI unblocking due to IRET.</summary>
    public const uint NmiUnblocking = 1u << 12;
    public const uint ReservedBits = 0x7fff_f000;

    public const int ExternalInterrupt = 0, ReservedType = 1, Nmi = 2, HardwareException = 3, SoftwareInterrupt = 4,
        PrivilegedSoftwareException = 5, SoftwareException = 6, OtherEvent = 7;

    public static int Vector(uint info) => (int)info & 0xff;
    public static int Type(uint info) => (int)(info >> 8) & 7;

    /// <summary>Types whose delivery needs an instruction length.</summary>
    public static bool IsSoftware(int type) => type is SoftwareInterrupt or PrivilegedSoftwareException or SoftwareException;

    /// <summary>Exceptions that push an error code.</summary>
    public static bool VectorHasErrorCode(int vector) => vector is Fault.DF or Fault.TS or Fault.NP or Fault.SS or Fault.GP or Fault.PF or Fault.AC;

    public static uint Make(int vector, int type, bool errorCode) => Valid | (uint)type << 8 | (uint)vector | (errorCode ? DeliverErrorCode : 0);
}
