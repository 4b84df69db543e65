using System.Buffers;
using System.IO.Pipelines;
using System.Net.Sockets;

namespace Kvm.Vmm.Net;

/// <summary>
/// A TCP connection of the guest, ended here, and the socket that carries its bytes on. Everything happens under the network's gate, except the waiting for the socket.
/// </summary>
/// <remarks>
/// RFC 9293. What is received is acknowledged when it is in a bounded pipe, whose room is the window; what is sent is kept until the guest has acknowledged it,
/// and sent again from there when it does not for a second. The wire between the two loses nothing, so congestion is not controlled.
/// </remarks>
internal sealed class TcpConnection
{
    private const int ReceiveRoom = 256 << 10, SendRoom = 256 << 10, OwnScale = 3, OwnSegmentSize = 1460, LeastSegmentSize = 64;
    private const long RetransmitMilliseconds = 1000, HandshakeMilliseconds = 60_000;

    private readonly UserNetwork _network;
    private readonly FlowKey _key;
    private readonly Pipe _toHost = new(new PipeOptions(pauseWriterThreshold: 0, useSynchronizationContext: false));
    private readonly byte[] _toGuest = new byte[SendRoom];
    private readonly Socket _socket;
    private readonly long _opened = Environment.TickCount64;
    private TaskCompletionSource? _room; // who waits for room in the ring
    private int _start, _count;      // what the guest has not acknowledged, or not been sent yet
    private int _unread;             // bytes in the pipe
    private uint _receiveNext, _acknowledged, _sendNext, _guestWindow;
    private int _guestScale, _ownScale, _segmentSize = 536;
    private uint _advertised;        // the last byte that the guest was allowed to send, plus 1
    private long _progress = Environment.TickCount64;
    private bool _established, _synSent, _guestFinished, _hostFinished, _finSent, _closed;

    private TcpConnection(UserNetwork network, FlowKey key, Socket socket)
    {
        _network = network;
        _key = key;
        _socket = socket;
        _acknowledged = _sendNext = (uint)Random.Shared.Next();
    }

    /// <summary>The guest calls: it is answered when the host has.</summary>
    public static TcpConnection FromGuest(UserNetwork network, FlowKey key, in TcpSegment syn)
    {
        var connection = new TcpConnection(network, key, new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
        connection.TakeSyn(syn);
        _ = connection.ConnectAsync();
        return connection;
    }

    /// <summary>Somebody calls the guest.</summary>
    public static TcpConnection ToGuest(UserNetwork network, FlowKey key, Socket caller)
    {
        var connection = new TcpConnection(network, key, caller) { _ownScale = OwnScale };
        connection.SendSyn(TcpFlags.Syn);
        return connection;
    }

    /// <summary>Answers a segment that belongs to no connection.</summary>
    public static void Refuse(UserNetwork network, FlowKey key, in TcpSegment segment, int length)
    {
        bool acknowledges = (segment.Flags & TcpFlags.Ack) != 0;
        uint end = segment.Sequence + (uint)length + ((segment.Flags & TcpFlags.Syn) != 0 ? 1u : 0) + ((segment.Flags & TcpFlags.Fin) != 0 ? 1u : 0);
        Deliver(network, key, acknowledges ? segment.Acknowledged : 0, end, TcpFlags.Rst | (acknowledges ? 0 : TcpFlags.Ack), 0, []);
    }

    /// <summary>A segment of the guest.</summary>
    public void Receive(in TcpSegment segment, ReadOnlySpan<byte> data)
    {
        if (_closed) return;
        if ((segment.Flags & TcpFlags.Rst) != 0)
        {
            if (!_established || segment.Sequence == _receiveNext) Abort();
            return;
        }

        if ((segment.Flags & TcpFlags.Syn) != 0)
        {
            if (!_established) ReceiveSyn(segment);
            else SendAck();
            return;
        }

        if ((segment.Flags & TcpFlags.Ack) == 0 || !_synSent || !TakeAcknowledgement(segment)) return;
        TakeData(segment, data);
        Pump();
        CloseIfDone();
    }

    /// <summary>Sends again what was not acknowledged for too long, gives up what never began.</summary>
    public void Tick()
    {
        long now = Environment.TickCount64;
        if (_closed) return;
        if (!_established && now - _opened > HandshakeMilliseconds)
        {
            Abort();
            return;
        }

        if (now - _progress < RetransmitMilliseconds) return;
        _progress = now;
        if (!_established)
        {
            if (_synSent) SendSyn(_receiveNext == 0 ? TcpFlags.Syn : TcpFlags.Syn | TcpFlags.Ack);
        }
        else if (_sendNext != _acknowledged)
        {
            _sendNext = _acknowledged;
            _finSent = false;
            Pump(evenOne: true);
        }
        else if (_count > 0)
        {
            Pump(evenOne: true); // the window was closed: is it still?
        }
    }

    /// <summary>Ends it at once on both sides.</summary>
    public void Abort()
    {
        if (_closed) return;
        if (_synSent || _receiveNext != 0) Send(TcpFlags.Rst | TcpFlags.Ack, _sendNext, []);
        Close(reset: true);
    }

    private void TakeSyn(in TcpSegment syn)
    {
        _receiveNext = syn.Sequence + 1;
        _advertised = _receiveNext;
        _segmentSize = Math.Clamp(syn.SegmentSize ?? 536, LeastSegmentSize, OwnSegmentSize);
        _guestScale = syn.Scale ?? 0;
        _ownScale = syn.Scale is null ? 0 : OwnScale;
        _guestWindow = syn.Window; // a SYN's is not scaled
    }

    private void ReceiveSyn(in TcpSegment segment)
    {
        if ((segment.Flags & TcpFlags.Ack) == 0)
        {
            if (_synSent && _receiveNext != 0) SendSyn(TcpFlags.Syn | TcpFlags.Ack); // it has not heard the answer
            return;
        }

        if (!_synSent || segment.Acknowledged != _sendNext) return;
        TakeSyn(segment);
        Establish();
        SendAck();
    }

    private void SendSyn(TcpFlags flags)
    {
        _synSent = true;
        _sendNext = _acknowledged + 1;
        Span<byte> options = [2, 4, OwnSegmentSize >> 8, OwnSegmentSize & 0xff, 1, 3, 3, OwnScale];
        Send(flags, _acknowledged, [], _ownScale == 0 ? options[..4] : options);
    }

    private void Establish()
    {
        _established = true;
        _acknowledged = _sendNext;
        _progress = Environment.TickCount64;
        _ = FromHostAsync();
        _ = ToHostAsync();
    }

    /// <returns>False: it acknowledges what was never sent.</returns>
    private bool TakeAcknowledgement(in TcpSegment segment)
    {
        uint newly = segment.Acknowledged - _acknowledged, outstanding = _sendNext - _acknowledged;
        if (!_established)
        {
            if (segment.Acknowledged != _sendNext) return false;
            Establish();
            newly = 0;
        }
        else if (newly > outstanding)
        {
            // Older than what is known, or of what was sent before going back: only the latter brings news.
            if (newly > (uint)_count + 1) return (int)newly < 0;
            _sendNext = segment.Acknowledged;
        }

        _guestWindow = (uint)segment.Window << _guestScale;
        if (newly == 0 || newly > int.MaxValue) return true;
        _progress = Environment.TickCount64;
        _acknowledged = segment.Acknowledged;
        int bytes = (int)Math.Min(newly, (uint)_count); // the rest is the FIN
        if (newly > (uint)bytes) _finSent = true;
        _start = (_start + bytes) % SendRoom;
        _count -= bytes;
        if (bytes > 0) _room?.TrySetResult();
        return true;
    }

    private void TakeData(in TcpSegment segment, ReadOnlySpan<byte> data)
    {
        bool fin = (segment.Flags & TcpFlags.Fin) != 0;
        if (data.IsEmpty && !fin) return;
        int known = (int)(_receiveNext - segment.Sequence);
        if (_guestFinished || known < 0 || known > data.Length)
        {
            SendAck(); // too early, or all known
            return;
        }

        data = data[known..];
        int room = ReceiveRoom - _unread;
        if (data.Length > room)
        {
            data = data[..room];
            fin = false;
        }

        if (!data.IsEmpty)
        {
            _toHost.Writer.Write(data);
            ValueTask<FlushResult> flush = _toHost.Writer.FlushAsync();
            if (!flush.IsCompleted) _ = flush.AsTask(); // there is no threshold: it is done at once
            _unread += data.Length;
            _receiveNext += (uint)data.Length;
        }

        if (fin)
        {
            _receiveNext++;
            _guestFinished = true;
            _toHost.Writer.Complete();
        }

        SendAck();
    }

    /// <summary>Sends what the guest's window allows.</summary>
    private void Pump(bool evenOne = false)
    {
        if (!_established) return;
        Span<byte> segment = stackalloc byte[OwnSegmentSize];
        while (true)
        {
            int sent = (int)Math.Min(_sendNext - _acknowledged, (uint)_count);
            long window = Math.Max(_guestWindow, evenOne ? 1L : 0L) - (_sendNext - _acknowledged);
            int length = (int)Math.Min(Math.Min(_count - sent, _segmentSize), Math.Max(window, 0));
            evenOne = false;
            bool last = _hostFinished && sent + length == _count;
            if (length == 0 && (!last || _finSent)) return;
            Span<byte> data = segment[..length];
            int from = (_start + sent) % SendRoom, first = Math.Min(length, SendRoom - from);
            _toGuest.AsSpan(from, first).CopyTo(data);
            _toGuest.AsSpan(0, length - first).CopyTo(data[first..]);
            uint sequence = _sendNext;
            _sendNext += (uint)length + (last && !_finSent ? 1u : 0);
            TcpFlags flags = TcpFlags.Ack | (length > 0 ? TcpFlags.Psh : 0) | (last && !_finSent ? TcpFlags.Fin : 0);
            _finSent |= last;
            Send(flags, sequence, data);
            if (last) return;
        }
    }

    private void SendAck() => Send(TcpFlags.Ack, _sendNext, []);

    private void Send(TcpFlags flags, uint sequence, ReadOnlySpan<byte> data, ReadOnlySpan<byte> options = default)
    {
        int window = Math.Min((ReceiveRoom - _unread) >> _ownScale, ushort.MaxValue);
        if ((flags & TcpFlags.Syn) != 0) window = Math.Min(ReceiveRoom - _unread, ushort.MaxValue);
        else _advertised = _receiveNext + ((uint)window << _ownScale);
        Deliver(_network, _key, sequence, _receiveNext, flags, window, data, options);
    }

    private static void Deliver(UserNetwork network, FlowKey key, uint sequence, uint acknowledged, TcpFlags flags, int window, ReadOnlySpan<byte> data, ReadOnlySpan<byte> options = default)
    {
        int header = Wire.TcpSize + options.Length;
        byte[] frame = Wire.Ipv4Frame(UserNetwork.GuestMac, UserNetwork.HostMac, key.Remote, UserNetwork.Guest, Wire.Tcp, header + data.Length);
        Span<byte> tcp = frame.AsSpan(Wire.EthernetSize + Wire.Ipv4Size);
        Wire.Put16(tcp, 0, key.RemotePort);
        Wire.Put16(tcp, 2, key.GuestPort);
        Wire.Put32(tcp, 4, sequence);
        Wire.Put32(tcp, 8, (flags & TcpFlags.Ack) != 0 ? acknowledged : 0);
        tcp[12] = (byte)(header / 4 << 4);
        tcp[13] = (byte)flags;
        Wire.Put16(tcp, 14, window);
        options.CopyTo(tcp[Wire.TcpSize..]);
        data.CopyTo(tcp[header..]);
        Wire.PutTransportChecksum(frame, 16);
        network.Deliver(frame);
    }

    /// <summary>Both directions are over and everything was acknowledged.</summary>
    private void CloseIfDone()
    {
        if (_guestFinished && _hostFinished && _finSent && _count == 0 && _acknowledged == _sendNext && _unread == 0) Close(reset: false);
    }

    private void Close(bool reset)
    {
        if (_closed) return;
        _closed = true;
        _network.Forget(_key);
        if (reset && !_guestFinished) _toHost.Writer.Complete(new IOException("the guest reset the connection"));
        _room?.TrySetResult();
        if (reset && _socket.Connected) _socket.LingerState = new LingerOption(true, 0); // the host's side sees a reset too
        _socket.Dispose();
    }

    private async Task ConnectAsync()
    {
        bool connected;
        try
        {
            await _socket.ConnectAsync(_network.EndPointOf(_key.Remote, _key.RemotePort)).ConfigureAwait(false);
            connected = true;
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            connected = false;
        }

        lock (_network.Gate)
        {
            if (_closed) return;
            if (connected) SendSyn(TcpFlags.Syn | TcpFlags.Ack);
            else Abort();
        }
    }

    /// <summary>From the socket into the ring, as long as there is room.</summary>
    private async Task FromHostAsync()
    {
        var buffer = new byte[32 << 10];
        try
        {
            while (true)
            {
                int room;
                Task? full = null;
                lock (_network.Gate)
                {
                    if (_closed) return;
                    room = Math.Min(SendRoom - _count, buffer.Length);
                    if (room == 0) full = (_room = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).Task;
                }

                if (full is not null)
                {
                    await full.ConfigureAwait(false);
                    continue;
                }

                int length = await _socket.ReceiveAsync(buffer.AsMemory(0, room)).ConfigureAwait(false);
                lock (_network.Gate)
                {
                    if (_closed) return;
                    int at = (_start + _count) % SendRoom, first = Math.Min(length, SendRoom - at);
                    buffer.AsSpan(0, first).CopyTo(_toGuest.AsSpan(at));
                    buffer.AsSpan(first, length - first).CopyTo(_toGuest);
                    if (_count == 0) _progress = Environment.TickCount64;
                    _count += length;
                    _hostFinished = length == 0;
                    Pump();
                    CloseIfDone();
                    if (_hostFinished) return;
                }
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            lock (_network.Gate) Abort();
        }
    }

    /// <summary>From the pipe into the socket, as fast as it takes it; what is gone widens the window.</summary>
    private async Task ToHostAsync()
    {
        try
        {
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
                lock (_network.Gate)
                {
                    _unread -= length;
                    if (_closed) return;
                    int most = Math.Min(ReceiveRoom, ushort.MaxValue << _ownScale);
                    if (_advertised - _receiveNext < most / 2 && ReceiveRoom - _unread >= most / 2 && !_guestFinished) SendAck();
                    if (result.IsCompleted) _socket.Shutdown(SocketShutdown.Send);
                    CloseIfDone();
                }

                if (result.IsCompleted) return;
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or IOException)
        {
            lock (_network.Gate) Abort();
        }
    }
}
