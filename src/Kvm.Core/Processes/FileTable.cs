using Kvm.Abi;

namespace Kvm.Core;

/// <summary>The descriptor table of a process (struct files_struct). Readers take no lock.</summary>
public sealed class FileTable
{
    private readonly object _gate = new();
    private readonly Host _host;
    private KvmFile?[] _files = new KvmFile?[64];
    private bool[] _reserved = new bool[64];
    private bool[] _closeOnExec = new bool[64];
    private int _next;

    internal FileTable(Host host, int limit)
    {
        _host = host;
        Limit = limit;
    }

    /// <summary>RLIMIT_NOFILE: descriptors are below it.</summary>
    public int Limit { get; set; }

    /// <summary>Descriptors in use.</summary>
    public int Count
    {
        get { lock (_gate) return _files.Count(f => f is not null); }
    }

    /// <summary>The open descriptors.</summary>
    public IReadOnlyList<int> Open
    {
        get
        {
            lock (_gate) return [.. Enumerable.Range(0, _files.Length).Where(i => _files[i] is not null)];
        }
    }

    /// <summary>fget: the file with a reference taken, or null (-EBADF).</summary>
    public KvmFile? Get(int fd)
    {
        for (; ; )
        {
            KvmFile?[] files = Volatile.Read(ref _files);
            if ((uint)fd >= (uint)files.Length) return null;
            KvmFile? file = Volatile.Read(ref files[fd]);
            if (file is null) return null;
            if (!file.TryGet()) continue;
            // The slot may have been closed and reused between the read and the reference.
            if (Volatile.Read(ref Volatile.Read(ref _files)[fd]) == file) return file;
            file.Put();
        }
    }

    /// <summary>get_unused_fd_flags: reserves the lowest free descriptor. -EMFILE at the limit (or as "get_unused_fd" injects).</summary>
    [Tracing.KernelFunction("get_unused_fd_flags", File = "fs/file.c")]
    public KvmResult GetUnusedFd(int flags)
    {
        using var _ = Tracing.FunctionTrace.Enter("get_unused_fd_flags");
        if (_host.Faults.ShouldFail("get_unused_fd")) return Errno.EMFILE;
        lock (_gate)
        {
            int fd = _next;
            while (fd < _files.Length && (_files[fd] is not null || _reserved[fd])) fd++;
            if (fd >= Limit) return Errno.EMFILE;
            if (fd >= _files.Length) Grow(fd + 1);
            _reserved[fd] = true;
            _closeOnExec[fd] = (flags & Fcntl.O_CLOEXEC) != 0;
            _next = fd + 1;
            return fd;
        }
    }

    /// <summary>put_unused_fd: gives a reserved descriptor back.</summary>
    public void PutUnusedFd(int fd)
    {
        lock (_gate)
        {
            _reserved[fd] = false;
            if (fd < _next) _next = fd;
        }
    }

    /// <summary>fd_install: the file becomes visible; the table takes over the reference.</summary>
    [Tracing.KernelFunction("fd_install", File = "fs/file.c")]
    public void Install(int fd, KvmFile file)
    {
        using var _ = Tracing.FunctionTrace.Enter("fd_install");
        lock (_gate)
        {
            _reserved[fd] = false;
            Volatile.Write(ref _files[fd], file);
        }
    }

    /// <summary>close: takes the file out; null is -EBADF. The caller puts the reference.</summary>
    public KvmFile? Remove(int fd)
    {
        lock (_gate)
        {
            if ((uint)fd >= (uint)_files.Length || _files[fd] is not { } file) return null;
            Volatile.Write(ref _files[fd], null);
            if (fd < _next) _next = fd;
            return file;
        }
    }

    /// <summary>FD_CLOEXEC of a descriptor.</summary>
    public bool CloseOnExec(int fd)
    {
        lock (_gate) return (uint)fd < (uint)_files.Length && _files[fd] is not null && _closeOnExec[fd];
    }

    /// <summary>fork: the same files at the same descriptors.</summary>
    internal void CopyTo(FileTable other)
    {
        lock (_gate)
        {
            lock (other._gate)
            {
                if (other._files.Length < _files.Length) other.Grow(_files.Length);
                for (int i = 0; i < _files.Length; i++)
                {
                    if (_files[i] is not { } f) continue;
                    f.Get();
                    Volatile.Write(ref other._files[i], f);
                    other._closeOnExec[i] = _closeOnExec[i];
                }
            }
        }
    }

    private void Grow(int atLeast)
    {
        int size = Math.Max(atLeast, _files.Length * 2);
        Array.Resize(ref _reserved, size);
        Array.Resize(ref _closeOnExec, size);
        KvmFile?[] files = _files;
        Array.Resize(ref files, size);
        Volatile.Write(ref _files, files);
    }
}
