using System.IO.Compression;
using System.Text.Json;

namespace Kvm.Conformance.Tests.Replay;

/// <summary>One recorded scenario: steps that a real kernel was asked, with its answers.</summary>
internal sealed record Scenario(string Name, bool Portable, JsonElement Steps)
{
    /// <summary>The scenarios of <c>Data/truth-….jsonl.gz</c>; the first line is a header.</summary>
    public static IReadOnlyList<Scenario> Load(string recording)
    {
        using var file = new GZipStream(File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", $"truth-{recording}.jsonl.gz")), CompressionMode.Decompress);
        using var reader = new StreamReader(file);
        reader.ReadLine();
        var scenarios = new List<Scenario>();
        while (reader.ReadLine() is { } line)
        {
            JsonElement root = JsonDocument.Parse(line).RootElement;
            scenarios.Add(new Scenario(root.GetProperty("name").GetString()!, root.GetProperty("portable").GetBoolean(), root.GetProperty("steps")));
        }

        return scenarios;
    }
}
