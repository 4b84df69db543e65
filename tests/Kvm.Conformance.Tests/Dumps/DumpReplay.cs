using System.Collections.Concurrent;
using Kvm.Arch.X86;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Vmx;
using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.Dumps;

/// <summary>A line that is not the same; null: not there.</summary>
internal sealed record DumpDifference(string Path, string? Recorded, string? Model);

/// <summary>A recorded dump against the model's.</summary>
/// <param name="TimeLines">Lines with a time, which differ from run to run.</param>
internal sealed record DumpReplay(string Vendor, string Name, int Lines, int TimeLines, IReadOnlyList<DumpDifference> Differences)
{
    private static readonly ConcurrentDictionary<(string, string), Lazy<DumpReplay>> results = new();

    /// <summary>Vendor, name of the dump, parameters of the vendor module.</summary>
    public static IReadOnlyList<(string Vendor, string Name, string Parameters)> Cases { get; } =
    [
        ("intel", "default", "nested=1"), ("intel", "nested1", "nested=1"), ("intel", "ept0", "nested=1 ept=0"), ("intel", "apicv0", "nested=1 enable_apicv=0"),
        ("intel", "unrestricted0", "nested=1 unrestricted_guest=0"), ("intel", "vpid0", "nested=1 vpid=0"),
        ("amd", "default", ""), ("amd", "nested0", "nested=0"), ("amd", "npt0", "npt=0"), ("amd", "npt0nested0", "npt=0 nested=0"), ("amd", "ryzen", ""),
    ];

    public static DumpReplay Of(string vendor, string name) => results.GetOrAdd((vendor, name), static k => new Lazy<DumpReplay>(() => Run(k.Item1, k.Item2))).Value;

    private static DumpReplay Run(string vendor, string name)
    {
        Dictionary<string, string> recorded = RecordedDump.All(vendor, name), model;
        string parameters = Cases.Single(c => c.Vendor == vendor && c.Name == name).Parameters;
        KernelHost kernel = KernelHost.Create(MachineOptions.Uniform(Processor(vendor, name), 2));
        try
        {
            HostModule module = vendor == "intel" ? new KvmIntel(kernel.Arch) : new KvmAmd(kernel.Arch);
            kernel.LoadVendor(module, parameters).Raw.Should().Be(0);
            model = KvmDump.Of(kernel.Host.Process);
            foreach (string path in RecordedDump.Parameters(vendor, name).Keys)
            {
                string[] parts = path.Split('/');
                if (kernel.Host.Modules.Find(parts[0])?.Parameters.Find(parts[2]) is { } parameter)
                    model.Add(path, $"{parameter.Text}  mode {Convert.ToString(parameter.Mode, 8)}");
            }
        }
        finally
        {
            foreach (int fd in kernel.Host.Process.Files.Open)
                kernel.Host.Process.Close(fd);
            kernel.Dispose();
        }

        // Capabilities that the recorder did not name are 0 in 6.1.
        foreach (string path in model.Keys.Where(static k => k.Contains(".cap ", StringComparison.Ordinal)))
            recorded.Add(path, "0");
        List<DumpDifference> differences = [];
        foreach (string path in recorded.Keys.Union(model.Keys))
        {
            string? r = recorded.GetValueOrDefault(path), m = model.GetValueOrDefault(path);
            if (r != m)
                differences.Add(new DumpDifference(path, r, m));
        }

        int times = recorded.Keys.Count(static k => DumpExplanation.All[0].Path.IsMatch(k));
        return new DumpReplay(vendor, name, recorded.Keys.Union(model.Keys).Count(), times, differences);
    }

    /// <summary>The recorded processors, with the clock of these recordings.</summary>
    private static CpuModel Processor(string vendor, string name) => (vendor, name) switch
    {
        ("intel", _) => CpuModel.Load("bochs-skylake-x").With(tscHz: 3_499_912_000),
        (_, "ryzen") => CpuModel.Load("bochs-ryzen"),
        _ => Epyc(),
    };

    /// <summary>The machine of the recorded kvm_amd: what KVM said of its processor's CPUID, nested paging as the only feature of SVM, and MSRs that read 0 there (D-HW-5).</summary>
    private static CpuModel Epyc()
    {
        Dictionary<string, string> recorded = RecordedDump.Read("amd-default");
        uint Register(uint leaf, uint subleaf, string register) => Convert.ToUInt32(recorded.GetValueOrDefault($"supported_cpuid[0x{leaf:x} {subleaf}].{register}", "0"), 16);
        CpuModel zen = RecordedMachine.AmdProcessor;
        CpuModel epyc = zen.With("epyc", physicalBits: 40, tscHz: 2_596_105_000, msrs: RecordedDump.MsrsOfProcessor(recorded, zen),
            cpuid: (leaf, subleaf, data) => leaf switch
            {
                1 => data with { Ecx = data.Ecx & (Register(1, 0, "ecx") | 1u << 3 | 1u << 27), Edx = data.Edx & Register(1, 0, "edx") },
                7 => data with { Ebx = data.Ebx & Register(7, 0, "ebx") },
                0xd when subleaf == 1 => data with { Eax = data.Eax & Register(0xd, 1, "eax"), Ebx = Register(0xd, 1, "ebx") },
                0x80000001 => new CpuidLeaf(data.Eax, Register(leaf, 0, "ebx"), Register(leaf, 0, "ecx") | 4, Register(leaf, 0, "edx")),
                0x8000000a => data with { Edx = 1 },
                >= 0x80000005 => Leaf(leaf, subleaf),
                _ => data,
            });
        for (uint i = 0; i <= 4; i++)
            epyc = epyc.WithLeaf(0x8000001d, i, Leaf(0x8000001d, i));
        return epyc;

        CpuidLeaf Leaf(uint leaf, uint subleaf) => new(Register(leaf, subleaf, "eax"), Register(leaf, subleaf, "ebx"), Register(leaf, subleaf, "ecx"), Register(leaf, subleaf, "edx"));
    }
}
