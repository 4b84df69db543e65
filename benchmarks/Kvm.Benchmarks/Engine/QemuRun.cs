using System.Diagnostics;

namespace Kvm.Benchmarks.Engine;

/// <summary>Runs the same floppies on QEMU's own engine (TCG, one thread).</summary>
internal static class QemuRun
{
    /// <summary>CPU seconds of QEMU between 'S' and 'E', translation included.</summary>
    internal static double Once(EngineKernel kernel)
    {
        string directory = Directory.CreateTempSubdirectory("engine-qemu").FullName;
        try
        {
            string image = Path.Combine(directory, "floppy.img");
            File.WriteAllBytes(image, BochsRun.Image(kernel.Assemble()));
            var start = new ProcessStartInfo("qemu-system-x86_64") { RedirectStandardOutput = true, RedirectStandardError = true, WorkingDirectory = directory };
            foreach (string argument in (string[])["-accel", "tcg,thread=single", "-cpu", "qemu64", "-m", "32", "-display", "none", "-monitor", "none", "-serial", "none", "-debugcon", "stdio",
                "-drive", $"if=floppy,format=raw,file={image}", "-boot", "a", "-net", "none", "-no-reboot"])
                start.ArgumentList.Add(argument);
            using Process process = Process.Start(start) ?? throw new InvalidOperationException("cannot start QEMU");
            process.ErrorDataReceived += (_, _) => { };
            process.BeginErrorReadLine();
            try
            {
                return BochsRun.Measure(process);
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
}
