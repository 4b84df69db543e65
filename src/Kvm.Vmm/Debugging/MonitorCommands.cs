using System.Globalization;
using System.Text;
using Iced.Intel;
using Kvm.Client;

namespace Kvm.Vmm.Debugging;

/// <summary>gdb's <c>monitor</c> commands: what its own can't show.</summary>
internal sealed class MonitorCommands(GuestDebugger debugger)
{
    private const string Help = """
        registers               segments with their bases, control registers, the processor's mode
        disassemble [ADDR [N]]  N instructions as the processor's mode has them (16, 32 or 64 bits), from where it stands
        translate ADDR          guest-physical address of a linear one
        msr INDEX               a model-specific register
        stats                   the vCPU's counters in KVM that are not 0
        Numbers are hexadecimal; N is decimal.

        """;

    /// <summary>Runs a command for a vCPU that stands still.</summary>
    /// <returns>What it prints.</returns>
    public string Run(string command, int vcpu)
    {
        string[] words = command.Split(' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        try
        {
            return (words.Length > 0 ? words[0] : "help") switch
            {
                "registers" => GdbRegisters.System(new VcpuRegisters(debugger.Vcpu(vcpu))),
                "disassemble" => Disassemble(vcpu, words),
                "translate" when words.Length == 2 => Translate(vcpu, Number(words[1])),
                "msr" when words.Length == 2 => $"{debugger.Vcpu(vcpu).GetMsr((uint)Number(words[1])):x16}\n",
                "stats" => Stats(vcpu),
                "help" => Help,
                _ => $"unknown command or missing number: {command}\n{Help}",
            };
        }
        catch (FormatException)
        {
            return $"not a number: {command}\n";
        }
        catch (KvmException e)
        {
            return $"{e.Message}\n";
        }
    }

    private string Disassemble(int vcpu, string[] words)
    {
        const int standardCount = 10, mostCount = 1000, longest = 15;
        var state = new VcpuRegisters(debugger.Vcpu(vcpu));
        ulong address = words.Length > 1 ? Number(words[1]) : state.LinearRip;
        int count = words.Length > 2 ? Math.Clamp(int.Parse(words[2], NumberStyles.None, CultureInfo.InvariantCulture), 0, mostCount) : standardCount;
        var bytes = new byte[count * longest];
        debugger.Memory.Vcpu = debugger.Vcpu(vcpu);
        int length = debugger.Memory.Read(address, bytes, debugger.Breakpoints);
        var decoder = Iced.Intel.Decoder.Create(state.Bitness, new ByteArrayCodeReader(bytes, 0, length), address);
        var formatter = new NasmFormatter();
        var text = new StringBuilder();
        var line = new StringOutput();
        for (int i = 0; i < count && (long)(decoder.IP - address) < length; i++)
        {
            Instruction instruction = decoder.Decode();
            formatter.Format(instruction, line);
            int at = (int)(instruction.IP - address);
            text.AppendLine(CultureInfo.InvariantCulture, $"{instruction.IP:x16}  {Convert.ToHexStringLower(bytes, at, Math.Min(instruction.Length, length - at)),-20}  {line.ToStringAndReset()}");
        }

        return text.Length > 0 ? text.ToString() : $"no memory at {address:x}\n";
    }

    private string Translate(int vcpu, ulong address)
    {
        debugger.Memory.Vcpu = debugger.Vcpu(vcpu);
        return debugger.Memory.TryTranslate(address, out ulong physical) ? $"{physical:x}\n" : "not mapped\n";
    }

    private string Stats(int vcpu)
    {
        var text = new StringBuilder();
        foreach ((string name, ulong value) in debugger.Vcpu(vcpu).ReadStats())
        {
            if (value != 0) text.AppendLine(CultureInfo.InvariantCulture, $"{value,12} {name}");
        }

        return text.ToString();
    }

    private static ulong Number(string text) =>
        ulong.Parse(text.StartsWith("0x", StringComparison.OrdinalIgnoreCase) ? text.AsSpan(2) : text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
}
