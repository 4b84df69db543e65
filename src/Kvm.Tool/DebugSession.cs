using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Kvm.Vmm;
using Kvm.Vmm.Debugging;

namespace Kvm.Tool;

/// <summary><c>kvm debug</c>: the guest waits for gdb, which then decides when it runs.</summary>
internal sealed class DebugSession : IDisposable
{
    private static readonly TimeSpan s_lastWords = TimeSpan.FromSeconds(2);

    private readonly GdbServer _server;
    private readonly Task _serving;

    /// <exception cref="ToolException">The address can't be listened on.</exception>
    public DebugSession(Pc pc, IPEndPoint endpoint)
    {
        try
        {
            _server = new GdbServer(new GuestDebugger(pc.Vm, pc.Loops, pc.TryMemory, pc.Stop), endpoint);
        }
        catch (SocketException e)
        {
            throw new ToolException(ExitCode.Usage, $"--listen {endpoint}: {e.Message}; another port can be given, or 0 for any that is free");
        }

        Console.Error.WriteLine($"kvm: the guest waits; in gdb: target remote {_server.Endpoint}");
        _serving = _server.RunAsync();
    }

    /// <summary>[address:]port.</summary>
    public static IPEndPoint? Parse(string text)
    {
        int colon = text.LastIndexOf(':');
        IPAddress? address = IPAddress.Loopback;
        bool good = (colon <= 0 || IPAddress.TryParse(text.AsSpan(0, colon), out address))
            && ushort.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out _);
        return good ? new IPEndPoint(address!, ushort.Parse(text.AsSpan(colon + 1), CultureInfo.InvariantCulture)) : null;
    }

    /// <summary>gdb hears of the guest's end before the connection goes.</summary>
    public void Dispose()
    {
        _serving.Wait(s_lastWords);
        _server.Dispose();
        _serving.Wait(s_lastWords);
    }
}
