namespace Kvm.Core;

/// <summary>/sys/kernel/debug: directories and files whose content a delegate prints. Paths have no leading slash.</summary>
public sealed class DebugFs
{
    private sealed class Node
    {
        public Func<string>? Read;
        public Func<string, KvmResult>? Write;
        public int Mode;
        public Dictionary<string, Node>? Children;
    }

    private readonly object _gate = new();
    private readonly Node _root = new() { Children = [] };
    private readonly Host _host;

    internal DebugFs(Host host) => _host = host;

    /// <summary>debugfs_lookup.</summary>
    public bool Exists(string path) => Find(path) is not null;

    /// <summary>Paths below a directory, sorted.</summary>
    public IReadOnlyList<string> List(string directory)
    {
        var list = new List<string>();
        lock (_gate) Walk(Find(directory), directory, list);
        list.Sort(StringComparer.Ordinal);
        return list;
    }

    /// <summary>debugfs_create_dir: false when it fails (fault point "debugfs_create_dir"), exists, or has no parent.</summary>
    [Tracing.KernelFunction("debugfs_create_dir", File = "fs/debugfs/inode.c")]
    public bool CreateDirectory(string path)
    {
        using var _ = Tracing.FunctionTrace.Enter("debugfs_create_dir");
        Tracing.FunctionTrace.Leaf("kmem_cache_alloc"); // the dentry
        return !_host.Faults.ShouldFail("debugfs_create_dir") && Add(path, new Node { Mode = 0x1ed, Children = [] });
    }

    /// <summary>debugfs_create_file. Failure is not an error to its callers, as in the kernel.</summary>
    [Tracing.KernelFunction("debugfs_create_file", File = "fs/debugfs/inode.c")]
    public bool CreateFile(string path, int mode, Func<string> read, Func<string, KvmResult>? write = null)
    {
        using var _ = Tracing.FunctionTrace.Enter("debugfs_create_file");
        Tracing.FunctionTrace.Leaf("kmem_cache_alloc");
        return !_host.Faults.ShouldFail("debugfs_create_file") && Add(path, new Node { Mode = mode, Read = read, Write = write });
    }

    /// <summary>The content of a file; null when there is none.</summary>
    public string? Read(string path) => Find(path)?.Read?.Invoke();

    /// <summary>Writes a file: -ENOENT, -EACCES without a writer, or what the writer says.</summary>
    public KvmResult Write(string path, string text)
    {
        if (Find(path) is not { } node) return Abi.Errno.ENOENT;
        return node.Write is null ? Abi.Errno.EACCES : node.Write(text);
    }

    /// <summary>The file's mode bits; 0 when there is none.</summary>
    public int Mode(string path) => Find(path)?.Mode ?? 0;

    /// <summary>debugfs_remove_recursive.</summary>
    [Tracing.KernelFunction("debugfs_remove", File = "fs/debugfs/inode.c")]
    public void Remove(string path)
    {
        using var _ = Tracing.FunctionTrace.Enter("debugfs_remove");
        lock (_gate) Parent(path, out string name)?.Children?.Remove(name);
    }

    private bool Add(string path, Node node)
    {
        lock (_gate) return Parent(path, out string name)?.Children?.TryAdd(name, node) ?? false;
    }

    private Node? Find(string path)
    {
        lock (_gate) return Parent(path, out string name)?.Children?.GetValueOrDefault(name);
    }

    private Node? Parent(string path, out string name)
    {
        Node? node = _root;
        int from = 0;
        for (int slash = path.IndexOf('/'); slash >= 0 && node is not null; slash = path.IndexOf('/', from))
        {
            node = node.Children?.GetValueOrDefault(path[from..slash]);
            from = slash + 1;
        }

        name = path[from..];
        return node;
    }

    private static void Walk(Node? node, string path, List<string> list)
    {
        if (node?.Children is null) return;
        foreach (var (name, child) in node.Children)
        {
            list.Add($"{path}/{name}");
            Walk(child, $"{path}/{name}", list);
        }
    }
}
