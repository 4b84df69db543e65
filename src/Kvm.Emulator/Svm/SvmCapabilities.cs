namespace Kvm.Emulator.Svm;

/// <summary>What CPUID leaf 0x8000000A announces on a processor model; the SVM unit accepts and does exactly that.</summary>
/// <remarks>APM vol 3, "Fn8000_000A SVM Features". The defaults describe a Zen-class processor without AVIC, SEV and shadow stacks.</remarks>
public sealed record SvmCapabilities
{
    /// <summary>EAX 7:0.</summary>
    public byte Revision { get; init; } = 1;
    /// <summary>EBX: number of address space identifiers, the host's 0 included.</summary>
    public uint Asids { get; init; } = 0x8000;
    /// <summary>EDX.</summary>
    public SvmFeatures Features { get; init; } = SvmFeatures.NestedPaging | SvmFeatures.LbrVirtualization | SvmFeatures.SvmLock | SvmFeatures.NripSave
        | SvmFeatures.TscRateMsr | SvmFeatures.VmcbClean | SvmFeatures.FlushByAsid | SvmFeatures.DecodeAssists | SvmFeatures.PauseFilter
        | SvmFeatures.PauseFilterThreshold | SvmFeatures.VirtualVmloadVmsave | SvmFeatures.VirtualGif;

    /// <summary>What a processor model announces; nothing when it has no SVM.</summary>
    public static SvmCapabilities Of(CpuModel model)
    {
        ArgumentNullException.ThrowIfNull(model);
        CpuidLeaf leaf = model.MaxExtendedLeaf >= 0x8000000a && model.HasSvm ? model.Leaf(0x8000000a) : default;
        return new SvmCapabilities { Revision = (byte)leaf.Eax, Asids = leaf.Ebx, Features = (SvmFeatures)leaf.Edx };
    }

    public bool Has(SvmFeatures feature) => (Features & feature) == feature;
}
