using System.Diagnostics;

namespace Kvm.Tool.Tests;

/// <summary>
/// Debian's kernel for the boot tests: the file that KVM_TEST_KERNEL names, or samples/linux/cache/vmlinuz, or one in the user's cache folder, to which
/// samples/linux/fetch-kernel.sh fetches it where there is apt-get. KVM_TEST_KERNEL=none: no kernel.
/// </summary>
internal static class DebianKernel
{
    private const string Variable = "KVM_TEST_KERNEL";

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(90);
    private static readonly Lazy<(string? Path, string Reason)> s_kernel = new(Find);

    /// <summary>The file's path; skips the test, with the reason, where it can't be had.</summary>
    public static string Path
    {
        get
        {
            (string? path, string reason) = s_kernel.Value;
            Skip.If(path is null, $"no Linux kernel to boot: {reason}; {Variable}=<file> names one");
            return path!;
        }
    }

    private static (string? Path, string Reason) Find()
    {
        string? named = Environment.GetEnvironmentVariable(Variable);
        if (named == "none") return (null, $"{Variable} is none");
        if (!string.IsNullOrEmpty(named)) return File.Exists(named) ? (named, "") : (null, $"{Variable} is {named}, which does not exist");
        string? scripts = Scripts();
        if (scripts is null) return (null, "samples/linux is not above the tests");
        string beside = System.IO.Path.Combine(scripts, "cache", "vmlinuz");
        if (File.Exists(beside)) return (beside, "");
        string cache = System.IO.Path.Combine(CacheFolder(), "kvm-tests");
        string cached = System.IO.Path.Combine(cache, "vmlinuz");
        return File.Exists(cached) ? (cached, "") : Fetch(System.IO.Path.Combine(scripts, "fetch-kernel.sh"), cache, cached);
    }

    private static (string? Path, string Reason) Fetch(string script, string folder, string file)
    {
        if (!File.Exists("/usr/bin/apt-get")) return (null, "there is no apt-get here to fetch Debian's");
        using Process process = ToolRun.Start("sh", [script, folder]);
        Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(s_patience))
        {
            process.Kill(entireProcessTree: true);
            return (null, $"fetch-kernel.sh took more than {s_patience.TotalSeconds} s");
        }

        return File.Exists(file) ? (file, "") : (null, (errors.Result + output.Result).Split('\n')[0]);
    }

    internal static string CacheFolder() => Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } folder
        ? folder
        : System.IO.Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache");

    internal static string? Scripts()
    {
        for (DirectoryInfo? at = new(AppContext.BaseDirectory); at is not null; at = at.Parent)
        {
            string folder = System.IO.Path.Combine(at.FullName, "samples", "linux");
            if (Directory.Exists(folder)) return folder;
        }

        return null;
    }
}
