using Kvm.Client;
using Kvm.Emulator;

namespace Kvm.Conformance;

/// <summary>Machines like those on which the recordings were made.</summary>
public static class RecordedMachine
{
    /// <summary>Two processors each: one would answer differently where a scenario needs a second thread in the kernel.</summary>
    private const int Processors = 2;

    /// <summary>The machine of the recorded kvm_intel: the processor of its emulator, nested virtualization on.</summary>
    public static void Intel(ModelOptions options)
    {
        (options.Cpu, options.Processors) = (CpuModel.Load("bochs-skylake-x"), Processors);
        options.ModuleParameters["nested"] = "1";
    }

    /// <summary>The machine of the recorded kvm_amd.</summary>
    public static void Amd(ModelOptions options) => (options.Cpu, options.Processors) = (AmdProcessor, Processors);

    /// <summary>Nested paging and no other feature of SVM, no performance counters.</summary>
    public static CpuModel AmdProcessor { get; } = CpuModel.AmdZen.With(performanceCounters: false)
        .WithCpuid(0x8000000a, 0, new CpuidLeaf(0, 0, 0, 1), new CpuidLeaf(0, 0, 0, ~1u)).WithCpuid(0x80000001, 0, default, new CpuidLeaf(0, 0, 1 << 23, 0));

    /// <summary>A fresh model of the machine: <c>intel</c>, <c>amd</c>, or any processor model by its name.</summary>
    /// <exception cref="ArgumentException">There is no such processor.</exception>
    public static IKvmBackend Model(string cpu) => cpu switch
    {
        "intel" => KvmBackend.Model(Intel),
        "amd" => KvmBackend.Model(Amd),
        _ => KvmBackend.ByName("model", cpu, Processors),
    };
}
