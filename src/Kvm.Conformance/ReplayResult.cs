namespace Kvm.Conformance;

/// <summary>What a replay found: differences by step; or an operation that this replayer cannot perform.</summary>
public sealed class ReplayResult
{
    public List<string> Differences { get; } = [];

    /// <summary>The first operation that could not be performed; the rest of the scenario was not run.</summary>
    public string? Unsupported { get; set; }

    /// <summary>Answers that were compared and equal; each of a sweep counts.</summary>
    public int Agreed { get; set; }

    /// <summary>What the recording calls not portable: the vendor's own answers, and values of the recorded host.</summary>
    public List<string> DifferencesNotPortable { get; } = [];

    public int AgreedNotPortable { get; set; }

    public bool Passed => Differences.Count == 0 && Unsupported is null;

    public override string ToString() => Unsupported is not null ? $"unsupported: {Unsupported}" : string.Join("; ", Differences.Concat(DifferencesNotPortable).Take(6));
}
