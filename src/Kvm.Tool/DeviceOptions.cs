using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using Kvm.Vmm;
using Kvm.Vmm.Virtio;
using Kvm.Vmm.Virtio.Vsock;

namespace Kvm.Tool;

/// <summary>The options of <c>kvm run</c> that add virtio devices.</summary>
internal sealed class DeviceOptions
{
    private const string ReadOnlySuffix = ",ro";

    private readonly Option<string[]> _disks = new("--disk")
    {
        Description = "A raw disk image, /dev/vda and so on in the guest; ,ro: not to be written. May be given several times",
        HelpName = "file[,ro]",
        DefaultValueFactory = _ => [],
    };

    private readonly Option<NetworkOption?> _network = new("--net")
    {
        Description = "A network card. user: a network of the guest's own, from which it reaches the host's loopback as 10.0.2.2 and whatever this process reaches; hostfwd: connections to a TCP port of the host go to one of the guest's",
        HelpName = "user[,hostfwd=tcp:[address]:port-:port]…",
        CustomParser = static result =>
        {
            NetworkOption? option = NetworkOption.Parse(result.Tokens[0].Value, out string error);
            if (option is null) result.AddError($"--net {result.Tokens[0].Value}: {error}");
            return option;
        },
    };

    private readonly Option<bool> _entropy = new("--rng") { Description = "A source of random numbers" };

    private readonly Option<MemorySize?> _balloon = new("--balloon")
    {
        Description = "A balloon that takes so much of the memory away from the guest",
        HelpName = "size",
        CustomParser = static result =>
        {
            MemorySize? size = MemorySize.Parse(result.Tokens[0].Value, out string error);
            if (size is null) result.AddError($"--balloon {result.Tokens[0].Value}: {error}");
            return size;
        },
    };

    private readonly Option<string?> _sockets = new("--vsock")
    {
        Description = "Sockets between guest and host (AF_VSOCK): the guest's connections to the host's port P go to the Unix socket file_P; who writes 'CONNECT P' to the socket file is connected to the guest's",
        HelpName = "file[,cid=number]",
        Validators = { static result => CheckSockets(result) },
    };

    private readonly Option<string> _transport = new Option<string>("--virtio")
    {
        Description = "What these devices are behind: PCI, or registers at fixed places that the ACPI tables tell of",
        DefaultValueFactory = _ => "pci",
    }.OneOf("pci", "mmio");

    public void AddTo(Command command)
    {
        command.Add(_disks);
        command.Add(_network);
        command.Add(_entropy);
        command.Add(_balloon);
        command.Add(_sockets);
        command.Add(_transport);
    }

    /// <summary>There is a device to be added.</summary>
    public bool IsAny(SymbolResult result) =>
        result.GetResult(_disks) is { Implicit: false } || result.GetResult(_network) is not null || result.GetResult(_entropy) is { Implicit: false } || result.GetResult(_balloon) is not null
        || result.GetResult(_sockets) is not null;

    /// <summary>Opens and checks what the devices stand on, before anything is built.</summary>
    /// <returns>The devices, not attached to anything yet.</returns>
    /// <exception cref="ToolException">A file can't be used.</exception>
    public GuestDevices Read(ParseResult result)
    {
        var devices = new GuestDevices(result.GetValue(_transport) == "mmio" ? VirtioTransport.Mmio : VirtioTransport.Pci);
        try
        {
            foreach (string disk in result.GetValue(_disks)!) devices.Add(OpenDisk(disk, devices.Count));
            if (result.GetValue(_network) is { } network) devices.Add(network.Open());
            if (result.GetValue(_entropy)) devices.Add(new VirtioEntropy());
            if (result.GetValue(_balloon) is { } size) devices.Add(new VirtioBalloon { Wanted = size.Bytes });
            if (result.GetValue(_sockets) is { } sockets) devices.Add(OpenSockets(sockets));
            return devices;
        }
        catch
        {
            devices.Dispose();
            throw;
        }
    }

    private static void CheckSockets(OptionResult result)
    {
        if (result.Tokens is [{ Value: var text }] && ParseSockets(text) is null)
            result.AddError($"--vsock {text}: not file[,cid=number], the number from {VirtioVsock.LeastCid} on, such as guest.sock,cid=5");
    }

    private static (string Path, uint Cid)? ParseSockets(string text)
    {
        const string cid = ",cid=";
        int at = text.LastIndexOf(cid, StringComparison.Ordinal);
        uint number = VirtioVsock.LeastCid;
        bool good = at < 0 ? text.Length > 0 && !text.Contains(',', StringComparison.Ordinal)
            : at > 0 && uint.TryParse(text.AsSpan(at + cid.Length), NumberStyles.None, CultureInfo.InvariantCulture, out number) && number is >= VirtioVsock.LeastCid and < uint.MaxValue;
        return good ? (at < 0 ? text : text[..at], number) : null;
    }

    private static VirtioVsock OpenSockets(string text)
    {
        (string path, uint cid) = ParseSockets(text)!.Value;
        try
        {
            return new VirtioVsock(cid, path);
        }
        catch (IOException e)
        {
            throw new ToolException(ExitCode.BadFile, $"cannot make the socket {e.Message}{(File.Exists(path) ? "; when no other guest has it, remove it" : "")}");
        }
    }

    private static VirtioBlock OpenDisk(string text, int number)
    {
        bool readOnly = text.EndsWith(ReadOnlySuffix, StringComparison.Ordinal);
        string path = readOnly ? text[..^ReadOnlySuffix.Length] : text;
        try
        {
            if (Directory.Exists(path)) throw new IOException("it is a directory");
            return new VirtioBlock(RawDisk.Open(path, readOnly), string.Create(CultureInfo.InvariantCulture, $"disk{number}"),
                reason => Console.Error.WriteLine($"kvm: disk {path}: {reason}; the guest gets I/O errors"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            string reason = e switch
            {
                FileNotFoundException or DirectoryNotFoundException => "no such file; truncate -s 1G makes an empty disk",
                UnauthorizedAccessException => $"permission denied{(readOnly ? "" : $"; {path}{ReadOnlySuffix} only reads it")}",
                ArgumentException => "no file name",
                _ => e.Message.Contains("being used by another process", StringComparison.Ordinal) ? "another process has it open; a disk that is written belongs to one guest" : e.Message,
            };
            throw new ToolException(ExitCode.BadFile, $"cannot use the disk {path}: {reason}");
        }
    }
}
