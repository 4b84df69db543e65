using System.Net.Sockets;

namespace Kvm.Vmm.Net;

/// <summary>One port of the guest and one it talks to, as a socket of this process.</summary>
internal sealed class UdpFlow : IDisposable
{
    private const long IdleMilliseconds = 60_000;

    private readonly UserNetwork _network;
    private readonly FlowKey _key;
    private readonly Socket _socket;
    private long _used = Environment.TickCount64;

    private UdpFlow(UserNetwork network, FlowKey key, Socket socket)
    {
        _network = network;
        _key = key;
        _socket = socket;
    }

    /// <summary>Nobody said anything for a minute.</summary>
    public bool IsIdle => Environment.TickCount64 - Volatile.Read(ref _used) > IdleMilliseconds;

    /// <summary>Null: the host has no way there.</summary>
    public static UdpFlow? TryOpen(UserNetwork network, FlowKey key)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        try
        {
            socket.Connect(network.EndPointOf(key.Remote, key.RemotePort));
            var flow = new UdpFlow(network, key, socket);
            _ = flow.ReceiveAsync();
            return flow;
        }
        catch (SocketException)
        {
            socket.Dispose();
            return null;
        }
    }

    /// <summary>What can't be sent is lost, as datagrams are.</summary>
    public void Send(ReadOnlySpan<byte> data)
    {
        Volatile.Write(ref _used, Environment.TickCount64);
        try
        {
            _socket.Send(data, SocketFlags.None, out SocketError _);
        }
        catch (ObjectDisposedException)
        {
            // Its time was up.
        }
    }

    public void Dispose() => _socket.Dispose();

    private async Task ReceiveAsync()
    {
        var buffer = new byte[65536];
        while (true)
        {
            try
            {
                int length = await _socket.ReceiveAsync(buffer).ConfigureAwait(false);
                Volatile.Write(ref _used, Environment.TickCount64);
                _network.DeliverUdp(_key.Remote, _key.RemotePort, UserNetwork.Guest, _key.GuestPort, buffer.AsSpan(0, length));
            }
            catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused)
            {
                // Nobody listens there now; somebody may later.
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                return;
            }
        }
    }
}
