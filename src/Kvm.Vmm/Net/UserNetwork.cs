using System.Collections.Concurrent;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;

namespace Kvm.Vmm.Net;

/// <summary>
/// A network of one guest that needs no rights on the host: 10.0.2.0/24, the guest 10.0.2.15 (by DHCP), the host 10.0.2.2, a name server 10.0.2.3. TCP and UDP of the
/// guest become sockets of this process; what goes to 10.0.2.2 goes to the host's loopback. Ports of the host can be forwarded to the guest.
/// </summary>
/// <remarks>
/// IP fragments and IPv6 are dropped. TCP is ended here on both sides, so that each side sees a connection to its own neighbour; see <see cref="TcpConnection"/>.
/// </remarks>
public sealed class UserNetwork : INetwork
{
    internal const uint Network = 0x0a000200, Netmask = 0xffffff00, Gateway = Network + 2, NameServer = Network + 3, Guest = Network + 15;

    private const int MostQueued = 4096, MostConnections = 1024, MostFlows = 256, NameServerPort = 53;
    private static readonly TimeSpan s_tick = TimeSpan.FromMilliseconds(200), s_pingPatience = TimeSpan.FromSeconds(5);

    private readonly ConcurrentQueue<byte[]> _arrived = new();
    private readonly Dictionary<FlowKey, TcpConnection> _connections = [];
    private readonly Dictionary<FlowKey, UdpFlow> _flows = [];
    private readonly List<Socket> _listeners = [];
    private readonly Timer _timer;
    private readonly Lazy<IPAddress> _resolver = new(FindResolver);
    private int _forwardedPort = 49152; // as which the next forwarded connection appears to the guest
    private volatile bool _disposed;

    /// <summary>The network, with nothing forwarded.</summary>
    public UserNetwork() => _timer = new Timer(_ => Tick(), null, s_tick, s_tick);

    /// <inheritdoc/>
    public event Action? Arrived;

    /// <summary>The guest's card.</summary>
    public static ReadOnlySpan<byte> GuestMac => [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

    /// <summary>The card of everybody else.</summary>
    internal static ReadOnlySpan<byte> HostMac => [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];

    /// <summary>Guards connections and flows.</summary>
    internal Lock Gate { get; } = new();

    /// <summary>Listens on a TCP port of the host, and connects who calls there to a port of the guest.</summary>
    /// <returns>The port, for one that was given as 0.</returns>
    /// <exception cref="SocketException">The port is taken, or the address is not this host's.</exception>
    public int ForwardTcp(IPEndPoint host, int guestPort)
    {
        ArgumentNullException.ThrowIfNull(host);
        var listener = new Socket(host.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            listener.Bind(host);
            listener.Listen();
        }
        catch
        {
            listener.Dispose();
            throw;
        }

        lock (Gate) _listeners.Add(listener);
        _ = AcceptAsync(listener, guestPort);
        return ((IPEndPoint)listener.LocalEndPoint!).Port;
    }

    /// <inheritdoc/>
    public bool TryReceive(out ReadOnlyMemory<byte> frame)
    {
        bool any = _arrived.TryDequeue(out byte[]? next);
        frame = next;
        return any;
    }

    /// <inheritdoc/>
    public void Transmit(ReadOnlySpan<byte> frame)
    {
        if (frame.Length < Wire.EthernetSize) return;
        switch (Wire.U16(frame, 12))
        {
            case Wire.ArpType: Arp(frame[Wire.EthernetSize..]); break;
            case Wire.Ipv4Type: Ipv4(frame[Wire.EthernetSize..]); break;
        }
    }

    /// <summary>Ends all connections.</summary>
    public void Dispose()
    {
        _disposed = true;
        _timer.Dispose();
        lock (Gate)
        {
            foreach (Socket listener in _listeners) listener.Dispose();
            foreach (TcpConnection connection in _connections.Values.ToArray()) connection.Abort();
            foreach (UdpFlow flow in _flows.Values) flow.Dispose();
            _flows.Clear();
        }
    }

    /// <summary>Sends a frame to the guest; a guest that takes none loses some.</summary>
    internal void Deliver(byte[] frame)
    {
        if (_disposed || _arrived.Count >= MostQueued) return;
        _arrived.Enqueue(frame);
        Arrived?.Invoke();
    }

    /// <summary>Sends a UDP datagram to the guest.</summary>
    internal void DeliverUdp(uint source, ushort sourcePort, uint destination, ushort destinationPort, ReadOnlySpan<byte> data)
    {
        if (data.Length > 1472) return; // it would have to be fragmented
        byte[] frame = Wire.Ipv4Frame(destination == uint.MaxValue ? Broadcast : GuestMac, HostMac, source, destination, Wire.Udp, Wire.UdpSize + data.Length);
        Span<byte> udp = frame.AsSpan(Wire.EthernetSize + Wire.Ipv4Size);
        Wire.Put16(udp, 0, sourcePort);
        Wire.Put16(udp, 2, destinationPort);
        Wire.Put16(udp, 4, udp.Length);
        data.CopyTo(udp[Wire.UdpSize..]);
        Wire.PutTransportChecksum(frame, 6);
        Deliver(frame);
    }

    /// <summary>Where a host that the guest names is, seen from this process.</summary>
    internal IPEndPoint EndPointOf(uint address, ushort port) => address switch
    {
        Gateway => new IPEndPoint(IPAddress.Loopback, port),
        NameServer when port == NameServerPort => new IPEndPoint(_resolver.Value, port),
        NameServer => new IPEndPoint(IPAddress.Loopback, 0), // nobody there
        _ => new IPEndPoint(new IPAddress((long)System.Buffers.Binary.BinaryPrimitives.ReverseEndianness(address)), port),
    };

    /// <summary>A connection is over; under the gate.</summary>
    internal void Forget(FlowKey key) => _connections.Remove(key);

    private static ReadOnlySpan<byte> Broadcast => [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

    /// <summary>Who has an address of this network that is not the guest's: the host.</summary>
    private void Arp(ReadOnlySpan<byte> request)
    {
        if (request.Length < 28 || Wire.U16(request, 6) != 1) return;
        uint target = Wire.U32(request, 24);
        if (target is not (Gateway or NameServer)) return;
        var frame = new byte[Wire.EthernetSize + 28];
        request.Slice(8, 6).CopyTo(frame);
        HostMac.CopyTo(frame.AsSpan(6));
        Wire.Put16(frame, 12, Wire.ArpType);
        Span<byte> reply = frame.AsSpan(Wire.EthernetSize);
        request[..6].CopyTo(reply); // Ethernet, IPv4, their sizes
        Wire.Put16(reply, 6, 2);
        HostMac.CopyTo(reply[8..]);
        Wire.Put32(reply, 14, target);
        request.Slice(8, 10).CopyTo(reply[18..]);
        Deliver(frame);
    }

    private void Ipv4(ReadOnlySpan<byte> packet)
    {
        if (packet.Length < Wire.Ipv4Size || packet[0] >> 4 != 4) return;
        int header = (packet[0] & 0xf) * 4, length = Wire.U16(packet, 2);
        if (header < Wire.Ipv4Size || length < header || length > packet.Length || (Wire.U16(packet, 6) & 0x3fff) != 0) return; // cut off, or a fragment
        uint source = Wire.U32(packet, 12), destination = Wire.U32(packet, 16);
        ReadOnlySpan<byte> payload = packet[header..length];
        switch (packet[9])
        {
            case Wire.Icmp: IcmpEcho(source, destination, payload); break;
            case Wire.Udp: Udp(source, destination, payload); break;
            case Wire.Tcp when source == Guest: Tcp(destination, payload); break;
        }
    }

    private void IcmpEcho(uint source, uint destination, ReadOnlySpan<byte> request)
    {
        if (request.Length < 8 || request[0] != 8 || source != Guest) return;
        byte[] frame = Wire.Ipv4Frame(GuestMac, HostMac, destination, source, Wire.Icmp, request.Length);
        Span<byte> reply = frame.AsSpan(Wire.EthernetSize + Wire.Ipv4Size);
        request.CopyTo(reply);
        reply[0] = 0;
        Wire.Put16(reply, 2, 0);
        Wire.Put16(reply, 2, Wire.Checksum(reply));
        if (destination is Gateway or NameServer) Deliver(frame);
        else if ((destination & Netmask) != Network) _ = PingAsync(EndPointOf(destination, 0).Address, request[8..].ToArray(), frame);
    }

    /// <summary>The reply comes when the real host's has.</summary>
    private async Task PingAsync(IPAddress address, byte[] data, byte[] reply)
    {
        try
        {
            using var ping = new Ping();
            PingReply answer = await ping.SendPingAsync(address, s_pingPatience, data).ConfigureAwait(false);
            if (answer.Status == IPStatus.Success) Deliver(reply);
        }
        catch (Exception e) when (e is PingException or SocketException or InvalidOperationException or PlatformNotSupportedException)
        {
            // Not allowed here, or not reachable: as on any network, no answer.
        }
    }

    private void Udp(uint source, uint destination, ReadOnlySpan<byte> datagram)
    {
        if (datagram.Length < Wire.UdpSize || Wire.U16(datagram, 4) is var length && (length < Wire.UdpSize || length > datagram.Length)) return;
        ushort sourcePort = Wire.U16(datagram, 0), port = Wire.U16(datagram, 2);
        ReadOnlySpan<byte> data = datagram[Wire.UdpSize..length];
        if (port == Dhcp.ServerPort && (destination == uint.MaxValue || destination == Gateway))
        {
            if (Dhcp.Answer(data) is { } answer) DeliverUdp(Gateway, Dhcp.ServerPort, uint.MaxValue, Dhcp.ClientPort, answer);
            return;
        }

        if (source != Guest || destination >> 28 >= 0xe) return; // multicast and broadcast stay here
        var key = new FlowKey(sourcePort, destination, port);
        lock (Gate)
        {
            if (!_flows.TryGetValue(key, out UdpFlow? flow))
            {
                if (_flows.Count >= MostFlows || UdpFlow.TryOpen(this, key) is not { } opened) return;
                _flows[key] = flow = opened;
            }

            flow.Send(data);
        }
    }

    private void Tcp(uint destination, ReadOnlySpan<byte> segment)
    {
        if (segment.Length < Wire.TcpSize || (segment[12] >> 4) * 4 is var header && (header < Wire.TcpSize || header > segment.Length)) return;
        var key = new FlowKey(Wire.U16(segment, 0), destination, Wire.U16(segment, 2));
        var info = new TcpSegment(segment, header);
        lock (Gate)
        {
            if (_disposed) return;
            if (_connections.TryGetValue(key, out TcpConnection? connection))
            {
                connection.Receive(info, segment[header..]);
            }
            else if (info.Flags == TcpFlags.Syn && _connections.Count < MostConnections)
            {
                _connections[key] = TcpConnection.FromGuest(this, key, info);
            }
            else if ((info.Flags & TcpFlags.Rst) == 0)
            {
                TcpConnection.Refuse(this, key, info, segment.Length - header);
            }
        }
    }

    private async Task AcceptAsync(Socket listener, int guestPort)
    {
        try
        {
            while (true)
            {
                Socket caller = await listener.AcceptAsync().ConfigureAwait(false);
                lock (Gate)
                {
                    if (_disposed || _connections.Count >= MostConnections)
                    {
                        caller.Dispose();
                        continue;
                    }

                    FlowKey key;
                    do
                    {
                        key = new FlowKey((ushort)guestPort, Gateway, (ushort)_forwardedPort);
                        _forwardedPort = _forwardedPort == ushort.MaxValue ? 49152 : _forwardedPort + 1;
                    }
                    while (_connections.ContainsKey(key));
                    _connections[key] = TcpConnection.ToGuest(this, key, caller);
                }
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The network is gone.
        }
    }

    private void Tick()
    {
        lock (Gate)
        {
            if (_disposed) return;
            foreach (TcpConnection connection in _connections.Values.ToArray()) connection.Tick();
            foreach ((FlowKey key, UdpFlow flow) in _flows.ToArray())
            {
                if (!flow.IsIdle) continue;
                flow.Dispose();
                _flows.Remove(key);
            }
        }
    }

    /// <summary>The first IPv4 name server of the host.</summary>
    private static IPAddress FindResolver()
    {
        try
        {
            foreach (string line in File.ReadLines("/etc/resolv.conf"))
            {
                string[] words = line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
                if (words is ["nameserver", var address, ..] && IPAddress.TryParse(address, out IPAddress? parsed) && parsed.AddressFamily == AddressFamily.InterNetwork) return parsed;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // No such file: the loopback is as good a guess as any.
        }

        return IPAddress.Loopback;
    }
}
