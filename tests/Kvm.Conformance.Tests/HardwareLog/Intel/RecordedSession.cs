using System.Globalization;
using System.IO.Compression;
using System.Text.RegularExpressions;

namespace Kvm.Conformance.Tests.HardwareLog.Intel;

/// <summary>One step of a recorded session: an ioctl, or loading or unloading a module.</summary>
internal sealed record RecordedStep(int Number, string Name, string Detail, List<HardwareOp> Operations)
{
    /// <summary>The result that userspace got, from "=> ret R errno E".</summary>
    public (long Ret, int Errno)? Result { get; init; }
}

/// <summary>
/// The log of every VMX instruction, MSR access and CR4.VMXE change of the real kvm_intel (Linux 6.1.192 on an emulated Skylake-X), cut into load, two guest sessions
/// and unload for each set of module parameters.
/// </summary>
internal sealed partial class RecordedSession
{
    /// <summary>Module parameters ("" = defaults).</summary>
    public required string Parameters { get; init; }
    public List<HardwareOp> Load { get; } = [];
    public List<RecordedStep> Real16 { get; } = [];
    public List<RecordedStep> Long64 { get; } = [];
    public List<HardwareOp> Unload { get; } = [];

    public static IReadOnlyDictionary<string, RecordedSession> All { get; } = Read();

    private static Dictionary<string, RecordedSession> Read()
    {
        var sessions = new Dictionary<string, RecordedSession>();
        using FileStream file = File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", "intel", "vmx-instruction-log.txt.gz"));
        using var reader = new StreamReader(new GZipStream(file, CompressionMode.Decompress));
        RecordedSession? session = null;
        List<RecordedStep>? steps = null;
        List<HardwareOp>? target = null;
        while (reader.ReadLine() is { } line)
        {
            if (Mark().Match(line) is { Success: true } mark)
            {
                switch (mark.Groups[1].Value)
                {
                    case "201":
                        sessions.Add("", session = new RecordedSession { Parameters = "" });
                        target = session.Load;
                        break;
                    case "220":
                        string parameters = mark.Groups[2].Value.Split(' ')[0];
                        sessions.Add(parameters, session = new RecordedSession { Parameters = parameters });
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
                steps!.Add(new RecordedStep(int.Parse(step.Groups[1].Value, CultureInfo.InvariantCulture), step.Groups[2].Value, step.Groups[3].Value, target)
                {
                    Result = ResultOf(line),
                });
            }
            else if (target != null && Parse(line) is { } op)
            {
                target.Add(op);
            }
        }
        return sessions;
    }

    private static (long, int)? ResultOf(string line) => Result().Match(line) is { Success: true } m
        ? (long.Parse(m.Groups[1].Value, CultureInfo.InvariantCulture), int.Parse(m.Groups[2].Value, CultureInfo.InvariantCulture))
        : null;

    private static HardwareOp? Parse(string line)
    {
        if (Entry().Match(line) is not { Success: true } m)
            return null;
        int cpu = line[1] - '0';
        string function = m.Groups[1].Value.Split(' ', '+')[0];
        string mnemonic = m.Groups[2].Value;
        string rest = m.Groups[3].Value.Trim();
        string[] words = rest.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        switch (mnemonic)
        {
            case "RDMSR" or "WRMSR" or "VMREAD" or "VMWRITE":
                int equals = Array.IndexOf(words, "=");
                return new HardwareOp(cpu, function, mnemonic, Hex(words[0]), Hex(words[equals + 1]), rest.EndsWith("#GP", StringComparison.Ordinal));
            case "INVEPT" or "INVVPID":
                return new HardwareOp(cpu, function, mnemonic, Hex(words[1]), Hex(words[3]));
            case "MOVCR4":
                return new HardwareOp(cpu, function, mnemonic, 4, Hex(words[3]));
            case "VMEXIT":
                int qualification = Array.IndexOf(words, "qual");
                return new HardwareOp(cpu, "", mnemonic, Hex(words[1]), Hex(words[qualification + 1]));
            case "VMXON" or "VMCLEAR" or "VMPTRLD" or "VMLAUNCH" or "VMRESUME":
                return new HardwareOp(cpu, function, mnemonic, 0, Hex(words[1]));
            case "VMXOFF":
                return new HardwareOp(cpu, function, mnemonic, 0, 0);
            default:
                return null; // dump of the VMCS at the first entry
        }
    }

    private static ulong Hex(string text) => ulong.Parse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^#+ MARK (\d+)\s+(.*)$")]
    private static partial Regex Mark();

    [GeneratedRegex(@"^==== step (\d+) (\S+)\s+(.*)$")]
    private static partial Regex Step();

    [GeneratedRegex(@"=> ret (-?\d+) errno (\d+)$")]
    private static partial Regex Result();

    [GeneratedRegex(@"^C\d (.*?)\s+(RDMSR|WRMSR|VMREAD|VMWRITE|VMXON|VMXOFF|VMCLEAR|VMPTRLD|VMLAUNCH|VMRESUME|VMEXIT|INVEPT|INVVPID|MOVCR4)\b(.*)$")]
    private static partial Regex Entry();
}
