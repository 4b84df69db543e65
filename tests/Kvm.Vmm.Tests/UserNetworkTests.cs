using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Kvm.Vmm.Net;

namespace Kvm.Vmm.Tests;

/// <summary>The guest's own network, spoken to in frames, as a guest would; TCP by a guest of few words.</summary>
public sealed class UserNetworkTests : IDisposable
{
    private const uint Guest = 0x0a00020f, Host = 0x0a000202, NameServer = 0x0a000203;
    private const byte Fin = 1, Syn = 2, Rst = 4, Ack = 16;

    private readonly UserNetwork _network = new();

    public void Dispose() => _network.Dispose();

    [Theory]
    [InlineData(Host, true)]
    [InlineData(NameServer, true)]
    [InlineData(Guest, false)] // who asks so looks for a second owner
    [InlineData(0x0a000204, false)]
    public void ARP_finds_the_host_and_the_name_server(uint address, bool answered)
    {
        var frame = new byte[42];
        frame.AsSpan(0, 6).Fill(0xff);
        UserNetwork.GuestMac.CopyTo(frame.AsSpan(6));
        new byte[] { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 }.CopyTo(frame, 12);
        UserNetwork.GuestMac.CopyTo(frame.AsSpan(22));
        BinaryPrimitives.WriteUInt32BigEndian(frame.AsSpan(28), Guest);
        BinaryPrimitives.WriteUInt32BigEndian(frame.AsSpan(38), address);
        _network.Transmit(frame);
        _network.TryReceive(out ReadOnlyMemory<byte> reply).Should().Be(answered);
        if (!answered) return;
        reply.Span[..6].SequenceEqual(UserNetwork.GuestMac).Should().BeTrue();
        reply.Span[21].Should().Be(2, "a reply");
        BinaryPrimitives.ReadUInt32BigEndian(reply.Span[28..]).Should().Be(address);
        reply.Span.Slice(22, 6).SequenceEqual(reply.Span.Slice(6, 6)).Should().BeTrue();
    }

    [Theory]
    [InlineData(1, null, 2)]
    [InlineData(3, Guest, 5)]
    [InlineData(3, 0x0a000263u, 6)]
    public void DHCP_leases_one_address(byte type, uint? wanted, byte answer)
    {
        var message = new byte[260];
        (message[0], message[1], message[2], message[4]) = (1, 1, 6, 0x77);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(236), 0x63825363);
        (message[240], message[241], message[242]) = (53, 1, type);
        int at = 243;
        if (wanted is { } address)
        {
            (message[at], message[at + 1]) = (50, 4);
            BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(at + 2), address);
            at += 6;
        }

        message[at] = 255;
        _network.Transmit(Udp(0, 68, uint.MaxValue, 67, message));
        ReadOnlySpan<byte> reply = Next(17).AsSpan()[42..];
        (reply[0], reply[4], reply[242]).Should().Be((2, 0x77, answer));
        BinaryPrimitives.ReadUInt32BigEndian(reply[16..]).Should().Be(answer == 6 ? 0 : Guest);
    }

    [Fact]
    public void The_host_answers_pings()
    {
        var ping = new byte[8 + 32];
        ping[0] = 8;
        ping[5] = 9;
        ping.AsSpan(8).Fill(0x5a);
        _network.Transmit(Ip(Guest, Host, 1, ping));
        byte[] reply = Next(1);
        reply[34].Should().Be(0);
        reply[39].Should().Be(9);
        reply.AsSpan(42, 32).ToArray().Should().OnlyContain(b => b == 0x5a);
        Checksum(reply.AsSpan(34)).Should().Be(0);
        Checksum(reply.AsSpan(14, 20)).Should().Be(0);
    }

    [Fact]
    public void UDP_goes_to_the_loopback_and_back()
    {
        using var server = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        var port = (ushort)((IPEndPoint)server.Client.LocalEndPoint!).Port;
        _network.Transmit(Udp(Guest, 4000, Host, port, "question"u8.ToArray()));
        IPEndPoint? from = null;
        Encoding.ASCII.GetString(server.Receive(ref from)).Should().Be("question");
        server.Send("answer"u8, from);
        byte[] reply = Next(17);
        (BinaryPrimitives.ReadUInt16BigEndian(reply.AsSpan(34)), BinaryPrimitives.ReadUInt16BigEndian(reply.AsSpan(36))).Should().Be((port, (ushort)4000));
        Encoding.ASCII.GetString(reply.AsSpan(42)).Should().Be("answer");
    }

    [Fact]
    public void A_port_where_nobody_listens_refuses()
    {
        var free = new TcpListener(IPAddress.Loopback, 0);
        free.Start();
        var port = (ushort)((IPEndPoint)free.LocalEndpoint).Port;
        free.Stop();
        _network.Transmit(Tcp(port, 1000, 0, Syn, []));
        Segment reset = Receive();
        (reset.Flags & Rst).Should().Be(Rst);
        reset.Acknowledged.Should().Be(1001);
    }

    [Fact]
    public void A_segment_of_no_connection_is_reset()
    {
        _network.Transmit(Tcp(5, 77, 88, Ack, [1, 2, 3]));
        Segment reset = Receive();
        (reset.Flags, reset.Sequence).Should().Be((Rst, 88u));
        _network.Transmit(Tcp(5, 77, 88, Rst, []));
        _network.TryReceive(out _).Should().BeFalse("a reset is not answered");
    }

    /// <summary>Connect, bytes both ways, a segment sent twice, one that comes too early, and the end from both sides.</summary>
    [Fact]
    public async Task TCP_carries_bytes_in_order_once()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var port = (ushort)((IPEndPoint)listener.LocalEndpoint).Port;
        _network.Transmit(Tcp(port, 1000, 0, Syn, []));
        using Socket server = await listener.AcceptSocketAsync();
        Segment answer = Receive();
        (answer.Flags, answer.Acknowledged).Should().Be(((byte)(Syn | Ack), 1001u));
        uint theirs = answer.Sequence + 1;
        _network.Transmit(Tcp(port, 1001, theirs, Ack, []));

        _network.Transmit(Tcp(port, 1004, theirs, Ack, "def"u8)); // too early: the host still waits for 1001
        Receive().Acknowledged.Should().Be(1001);
        _network.Transmit(Tcp(port, 1001, theirs, Ack, "abc"u8));
        Receive().Acknowledged.Should().Be(1004);
        _network.Transmit(Tcp(port, 1001, theirs, Ack, "abcdef"u8)); // half of it is known
        Receive().Acknowledged.Should().Be(1007);
        var heard = new byte[6];
        for (int n = 0; n < 6;) n += await server.ReceiveAsync(heard.AsMemory(n));
        Encoding.ASCII.GetString(heard).Should().Be("abcdef");

        await server.SendAsync("hello"u8.ToArray());
        Segment said = Receive();
        (said.Sequence, Encoding.ASCII.GetString(said.Data)).Should().Be((theirs, "hello"));
        // It is not acknowledged, so it comes again.
        Segment again = Receive();
        (again.Sequence, again.Data[0]).Should().Be((theirs, (byte)'h'));
        _network.Transmit(Tcp(port, 1007, theirs + 5, Ack, []));

        _network.Transmit(Tcp(port, 1007, theirs + 5, Ack | Fin, []));
        ReceiveUntil(s => s.Acknowledged == 1008);
        (await server.ReceiveAsync(heard)).Should().Be(0, "the guest has finished");
        server.Close();
        Segment end = ReceiveUntil(s => (s.Flags & Fin) != 0);
        end.Sequence.Should().Be(theirs + 5);
        _network.Transmit(Tcp(port, 1008, theirs + 6, Ack, []));
        _network.Transmit(Tcp(port, 1008, theirs + 6, Ack, []));
        (ReceiveUntil(_ => true).Flags & Rst).Should().Be(Rst, "the connection is forgotten");
    }

    /// <summary>The window that a guest gives is not exceeded, and one that opens again is used.</summary>
    [Fact]
    public async Task TCP_keeps_to_the_guest_s_window()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var port = (ushort)((IPEndPoint)listener.LocalEndpoint).Port;
        _network.Transmit(Tcp(port, 1000, 0, Syn, [], window: 100));
        using Socket server = await listener.AcceptSocketAsync();
        uint theirs = Receive().Sequence + 1;
        _network.Transmit(Tcp(port, 1001, theirs, Ack, [], window: 100));
        await server.SendAsync(Enumerable.Range(0, 250).Select(static i => (byte)i).ToArray());
        Segment first = Receive();
        first.Data.Length.Should().Be(100);
        _network.Transmit(Tcp(port, 1001, theirs + 100, Ack, [], window: 0));
        Segment probe = Receive();
        (probe.Sequence, probe.Data.Length).Should().Be((theirs + 100, 1), "after a second, one byte asks whether the window is still closed");
        _network.Transmit(Tcp(port, 1001, theirs + 101, Ack, [], window: 1000));
        Segment rest = Receive();
        (rest.Sequence, rest.Data.Length, rest.Data[0]).Should().Be((theirs + 101, 149, (byte)101));
    }

    [Fact]
    public async Task Forwarded_ports_reach_the_guest()
    {
        int port = _network.ForwardTcp(new IPEndPoint(IPAddress.Loopback, 0), 22);
        using var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, port);
        Segment call = Receive();
        (call.Flags, call.DestinationPort).Should().Be((Syn, (ushort)22));
        _network.Transmit(Tcp(call.SourcePort, 500, call.Sequence + 1, Syn | Ack, [], sourcePort: 22));
        Receive().Acknowledged.Should().Be(501);
        _network.Transmit(Tcp(call.SourcePort, 501, call.Sequence + 1, Ack, "SSH"u8, sourcePort: 22));
        var heard = new byte[3];
        await client.GetStream().ReadExactlyAsync(heard);
        Encoding.ASCII.GetString(heard).Should().Be("SSH");
        // The guest refuses another call: so does the host.
        using var second = new TcpClient();
        await second.ConnectAsync(IPAddress.Loopback, port);
        Segment other = ReceiveUntil(s => s.Flags == Syn);
        _network.Transmit(Tcp(other.SourcePort, 0, other.Sequence + 1, Rst | Ack, [], sourcePort: 22));
        Func<Task> read = async () => await second.GetStream().ReadExactlyAsync(heard);
        await read.Should().ThrowAsync<Exception>();
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void Rubbish_harms_nobody(int seed)
    {
        var random = new Random(seed);
        byte[][] seeds = [Tcp(9, 1, 2, Syn, [1, 2]), Udp(Guest, 1, uint.MaxValue, 67, new byte[260]), Ip(Guest, Host, 1, new byte[40])];
        for (int i = 0; i < 20000; i++)
        {
            byte[] frame = [.. seeds[random.Next(seeds.Length)]];
            for (int n = random.Next(1, 6); n > 0; n--) frame[random.Next(12, Math.Min(frame.Length, 70))] = (byte)random.Next();
            // Nothing leaves this test: only the host and nobody are talked to.
            BinaryPrimitives.WriteUInt32BigEndian(frame.AsSpan(30), random.Next(2) == 0 ? Host + 9 : uint.MaxValue);
            FluentActions.Invoking(() => _network.Transmit(frame.AsSpan(0, random.Next(10, frame.Length)))).Should().NotThrow();
        }
    }

    private byte[] Next(byte protocol)
    {
        var clock = Stopwatch.StartNew();
        while (clock.Elapsed < TimeSpan.FromSeconds(60))
        {
            if (_network.TryReceive(out ReadOnlyMemory<byte> frame) && frame.Span[12] == 8 && frame.Span[13] == 0 && frame.Span[23] == protocol) return frame.ToArray();
            Thread.Sleep(1);
        }

        throw new TimeoutException("no such frame");
    }

    private Segment Receive() => new(Next(6));

    private Segment ReceiveUntil(Func<Segment, bool> wanted)
    {
        while (true)
        {
            Segment segment = Receive();
            if (wanted(segment)) return segment;
        }
    }

    private static byte[] Udp(uint source, ushort sourcePort, uint destination, ushort port, byte[] data)
    {
        var udp = new byte[8 + data.Length];
        BinaryPrimitives.WriteUInt16BigEndian(udp, sourcePort);
        BinaryPrimitives.WriteUInt16BigEndian(udp.AsSpan(2), port);
        BinaryPrimitives.WriteUInt16BigEndian(udp.AsSpan(4), (ushort)udp.Length);
        data.CopyTo(udp, 8);
        return Ip(source, destination, 17, udp);
    }

    private static byte[] Tcp(ushort port, uint sequence, uint acknowledged, byte flags, ReadOnlySpan<byte> data, ushort window = 65535, ushort sourcePort = 4000)
    {
        var tcp = new byte[20 + data.Length];
        BinaryPrimitives.WriteUInt16BigEndian(tcp, sourcePort);
        BinaryPrimitives.WriteUInt16BigEndian(tcp.AsSpan(2), port);
        BinaryPrimitives.WriteUInt32BigEndian(tcp.AsSpan(4), sequence);
        BinaryPrimitives.WriteUInt32BigEndian(tcp.AsSpan(8), acknowledged);
        (tcp[12], tcp[13]) = (0x50, flags);
        BinaryPrimitives.WriteUInt16BigEndian(tcp.AsSpan(14), window);
        data.CopyTo(tcp.AsSpan(20));
        return Ip(Guest, Host, 6, tcp);
    }

    private static byte[] Ip(uint source, uint destination, byte protocol, byte[] payload)
    {
        var frame = new byte[34 + payload.Length];
        UserNetwork.GuestMac.CopyTo(frame.AsSpan(6));
        (frame[12], frame[14], frame[22], frame[23]) = (8, 0x45, 64, protocol);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(16), (ushort)(20 + payload.Length));
        BinaryPrimitives.WriteUInt32BigEndian(frame.AsSpan(26), source);
        BinaryPrimitives.WriteUInt32BigEndian(frame.AsSpan(30), destination);
        payload.CopyTo(frame, 34);
        return frame;
    }

    private static ushort Checksum(ReadOnlySpan<byte> data)
    {
        uint sum = 0;
        for (int i = 0; i < data.Length; i++) sum += (uint)data[i] << (i % 2 == 0 ? 8 : 0);
        while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
        return (ushort)~sum;
    }

    private sealed class Segment(byte[] frame)
    {
        private int HeaderSize => (frame[46] >> 4) * 4;

        public ushort SourcePort => BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(34));

        public ushort DestinationPort => BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(36));

        public uint Sequence => BinaryPrimitives.ReadUInt32BigEndian(frame.AsSpan(38));

        public uint Acknowledged => BinaryPrimitives.ReadUInt32BigEndian(frame.AsSpan(42));

        public byte Flags => (byte)(frame[47] & ~8); // without PSH

        public byte[] Data => frame[(34 + HeaderSize)..];
    }
}
