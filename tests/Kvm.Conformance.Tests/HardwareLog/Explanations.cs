using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>The differences whose reason is known, with their row in docs/DIVERGENCES.md.</summary>
internal static class Explanations
{
    private const ulong exceptionExit = 0, eptViolation = 0x30, pageFault = 0x4e, nestedPageFault = 0x400;

    /// <summary>The id of the divergence that explains a difference, or null.</summary>
    public static string? Of(HardwareReplay replay, string step, HardwareDifference d) => d.Kind switch
    {
        DifferenceKind.Missing when replay is { Vendor: "amd", Parameters: "nested=0" } && step.StartsWith("35-", StringComparison.Ordinal) && d.Op.Mnemonic == "VMSAVE" => "D-SVM-3",
        DifferenceKind.Value when replay.Vendor == "amd" => OfSvm(d.Op, d.Model!),
        DifferenceKind.Value => OfVmx(d.Op, d.Model!),
        _ => null,
    };

    private static string? OfSvm(HardwareOp op, HardwareOp model) =>
        op is { Mnemonic: "VMEXIT", Operand: nestedPageFault or pageFault } && op.Value == model.Value && op.Exit.AsSpan()[..2].SequenceEqual(model.Exit.AsSpan()[..2]) && model.Exit[2] == 0 ? "D-SVM-4" : null;

    private static string? OfVmx(HardwareOp op, HardwareOp model)
    {
        bool read = op.Mnemonic == "VMREAD", exit = op.Mnemonic == "VMEXIT";
        if (read && op.Operand == (ulong)GUEST_CS_AR_BYTES && (op.Value, model.Value) == (0x93, 0x9b))
            return "D-VMX-4";
        if ((exit && op.Operand == eptViolation && op.Exit.SequenceEqual(model.Exit) || read && op.Operand == (ulong)EXIT_QUALIFICATION) && (op.Value, model.Value) == (0x82, 0x83))
            return "D-VMX-6";
        if (!exit || op.Value != model.Value || op.Exit[0] != model.Exit[0])
            return null;
        // Instruction length where the manual has none; interruption information of an earlier exit where the manual has its valid bit clear.
        bool length = op.Operand == exceptionExit && op.Exit[1] == model.Exit[1] && model.Exit[2] == 0;
        bool stale = op.Operand != exceptionExit && op.Exit[2] == model.Exit[2] && model.Exit[1] == 0;
        return length || stale ? "D-VMX-10" : null;
    }
}
