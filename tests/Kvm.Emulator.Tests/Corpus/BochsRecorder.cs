using System.Diagnostics;

namespace Kvm.Emulator.Tests.Corpus;

/// <summary>Runs a ROM in Bochs, with a disk it reads its program from, and returns what they write to port E9.</summary>
internal static class BochsRecorder
{
    /// <summary>Byte that precedes the guest's output.</summary>
    public const byte Begin = 1;

    public static byte[] Run(string bochs, Func<int, byte[]> rom, byte[] image, int bytes, string model = "corei7_skylake_x")
    {
        string directory = Directory.CreateTempSubdirectory("corpus-bochs").FullName;
        try
        {
            string Path(string name) => System.IO.Path.Combine(directory, name);
            const int cylinder = 16 * 63 * 512;
            int cylinders = (image.Length + cylinder - 1) / cylinder;
            File.WriteAllBytes(Path("rom"), rom((image.Length + 511) / 512));
            Array.Resize(ref image, cylinders * cylinder);
            File.WriteAllBytes(Path("image"), image);
            File.WriteAllText(Path("commands"), "c\n");
            File.WriteAllText(Path("bochsrc"), $"""
                display_library: rfb, options="timeout=0"
                cpu: model={model}, count=1, ips=1000000000, reset_on_triple_fault=0
                megs: 256
                romimage: file={Path("rom")}, address=0xffff0000
                vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
                ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
                ata0-master: type=disk, path={Path("image")}, mode=flat, cylinders={cylinders}, heads=16, spt=63
                clock: sync=none
                port_e9_hack: enabled=1
                log: {Path("log")}
                panic: action=fatal
                error: action=ignore
                info: action=ignore
                debug: action=ignore
                speaker: enabled=0
                sound: driver=dummy

                """);
            var start = new ProcessStartInfo(bochs) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true, WorkingDirectory = directory };
            foreach (string argument in (string[])["-q", "-f", Path("bochsrc"), "-rc", Path("commands")])
                start.ArgumentList.Add(argument);
            using Process process = Process.Start(start) ?? throw new InvalidOperationException("cannot start " + bochs);
            process.ErrorDataReceived += (_, _) => { };
            process.BeginErrorReadLine();
            try
            {
                return Read(process.StandardOutput.BaseStream, bytes, Path("log"));
            }
            finally
            {
                process.Kill();
                process.WaitForExit();
            }
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    private static byte[] Read(Stream output, int bytes, string log)
    {
        int c;
        while ((c = output.ReadByte()) != Begin)
            if (c < 0)
                throw new InvalidOperationException("Bochs ended before the guest wrote anything");
        byte[] result = new byte[bytes];
        int done = 0;
        while (done < bytes)
        {
            Task<int> read = output.ReadAsync(result, done, bytes - done);
            int n = read.Wait(TimeSpan.FromSeconds(20)) ? read.Result : 0;
            if (n <= 0)
                throw new InvalidOperationException($"Bochs ended after {done} of {bytes} bytes: {string.Join('\n', File.ReadLines(log).TakeLast(30))}");
            done += n;
        }
        return result;
    }
}
