using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using System.Text.RegularExpressions;

namespace Kvm.Tool.Tests;

/// <summary>
/// Debian's kernel with a shell: <c>kvm run</c> as a process of its own, its standard input and output the guest's serial line. The initial file system is
/// samples/linux/cache/initrd.img, or one in the user's cache folder, to which samples/linux/build-initramfs.sh builds it where there is apt-get.
/// </summary>
internal sealed class DebianGuest : IDisposable
{
    /// <summary>For one answer, on a machine that has a lot else to do.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(4);
    private static readonly Lazy<(string? Path, string Reason)> s_initrd = new(FindInitrd);

    private readonly Process _process;
    private readonly StringBuilder _text = new();
    private readonly Task _reader;
    private readonly Task<string> _errors;
    private int _read;

    public DebianGuest(string cpu, params string[] arguments)
    {
        string kernel = DebianKernel.Path;
        _process = ToolRun.StartWithInput(["run", "--cpu", cpu, "--kernel", kernel, "--initrd", Initrd, "--append", "console=ttyS0 quiet panic=-1", "--timeout", "420", .. arguments]);
        _errors = _process.StandardError.ReadToEndAsync();
        _reader = Task.Run(Read);
    }

    /// <summary>The file; skips the test, with the reason, where it can't be had.</summary>
    public static string Initrd
    {
        get
        {
            (string? path, string reason) = s_initrd.Value;
            Skip.If(path is null, $"no initial file system to boot: {reason}");
            return path!;
        }
    }

    /// <summary>All that it said.</summary>
    public string Text
    {
        get
        {
            lock (_text) return _text.ToString();
        }
    }

    /// <summary>Waits until what it says from here on matches, and goes on behind that.</summary>
    public string WaitFor(string pattern)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            bool ended = _reader.IsCompleted;
            string text = Text;
            Match match = Regex.Match(text[_read..], pattern, RegexOptions.CultureInvariant);
            if (match.Success)
            {
                string before = text[_read..(_read + match.Index + match.Length)];
                _read += match.Index + match.Length;
                return before;
            }

            if (ended || clock.Elapsed > s_patience) throw new TimeoutException($"no '{pattern}' ({(ended ? "ended" : "still running")}) in:\n{text}\n{(ended ? _errors.Result : "")}");
            Thread.Sleep(20);
        }
    }

    /// <summary>Types a command at the prompt.</summary>
    /// <returns>What it printed.</returns>
    public string Shell(string command)
    {
        // The echo of the command must not be taken for its end.
        Send($"{command}; echo END''-$?\n");
        string said = WaitFor(@"END-\d+").ReplaceLineEndings("\n").Replace("\u001b[6n", "");
        WaitFor("# ");
        return said;
    }

    public void Send(string keys)
    {
        _process.StandardInput.Write(keys);
        _process.StandardInput.Flush();
    }

    /// <summary>kill -9.</summary>
    public void Kill()
    {
        _process.Kill();
        _process.WaitForExit();
    }

    /// <summary>Waits for the command's end.</summary>
    public (int ExitCode, string Errors) WaitForEnd()
    {
        if (!_process.WaitForExit(s_patience)) throw new TimeoutException($"it still runs:\n{Text}");
        return (_process.ExitCode, _errors.Result);
    }

    public void Dispose()
    {
        if (!_process.HasExited) _process.Kill();
        _process.Dispose();
    }

    /// <summary>A port of the loopback that nobody has.</summary>
    public static int FreePort()
    {
        using var socket = new TcpListener(System.Net.IPAddress.Loopback, 0);
        socket.Start();
        return ((System.Net.IPEndPoint)socket.LocalEndpoint).Port;
    }

    private void Read()
    {
        var buffer = new char[4096];
        while (_process.StandardOutput.Read(buffer) is var length and > 0)
        {
            lock (_text) _text.Append(buffer, 0, length);
        }
    }

    private static (string? Path, string Reason) FindInitrd()
    {
        string kernel = DebianKernel.Path;
        string? scripts = DebianKernel.Scripts();
        if (scripts is null) return (null, "samples/linux is not above the tests");
        string folder = Path.GetDirectoryName(Path.GetFullPath(kernel))!;
        // Its modules must be the kernel's: fetch-kernel.sh writes down which that is.
        if (!File.Exists(Path.Combine(folder, "version"))) return (null, $"{kernel} is not from samples/linux/fetch-kernel.sh, so nobody knows which modules it takes");
        if (!File.Exists("/usr/bin/apt-get"))
        {
            string there = Path.Combine(folder, "initrd.img");
            return File.Exists(there) ? (there, "") : (null, "there is no apt-get here to build one with");
        }

        using Process process = ToolRun.Start("sh", [Path.Combine(scripts, "build-initramfs.sh"), folder]);
        Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(TimeSpan.FromMinutes(2)))
        {
            process.Kill(entireProcessTree: true);
            return (null, "build-initramfs.sh took more than two minutes");
        }

        return process.ExitCode == 0 ? (output.Result.Trim(), "") : (null, errors.Result.Split('\n')[0]);
    }
}
