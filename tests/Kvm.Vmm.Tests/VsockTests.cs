using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using Kvm.Vmm.Virtio.Vsock;

namespace Kvm.Vmm.Tests;

/// <summary>virtio-vsock: a driver on one side, Unix sockets on the other.</summary>
public sealed class VsockTests : IDisposable
{
    private const int Rx = 0, Tx = 1;
    private const uint Cid = 42, GuestPort = 1025, Room = 1 << 16;
    private const ulong Buffers = 0x100000, Outgoing = 0x200000;
    private const int BufferSize = 4096, BufferCount = 8;

    private readonly string _folder = Directory.CreateTempSubdirectory().FullName;
    private readonly VirtioDriver _driver;

    public VsockTests()
    {
        _driver = new VirtioDriver(new VirtioVsock(Cid, Path));
        Start();
    }

    private string Path => System.IO.Path.Combine(_folder, "v.sock");

    public void Dispose()
    {
        _driver.Dispose();
        Directory.GetFiles(_folder).Should().NotContain(Path, "the socket goes with the device");
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void The_guest_calls_the_host_and_both_talk_and_end()
    {
        using Socket host = Call(1234);
        Send(VsockOp.Data, 1234, "hello");
        Read(host, 5).Should().Be("hello");
        host.Send("world!"u8);
        (VsockHeader header, string text) = Take();
        (header.Op, header.SourcePort, header.TargetPort, text).Should().Be((VsockOp.Data, 1234u, GuestPort, "world!"));
        header.Forwarded.Should().Be(5);
        host.Shutdown(SocketShutdown.Send);
        Take().Header.Should().Match<VsockHeader>(h => h.Op == VsockOp.Shutdown && h.Flags == VsockHeader.NoSend);
        Send(VsockOp.Data, 1234, "last");
        Send(VsockOp.Shutdown, 1234, flags: VsockHeader.NoReceive | VsockHeader.NoSend);
        Read(host, 4).Should().Be("last", "what was sent before arrives");
        host.Receive(new byte[1]).Should().Be(0);
        Take().Header.Op.Should().Be(VsockOp.Reset);
    }

    [Fact]
    public void The_host_calls_the_guest_and_hears_when_it_answers()
    {
        using var host = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        host.Connect(new UnixDomainSocketEndPoint(Path));
        host.Send("CONNECT 1025\nearly"u8);
        VsockHeader request = Take().Header;
        (request.Op, request.SourceCid, request.TargetCid, request.TargetPort).Should().Be((VsockOp.Request, 2UL, (ulong)Cid, GuestPort));
        Send(VsockOp.Response, request.SourcePort);
        string line = $"OK {request.SourcePort}\n";
        Read(host, line.Length).Should().Be(line);
        Take().Text.Should().Be("early", "what follows the line is the guest's");
        Send(VsockOp.Data, request.SourcePort, "answer");
        Read(host, 6).Should().Be("answer");
        Send(VsockOp.Reset, request.SourcePort);
        host.Receive(new byte[1]).Should().Be(0);
    }

    [Theory]
    [InlineData("HELLO 1\n")]
    [InlineData("CONNECT x\n")]
    [InlineData("CONNECT 4294967296\n")]
    [InlineData("CONNECT 1111111111111111111111111111111111")]
    public void A_line_that_is_no_command_ends_the_call(string line)
    {
        using var host = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        host.Connect(new UnixDomainSocketEndPoint(Path));
        host.Send(Encoding.ASCII.GetBytes(line));
        FluentActions.Invoking(() => host.Receive(new byte[1]) == 0 ? throw new SocketException() : 0).Should().Throw<SocketException>("it is closed, or reset");
    }

    [Fact]
    public void Nobody_listens_and_the_guest_is_refused()
    {
        Send(VsockOp.Request, 999);
        Take().Header.Should().Match<VsockHeader>(h => h.Op == VsockOp.Reset && h.SourcePort == 999 && h.TargetPort == GuestPort);
    }

    [Theory]
    [InlineData(VsockOp.Data)]
    [InlineData(VsockOp.Response)]
    [InlineData(VsockOp.Shutdown)]
    [InlineData(VsockOp.CreditRequest)]
    [InlineData((VsockOp)77)]
    internal void What_belongs_to_no_connection_is_reset(VsockOp op)
    {
        Send(op, 5);
        Take().Header.Op.Should().Be(VsockOp.Reset);
    }

    [Fact]
    public void Another_context_or_type_is_reset()
    {
        using Socket listener = Listen(1234);
        Send(VsockOp.Request, 1234, change: (ref VsockHeader h) => h.TargetCid = 3);
        Take().Header.Op.Should().Be(VsockOp.Reset);
        Send(VsockOp.Request, 1234, change: (ref VsockHeader h) => h.SourceCid = 43);
        Take().Header.Op.Should().Be(VsockOp.Reset);
        Send(VsockOp.Request, 1234, change: (ref VsockHeader h) => h.Type = 2);
        Take().Header.Op.Should().Be(VsockOp.Reset);
        Send(VsockOp.Reset, 1234); // is not answered
        Send(VsockOp.Request, 1234);
        Take().Header.Op.Should().Be(VsockOp.Response);
    }

    /// <summary>The guest gets what it has told room for, and the rest when it has made more.</summary>
    [Fact]
    public void The_guests_room_is_respected()
    {
        using Socket host = Call(1234, room: 10);
        host.Send("0123456789abcdef"u8);
        Take().Text.Should().Be("0123456789");
        Send(VsockOp.CreditRequest, 1234, change: static (ref VsockHeader h) => h.Room = 10);
        (VsockHeader update, _) = Take();
        (update.Op, update.Room).Should().Be((VsockOp.CreditUpdate, (uint)(256 << 10)), "nothing else came before");
        Send(VsockOp.CreditUpdate, 1234, change: static (ref VsockHeader h) => (h.Room, h.Forwarded) = (10, 10));
        Take().Text.Should().Be("abcdef");
    }

    /// <summary>A host that reads nothing: the guest may send so much, and no more.</summary>
    [Fact]
    public void More_than_there_is_room_for_is_reset()
    {
        using Socket host = Call(1234);
        string text = new('x', 60_000);
        VsockHeader answer = default;
        for (int i = 0; i < 20 && answer.Op != VsockOp.Reset; i++)
        {
            Send(VsockOp.Data, 1234, text);
            while (_driver.HasUsed(Rx) && answer.Op != VsockOp.Reset) answer = Take().Header;
        }

        while (answer.Op != VsockOp.Reset) answer = Take().Header;
    }

    /// <summary>Larger than a buffer of the driver's: several packets.</summary>
    [Fact]
    public async Task A_megabyte_arrives_whole()
    {
        using Socket host = Call(1234);
        var sent = new byte[1 << 20];
        new Random(1).NextBytes(sent);
        Task sending = Task.Run(() => host.Send(sent));
        var got = new MemoryStream();
        uint received = 0;
        while (got.Length < sent.Length)
        {
            (VsockHeader header, string text) = Take();
            header.Op.Should().Be(VsockOp.Data);
            got.Write(Encoding.Latin1.GetBytes(text));
            received += header.Length;
            Send(VsockOp.CreditUpdate, 1234, change: (ref VsockHeader h) => h.Forwarded = received);
        }

        await sending.WaitAsync(TimeSpan.FromSeconds(30));
        got.ToArray().Should().Equal(sent);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void Rubbish_harms_nobody(int seed)
    {
        var random = new Random(seed);
        using Socket listener = Listen(3);
        for (int i = 0; i < 2000; i++)
        {
            if (random.Next(50) == 0) Start();
            Send((VsockOp)random.Next(9), (uint)random.Next(1, 5), new string('y', random.Next(100)), (uint)random.Next(4), (ref VsockHeader h) =>
            {
                if (random.Next(4) == 0) h.SourcePort = (uint)random.Next(3);
                if (random.Next(9) == 0) h.Length = (uint)random.Next();
                if (random.Next(9) == 0) h.Room = (uint)random.Next();
                if (random.Next(20) == 0) h.Type = (ushort)random.Next(3);
            });
            while (_driver.HasUsed(Rx)) Take();
        }

        Start();
        Send(VsockOp.Request, 3);
        Take().Header.Op.Should().Be(VsockOp.Response);
    }

    private delegate void Change(ref VsockHeader header);

    /// <summary>Sets the device up with buffers to receive in.</summary>
    private void Start()
    {
        _driver.Start(size: BufferCount, queues: 3);
        for (ushort i = 0; i < BufferCount; i++)
        {
            _driver.Descriptor(Rx, i, Buffers + (ulong)i * BufferSize, BufferSize, VirtioDriver.Write);
            _driver.Offer(Rx, i);
        }
    }

    private Socket Listen(uint port)
    {
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint($"{Path}_{port}"));
        listener.Listen();
        return listener;
    }

    /// <summary>The guest calls, and the host answers.</summary>
    private Socket Call(uint port, uint room = Room)
    {
        using Socket listener = Listen(port);
        Send(VsockOp.Request, port, change: (ref VsockHeader h) => h.Room = room);
        Socket host = listener.Accept();
        host.ReceiveTimeout = 60_000;
        Take().Header.Should().Match<VsockHeader>(h => h.Op == VsockOp.Response && h.Room > 0);
        return host;
    }

    private void Send(VsockOp op, uint hostPort, string text = "", uint flags = 0, Change? change = null)
    {
        var header = new VsockHeader
        {
            SourceCid = Cid,
            TargetCid = 2,
            SourcePort = GuestPort,
            TargetPort = hostPort,
            Length = (uint)text.Length,
            Type = VsockHeader.Stream,
            Op = op,
            Flags = flags,
            Room = Room,
        };
        change?.Invoke(ref header);
        MemoryMarshal.Write(_driver.Ram.At(Outgoing, VsockHeader.Size), header);
        Encoding.Latin1.GetBytes(text, _driver.Ram.At(Outgoing + VsockHeader.Size, Math.Max(text.Length, 1)));
        _driver.Descriptor(Tx, 0, Outgoing, (uint)(VsockHeader.Size + text.Length), 0);
        _driver.Offer(Tx, 0);
        _driver.Take(Tx);
    }

    /// <summary>The next packet; its buffer is offered again.</summary>
    private (VsockHeader Header, string Text) Take()
    {
        (uint head, uint written) = _driver.Take(Rx);
        ulong at = Buffers + head * BufferSize;
        VsockHeader header = MemoryMarshal.Read<VsockHeader>(_driver.Ram.At(at, VsockHeader.Size));
        written.Should().Be(VsockHeader.Size + header.Length);
        string text = Encoding.Latin1.GetString(_driver.Ram.At(at + VsockHeader.Size, (int)header.Length));
        _driver.Offer(Rx, (ushort)head);
        return (header, text);
    }

    private static string Read(Socket socket, int length)
    {
        var bytes = new byte[length];
        int done = 0;
        while (done < length)
        {
            int got = socket.Receive(bytes, done, length - done, SocketFlags.None);
            if (got == 0) break;
            done += got;
        }

        return Encoding.Latin1.GetString(bytes, 0, done);
    }
}
