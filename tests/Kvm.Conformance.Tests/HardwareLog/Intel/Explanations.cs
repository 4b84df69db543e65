using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Conformance.Tests.HardwareLog.Intel;

/// <summary>The differences whose reason is known, with their row in docs/DIVERGENCES.md.</summary>
internal static class Explanations
{
    private const ulong cr4Mce = 1 << 6;

    /// <summary>The id of the divergence that explains a difference, or null.</summary>
    public static string? Of(HardwareDifference d)
    {
        bool write = d.Op.Mnemonic == "VMWRITE", read = d.Op.Mnemonic == "VMREAD";
        return d.Kind switch
        {
            DifferenceKind.Missing when write && d.Op.Operand == (ulong)HOST_RSP => "D-VMX-2",
            DifferenceKind.Value when write && d.Op.Operand == (ulong)GUEST_CR4 && (d.Op.Value ^ d.ModelValue) == cr4Mce => "D-VMX-3",
            DifferenceKind.Value when read && d.Op.Operand == (ulong)GUEST_CS_AR_BYTES && (d.Op.Value, d.ModelValue) == (0x93, 0x9b) => "D-VMX-4",
            DifferenceKind.Value when (d.Op.Mnemonic == "VMEXIT" && d.Op.Operand == 0x30 || read && d.Op.Operand == (ulong)EXIT_QUALIFICATION)
                && (d.Op.Value, d.ModelValue) == (0x82, 0x83) => "D-VMX-6",
            _ => null,
        };
    }

    /// <summary>
    /// The recorded processor exits for a repeated INS or OUTS even when the count is 0 (D-VMX-5): the steps in which the guest comes back to such an instruction, without
    /// that exit and the entry after it.
    /// </summary>
    public static List<HardwareOp> WithoutEmptyRepetition(string step, List<HardwareOp> recorded)
    {
        if (!step.StartsWith("36-", StringComparison.Ordinal) && !step.StartsWith("37-", StringComparison.Ordinal))
            return recorded;
        int exit = recorded.FindIndex(static o => o.Mnemonic == "VMEXIT");
        int entry = recorded.FindIndex(exit, static o => o.Mnemonic == "VMRESUME");
        return [.. recorded[..exit], .. recorded[(entry + 1)..]];
    }
}
