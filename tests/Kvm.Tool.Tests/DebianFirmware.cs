using System.Diagnostics;

namespace Kvm.Tool.Tests;

/// <summary>
/// Debian's firmware and boot programs: in the folder that KVM_TEST_FIRMWARE names, or samples/firmware/cache, or the user's cache folder, to which
/// samples/firmware/fetch.sh fetches them where there is apt-get. KVM_TEST_FIRMWARE=none: none.
/// </summary>
internal static class DebianFirmware
{
    private const string Variable = "KVM_TEST_FIRMWARE";

    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(3);
    private static readonly Lazy<(string? Folder, string Reason)> s_folder = new(Find);

    /// <summary>A file's path; skips the test, with the reason, where it can't be had.</summary>
    public static string Path(string name)
    {
        (string? folder, string reason) = s_folder.Value;
        string? path = folder is null ? null : System.IO.Path.Combine(folder, name);
        Skip.If(path is null || !File.Exists(path), $"no {name} to boot: {(reason.Length > 0 ? reason : $"{folder} has none")}; {Variable}=<folder> names another place");
        return path!;
    }

    private static (string? Folder, string Reason) Find()
    {
        string? named = Environment.GetEnvironmentVariable(Variable);
        if (named == "none") return (null, $"{Variable} is none");
        if (!string.IsNullOrEmpty(named)) return Directory.Exists(named) ? (named, "") : (null, $"{Variable} is {named}, which does not exist");
        string? scripts = Scripts();
        if (scripts is null) return (null, "samples/firmware is not above the tests");
        string beside = System.IO.Path.Combine(scripts, "cache");
        if (Directory.Exists(beside)) return (beside, "");
        string cache = System.IO.Path.Combine(DebianKernel.CacheFolder(), "kvm-tests", "firmware");
        if (!File.Exists("/usr/bin/apt-get")) return (cache, "there is no apt-get here to fetch Debian's");
        // At once when everything is there. What came before something failed is used.
        return (cache, Fetch(System.IO.Path.Combine(scripts, "fetch.sh"), cache));
    }

    /// <summary>Why not everything could be fetched; empty: it could.</summary>
    private static string Fetch(string script, string folder)
    {
        using Process process = ToolRun.Start("sh", [script, folder]);
        Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(s_patience))
        {
            process.Kill(entireProcessTree: true);
            return $"fetch.sh took more than {s_patience.TotalSeconds} s";
        }

        return process.ExitCode == 0 ? "" : (errors.Result + output.Result).Split('\n')[0];
    }

    private static string? Scripts()
    {
        for (DirectoryInfo? at = new(AppContext.BaseDirectory); at is not null; at = at.Parent)
        {
            string folder = System.IO.Path.Combine(at.FullName, "samples", "firmware");
            if (Directory.Exists(folder)) return folder;
        }

        return null;
    }
}
