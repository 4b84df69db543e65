using System.Globalization;
using System.Text;

namespace Kvm.Vmm.Debugging;

/// <content>What each packet does.</content>
public sealed partial class GdbServer
{
    private const string Ok = "OK", Unknown = "", NoMemory = "E0e", Invalid = "E16", NoSuchThread = "E03";
    private const int LongestTransfer = GdbConnection.MaxPacket / 2 - 8;

    /// <returns>The answer; null: there is none now, because the guest runs.</returns>
    private string? Answer(string packet, out bool done)
    {
        done = false;
        switch (packet.Length > 0 ? packet[0] : '\0')
        {
            case '?':
                return _debugger.TryTakeStop(out DebugStop stop) ? Describe(stop) : "W00";
            case 'g':
                return ReadRegisters();
            case 'G':
                return WriteRegisters(packet.AsSpan(1));
            case 'p':
                return ReadRegister((int)Hex(packet.AsSpan(1)));
            case 'P':
                return WriteRegister(packet.AsSpan(1));
            case 'm':
                return ReadMemory(packet.AsSpan(1));
            case 'M':
                return WriteMemory(packet, binary: false);
            case 'X':
                return WriteMemory(packet, binary: true);
            case 'Z':
            case 'z':
                return Point(packet);
            case 'H':
                return SelectThread(packet.AsSpan(2));
            case 'T':
                return Thread(packet.AsSpan(1)) is { } ? Ok : NoSuchThread;
            case 'c':
            case 's':
                if (packet.Length > 1) CurrentRegisters(r => (r.LinearRip, r.Changed) = (Hex(packet.AsSpan(1)), VcpuRegisters.Groups.General));
                Resume(packet[0] == 's' ? _thread : -1, others: packet[0] == 'c');
                return null;
            case 'D':
                done = true; // the guest goes on when the client is gone
                return Ok;
            case 'k':
                _debugger.Kill();
                done = true;
                return null;
            case 'v':
                return Verbose(packet, ref done);
            case 'q':
            case 'Q':
                return Query(packet);
            default:
                return Unknown;
        }
    }

    private string? Verbose(string packet, ref bool done)
    {
        if (packet == "vCont?") return "vCont;c;C;s;S";
        if (packet.StartsWith("vKill", StringComparison.Ordinal))
        {
            _debugger.Kill();
            done = true;
            return Ok;
        }

        return packet.StartsWith("vCont;", StringComparison.Ordinal) ? Continue(packet[6..]) : Unknown;
    }

    /// <summary>vCont: actions, each with a thread or for all others; the first that fits a thread counts.</summary>
    private string? Continue(string actions)
    {
        int step = -1;
        bool others = false;
        foreach (string action in actions.Split(';'))
        {
            int colon = action.IndexOf(':', StringComparison.Ordinal);
            int? thread = colon < 0 ? -1 : Thread(action.AsSpan(colon + 1));
            if (thread is null) return NoSuchThread;
            if (action[0] is 's' or 'S' && step < 0) step = thread.Value < 0 ? _thread : thread.Value;
            else if (action[0] is 'c' or 'C') others = true;
            else if (action[0] is not ('s' or 'S')) return Invalid;
        }

        Resume(step, others);
        return null;
    }

    private void Resume(int step, bool others)
    {
        _running = true;
        _debugger.Resume(step, others);
    }

    private string Query(string packet)
    {
        int end = packet.AsSpan().IndexOfAny(':', ',');
        switch (end < 0 ? packet : packet[..end])
        {
            case "qSupported":
                return $"PacketSize={GdbConnection.MaxPacket:x};QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+";
            case "qXfer" when packet.StartsWith("qXfer:features:read:target.xml:", StringComparison.Ordinal):
                return Part(GdbRegisters.Description, packet[(packet.LastIndexOf(':') + 1)..]);
            case "qAttached":
                return "1"; // gdb detaches from the guest at its end, and does not kill it
            case "qC":
                return $"QC{_thread + 1:x}";
            case "qfThreadInfo":
                return "m" + string.Join(',', Enumerable.Range(1, _debugger.VcpuCount).Select(t => t.ToString("x", CultureInfo.InvariantCulture)));
            case "qsThreadInfo":
                return "l";
            case "qThreadExtraInfo":
                return Thread(packet.AsSpan(end + 1)) is { } thread and >= 0 ? HexText($"vCPU {_debugger.Vcpu(thread).Id}") : NoSuchThread;
            case "qRcmd":
                return HexText(_monitor.Run(Encoding.UTF8.GetString(Convert.FromHexString(packet.AsSpan(end + 1))), _thread));
            default:
                return Unknown;
        }
    }

    /// <summary>qXfer: <c>offset,length</c> of a text.</summary>
    private static string Part(string text, string range)
    {
        int comma = range.IndexOf(',', StringComparison.Ordinal);
        int offset = (int)Math.Min(Hex(range.AsSpan(0, comma)), (ulong)text.Length), length = (int)Math.Min(Hex(range.AsSpan(comma + 1)), LongestTransfer);
        return offset + length >= text.Length ? $"l{text.AsSpan(offset)}" : $"m{text.AsSpan(offset, length)}";
    }

    /// <summary>A vCPU by gdb's thread number; -1 for all or any; null: there is no such.</summary>
    private int? Thread(ReadOnlySpan<char> text)
    {
        if (text is "-1" or "0") return -1;
        ulong number = Hex(text);
        return number <= (ulong)_debugger.VcpuCount ? (int)number - 1 : null;
    }

    private string SelectThread(ReadOnlySpan<char> text)
    {
        if (Thread(text) is not { } thread) return NoSuchThread;
        if (thread >= 0) _thread = thread;
        return Ok;
    }

    private void CurrentRegisters(Action<VcpuRegisters> change)
    {
        var registers = new VcpuRegisters(_debugger.Vcpu(_thread));
        change(registers);
        registers.Store();
    }

    private string ReadRegisters()
    {
        var state = new VcpuRegisters(_debugger.Vcpu(_thread));
        Span<byte> bytes = stackalloc byte[16];
        var text = new StringBuilder();
        foreach (GdbRegister register in GdbRegisters.All)
        {
            register.Get(state, bytes[..register.Size]);
            text.Append(Hex(bytes[..register.Size]));
        }

        return text.ToString();
    }

    private string ReadRegister(int number)
    {
        if (number >= GdbRegisters.All.Count) return Invalid;
        GdbRegister register = GdbRegisters.All[number];
        Span<byte> bytes = stackalloc byte[register.Size];
        register.Get(new VcpuRegisters(_debugger.Vcpu(_thread)), bytes);
        return Hex(bytes);
    }

    private string WriteRegisters(ReadOnlySpan<char> digits)
    {
        byte[] bytes = Convert.FromHexString(digits);
        var state = new VcpuRegisters(_debugger.Vcpu(_thread));
        int at = 0;
        foreach (GdbRegister register in GdbRegisters.All)
        {
            if (at + register.Size > bytes.Length) break;
            register.Set?.Invoke(state, bytes.AsSpan(at, register.Size));
            at += register.Size;
        }

        state.Store();
        return Ok;
    }

    private string WriteRegister(ReadOnlySpan<char> text)
    {
        int equals = text.IndexOf('=');
        int number = (int)Hex(text[..equals]);
        byte[] bytes = Convert.FromHexString(text[(equals + 1)..]);
        if (number >= GdbRegisters.All.Count || bytes.Length != GdbRegisters.All[number].Size || GdbRegisters.All[number].Set is not { } set) return Invalid;
        CurrentRegisters(r => set(r, bytes));
        return Ok;
    }

    private string ReadMemory(ReadOnlySpan<char> text)
    {
        (ulong address, int length) = Range(text);
        var bytes = new byte[Math.Min(length, LongestTransfer)];
        int read = Memory.Read(address, bytes, _debugger.Breakpoints);
        return read == 0 && length > 0 ? NoMemory : Hex(bytes.AsSpan(0, read));
    }

    private string WriteMemory(string packet, bool binary)
    {
        int colon = packet.IndexOf(':', StringComparison.Ordinal);
        (ulong address, int length) = Range(packet.AsSpan(1, colon - 1));
        byte[] data = binary ? Encoding.Latin1.GetBytes(packet[(colon + 1)..]) : Convert.FromHexString(packet.AsSpan(colon + 1));
        if (data.Length != length) return Invalid;
        return Memory.Write(address, data, _debugger.Breakpoints) == length ? Ok : NoMemory;
    }

    /// <summary>Z and z: type, address, and kind, which is a length for watchpoints.</summary>
    private string Point(string packet)
    {
        bool add = packet[0] == 'Z';
        (ulong address, int kind) = Range(packet.AsSpan(3));
        Breakpoints points = _debugger.Breakpoints;
        if (packet[1] == '0')
            return (add ? points.AddSoftware(Memory, address) : points.RemoveSoftware(Memory, address)) ? Ok : NoMemory;
        DebugCause? cause = packet[1] switch { '1' => DebugCause.HardwareBreakpoint, '2' => DebugCause.WriteWatchpoint, '4' => DebugCause.AccessWatchpoint, _ => null };
        if (cause is not { } type) return Unknown; // '3': the processor can't watch for reads alone; gdb uses '4'
        return (add ? points.AddHardware(address, kind, type) : points.RemoveHardware(address, kind, type)) ? Ok : Invalid;
    }

    private LinearMemory Memory
    {
        get
        {
            LinearMemory memory = _debugger.Memory;
            memory.Vcpu = _debugger.Vcpu(_thread);
            return memory;
        }
    }

    private static (ulong Address, int Length) Range(ReadOnlySpan<char> text)
    {
        int comma = text.IndexOf(',');
        ReadOnlySpan<char> length = text[(comma + 1)..];
        int end = length.IndexOf(';'); // conditions and commands that we did not say we know
        return (Hex(text[..comma]), checked((int)Hex(end < 0 ? length : length[..end])));
    }
}
