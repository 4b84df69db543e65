using System.IO.Compression;
using System.Text.Json;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.Dumps;

/// <summary>Everything that one real kernel answered without a guest: Data/dumps/VENDOR-NAME.json.gz, one line for each leaf of its tree.</summary>
internal static class RecordedDump
{
    /// <summary>Names of capabilities that the recorder's header has.</summary>
    public static IReadOnlySet<string> Names { get; } = Read("intel-default").Keys.Where(static k => k.StartsWith("caps_dev.", StringComparison.Ordinal)).Select(static k => k[9..]).ToHashSet();

    public static Dictionary<string, string> Read(string name)
    {
        using var stream = new GZipStream(File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", "dumps", name + ".json.gz")), CompressionMode.Decompress);
        using var document = JsonDocument.Parse(stream);
        Dictionary<string, string> lines = [];
        Flatten("", document.RootElement, lines);
        return lines;
    }

    /// <summary>Answers and parameters.</summary>
    public static Dictionary<string, string> All(string vendor, string name) => Read($"{vendor}-{name}").Concat(Parameters(vendor, name)).ToDictionary();

    /// <summary>"module/parameters/name" and its value.</summary>
    public static Dictionary<string, string> Parameters(string vendor, string name) =>
        File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "Data", "dumps", $"{vendor}-params-{name}.txt")).Where(static l => l.Contains(" = ", StringComparison.Ordinal))
            .Select(static l => l.Split(" = ")).ToDictionary(static p => p[0], static p => p[1]);

    /// <summary>MSRs of the host that the recorded list names and the model's processor lacks, all of which read 0 there, and the microcode's revision.</summary>
    public static Dictionary<uint, ulong?> MsrsOfProcessor(Dictionary<string, string> recorded, CpuModel like)
    {
        uint[] ofHost = [0x3a, 0x48, 0x309, 0x30a, 0x30b, 0x38d, 0x38e, 0x38f, 0x390, 0x3f1, 0x3f2, 0x600, .. Enumerable.Range(0, 12).Select(static i => 0xc0010200 + (uint)i)];
        Dictionary<uint, ulong?> msrs = ofHost.Where(i => recorded.ContainsKey($"msr_index_list[0x{i:x}]") && !like.Msrs.ContainsKey(i)).ToDictionary(static i => i, static _ => (ulong?)0);
        msrs[0x8b] = Convert.ToUInt64(recorded["msr_feature_list[0x8b].value"], 16);
        return msrs;
    }

    private static void Flatten(string path, JsonElement element, Dictionary<string, string> lines)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.Object:
                foreach (JsonProperty p in element.EnumerateObject().Where(static p => p.Name != "name"))
                    Flatten(path.Length == 0 ? p.Name : $"{path}.{p.Name}", p.Value, lines);
                break;
            case JsonValueKind.Array:
                int i = 0;
                foreach (JsonElement item in element.EnumerateArray())
                {
                    if (item.ValueKind == JsonValueKind.Object && item.TryGetProperty("index", out JsonElement msr))
                        Msr($"{path}[{msr}]", item, lines);
                    else if (item.ValueKind == JsonValueKind.Object && item.TryGetProperty("fn", out JsonElement leaf))
                        Leaf(path, leaf.GetString()!, item, lines);
                    else
                        Flatten($"{path}[{i}]", item, lines);
                    i++;
                }

                break;
            default:
                lines.Add(path, element.ToString());
                break;
        }
    }

    /// <summary>A list of numbers only, or with what KVM_GET_MSRS said.</summary>
    private static void Msr(string path, JsonElement item, Dictionary<string, string> lines)
    {
        if (!item.TryGetProperty("ret", out JsonElement ret))
        {
            lines.Add(path, "");
            return;
        }

        lines.Add($"{path}.ret", ret.ToString());
        lines.Add($"{path}.value", item.GetProperty("value").ToString());
    }

    /// <summary>Entries of zeros behind the last one of KVM_GET_CPUID2 are left out.</summary>
    private static void Leaf(string path, string leaf, JsonElement item, Dictionary<string, string> lines)
    {
        string at = $"{path}[0x{Convert.ToUInt32(leaf, 16):x} {item.GetProperty("idx")}]";
        if (lines.ContainsKey($"{at}.eax"))
            return;
        foreach (string name in new[] { "flags", "eax", "ebx", "ecx", "edx" })
            lines.Add($"{at}.{name}", item.GetProperty(name).ToString());
    }
}
