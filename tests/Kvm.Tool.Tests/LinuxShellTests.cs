using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Xunit.Abstractions;

namespace Kvm.Tool.Tests;

/// <summary>Debian's kernel on <c>kvm run</c> to a shell and back: processors, disk, network. Two boots for each vendor, because a boot takes its time.</summary>
public class LinuxShellTests(ITestOutputHelper output)
{
    [SkippableTheory]
    [InlineData("intel")]
    [InlineData("amd")]
    public async Task Four_processors_a_network_and_a_disk_that_survives_kill_9(string cpu)
    {
        string disk = Path.GetTempFileName();
        try
        {
            using (FileStream file = File.OpenWrite(disk)) file.SetLength(16 << 20);
            int forwarded = DebianGuest.FreePort();
            using (var guest = new DebianGuest(cpu, "--smp", "4", "--memory", "512M", "--disk", disk, "--rng", "--net", $"user,hostfwd=tcp::{forwarded}-:7"))
            {
                try
                {
                    guest.WaitFor("# ");
                    Processors(guest);
                    await Network(guest, forwarded);
                    guest.Shell("head -c 16 /dev/hwrng | wc -c").Should().Contain("\n16\n");
                    guest.Shell("mke2fs /dev/vda > /dev/null && mount /dev/vda /mnt && mkdir /mnt/bin && cp /bin/busybox /mnt/bin && " +
                        "sha256sum /bin/busybox | cut -c1-64 > /mnt/sum && sync").Should().Contain("END-0");
                    // What comes after the sync may be lost.
                    guest.Send("while :; do echo lost >> /mnt/lost; done\n");
                    Thread.Sleep(200);
                }
                finally
                {
                    output.WriteLine(guest.Text);
                }

                guest.Kill();
            }

            using (var guest = new DebianGuest(cpu, "--memory", "256M", "--disk", disk))
            {
                try
                {
                    guest.WaitFor("# ");
                    guest.Shell("mount -o ro /dev/vda /mnt && chroot /mnt /bin/busybox sha256sum /bin/busybox | cut -c1-64 | cmp - /mnt/sum && wc -c < /mnt/sum")
                        .Should().Contain("\n65\nEND-0", "the file system is the root of that process, and its content is what was synced");
                    guest.Shell("nproc").Should().Contain("\n1\n");
                    guest.Send("poweroff\n");
                    (int exitCode, string errors) = guest.WaitForEnd();
                    (exitCode, errors).Should().Be((ExitCode.Success, errors));
                    errors.Should().Contain("guest switched itself off");
                }
                finally
                {
                    output.WriteLine(guest.Text);
                }
            }
        }
        finally
        {
            File.Delete(disk);
        }
    }

    private static void Processors(DebianGuest guest)
    {
        guest.Shell("nproc").Should().Contain("\n4\n");
        guest.Shell("cat /sys/devices/system/clocksource/clocksource0/current_clocksource").Should().Contain("\nkvm-clock\n");
        string job = guest.Shell("for i in 0 1 2 3; do taskset -c $i sh -c 'n=0; while [ $n -lt 3000 ]; do n=$((n+1)); done; echo cpu $(cut -d \" \" -f 39 /proc/self/stat)' & done; wait");
        for (int i = 0; i < 4; i++) job.Should().Contain($"\ncpu {i}\n");
    }

    private static async Task Network(DebianGuest guest, int forwarded)
    {
        guest.Shell("ping -c 2 10.0.2.2").Should().Contain("2 packets received");
        var data = new byte[1 << 20];
        new Random(5).NextBytes(data);
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        Task server = ServeOnce(listener, data);
        guest.Shell($"wget -q -O - http://10.0.2.2:{((IPEndPoint)listener.LocalEndpoint).Port}/data | sha256sum").Should().Contain(Convert.ToHexStringLower(SHA256.HashData(data)));
        await server;

        guest.Send("echo hello from the guest | nc -l -p 7 > /tmp/said\n");
        guest.WaitFor("said");
        string? heard = null;
        for (int i = 0; i < 50 && heard is null; i++)
        {
            // Until nc listens, the guest refuses.
            using var attempt = new TcpClient(); // open until the answer is there: nc ends when its input from the network does
            try
            {
                await attempt.ConnectAsync(IPAddress.Loopback, forwarded);
                await attempt.GetStream().WriteAsync("hello from the host\n"u8.ToArray());
                using var reader = new StreamReader(attempt.GetStream(), Encoding.ASCII);
                heard = await reader.ReadLineAsync();
            }
            catch (Exception e) when (e is IOException or SocketException or InvalidOperationException) // reset before, while or after it was looked at
            {
                await Task.Delay(200);
            }
        }

        heard.Should().Be("hello from the guest");
        guest.WaitFor("# ");
        guest.Shell("cat /tmp/said").Should().Contain("\nhello from the host\n");
    }

    private static async Task ServeOnce(TcpListener listener, byte[] data)
    {
        using TcpClient client = await listener.AcceptTcpClientAsync();
        NetworkStream stream = client.GetStream();
        using var reader = new StreamReader(stream, Encoding.ASCII);
        while (await reader.ReadLineAsync() is { Length: > 0 })
        {
        }

        await stream.WriteAsync(Encoding.ASCII.GetBytes($"HTTP/1.0 200 OK\r\nContent-Length: {data.Length}\r\n\r\n"));
        await stream.WriteAsync(data);
    }
}
