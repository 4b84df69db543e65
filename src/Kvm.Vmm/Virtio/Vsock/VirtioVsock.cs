using System.Buffers.Binary;
using System.Globalization;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Kvm.Vmm.Virtio.Vsock;

/// <summary>
/// Sockets between guest and host (AF_VSOCK in the guest), Unix sockets here: a connection of the guest's to port P of the host (CID 2) goes to the socket <c>PATH_P</c>;
/// who connects to <c>PATH</c> and writes <c>CONNECT P</c> and a line feed is connected to the guest's port P, and reads <c>OK</c> and a port first.
/// </summary>
/// <remarks>Virtio specification 1.2, "Socket Device". The names of the Unix sockets are those of Firecracker's vsock device.</remarks>
public sealed class VirtioVsock : VirtioDevice
{
    /// <summary>The host's context id.</summary>
    public const ulong HostCid = 2;

    /// <summary>The least context id that a guest can have.</summary>
    public const uint LeastCid = 3;

    private const int ReceiveQueue = 0, TransmitQueue = 1, QueueSize = 256, LongestData = 64 << 10;
    private const int MostReplies = 1024, MostConnections = 1024, LongestCommand = 32;
    private const uint FirstHostPort = 1 << 30;

    private readonly uint _cid;
    private readonly string _path;
    private readonly Socket _listener;
    private readonly Dictionary<(uint Host, uint Guest), VsockConnection> _connections = [];
    private readonly Queue<VsockPacket> _outgoing = [];
    private readonly byte[] _data = new byte[LongestData];
    private uint _nextHostPort = FirstHostPort;

    /// <param name="cid">The guest's context id, from <see cref="LeastCid"/> on.</param>
    /// <param name="path">The Unix socket that is listened on, and what the names of the others begin with.</param>
    /// <exception cref="IOException">The socket can't be made.</exception>
    public VirtioVsock(uint cid, string path)
        : base(type: 19, "virtio-vsock", QueueSize, QueueSize, 8)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(cid, LeastCid);
        (_cid, _path) = (cid, path);
        _listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            _listener.Bind(new UnixDomainSocketEndPoint(path));
            _listener.Listen();
        }
        catch (Exception e) when (e is SocketException or ArgumentException)
        {
            _listener.Dispose();
            throw new IOException($"{path}: {e.Message}", e);
        }

        _ = AcceptAsync();
    }

    /// <inheritdoc/>
    protected override ulong DeviceFeatures => 0; // streams

    /// <inheritdoc/>
    public override int ConfigSize => 8;

    internal Lock Lock => Gate;

    /// <inheritdoc/>
    protected override void FillConfig(Span<byte> config) => BinaryPrimitives.WriteUInt64LittleEndian(config, _cid);

    /// <inheritdoc/>
    protected override void Process()
    {
        Receive();
        Transmit();
        Receive();
    }

    /// <inheritdoc/>
    protected override void OnReset() => DropAll();

    /// <inheritdoc/>
    public override void Dispose()
    {
        _listener.Dispose();
        File.Delete(_path);
        base.Dispose();
        lock (Gate) DropAll();
    }

    /// <summary>Queues a packet for the guest; under the gate.</summary>
    internal void Send(VsockPacket packet)
    {
        _outgoing.Enqueue(packet);
        Wake();
    }

    /// <summary>The connection is over; under the gate.</summary>
    internal void Forget(VsockConnection connection) => _connections.Remove((connection.HostPort, connection.GuestPort));

    private void DropAll()
    {
        foreach (VsockConnection connection in _connections.Values.ToArray()) connection.Close();
        _outgoing.Clear();
    }

    /// <summary>Packets of the guest. While it takes no answers, it is not listened to: they would pile up.</summary>
    private void Transmit()
    {
        VirtioQueue queue = Queues[TransmitQueue];
        do
        {
            queue.SetNotify(false);
            while (_outgoing.Count < MostReplies && queue.TryPop() is { } chain)
            {
                VsockHeader header = default;
                if (chain.Read(0, MemoryMarshal.AsBytes(new Span<VsockHeader>(ref header))) == VsockHeader.Size)
                {
                    int length = chain.Read(VsockHeader.Size, _data);
                    if (header.Length > (uint)length) (header.Op, header.Length) = (VsockOp.Invalid, 0); // longer than it is, or than anything
                    Take(header, _data.AsSpan(0, (int)header.Length));
                }

                queue.Push(chain.Head, 0);
            }

            Interrupt(queue);
            queue.SetNotify(true);
        }
        while (_outgoing.Count < MostReplies && queue.HasMore);
    }

    private void Take(in VsockHeader header, ReadOnlySpan<byte> data)
    {
        bool ours = header.SourceCid == _cid && header.TargetCid == HostCid && header.Type == VsockHeader.Stream;
        _connections.TryGetValue((header.TargetPort, header.SourcePort), out VsockConnection? connection);
        if (!ours) connection = null;
        connection?.TakeCredit(header);
        switch (header.Op)
        {
            case VsockOp.Request when ours && connection is null && _connections.Count < MostConnections:
                Connect(header);
                break;
            case VsockOp.Response when connection is { Established: false }:
                connection.Establish();
                break;
            case VsockOp.Data when connection is { Established: true } && connection.Receive(data):
            case VsockOp.CreditUpdate when connection is not null:
            case VsockOp.Reset when connection is null:
                break;
            case VsockOp.CreditRequest when connection is not null:
                Send(new VsockPacket(header.TargetPort, header.SourcePort, VsockOp.CreditUpdate, connection: connection));
                break;
            case VsockOp.Shutdown when connection is { Established: true }:
                connection.Shutdown(header.Flags);
                break;
            case VsockOp.Reset:
                connection!.Close();
                break;
            default:
                if (connection is not null) connection.Abort();
                else Send(new VsockPacket(header.TargetPort, header.SourcePort, VsockOp.Reset));
                break;
        }
    }

    private void Receive()
    {
        VirtioQueue queue = Queues[ReceiveQueue];
        queue.SetNotify(false);
        while (_outgoing.TryPeek(out VsockPacket? packet))
        {
            if (queue.TryPop() is not { } chain)
            {
                queue.SetNotify(true);
                if (!queue.HasMore) break;
                queue.SetNotify(false);
                continue;
            }

            uint written = Fill(chain, packet);
            queue.Push(chain.Head, written);
            if (written > 0 && packet.Data.IsEmpty)
            {
                _outgoing.Dequeue();
                if (packet.Op == VsockOp.Data) packet.Connection!.PacketTaken();
            }
        }

        Interrupt(queue);
    }

    /// <returns>Bytes written; 0: a buffer too small for anything.</returns>
    private uint Fill(VirtioChain chain, VsockPacket packet)
    {
        long room = chain.WritableLength - VsockHeader.Size;
        if (room < 0 || (room == 0 && !packet.Data.IsEmpty)) return 0;
        int length = (int)Math.Min(room, packet.Data.Length);
        var header = new VsockHeader
        {
            SourceCid = HostCid,
            TargetCid = _cid,
            SourcePort = packet.HostPort,
            TargetPort = packet.GuestPort,
            Length = (uint)length,
            Type = VsockHeader.Stream,
            Op = packet.Op,
            Flags = packet.Flags,
            Room = packet.Connection is null ? 0u : VsockConnection.Room,
            Forwarded = packet.Connection?.Forwarded ?? 0,
        };
        chain.Write(0, MemoryMarshal.AsBytes(new ReadOnlySpan<VsockHeader>(in header)));
        chain.Write(VsockHeader.Size, packet.Data.Span[..length]);
        packet.Data = packet.Data[length..];
        return (uint)(VsockHeader.Size + length);
    }

    /// <summary>The guest calls a port of the host.</summary>
    private void Connect(in VsockHeader request)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        var connection = new VsockConnection(this, socket, request.TargetPort, request.SourcePort);
        _connections.Add((request.TargetPort, request.SourcePort), connection);
        connection.TakeCredit(request);
        _ = ConnectAsync(connection, socket);
    }

    private async Task ConnectAsync(VsockConnection connection, Socket socket)
    {
        bool connected;
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(string.Create(CultureInfo.InvariantCulture, $"{_path}_{connection.HostPort}"))).ConfigureAwait(false);
            connected = true;
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or ArgumentException)
        {
            connected = false;
        }

        lock (Gate)
        {
            if (!connected)
            {
                connection.Abort();
                return;
            }

            Send(new VsockPacket(connection.HostPort, connection.GuestPort, VsockOp.Response, connection: connection));
            connection.Establish();
        }
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true) _ = CallGuestAsync(await _listener.AcceptAsync().ConfigureAwait(false));
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The device is gone.
        }
    }

    /// <summary>Reads the line that names the guest's port, calls it, and tells when it answers.</summary>
    private async Task CallGuestAsync(Socket caller)
    {
        try
        {
            uint? port = await ReadCommandAsync(caller).ConfigureAwait(false);
            VsockConnection? connection = null;
            lock (Gate)
            {
                if (port is { } guestPort && Running && _connections.Count < MostConnections)
                {
                    while (_connections.ContainsKey((_nextHostPort, guestPort))) _nextHostPort = Math.Max(_nextHostPort + 1, FirstHostPort);
                    connection = new VsockConnection(this, caller, _nextHostPort++, guestPort) { Answer = true };
                    _connections.Add((connection.HostPort, guestPort), connection);
                    Send(new VsockPacket(connection.HostPort, guestPort, VsockOp.Request, connection: connection));
                }
            }

            if (connection is null) caller.Dispose();
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            caller.Dispose(); // it went away
        }
    }

    /// <returns>The port; null: not the command.</returns>
    private static async Task<uint?> ReadCommandAsync(Socket caller)
    {
        const string command = "CONNECT ";
        var line = new byte[LongestCommand];
        for (int length = 0; length < line.Length; length++)
        {
            // Byte by byte: what follows the line is the guest's.
            if (await caller.ReceiveAsync(line.AsMemory(length, 1)).ConfigureAwait(false) == 0) return null;
            if (line[length] != '\n') continue;
            string text = System.Text.Encoding.ASCII.GetString(line, 0, length);
            return text.StartsWith(command, StringComparison.OrdinalIgnoreCase) && uint.TryParse(text.AsSpan(command.Length), NumberStyles.None, CultureInfo.InvariantCulture, out uint port) ? port : null;
        }

        return null;
    }
}
