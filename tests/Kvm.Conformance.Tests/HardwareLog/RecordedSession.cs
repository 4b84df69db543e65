using System.Globalization;
using System.IO.Compression;
using System.Text.RegularExpressions;

namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>
/// The log of every VMX or SVM instruction, MSR access and CR4.VMXE change of the real kvm_intel or kvm_amd (Linux 6.1.192 on an emulated Skylake-X or Ryzen), cut
/// into load, guest session and unload for each set of module parameters; with the VMCS or VMCB as it was at the first entry.
/// </summary>
internal sealed partial class RecordedSession
{
    /// <summary>Module parameters ("" = defaults).</summary>
    public required string Parameters { get; init; }
    public List<HardwareOp> Load { get; } = [];
    public List<RecordedStep> Real16 { get; } = [];
    public List<RecordedStep> Long64 { get; } = [];
    public List<HardwareOp> Unload { get; } = [];

    /// <summary>At the first entry of the 16-bit guest: fields of the VMCS by encoding, or 32-bit words of the VMCB by offset (only those that are not 0).</summary>
    public Dictionary<ulong, ulong> FirstEntry { get; } = [];

    public static IReadOnlyDictionary<string, RecordedSession> Intel { get; } = Read("intel", "vmx-instruction-log.txt.gz");

    public static IReadOnlyDictionary<string, RecordedSession> Amd { get; } = Read("amd", "svm-instruction-log.txt.gz");

    public static IReadOnlyDictionary<string, RecordedSession> Of(string vendor) => vendor == "intel" ? Intel : Amd;

    private static Dictionary<string, RecordedSession> Read(string vendor, string log)
    {
        var sessions = new Dictionary<string, RecordedSession>();
        using FileStream file = File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", vendor, log));
        using var reader = new StreamReader(new GZipStream(file, CompressionMode.Decompress));
        RecordedSession session = null!;
        List<RecordedStep> steps = [];
        List<HardwareOp> target = [];
        while (reader.ReadLine() is { } line)
        {
            if (Mark().Match(line) is { Success: true } mark)
            {
                switch (mark.Groups[1].Value)
                {
                    case "201" or "220":
                        string parameters = mark.Groups[1].Value == "201" ? "" : mark.Groups[2].Value.Split(' ')[0];
                        sessions.Add(parameters, session = new RecordedSession { Parameters = parameters });
                        target = session.Load;
                        break;
                    case "210":
                        steps = session.Real16;
                        break;
                    case "211":
                        steps = session.Long64;
                        break;
                    case "202":
                        target = session.Unload;
                        break;
                }
            }
            else if (Step().Match(line) is { Success: true } step)
            {
                target = [];
                steps.Add(new RecordedStep(int.Parse(step.Groups[1].Value, CultureInfo.InvariantCulture), step.Groups[2].Value, target) { Errno = ErrnoOf(line) });
            }
            else if (Dump().Match(line) is { Success: true } dump)
            {
                if (steps == session.Real16)
                    session.FirstEntry.TryAdd(Hex(dump.Groups[1].Value), Hex(dump.Groups[2].Value));
            }
            else if (Parse(line) is { } op)
            {
                target.Add(op);
            }
        }

        return sessions;
    }

    private static int? ErrnoOf(string line) => Result().Match(line) is { Success: true } m ? int.Parse(m.Groups[1].Value, CultureInfo.InvariantCulture) : null;

    private static HardwareOp? Parse(string line)
    {
        if (Entry().Match(line) is not { Success: true } m)
            return null;
        int cpu = line[1] - '0';
        // Without module, offset and the suffix of a compiler-made copy. "native_…" are the instructions' own wrappers.
        string function = m.Groups[1].Value.Split(' ', '+', '.')[0];
        string[] functions = function.StartsWith("native_", StringComparison.Ordinal) ? [] : [function];
        string rest = m.Groups[3].Value.Trim();
        string[] words = rest.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        HardwareOp Op(ulong operand, ulong value, bool faulted = false) => new(cpu, m.Groups[2].Value, operand, value, faulted) { Functions = functions };
        return m.Groups[2].Value switch
        {
            "RDMSR" or "WRMSR" or "VMREAD" or "VMWRITE" => Op(Hex(words[0]), Hex(words[Array.IndexOf(words, "=") + 1]), rest.EndsWith("#GP", StringComparison.Ordinal)),
            "INVEPT" or "INVVPID" => Op(Hex(words[1]), Hex(words[3])),
            "MOVCR4" => Op(4, Hex(words[3])),
            "VMXON" or "VMCLEAR" or "VMPTRLD" or "VMLAUNCH" or "VMRESUME" or "VMRUN" or "VMLOAD" or "VMSAVE" => Op(0, Hex(words[1])),
            "VMEXIT" => new HardwareOp(cpu, "VMEXIT", Hex(words[1]), Hex(Word("qual"))) { Exit = [Rip(m), Hex(Word("intr_info")), Hex(Word("ilen"))] },
            "#VMEXIT" => new HardwareOp(cpu, "VMEXIT", Hex(words[1]), Hex(Word("info1"))) { Exit = [Rip(m), Hex(Word("info2")), Hex(Word("nrip"))] },
            _ => Op(0, 0),
        };

        string Word(string after) => words[Array.IndexOf(words, after) + 1];
    }

    private static ulong Rip(Match entry) => Hex(entry.Groups[1].Value[(entry.Groups[1].Value.IndexOf("0x", StringComparison.Ordinal) + 2)..].Trim());

    private static ulong Hex(string text) => ulong.Parse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^#+ MARK (\d+)\s+(.*)$")]
    private static partial Regex Mark();

    [GeneratedRegex(@"^==== step (\d+) (\S+)\s")]
    private static partial Regex Step();

    [GeneratedRegex(@"=> ret -?\d+ errno (\d+)$")]
    private static partial Regex Result();

    [GeneratedRegex(@"^C\d\s+VMC[SB] ([0-9a-f]+) (?:\S+\s+)?= ([0-9a-f]+)$")]
    private static partial Regex Dump();

    [GeneratedRegex(@"^C\d (.*?)\s+(RDMSR|WRMSR|VMREAD|VMWRITE|VMXON|VMXOFF|VMCLEAR|VMPTRLD|VMLAUNCH|VMRESUME|VMEXIT|INVEPT|INVVPID|MOVCR4|VMRUN|VMLOAD|VMSAVE|CLGI|STGI|INVLPGA|#VMEXIT)(?!\w)(.*)$")]
    private static partial Regex Entry();
}
