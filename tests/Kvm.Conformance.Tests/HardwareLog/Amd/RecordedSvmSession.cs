using System.Globalization;
using System.IO.Compression;
using System.Text.RegularExpressions;
using Kvm.Conformance.Tests.HardwareLog.Intel;

namespace Kvm.Conformance.Tests.HardwareLog.Amd;

/// <summary>
/// The log of every SVM instruction and MSR access of the real kvm_amd (Linux 6.1.192 on an emulated Ryzen), cut into load, two guest sessions and unload for
/// each set of module parameters; with the VMCB as it was at the first VMRUN of each guest.
/// </summary>
internal sealed partial class RecordedSvmSession
{
    /// <summary>Module parameters ("" = defaults).</summary>
    public required string Parameters { get; init; }
    public List<HardwareOp> Load { get; } = [];
    public List<RecordedStep> Real16 { get; } = [];
    public List<RecordedStep> Long64 { get; } = [];
    public List<HardwareOp> Unload { get; } = [];
    /// <summary>Non-zero 32-bit words of the VMCB at the first VMRUN of the 16-bit guest, by offset.</summary>
    public Dictionary<int, uint> Real16Vmcb { get; } = [];
    public Dictionary<int, uint> Long64Vmcb { get; } = [];

    public static IReadOnlyDictionary<string, RecordedSvmSession> All { get; } = Read();

    private static Dictionary<string, RecordedSvmSession> Read()
    {
        var sessions = new Dictionary<string, RecordedSvmSession>();
        using FileStream file = File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", "amd", "svm-instruction-log.txt.gz"));
        using var reader = new StreamReader(new GZipStream(file, CompressionMode.Decompress));
        RecordedSvmSession? session = null;
        List<RecordedStep>? steps = null;
        List<HardwareOp>? target = null;
        while (reader.ReadLine() is { } line)
        {
            if (Mark().Match(line) is { Success: true } mark)
            {
                switch (mark.Groups[1].Value)
                {
                    case "201":
                        sessions.Add("", session = new RecordedSvmSession { Parameters = "" });
                        target = session.Load;
                        break;
                    case "220":
                        string parameters = mark.Groups[2].Value.Split(' ')[0];
                        sessions.Add(parameters, session = new RecordedSvmSession { Parameters = parameters });
                        target = session.Load;
                        break;
                    case "210":
                        steps = session!.Real16;
                        break;
                    case "211":
                        steps = session!.Long64;
                        break;
                    case "202":
                        target = session!.Unload;
                        break;
                }
            }
            else if (Step().Match(line) is { Success: true } step)
            {
                target = [];
                steps!.Add(new RecordedStep(int.Parse(step.Groups[1].Value, CultureInfo.InvariantCulture), step.Groups[2].Value, step.Groups[3].Value, target));
            }
            else if (Word().Match(line) is { Success: true } word)
            {
                Dictionary<int, uint> vmcb = steps == session!.Real16 ? session.Real16Vmcb : session.Long64Vmcb;
                vmcb.TryAdd((int)Hex(word.Groups[1].Value), (uint)Hex(word.Groups[2].Value));
            }
            else if (target != null && Parse(line) is { } op)
            {
                target.Add(op);
            }
        }

        return sessions;
    }

    private static HardwareOp? Parse(string line)
    {
        if (Entry().Match(line) is not { Success: true } m)
            return null;
        int cpu = line[1] - '0';
        string function = m.Groups[1].Value.Split(' ', '+')[0];
        string mnemonic = m.Groups[2].Value;
        string rest = m.Groups[3].Value.Trim();
        string[] words = rest.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return mnemonic switch
        {
            "RDMSR" or "WRMSR" => new HardwareOp(cpu, function, mnemonic, Hex(words[0]), Hex(words[Array.IndexOf(words, "=") + 1]), rest.EndsWith("#GP", StringComparison.Ordinal)),
            "VMRUN" or "VMLOAD" or "VMSAVE" => new HardwareOp(cpu, function, mnemonic, 0, Hex(words[1])),
            "#VMEXIT" => new HardwareOp(cpu, "", "VMEXIT", Hex(words[1]), Hex(words[3])),
            _ => new HardwareOp(cpu, function, mnemonic, 0, 0),
        };
    }

    private static ulong Hex(string text) => ulong.Parse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^#+ MARK (\d+)\s+(.*)$")]
    private static partial Regex Mark();

    [GeneratedRegex(@"^==== step (\d+) (\S+)\s+(.*)$")]
    private static partial Regex Step();

    [GeneratedRegex(@"^C\d\s+VMCB ([0-9a-f]+) = ([0-9a-f]+)$")]
    private static partial Regex Word();

    [GeneratedRegex(@"^C\d (.*?)\s+(RDMSR|WRMSR|VMRUN|VMLOAD|VMSAVE|CLGI|STGI|INVLPGA|#VMEXIT)(?!\w)(.*)$")]
    private static partial Regex Entry();
}
