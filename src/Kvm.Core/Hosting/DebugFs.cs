using System.Collections.Concurrent;

namespace Kvm.Core;

/// <summary>/sys/kernel/debug: directories and files whose content a delegate prints.</summary>
public sealed class DebugFs
{
    private sealed record Node(Func<string>? Read, Func<string, KvmResult>? Write, int Mode);

    private readonly ConcurrentDictionary<string, Node> _nodes = new();
    private readonly Host _host;

    internal DebugFs(Host host) => _host = host;

    /// <summary>debugfs_lookup.</summary>
    public bool Exists(string path) => _nodes.ContainsKey(path);

    /// <summary>Paths below a directory, sorted.</summary>
    public IReadOnlyList<string> List(string directory) =>
        [.. _nodes.Keys.Where(p => p.StartsWith(directory + "/", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];

    /// <summary>debugfs_create_dir: false when it fails (fault point "debugfs_create_dir") or exists.</summary>
    [Tracing.KernelFunction("debugfs_create_dir", File = "fs/debugfs/inode.c")]
    public bool CreateDirectory(string path)
    {
        using var _ = Tracing.FunctionTrace.Enter("debugfs_create_dir");
        return !_host.Faults.ShouldFail("debugfs_create_dir") && _nodes.TryAdd(path, new Node(null, null, 0x1ed));
    }

    /// <summary>debugfs_create_file. Failure is not an error to its callers, as in the kernel.</summary>
    [Tracing.KernelFunction("debugfs_create_file", File = "fs/debugfs/inode.c")]
    public bool CreateFile(string path, int mode, Func<string> read, Func<string, KvmResult>? write = null)
    {
        using var _ = Tracing.FunctionTrace.Enter("debugfs_create_file");
        int slash = path.LastIndexOf('/');
        if (slash > 0 && !_nodes.ContainsKey(path[..slash])) return false;
        return !_host.Faults.ShouldFail("debugfs_create_file") && _nodes.TryAdd(path, new Node(read, write, mode));
    }

    /// <summary>The content of a file; null when there is none.</summary>
    public string? Read(string path) => _nodes.TryGetValue(path, out Node? node) && node.Read is not null ? node.Read() : null;

    /// <summary>Writes a file: -ENOENT, -EACCES without a writer, or what the writer says.</summary>
    public KvmResult Write(string path, string text)
    {
        if (!_nodes.TryGetValue(path, out Node? node)) return Abi.Errno.ENOENT;
        return node.Write is null ? Abi.Errno.EACCES : node.Write(text);
    }

    /// <summary>The file's mode bits; 0 when there is none.</summary>
    public int Mode(string path) => _nodes.TryGetValue(path, out Node? node) ? node.Mode : 0;

    /// <summary>debugfs_remove_recursive.</summary>
    [Tracing.KernelFunction("debugfs_remove", File = "fs/debugfs/inode.c")]
    public void Remove(string path)
    {
        foreach (string key in _nodes.Keys)
            if (key == path || key.StartsWith(path + "/", StringComparison.Ordinal)) _nodes.TryRemove(key, out _);
    }
}
