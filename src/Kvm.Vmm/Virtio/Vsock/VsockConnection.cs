using System.Buffers;
using System.Globalization;
using System.IO.Pipelines;
using System.Net.Sockets;
using System.Text;
using System.Threading.Channels;

namespace Kvm.Vmm.Virtio.Vsock;

/// <summary>A stream between a port of the guest's and a socket of the host's. Everything but the waiting for the socket happens under the device's gate.</summary>
/// <remarks>
/// Flow control, both ways, is the specification's: each side tells how much room it has and how much it has passed on. What the guest sends waits in a pipe that is never longer
/// than the room told; for the guest there is one packet at a time.
/// </remarks>
internal sealed class VsockConnection
{
    /// <summary>Bytes of the guest that may wait for the host.</summary>
    public const int Room = 256 << 10;

    private const int MostAtOnce = 64 << 10;

    private readonly VirtioVsock _device;
    private readonly Socket _socket;
    private readonly Pipe _toHost = new(new PipeOptions(pauseWriterThreshold: 0, useSynchronizationContext: false));
    private readonly Channel<bool> _mayRead = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private int _waiting; // bytes in the pipe
    private uint _forwarded, _forwardedTold;
    private uint _guestRoom, _guestForwarded, _sent;
    private bool _packetUnderway, _guestSendsNoMore, _guestReceivesNoMore, _closed;

    public VsockConnection(VirtioVsock device, Socket socket, uint hostPort, uint guestPort)
    {
        _device = device;
        _socket = socket;
        (HostPort, GuestPort) = (hostPort, guestPort);
    }

    public uint HostPort { get; }

    public uint GuestPort { get; }

    /// <summary>The host's side is told when the guest has taken the call, before anything else.</summary>
    public bool Answer { get; init; }

    /// <summary>Both sides have agreed.</summary>
    public bool Established { get; private set; }

    /// <summary>Bytes that were passed on to the host; in every packet.</summary>
    public uint Forwarded
    {
        get
        {
            _forwardedTold = _forwarded;
            return _forwarded;
        }
    }

    private uint Credit => _guestRoom - (_sent - _guestForwarded);

    /// <summary>The connection stands: bytes begin to flow.</summary>
    public void Establish()
    {
        if (Established || _closed) return;
        Established = true;
        _ = ToHostAsync();
        _ = ToGuestAsync();
    }

    /// <summary>Every packet of the guest's tells how much it can take.</summary>
    public void TakeCredit(in VsockHeader header)
    {
        (_guestRoom, _guestForwarded) = (header.Room, header.Forwarded);
        _mayRead.Writer.TryWrite(true);
    }

    /// <summary>Data of the guest.</summary>
    /// <returns>False: more than it was told that there is room for.</returns>
    public bool Receive(ReadOnlySpan<byte> data)
    {
        if (_guestSendsNoMore || data.Length > Room - _waiting) return false;
        if (data.IsEmpty) return true;
        _toHost.Writer.Write(data);
        _ = _toHost.Writer.FlushAsync().AsTask(); // without a threshold it is done at once
        _waiting += data.Length;
        return true;
    }

    /// <summary>The guest sends, or receives, no more.</summary>
    public void Shutdown(uint flags)
    {
        if ((flags & VsockHeader.NoReceive) != 0) _guestReceivesNoMore = true;
        if ((flags & VsockHeader.NoSend) != 0 && !_guestSendsNoMore)
        {
            _guestSendsNoMore = true;
            _toHost.Writer.Complete();
        }

        _mayRead.Writer.TryWrite(true);
        CloseIfDone();
    }

    /// <summary>The guest has the last packet.</summary>
    public void PacketTaken()
    {
        _packetUnderway = false;
        _mayRead.Writer.TryWrite(true);
    }

    /// <summary>Ends it on the host's side, and takes it off the device's list.</summary>
    public void Close()
    {
        if (_closed) return;
        _closed = true;
        _device.Forget(this);
        if (!_guestSendsNoMore) _toHost.Writer.Complete(new IOException("the guest reset the connection"));
        _mayRead.Writer.TryWrite(true);
        _socket.Dispose();
    }

    /// <summary>Ends it on both sides.</summary>
    public void Abort()
    {
        if (_closed) return;
        Close();
        _device.Send(new VsockPacket(HostPort, GuestPort, VsockOp.Reset));
    }

    private void CloseIfDone()
    {
        if (_guestSendsNoMore && _guestReceivesNoMore && _waiting == 0) Abort(); // which answers the guest's shutdown
    }

    private async Task ToHostAsync()
    {
        try
        {
            if (Answer)
            {
                byte[] ok = Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"OK {HostPort}\n"));
                await _socket.SendAsync(ok).ConfigureAwait(false);
            }

            while (true)
            {
                ReadResult result = await _toHost.Reader.ReadAsync().ConfigureAwait(false);
                int length = 0;
                foreach (ReadOnlyMemory<byte> part in result.Buffer)
                {
                    for (int done = 0; done < part.Length;) done += await _socket.SendAsync(part[done..]).ConfigureAwait(false);
                    length += part.Length;
                }

                _toHost.Reader.AdvanceTo(result.Buffer.End);
                lock (_device.Lock)
                {
                    _waiting -= length;
                    _forwarded += (uint)length;
                    if (_closed) return;
                    if (_forwarded - _forwardedTold > Room / 4) _device.Send(new VsockPacket(HostPort, GuestPort, VsockOp.CreditUpdate, connection: this));
                    if (result.IsCompleted) _socket.Shutdown(SocketShutdown.Send);
                    CloseIfDone();
                }

                if (result.IsCompleted) return;
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or IOException)
        {
            lock (_device.Lock) Abort();
        }
    }

    private async Task ToGuestAsync()
    {
        var buffer = new byte[MostAtOnce];
        try
        {
            while (true)
            {
                int room;
                lock (_device.Lock)
                {
                    if (_closed || _guestReceivesNoMore) return;
                    room = _packetUnderway ? 0 : (int)Math.Min(Credit, MostAtOnce);
                }

                if (room <= 0)
                {
                    await _mayRead.Reader.ReadAsync().ConfigureAwait(false);
                    continue;
                }

                int length = await _socket.ReceiveAsync(buffer.AsMemory(0, room)).ConfigureAwait(false);
                lock (_device.Lock)
                {
                    if (_closed) return;
                    if (length > 0)
                    {
                        _packetUnderway = true;
                        _sent += (uint)length;
                        _device.Send(new VsockPacket(HostPort, GuestPort, VsockOp.Data, 0, buffer.AsMemory(0, length), this));
                    }
                    else
                    {
                        _device.Send(new VsockPacket(HostPort, GuestPort, VsockOp.Shutdown, VsockHeader.NoSend, connection: this));
                        return;
                    }
                }
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            lock (_device.Lock) Abort();
        }
    }
}
