using System.Collections.Frozen;
using System.Globalization;
using System.Text.Json;

namespace Kvm.Emulator;

/// <summary>What CPUID returns for one leaf (and subleaf).</summary>
public readonly record struct CpuidLeaf(uint Eax, uint Ebx, uint Ecx, uint Edx);

/// <summary>
/// A processor model as data: CPUID leaves, MSR reset values, address widths, clock. Immutable; <see cref="With"/> derives variants.
/// The embedded models are listed by <see cref="Names"/>; other JSON files of the same form are read by <see cref="Parse"/>.
/// </summary>
public sealed class CpuModel
{
    private const string ResourcePrefix = "Kvm.Emulator.Models.";
    private readonly FrozenDictionary<ulong, CpuidLeaf> leaves;
    private readonly FrozenSet<uint> leavesWithSubleaves;

    private CpuModel(string name, string description, CpuVendor vendor, int physicalBits, int linearBits, ulong tscHz,
        IReadOnlyDictionary<ulong, CpuidLeaf> leaves, IReadOnlyDictionary<uint, ulong> msrs, bool performanceCounters)
    {
        PerformanceCounters = performanceCounters;
        Name = name;
        Description = description;
        Vendor = vendor;
        PhysicalAddressBits = physicalBits;
        LinearAddressBits = linearBits;
        TscHz = tscHz;
        this.leaves = leaves.ToFrozenDictionary();
        leavesWithSubleaves = leaves.Keys.Where(k => (uint)k != 0).Select(k => (uint)(k >> 32)).ToFrozenSet();
        Msrs = msrs.ToFrozenDictionary();
        uint max = Leaf(0).Eax, maxExtended = Leaf(0x80000000).Eax;
        MaxLeaf = max;
        MaxExtendedLeaf = maxExtended;
    }

    public string Name { get; }
    public string Description { get; }
    public CpuVendor Vendor { get; }
    /// <summary>MAXPHYADDR: physical-address bits at and above it are reserved in page tables.</summary>
    public int PhysicalAddressBits { get; }
    /// <summary>48, or 57 when the model announces 5-level paging.</summary>
    public int LinearAddressBits { get; }
    public ulong TscHz { get; }
    /// <summary>The counters that CPUID announces count. Processors of recordings have MSRs of counters that do not.</summary>
    public bool PerformanceCounters { get; }
    public uint MaxLeaf { get; }
    public uint MaxExtendedLeaf { get; }
    /// <summary>MSR values at reset (before BIOS settings); an MSR that is here exists.</summary>
    public IReadOnlyDictionary<uint, ulong> Msrs { get; }
    /// <summary>All leaves: key = leaf &lt;&lt; 32 | subleaf.</summary>
    public IReadOnlyDictionary<ulong, CpuidLeaf> CpuidLeaves => leaves;

    /// <summary>Display family (extended family added).</summary>
    public int Family => (int)((Leaf(1).Eax >> 8 & 0xf) == 0xf ? 0xf + (Leaf(1).Eax >> 20 & 0xff) : Leaf(1).Eax >> 8 & 0xf);
    /// <summary>Display model (extended model added).</summary>
    public int ModelNumber => (int)((Leaf(1).Eax >> 4 & 0xf) | (Leaf(1).Eax >> 12 & 0xf0));
    public int Stepping => (int)(Leaf(1).Eax & 0xf);

    /// <summary>CPUID.01H:ECX bit.</summary>
    public bool Feature1Ecx(int bit) => (Leaf(1).Ecx >> bit & 1) != 0;
    /// <summary>CPUID.01H:EDX bit.</summary>
    public bool Feature1Edx(int bit) => (Leaf(1).Edx >> bit & 1) != 0;
    /// <summary>CPUID.(07H,0):EBX bit.</summary>
    public bool Feature7Ebx(int bit) => MaxLeaf >= 7 && (Leaf(7).Ebx >> bit & 1) != 0;
    /// <summary>CPUID.(07H,0):ECX bit.</summary>
    public bool Feature7Ecx(int bit) => MaxLeaf >= 7 && (Leaf(7).Ecx >> bit & 1) != 0;
    /// <summary>CPUID.(07H,0):EDX bit.</summary>
    public bool Feature7Edx(int bit) => MaxLeaf >= 7 && (Leaf(7).Edx >> bit & 1) != 0;
    /// <summary>CPUID.80000001H:ECX bit.</summary>
    public bool FeatureExtEcx(int bit) => MaxExtendedLeaf >= 0x80000001 && (Leaf(0x80000001).Ecx >> bit & 1) != 0;
    /// <summary>CPUID.80000001H:EDX bit.</summary>
    public bool FeatureExtEdx(int bit) => MaxExtendedLeaf >= 0x80000001 && (Leaf(0x80000001).Edx >> bit & 1) != 0;

    public bool HasVmx => Vendor == CpuVendor.Intel && Feature1Ecx(5);
    public bool HasSvm => FeatureExtEcx(2);
    public bool HasLongMode => FeatureExtEdx(29);
    /// <summary>CPUID.8000000AH:EDX, the SVM feature bits.</summary>
    public uint SvmFeatures => MaxExtendedLeaf >= 0x8000000a ? Leaf(0x8000000a).Edx : 0;

    /// <summary>The leaf's data as stored: no dynamic bits, no clamping of out-of-range leaves. All zero when the model does not list it.</summary>
    public CpuidLeaf Leaf(uint leaf, uint subleaf = 0)
    {
        if (leaves.TryGetValue((ulong)leaf << 32 | subleaf, out CpuidLeaf value))
            return value;
        return subleaf != 0 && !leavesWithSubleaves.Contains(leaf) && leaves.TryGetValue((ulong)leaf << 32, out value) ? value : default;
    }

    /// <summary>
    /// A variant of this model. <paramref name="cpuid"/>: given leaf, subleaf and the model's data, the variant's data.
    /// <paramref name="msrs"/>: MSRs to add or change; a null value removes the MSR.
    /// </summary>
    public CpuModel With(string? name = null, Func<uint, uint, CpuidLeaf, CpuidLeaf>? cpuid = null, IReadOnlyDictionary<uint, ulong?>? msrs = null,
        int? physicalBits = null, int? linearBits = null, ulong? tscHz = null, CpuVendor? vendor = null, bool? performanceCounters = null)
    {
        var newLeaves = leaves.ToDictionary(l => l.Key, l => cpuid?.Invoke((uint)(l.Key >> 32), (uint)l.Key, l.Value) ?? l.Value);
        var newMsrs = Msrs.ToDictionary(m => m.Key, m => m.Value);
        foreach ((uint index, ulong? value) in msrs ?? new Dictionary<uint, ulong?>())
        {
            newMsrs.Remove(index);
            if (value is { } v)
                newMsrs[index] = v;
        }
        return new CpuModel(name ?? Name, Description, vendor ?? Vendor, physicalBits ?? PhysicalAddressBits, linearBits ?? LinearAddressBits, tscHz ?? TscHz, newLeaves, newMsrs, performanceCounters ?? PerformanceCounters);
    }

    /// <summary>A variant with some CPUID bits of one leaf set and cleared.</summary>
    public CpuModel WithCpuid(uint leaf, uint subleaf, CpuidLeaf set, CpuidLeaf clear = default) => With(cpuid: (l, s, d) => l != leaf || s != subleaf ? d
        : new CpuidLeaf((d.Eax | set.Eax) & ~clear.Eax, (d.Ebx | set.Ebx) & ~clear.Ebx, (d.Ecx | set.Ecx) & ~clear.Ecx, (d.Edx | set.Edx) & ~clear.Edx));

    /// <summary>A variant with one leaf more, or other data in it.</summary>
    public CpuModel WithLeaf(uint leaf, uint subleaf, CpuidLeaf data)
    {
        var all = leaves.ToDictionary();
        all[(ulong)leaf << 32 | subleaf] = data;
        return new CpuModel(Name, Description, Vendor, PhysicalAddressBits, LinearAddressBits, TscHz, all, Msrs, PerformanceCounters);
    }

    /// <summary>Names of the embedded models.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. typeof(CpuModel).Assembly.GetManifestResourceNames()
        .Where(n => n.StartsWith(ResourcePrefix, StringComparison.Ordinal) && n.EndsWith(".json", StringComparison.Ordinal))
        .Select(n => n[ResourcePrefix.Length..^5]).Order(StringComparer.Ordinal)];

    /// <summary>The default Intel processor.</summary>
    public static CpuModel IntelSkylake { get; } = Load("intel-skylake");
    /// <summary>The default AMD processor.</summary>
    public static CpuModel AmdZen { get; } = Load("amd-zen");

    /// <summary>Loads an embedded model.</summary>
    /// <exception cref="ArgumentException">No such model.</exception>
    public static CpuModel Load(string name)
    {
        using Stream? stream = typeof(CpuModel).Assembly.GetManifestResourceStream($"{ResourcePrefix}{name}.json");
        if (stream is null)
            throw new ArgumentException($"no CPU model '{name}'; there are: {string.Join(", ", Names)}", nameof(name));
        using var reader = new StreamReader(stream);
        return Parse(reader.ReadToEnd());
    }

    /// <summary>Reads a model from JSON: name, vendor, physicalBits, linearBits, tscHz, performanceCounters (optional), cpuid (rows "leaf[.subleaf]": [eax, ebx, ecx, edx] in hexadecimal), msrs.</summary>
    public static CpuModel Parse(string json)
    {
        using var document = JsonDocument.Parse(json, new JsonDocumentOptions { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true });
        JsonElement root = document.RootElement;
        var leaves = new Dictionary<ulong, CpuidLeaf>();
        foreach (JsonProperty row in root.GetProperty("cpuid").EnumerateObject())
        {
            string[] key = row.Name.Split('.');
            uint[] data = [.. row.Value.EnumerateArray().Select(e => (uint)Hex(e.GetString()!))];
            leaves[Hex(key[0]) << 32 | (key.Length > 1 ? Hex(key[1]) : 0)] = new CpuidLeaf(data[0], data[1], data[2], data[3]);
        }
        var msrs = new Dictionary<uint, ulong>();
        foreach (JsonProperty row in root.GetProperty("msrs").EnumerateObject())
            msrs[(uint)Hex(row.Name)] = Hex(row.Value.GetString()!);
        return new CpuModel(
            root.GetProperty("name").GetString()!,
            root.TryGetProperty("description", out JsonElement text) ? text.GetString()! : "",
            Enum.Parse<CpuVendor>(root.GetProperty("vendor").GetString()!, ignoreCase: true),
            root.GetProperty("physicalBits").GetInt32(),
            root.GetProperty("linearBits").GetInt32(),
            root.GetProperty("tscHz").GetUInt64(),
            leaves, msrs, root.TryGetProperty("performanceCounters", out JsonElement counters) && counters.GetBoolean());
    }

    private static ulong Hex(string text) => ulong.Parse(text.AsSpan(text.StartsWith("0x", StringComparison.Ordinal) ? 2 : 0), NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    public override string ToString() => Name;
}
