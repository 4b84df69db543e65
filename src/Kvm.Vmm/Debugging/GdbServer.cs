using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Threading.Channels;
using Kvm.Client;

namespace Kvm.Vmm.Debugging;

/// <summary>gdb's remote serial protocol for a guest: all-stop, one thread for each vCPU (thread <c>n + 1</c> is vCPU <c>n</c>).</summary>
/// <remarks>
/// gdb manual, "Remote Serial Protocol". Breakpoints, hardware breakpoints, watchpoints, single steps, registers (target description), memory by linear address,
/// <c>monitor</c> commands. A client that goes away leaves the guest running without breakpoints; another one can come.
/// </remarks>
public sealed partial class GdbServer : IDisposable
{
    private readonly GuestDebugger _debugger;
    private readonly TcpListener _listener;
    private readonly Channel<bool> _stops = Channel.CreateUnbounded<bool>();
    private readonly CancellationTokenSource _noMore = new(); // clients
    private readonly MonitorCommands _monitor;
    private GdbConnection? _gdb;
    private bool _running; // what gdb believes
    private int _thread; // Hg: whose registers and memory

    /// <summary>Listens at once; the guest stays held until a client lets it run.</summary>
    /// <exception cref="SocketException">The address can't be listened on.</exception>
    public GdbServer(GuestDebugger debugger, IPEndPoint endpoint)
    {
        ArgumentNullException.ThrowIfNull(debugger);
        _debugger = debugger;
        _monitor = new MonitorCommands(debugger);
        _listener = new TcpListener(endpoint);
        _listener.Start(1);
        debugger.Stopped += OnStopped;
    }

    /// <summary>Where it listens, with the port that the system chose for port 0.</summary>
    public IPEndPoint Endpoint => (IPEndPoint)_listener.LocalEndpoint;

    /// <summary>Serves clients, one after the other, until the guest ends or <see cref="Dispose"/>.</summary>
    public async Task RunAsync()
    {
        while (_debugger.Ended is null)
        {
            try
            {
                using TcpClient client = await _listener.AcceptTcpClientAsync(_noMore.Token).ConfigureAwait(false);
                client.NoDelay = true;
                await ServeAsync(client.GetStream()).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                return;
            }
        }
    }

    /// <summary>Ends <see cref="RunAsync"/> and whatever client there is.</summary>
    public void Dispose()
    {
        _debugger.Stopped -= OnStopped;
        _noMore.Cancel();
        _listener.Dispose();
        _gdb?.Dispose();
    }

    /// <summary>On a vCPU's thread: wakes the server's.</summary>
    private void OnStopped()
    {
        _stops.Writer.TryWrite(true);
        if (_debugger.Ended is not null) _noMore.Cancel();
    }

    private void Drain()
    {
        while (_stops.Reader.TryRead(out _)) { }
    }

    /// <summary>One client. A guest that runs is stopped for it.</summary>
    private async Task ServeAsync(Stream stream)
    {
        using var gdb = new GdbConnection(stream);
        (_gdb, _running, _thread) = (gdb, false, 0);
        _debugger.RequestStop();
        Task<string?> packet = gdb.ReceiveAsync();
        bool attached = true;
        try
        {
            while (attached)
            {
                if (_running)
                {
                    Task stopped = _stops.Reader.WaitToReadAsync().AsTask();
                    if (await Task.WhenAny(packet, stopped).ConfigureAwait(false) == stopped)
                    {
                        Drain();
                        await TellStopAsync().ConfigureAwait(false);
                        continue;
                    }
                }

                string? text = await packet.ConfigureAwait(false);
                if (text is null) break;
                attached = await HandleAsync(text).ConfigureAwait(false);
                packet = attached ? gdb.ReceiveAsync() : packet;
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // The client is gone, or the server is being closed.
        }

        if (_debugger.Ended is null)
        {
            _debugger.RequestStop();
            if (_debugger.TryTakeStop(out _)) _debugger.Release();
        }
    }

    /// <summary>The guest stopped or ended while gdb waits for that.</summary>
    private async Task TellStopAsync()
    {
        if (!_running) return;
        if (_debugger.TryTakeStop(out DebugStop stop))
        {
            _running = false;
            _thread = stop.Vcpu;
            await _gdb!.SendAsync(Describe(stop)).ConfigureAwait(false);
        }
        else if (_debugger.Ended is not null)
        {
            _running = false;
            await _gdb!.SendAsync("W00").ConfigureAwait(false);
        }
    }

    private static string Describe(DebugStop stop)
    {
        const int sigInt = 2, sigTrap = 5, sigAbort = 6;
        int signal = stop.Cause switch { DebugCause.Asked => sigInt, DebugCause.Fatal => sigAbort, _ => sigTrap };
        string what = stop.Cause switch
        {
            DebugCause.SoftwareBreakpoint => "swbreak:;",
            DebugCause.HardwareBreakpoint => "hwbreak:;",
            DebugCause.WriteWatchpoint => $"watch:{stop.Address:x};",
            DebugCause.AccessWatchpoint => $"awatch:{stop.Address:x};",
            _ => "",
        };
        return $"T{signal:x2}{what}thread:{stop.Vcpu + 1:x};";
    }

    /// <returns>False: this client is done.</returns>
    private async Task<bool> HandleAsync(string packet)
    {
        if (packet == GdbConnection.Interrupt)
        {
            if (_running) _debugger.RequestStop();
            return true;
        }

        if (packet == "QStartNoAckMode")
        {
            await _gdb!.SendAsync("OK").ConfigureAwait(false);
            _gdb.Acknowledge = false;
            return true;
        }

        // What a packet does not understand is an error of its own, not the connection's end.
        string? reply;
        try
        {
            reply = Answer(packet, out bool done);
            if (reply is not null) await _gdb!.SendAsync(reply).ConfigureAwait(false);
            return !done;
        }
        catch (Exception e) when (e is FormatException or OverflowException or ArgumentOutOfRangeException)
        {
            reply = "E16"; // EINVAL: malformed
        }
        catch (KvmException)
        {
            reply = "E05"; // EIO: the kernel refuses
        }

        await _gdb!.SendAsync(reply).ConfigureAwait(false);
        return true;
    }

    private static ulong Hex(ReadOnlySpan<char> digits) => ulong.Parse(digits, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);

    private static string Hex(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(bytes);

    private static string HexText(string text) => Hex(Encoding.UTF8.GetBytes(text));
}
