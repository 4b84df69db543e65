using System.IO.Compression;
using System.Text.Json;

namespace Kvm.Conformance;

/// <summary>A file of recorded scenarios (JSON lines, also compressed with gzip): a header, then a scenario a line.</summary>
/// <param name="Kernel">The version that was recorded, such as <c>6.1.192</c>.</param>
/// <param name="Module">Its vendor module: <c>kvm_intel</c>, <c>kvm_amd</c>…</param>
/// <param name="Scenarios">In the file's order.</param>
public sealed record Recording(string Kernel, string Module, IReadOnlyList<Scenario> Scenarios)
{
    /// <summary>Which known failures belong to it: <c>svm-6.1</c> for kvm_amd of 6.1.</summary>
    public string Key => Module switch
    {
        "kvm_amd" => "svm-",
        "kvm_intel" => "vmx-",
        _ => Module + "-",
    } + string.Join('.', Kernel.Split('.').Take(2));

    /// <summary>Reads a recording.</summary>
    /// <exception cref="InvalidDataException">The file is not a recording; the message names the line and what is wrong.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public static Recording Load(string path)
    {
        using FileStream file = File.OpenRead(path);
        bool compressed = file.ReadByte() == 0x1f;
        file.Position = 0;
        using Stream stream = compressed ? new GZipStream(file, CompressionMode.Decompress) : file;
        using var reader = new StreamReader(stream);
        int line = 1;
        try
        {
            JsonElement header = Parse(reader.ReadLine()).GetProperty("header");
            var scenarios = new List<Scenario>();
            while (reader.ReadLine() is { } text)
            {
                line++;
                if (text.Length == 0) continue;
                JsonElement root = Parse(text);
                scenarios.Add(new Scenario(root.GetProperty("name").GetString()!, root.GetProperty("portable").GetBoolean(), root.GetProperty("steps")));
            }

            return new Recording(header.GetProperty("kernel").GetString()!, header.GetProperty("module").GetString()!, scenarios);
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or InvalidDataException)
        {
            throw new InvalidDataException($"line {line}: {e.Message}", e);
        }
    }

    private static JsonElement Parse(string? line) => JsonDocument.Parse(line ?? throw new InvalidDataException("the file is empty")).RootElement;
}
