using Kvm.Emulator;

namespace Kvm.Conformance.Tests.Hosts;

/// <summary>A machine on which modules were loaded, removed and used at the console, and the model's machine for it.</summary>
/// <param name="Log">Its console log: Data/hosts.</param>
/// <param name="Title">What is special about it.</param>
internal sealed record HostCase(string Log, string Title, Func<CpuModel> Model)
{
    private const ulong locked = 1, vmxOutsideSmx = 4;
    private static readonly CpuidLeaf vmx = new(0, 0, 1 << 5, 0), svm = new(0, 0, 1 << 2, 0);

    /// <summary>What the firmware left behind, by processor.</summary>
    public Func<int, BiosSettings> Firmware { get; init; } = static _ => BiosSettings.Default;

    /// <summary>VMXON ends in #GP on this processor.</summary>
    public int? VmxonFaults { get; init; }

    public static IReadOnlyList<HostCase> All { get; } =
    [
        new("featctl-locked-off", "firmware locked VMX off", Skylake) { Firmware = static _ => new BiosSettings { FeatureControl = locked } },
        new("featctl-cpu1-locked-off", "firmware locked VMX off on one of two processors", Skylake)
            { Firmware = static cpu => new BiosSettings { FeatureControl = cpu == 0 ? locked | vmxOutsideSmx : locked } },
        new("featctl-unlocked", "firmware left IA32_FEATURE_CONTROL open", Skylake) { Firmware = static _ => BiosSettings.Unlocked },
        new("vmxe-already-set", "CR4.VMXE set by someone else, on either processor", Skylake),
        new("vmxon-fault-cpu1", "VMXON faults on one processor", Skylake) { VmxonFaults = 1 },
        new("novmx-SkylakeClient", "Intel processor without VMX", static () => Skylake().WithCpuid(1, 0, default, vmx)),
        new("svm-on-intel-vendor", "Intel processor that announces SVM", static () => Skylake().WithCpuid(1, 0, default, vmx).WithCpuid(0x80000001, 0, svm)),
        new("nosvm-EPYC", "AMD processor without SVM", static () => Ryzen().WithCpuid(0x80000001, 0, default, svm)),
        new("nosvm-qemu64", "plain AMD processor without SVM", static () => Ryzen().WithCpuid(0x80000001, 0, default, svm)),
        new("svm-qemu64", "SVM without nested paging", static () => WithSvmFeatures(0)),
        new("svm-max", "SVM with nested paging and virtual GIF", static () => WithSvmFeatures(1 | 1 << 16)),
        new("intel-modules", "order of loading, parameters, modules in use (kvm_intel)", Skylake),
        new("amd-modules", "order of loading, parameters, modules in use, EFER.SVME set by someone else (kvm_amd)", static () => WithSvmFeatures(1)),
    ];

    private static CpuModel Skylake() => CpuModel.Load("bochs-skylake-x");

    private static CpuModel Ryzen() => CpuModel.Load("bochs-ryzen");

    private static CpuModel WithSvmFeatures(uint edx) => Ryzen().WithCpuid(0x8000000a, 0, new CpuidLeaf(0, 0, 0, edx), new CpuidLeaf(0, 0, 0, ~edx));
}
