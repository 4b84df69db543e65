using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Conformance.Tests.HardwareLog.Intel;

/// <summary>The differences whose reason is known, with their row in docs/DIVERGENCES.md.</summary>
internal static class Explanations
{
    /// <summary>The id of the divergence that explains a difference, or null.</summary>
    public static string? Of(HardwareDifference d)
    {
        bool write = d.Op.Mnemonic == "VMWRITE", read = d.Op.Mnemonic == "VMREAD";
        return d.Kind switch
        {
            DifferenceKind.Missing when write && d.Op.Operand == (ulong)HOST_RSP => "D-VMX-2",
            DifferenceKind.Value when read && d.Op.Operand == (ulong)GUEST_CS_AR_BYTES && (d.Op.Value, d.ModelValue) == (0x93, 0x9b) => "D-VMX-4",
            DifferenceKind.Value when (d.Op.Mnemonic == "VMEXIT" && d.Op.Operand == 0x30 || read && d.Op.Operand == (ulong)EXIT_QUALIFICATION)
                && (d.Op.Value, d.ModelValue) == (0x82, 0x83) => "D-VMX-6",
            _ => null,
        };
    }
}
