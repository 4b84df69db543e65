using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Kvm.Vmm.Tests;

/// <summary>The other end of gdb's remote protocol, as plain as it can be.</summary>
internal sealed class GdbClient : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly TcpClient _client = new();
    private readonly NetworkStream _stream;

    public GdbClient(IPEndPoint server)
    {
        _client.Connect(server);
        _stream = _client.GetStream();
        _stream.ReadTimeout = (int)s_patience.TotalMilliseconds;
    }

    /// <summary>Sends a packet and returns the answer.</summary>
    public string Ask(string packet)
    {
        Send(packet);
        return Receive();
    }

    /// <summary>Sends a packet; waits for its acknowledgment.</summary>
    public void Send(string packet)
    {
        Raw($"${packet}#{packet.Aggregate((byte)0, (sum, c) => (byte)(sum + c)):x2}");
        ((char)_stream.ReadByte()).Should().Be('+');
    }

    /// <summary>Bytes outside the rules.</summary>
    public void Raw(string bytes) => _stream.Write(Encoding.Latin1.GetBytes(bytes));

    /// <summary>One byte.</summary>
    public char Byte() => (char)_stream.ReadByte();

    public string Receive()
    {
        Byte().Should().Be('$');
        var data = new StringBuilder();
        for (char c = Byte(); c != '#'; c = Byte()) data.Append(c == '}' ? (char)(Byte() ^ 0x20) : c);
        _ = Byte();
        _ = Byte();
        Raw("+");
        return data.ToString();
    }

    /// <summary>A register by its number, lowest byte first.</summary>
    public ulong Register(int number)
    {
        byte[] bytes = Convert.FromHexString(Ask($"p{number:x}"));
        ulong value = 0;
        for (int i = Math.Min(bytes.Length, 8) - 1; i >= 0; i--) value = (value << 8) | bytes[i];
        return value;
    }

    /// <summary>What a monitor command prints.</summary>
    public string Monitor(string command) => Encoding.UTF8.GetString(Convert.FromHexString(Ask("qRcmd," + Convert.ToHexString(Encoding.UTF8.GetBytes(command)))));

    /// <summary>The target description, part by part.</summary>
    public string Description()
    {
        var text = new StringBuilder();
        while (true)
        {
            string part = Ask(string.Create(CultureInfo.InvariantCulture, $"qXfer:features:read:target.xml:{text.Length:x},400"));
            text.Append(part.AsSpan(1));
            if (part[0] == 'l') return text.ToString();
        }
    }

    public void Dispose() => _client.Dispose();
}
