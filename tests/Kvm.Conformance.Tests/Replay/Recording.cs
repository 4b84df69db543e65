using Kvm.Client;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.Replay;

/// <summary>The recorded answers of one kernel and module, replayed on the model with a processor like the recorded one. Each scenario is replayed once.</summary>
internal sealed class Recording
{
    private readonly Dictionary<string, Lazy<ReplayResult>> results;
    private readonly Dictionary<string, KnownDifference> known;

    private Recording(string name, string vendor, Action<ModelOptions> processor)
    {
        (Name, Vendor) = (name, vendor);
        Scenarios = Scenario.Load(name).ToDictionary(static s => s.Name);
        results = Scenarios.ToDictionary(static s => s.Key, s => new Lazy<ReplayResult>(() => Replayer.Replay(s.Value, () => KvmBackend.Model(processor))));
        known = KnownDifference.All.Where(d => d.Recording == name).ToDictionary(static d => d.Scenario);
    }

    public static Recording Intel { get; } = new("vmx-6.1", "intel", static o =>
    {
        (o.Cpu, o.Processors) = (CpuModel.Load("bochs-skylake-x"), 2);
        o.ModuleParameters["nested"] = "1";
    });

    /// <summary>The recorded processor had nested paging and no other feature of SVM.</summary>
    public static Recording Amd { get; } = new("svm-6.1", "amd", static o =>
        (o.Cpu, o.Processors) = (CpuModel.AmdZen.WithCpuid(0x8000000a, 0, new CpuidLeaf(0, 0, 0, 1), new CpuidLeaf(0, 0, 0, ~1u)), 2));

    /// <summary>The recorded kvm_amd answers on a processor with everything that the model has.</summary>
    public static Recording AmdWithAllFeatures { get; } = new("svm-6.1", "amd", static o => (o.Cpu, o.Processors) = (CpuModel.AmdZen, 2));

    public string Name { get; }

    public string Vendor { get; }

    /// <summary>Also those that the recording calls not portable: their answers depend on the vendor, and this is the vendor.</summary>
    public IReadOnlyDictionary<string, Scenario> Scenarios { get; }

    public ReplayResult Of(string scenario) => results[scenario].Value;

    public KnownDifference? Known(string scenario) => known.GetValueOrDefault(scenario);

    /// <summary>Why answers that the recording calls not portable differ in a scenario that agrees otherwise.</summary>
    public KnownDifference? KnownNotPortable(string scenario) => known.GetValueOrDefault(scenario + KnownDifference.NotPortable);
}

/// <summary>A scenario that the model answers differently. Data/replay-known.txt.</summary>
/// <param name="Class">What is still to come, or an entry of docs/DIVERGENCES.md.</param>
internal sealed record KnownDifference(string Recording, string Scenario, string Class, string What)
{
    public const string NotPortable = " (not portable)";

    /// <summary>Parts of KVM that are still to come.</summary>
    public static IReadOnlyList<string> ToCome { get; } = ["interrupt controllers", "Hyper-V"];

    /// <summary>Those, and what belongs to the recorded host: its clocks, and features of a processor that is not one of the models.</summary>
    public static IReadOnlyList<string> Classes { get; } = [.. ToCome, "time", "processor"];

    public static IReadOnlyList<KnownDifference> All { get; } = [.. File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "Data", "replay-known.txt"))
        .Where(static line => line.Length > 0 && line[0] != '#').Select(static line => line.Split('\t')).Select(static p => new KnownDifference(p[0], p[1], p[2], p[3]))];
}
