using System.Globalization;
using System.Net.Sockets;
using System.Text.Json;

namespace Kvm.Vmm.Statistics;

/// <summary>Where the guests of this user are found: a socket for each process, named after it, in a folder that only the user can enter.</summary>
public static class GuestDirectory
{
    private const UnixFileMode OnlyOwner = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
    private const string Extension = ".kvm";

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    /// <summary>Below XDG_RUNTIME_DIR, or else a folder with the user's name below the one for temporary files.</summary>
    public static string Path
    {
        get
        {
            string? runtime = Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR");
            return string.IsNullOrEmpty(runtime) ? System.IO.Path.Combine(System.IO.Path.GetTempPath(), $"kvm-{Environment.UserName}") : System.IO.Path.Combine(runtime, "kvm");
        }
    }

    /// <summary>Makes the folder, and a socket in it for a guest of this process.</summary>
    /// <exception cref="IOException">It can't be made.</exception>
    /// <exception cref="UnauthorizedAccessException">The folder is somebody else's.</exception>
    internal static (Socket Socket, string File) Listen(int number)
    {
        if (OperatingSystem.IsWindows()) Directory.CreateDirectory(Path);
        else Directory.CreateDirectory(Path, OnlyOwner);
        string file = System.IO.Path.Combine(Path, string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessId}-{number}{Extension}"));
        File.Delete(file);
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Bind(new UnixDomainSocketEndPoint(file));
            socket.Listen();
            return (socket, file);
        }
        catch (Exception e)
        {
            socket.Dispose();
            if (e is SocketException or ArgumentException) throw new IOException($"{file}: {e.Message}", e);
            throw;
        }
    }

    /// <summary>Asks every guest. Sockets that nobody answers on any more are removed.</summary>
    public static IReadOnlyList<GuestSnapshot> Read()
    {
        var guests = new List<GuestSnapshot>();
        if (!Directory.Exists(Path)) return guests;
        foreach (string file in Directory.GetFiles(Path, "*" + Extension).Order(StringComparer.Ordinal))
        {
            if (TryRead(file) is { } guest) guests.Add(guest);
        }

        return guests;
    }

    /// <summary>One guest; null: it is gone, or too busy to answer in time.</summary>
    private static GuestSnapshot? TryRead(string file)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = (int)s_patience.TotalMilliseconds };
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(file));
            using var stream = new NetworkStream(socket);
            return JsonSerializer.Deserialize<GuestSnapshot>(stream);
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused)
        {
            File.Delete(file); // its process was killed
            return null;
        }
        catch (Exception e) when (e is SocketException or IOException or JsonException)
        {
            return null; // it ended while it was asked
        }
    }
}
