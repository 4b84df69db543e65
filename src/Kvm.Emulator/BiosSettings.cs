namespace Kvm.Emulator;

/// <summary>What firmware programmed into one processor before handing over to the kernel.</summary>
public sealed record BiosSettings
{
    /// <summary>Locked, VMXON allowed outside SMX; SVM enabled.</summary>
    public static BiosSettings Default { get; } = new();
    /// <summary>IA32_FEATURE_CONTROL locked with VMXON off; VM_CR.SVMDIS and LOCK set.</summary>
    public static BiosSettings VirtualizationDisabled { get; } = new() { FeatureControl = Msr.FeatureControlLocked, VmCr = Msr.VmCrSvmDisable | Msr.VmCrLock };
    /// <summary>IA32_FEATURE_CONTROL left unlocked: the kernel may program it.</summary>
    public static BiosSettings Unlocked { get; } = new() { FeatureControl = 0 };

    /// <summary>Initial IA32_FEATURE_CONTROL (ignored on processors without the MSR).</summary>
    public ulong FeatureControl { get; init; } = Msr.FeatureControlLocked | Msr.FeatureControlVmxonOutsideSmx;
    /// <summary>Initial VM_CR (ignored on processors without SVM).</summary>
    public ulong VmCr { get; init; }
    /// <summary>Microcode revision in IA32_BIOS_SIGN_ID (bits 63:32 on Intel, the patch level on AMD); null: the model's.</summary>
    public ulong? MicrocodeRevision { get; init; }
    /// <summary>Further MSR values in effect at hand-over.</summary>
    public IReadOnlyDictionary<uint, ulong> Msrs { get; init; } = new Dictionary<uint, ulong>();
}
