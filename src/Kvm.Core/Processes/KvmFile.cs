namespace Kvm.Core;

/// <summary>An open file (struct file): operations, private data, a reference count. The last reference runs release.</summary>
public sealed class KvmFile
{
    private readonly HostModule? _owner;
    private int _refs = 1;

    internal KvmFile(Host host, string name, FileOperations operations, object? privateData, int flags)
    {
        Host = host;
        Name = name;
        Operations = operations;
        PrivateData = privateData;
        Flags = flags;
        _owner = operations.Owner;
        _owner?.Get();
    }

    public Host Host { get; }

    /// <summary>What /proc/self/fd shows: "/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0".</summary>
    public string Name { get; }

    /// <summary>f_op.</summary>
    public FileOperations Operations { get; }

    /// <summary>private_data.</summary>
    public object? PrivateData { get; set; }

    /// <summary>f_flags: O_RDWR and friends, without O_CLOEXEC.</summary>
    public int Flags { get; }

    /// <summary>f_pos.</summary>
    public long Position { get; set; }

    /// <summary>file_count.</summary>
    public int RefCount => Volatile.Read(ref _refs);

    internal bool TryGet()
    {
        int n = Volatile.Read(ref _refs);
        while (n > 0)
        {
            int seen = Interlocked.CompareExchange(ref _refs, n + 1, n);
            if (seen == n) return true;
            n = seen;
        }

        return false;
    }

    /// <summary>get_file.</summary>
    public void Get() => Interlocked.Increment(ref _refs);

    /// <summary>fput: the last one runs release.</summary>
    public void Put()
    {
        if (Interlocked.Decrement(ref _refs) != 0) return;
        Interlocked.Decrement(ref Host.OpenFiles);
        HostModule? owner = _owner;
        Operations.Release(this);
        owner?.Put();
    }

    public override string ToString() => Name;
}
