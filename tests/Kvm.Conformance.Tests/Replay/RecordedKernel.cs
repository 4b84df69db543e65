using Kvm.Client;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.Replay;

/// <summary>The recorded answers of one kernel and module, replayed on the model with a processor like the recorded one. Each scenario is replayed once.</summary>
internal sealed class RecordedKernel
{
    private readonly Dictionary<string, Lazy<ReplayResult>> results;
    private readonly Dictionary<string, KnownFailure> known;

    private RecordedKernel(string name, string vendor, Action<ModelOptions> processor)
    {
        (Name, Vendor) = (name, vendor);
        Scenarios = Load(name).Scenarios.ToDictionary(static s => s.Name);
        results = Scenarios.ToDictionary(static s => s.Key, s => new Lazy<ReplayResult>(() => Replayer.Replay(s.Value, () => KvmBackend.Model(processor))));
        known = KnownFailure.All.Where(d => d.Recording == name).ToDictionary(static d => d.Scenario);
    }

    public static RecordedKernel Intel { get; } = new("vmx-6.1", "intel", RecordedMachine.Intel);

    public static RecordedKernel Amd { get; } = new("svm-6.1", "amd", RecordedMachine.Amd);

    /// <summary>The recorded kvm_amd answers on a processor with everything that the model has.</summary>
    public static RecordedKernel AmdWithAllFeatures { get; } = new("svm-6.1", "amd", static o => (o.Cpu, o.Processors) = (CpuModel.AmdZen, 2));

    /// <summary>What belongs to the recorded host: its clocks, and features of a processor that is not one of the models.</summary>
    public static IReadOnlyList<string> Classes { get; } = ["time", "processor"];

    public string Name { get; }

    public string Vendor { get; }

    /// <summary>Also those that the recording calls not portable: their answers depend on the vendor, and this is the vendor.</summary>
    public IReadOnlyDictionary<string, Scenario> Scenarios { get; }

    public static string PathOf(string name) => Path.Combine(AppContext.BaseDirectory, "Data", $"truth-{name}.jsonl.gz");

    public static Recording Load(string name) => Recording.Load(PathOf(name));

    public ReplayResult Of(string scenario) => results[scenario].Value;

    public KnownFailure? Known(string scenario) => known.GetValueOrDefault(scenario);

    /// <summary>Why answers that the recording calls not portable differ in a scenario that agrees otherwise.</summary>
    public KnownFailure? KnownNotPortable(string scenario) => known.GetValueOrDefault(scenario + KnownFailure.NotPortable);
}
