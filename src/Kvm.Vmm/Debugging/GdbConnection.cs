using System.Globalization;
using System.Text;

namespace Kvm.Vmm.Debugging;

/// <summary>Packets of gdb's remote serial protocol over a stream: <c>$data#checksum</c>, acknowledged until both sides agree not to.</summary>
/// <remarks>gdb manual, "Remote Protocol: Overview" and "Packet Acknowledgment".</remarks>
internal sealed class GdbConnection(Stream stream) : IDisposable
{
    /// <summary>What stands in for Ctrl-C, which comes outside packets.</summary>
    public const string Interrupt = "\u0003";

    /// <summary>The longest packet that is taken; longer ones are dropped.</summary>
    public const int MaxPacket = 0x4000;

    private const byte Escape = (byte)'}', EscapeMask = 0x20;

    private readonly byte[] _input = new byte[4096];
    private readonly List<byte> _packet = [];
    private int _at, _end;

    /// <summary>Whether packets are acknowledged.</summary>
    public bool Acknowledge { get; set; } = true;

    /// <summary>The next packet, each byte a char, or <see cref="Interrupt"/>. Null: the other side is gone.</summary>
    public async Task<string?> ReceiveAsync()
    {
        while (true)
        {
            switch (await NextAsync().ConfigureAwait(false))
            {
                case -1:
                    return null;
                case 3:
                    return Interrupt;
                case '$' when await PacketAsync().ConfigureAwait(false) is { } packet:
                    return packet;
                default:
                    continue; // acknowledgments, noise, damaged packets that the other side repeats
            }
        }
    }

    /// <summary>Sends a packet.</summary>
    public async Task SendAsync(string data)
    {
        var bytes = new List<byte>(data.Length + 4) { (byte)'$' };
        byte sum = 0;
        foreach (char c in data)
        {
            if (c is '$' or '#' or '}' or '*')
            {
                Add(Escape);
                Add((byte)(c ^ EscapeMask));
            }
            else
            {
                Add((byte)c);
            }
        }

        bytes.AddRange(Encoding.ASCII.GetBytes($"#{sum:x2}"));
        await stream.WriteAsync(bytes.ToArray()).ConfigureAwait(false);
        await stream.FlushAsync().ConfigureAwait(false);

        void Add(byte value)
        {
            bytes.Add(value);
            sum += value;
        }
    }

    public void Dispose() => stream.Dispose();

    private async Task<string?> PacketAsync()
    {
        _packet.Clear();
        byte sum = 0;
        int next;
        while ((next = await NextAsync().ConfigureAwait(false)) != '#')
        {
            if (next < 0) return null;
            sum += (byte)next;
            if (_packet.Count < MaxPacket) _packet.Add((byte)next);
        }

        string digits = $"{(char)await NextAsync().ConfigureAwait(false)}{(char)await NextAsync().ConfigureAwait(false)}";
        bool good = byte.TryParse(digits, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out byte expected) && (expected == sum || !Acknowledge);
        if (Acknowledge) await stream.WriteAsync(new[] { (byte)(good ? '+' : '-') }).ConfigureAwait(false);
        return good ? Unescaped() : null;
    }

    private string Unescaped()
    {
        var text = new StringBuilder(_packet.Count);
        for (int i = 0; i < _packet.Count; i++)
        {
            if (_packet[i] == Escape && i + 1 < _packet.Count) text.Append((char)(_packet[++i] ^ EscapeMask));
            else text.Append((char)_packet[i]);
        }

        return text.ToString();
    }

    private async ValueTask<int> NextAsync()
    {
        if (_at == _end)
        {
            _at = 0;
            try
            {
                _end = await stream.ReadAsync(_input).ConfigureAwait(false);
            }
            catch (IOException)
            {
                _end = 0; // reset by the other side, which is gone
            }

            if (_end == 0) return -1;
        }

        return _input[_at++];
    }
}
