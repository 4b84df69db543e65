using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Kvm.Vmm.Net;
using Kvm.Vmm.Virtio;

namespace Kvm.Tool;

/// <summary>What <c>--net</c> asks for: <c>user[,hostfwd=tcp:[address]:port-:port]…</c></summary>
internal sealed class NetworkOption
{
    private const string Forward = "hostfwd=", Syntax = "hostfwd=tcp:[address]:port-:port, for example hostfwd=tcp::2222-:22";

    private readonly List<(IPEndPoint Host, int GuestPort)> _forwards = [];

    public IReadOnlyList<(IPEndPoint Host, int GuestPort)> Forwards => _forwards;

    /// <summary>Null: not understood, and why.</summary>
    public static NetworkOption? Parse(string text, out string error)
    {
        var option = new NetworkOption();
        string[] words = text.Split(',');
        error = words[0] == "user" ? "" : $"there is user[,{Syntax}]";
        foreach (string word in words[1..])
        {
            if (error.Length > 0) break;
            if (!word.StartsWith(Forward, StringComparison.Ordinal)) error = $"'{word}' is not {Syntax}";
            else if (ParseForward(word[Forward.Length..]) is { } forward) option._forwards.Add(forward);
            else error = $"'{word}' is not {Syntax}";
        }

        return error.Length == 0 ? option : null;
    }

    /// <exception cref="ToolException">A port of the host can't be had.</exception>
    public VirtioNetwork Open()
    {
        var network = new UserNetwork();
        foreach ((IPEndPoint host, int guestPort) in _forwards)
        {
            try
            {
                network.ForwardTcp(host, guestPort);
            }
            catch (SocketException e)
            {
                network.Dispose();
                throw new ToolException(ExitCode.BadFile, $"cannot listen on {host}: {e.SocketErrorCode switch
                {
                    SocketError.AddressAlreadyInUse => "another program does; choose another port",
                    SocketError.AccessDenied => "ports below 1024 need rights; choose a higher one",
                    _ => e.Message,
                }}");
            }
        }

        return new VirtioNetwork(network, UserNetwork.GuestMac);
    }

    /// <summary>Without an address only this host itself can connect.</summary>
    private static (IPEndPoint Host, int GuestPort)? ParseForward(string text)
    {
        if (text.Split('-') is not [var host, var guest] || host.Split(':') is not ["tcp", var address, var port] || guest.Split(':') is not ["" or "10.0.2.15", var guestPort]) return null;
        IPAddress? bound = IPAddress.Loopback;
        if (address.Length > 0 && (!IPAddress.TryParse(address, out bound) || bound.AddressFamily != AddressFamily.InterNetwork)) return null;
        return Port(port) is { } from && Port(guestPort) is { } to && to != 0 ? (new IPEndPoint(bound, from), to) : null;
    }

    private static int? Port(string text) => ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ushort port) ? port : null;
}
