using System.Net;
using System.Net.Sockets;

namespace Kvm.Tool.Tests;

/// <summary>Disks, networks and initial file systems that can't be used: one line that names the file or option, says why, and what to do; nothing on disk changes.</summary>
public sealed class DeviceOptionTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("kvm-devices").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData(0, "it is empty", "truncate -s")]
    [InlineData(1000, "1000 bytes are not whole sectors of 512", "cut off")]
    [InlineData(-1, "no such file", "truncate -s")]
    public void Disk_that_is_none(int size, string reason, string advice)
    {
        string disk = Path.Combine(_folder, "disk.img");
        byte[] content = new byte[Math.Max(size, 0)];
        new Random(1).NextBytes(content);
        if (size >= 0) File.WriteAllBytes(disk, content);
        ToolRun run = Run("--disk", disk);
        run.ExitCode.Should().Be(ExitCode.BadFile);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain(disk).And.Contain(reason).And.Contain(advice);
        if (size >= 0) File.ReadAllBytes(disk).Should().Equal(content);
        else File.Exists(disk).Should().BeFalse();
    }

    [Fact]
    public void Disk_that_is_a_folder()
    {
        ToolRun run = Run("--disk", _folder);
        run.ExitCode.Should().Be(ExitCode.BadFile);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain(_folder).And.Contain("it is a directory");
    }

    [Theory]
    [InlineData("", ExitCode.BadFile)]
    [InlineData(",ro", ExitCode.BadFile)]
    public void Disk_that_another_guest_writes(string suffix, int expected)
    {
        string disk = Path.Combine(_folder, "disk.img");
        File.WriteAllBytes(disk, new byte[512]);
        using FileStream other = new(disk, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
        ToolRun run = Run("--disk", disk + suffix);
        run.ExitCode.Should().Be(expected);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain("belongs to one guest");
    }

    [Theory]
    [InlineData(",cid=4", ExitCode.Usage, "not file[,cid=number]")]
    [InlineData("x,cid=2", ExitCode.Usage, "the number from 3 on")]
    [InlineData("x,y", ExitCode.Usage, "not file[,cid=number]")]
    [InlineData("/nowhere/x", ExitCode.BadFile, "cannot make the socket /nowhere/x: ")]
    public void Sockets_that_are_none(string text, int code, string reason)
    {
        ToolRun run = Run("--vsock", text);
        run.ExitCode.Should().Be(code);
        run.Errors.Should().Contain(reason);
    }

    [Fact]
    public void A_socket_that_was_left_behind()
    {
        string path = Path.Combine(_folder, "guest.sock");
        File.WriteAllText(path, "");
        ToolRun run = Run("--vsock", path);
        run.ExitCode.Should().Be(ExitCode.BadFile);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain(path).And.Contain("remove it");
        File.Exists(path).Should().BeTrue();
    }

    [Theory]
    [InlineData("tap", "there is user")]
    [InlineData("user,speed=9", "'speed=9' is not hostfwd=tcp:[address]:port-:port")]
    [InlineData("user,hostfwd=udp::1-:1", "is not hostfwd=tcp")]
    [InlineData("user,hostfwd=tcp::70000-:1", "is not hostfwd=tcp")]
    [InlineData("user,hostfwd=tcp::1-:0", "is not hostfwd=tcp")]
    [InlineData("user,hostfwd=tcp:nowhere:1-:1", "is not hostfwd=tcp")]
    public void Network_that_is_none(string network, string reason)
    {
        ToolRun run = Run("--net", network);
        run.ExitCode.Should().Be(ExitCode.Usage);
        run.Errors.Should().StartWith($"kvm: --net {network}: ").And.Contain(reason);
    }

    [Theory]
    [InlineData("user", 0)]
    [InlineData("user,hostfwd=tcp::2222-:22", 1)]
    [InlineData("user,hostfwd=tcp:0.0.0.0:2222-:22,hostfwd=tcp::80-10.0.2.15:8080", 2)]
    public void Network_options_are_understood(string text, int forwards)
    {
        NetworkOption.Parse(text, out string error)!.Forwards.Should().HaveCount(forwards);
        error.Should().BeEmpty();
    }

    [Fact]
    public void Port_that_is_taken()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        int port = ((IPEndPoint)listener.LocalEndpoint).Port;
        ToolRun run = Run("--net", $"user,hostfwd=tcp::{port}-:22");
        run.ExitCode.Should().Be(ExitCode.BadFile);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain($"127.0.0.1:{port}").And.Contain("choose another port");
    }

    [Theory]
    [InlineData("", "it is empty")]
    [InlineData("<html>not found</html>", "neither a cpio archive nor compressed")]
    public void Initrd_that_is_none(string content, string reason)
    {
        string initrd = Path.Combine(_folder, "initrd.img");
        File.WriteAllText(initrd, content);
        ToolRun run = Run("--initrd", initrd);
        run.ExitCode.Should().Be(ExitCode.BadFile);
        run.Errors.TrimEnd().Should().NotContain("\n").And.Contain(initrd).And.Contain(reason);
    }

    [Fact]
    public void More_processors_than_one_need_the_kernel_s_interrupt_controllers()
    {
        ToolRun run = Run("--smp", "2", "--irqchip", "user");
        run.ExitCode.Should().Be(ExitCode.Usage);
        run.Errors.Should().Contain("--smp").And.Contain("leave out --irqchip user");
    }

    /// <summary>The kernel is one that would halt; it never runs.</summary>
    private ToolRun Run(params string[] arguments)
    {
        using var guest = new MultibootGuest(c => c.hlt());
        string kernel = Path.Combine(_folder, "kernel");
        if (arguments[0] == "--initrd")
        {
            // A module of a multiboot kernel may be anything; an initrd is Linux's.
            File.WriteAllBytes(kernel, LinuxImage());
            return ToolRun.Of(["run", "--kernel", kernel, .. arguments]);
        }

        return ToolRun.Of(["run", "--kernel", guest.Path, "--memory", "4M", .. arguments]);
    }

    private static byte[] LinuxImage()
    {
        var image = new byte[0x1000];
        image[0x1f1] = 1;
        BitConverter.TryWriteBytes(image.AsSpan(0x1fe), (ushort)0xaa55);
        BitConverter.TryWriteBytes(image.AsSpan(0x202), 0x53726448);
        BitConverter.TryWriteBytes(image.AsSpan(0x206), (ushort)0x20f);
        image[0x211] = 1;
        return image;
    }
}
