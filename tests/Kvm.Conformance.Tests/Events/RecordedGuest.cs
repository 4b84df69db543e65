using System.IO.Compression;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Kvm.Conformance.Tests.Events;

/// <summary>One run of the recorded 16-bit guest on a real kernel: its tracepoint events, and what userspace saw at each exit.</summary>
internal sealed partial record RecordedGuest(IReadOnlyList<string> Events, IReadOnlyList<JsonElement> Exits)
{
    public static RecordedGuest Load(string vendor, string variant)
    {
        string[] events = [.. Lines(vendor, $"{variant}-real16-events.txt").Select(static l => Event().Match(l)).Where(static m => m.Success).Select(static m => m.Groups["event"].Value.TrimEnd())];
        return new RecordedGuest(events, [.. Lines(vendor, $"{variant}-real16-exits.jsonl").Select(static l => JsonDocument.Parse(l).RootElement).Where(static e => e.TryGetProperty("exit_reason", out _))]);
    }

    private static IEnumerable<string> Lines(string vendor, string file)
    {
        using var reader = new StreamReader(new GZipStream(File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", vendor, "guest", file + ".gz")), CompressionMode.Decompress));
        while (reader.ReadLine() is { } line)
        {
            if (line.Length > 0) yield return line;
        }
    }

    [GeneratedRegex(@"\d+\.\d{6}: (?<event>\w+: .*)$")]
    private static partial Regex Event();
}
