using System.Collections.Concurrent;
using Kvm.Abi;

namespace Kvm.Core;

/// <remarks>Processes, open files, devices.</remarks>
public sealed partial class Host
{
    private readonly ConcurrentDictionary<int, HostProcess> _processes = new();
    internal int OpenFiles;
    private HostProcess? _default;

    /// <summary>Live processes.</summary>
    public IReadOnlyCollection<HostProcess> Processes => [.. _processes.Values];

    /// <summary>Character devices.</summary>
    public DeviceFiles Devices => field ??= new DeviceFiles(this);

    /// <summary>Files open in all processes.</summary>
    public int OpenFileCount => Volatile.Read(ref OpenFiles);

    /// <summary>The process that single-process programs use.</summary>
    public HostProcess Process => _default ??= CreateProcess("vmm");

    /// <summary>A new process with an empty descriptor table.</summary>
    public HostProcess CreateProcess(string name)
    {
        var process = new HostProcess(this, name);
        _processes[process.Pid] = process;
        return process;
    }

    internal void Forget(HostProcess process) => _processes.TryRemove(process.Pid, out _);

    /// <summary>alloc_file: -ENFILE at fs.file-max.</summary>
    internal KvmResult AllocateFile(string name, FileOperations operations, object? privateData, int flags, out KvmFile? file)
    {
        file = null;
        if (Interlocked.Increment(ref OpenFiles) > Options.FileMax)
        {
            Interlocked.Decrement(ref OpenFiles);
            return Errno.ENFILE;
        }

        file = new KvmFile(this, name, operations, privateData, flags & ~Fcntl.O_CLOEXEC);
        return 0;
    }

    /// <summary>anon_inode_getfile (fault point "anon_inode_getfile"): a file without a place in the file system.</summary>
    [Tracing.KernelFunction("anon_inode_getfile", File = "fs/anon_inodes.c")]
    public KvmResult AnonInodeGetFile(string name, FileOperations operations, object privateData, int flags, out KvmFile? file)
    {
        using var _ = Tracing.FunctionTrace.Enter("anon_inode_getfile");
        return NewAnonFile(name, operations, privateData, flags, out file);
    }

    private KvmResult NewAnonFile(string name, FileOperations operations, object privateData, int flags, out KvmFile? file)
    {
        file = null;
        Tracing.FunctionTrace.Leaf("kmem_cache_alloc"); // the dentry
        Tracing.FunctionTrace.Leaf("kmem_cache_alloc"); // the file
        if (Faults.ShouldFail("anon_inode_getfile", name)) return Errno.ENOMEM;
        return AllocateFile("anon_inode:" + name, operations, privateData, flags, out file);
    }

    /// <summary>anon_inode_getfd: file and descriptor in the calling process. The descriptor is visible when it returns.</summary>
    [Tracing.KernelFunction("anon_inode_getfd", File = "fs/anon_inodes.c")]
    public KvmResult AnonInodeGetFd(string name, FileOperations operations, object privateData, int flags)
    {
        using var _ = Tracing.FunctionTrace.Enter("anon_inode_getfd");
        FileTable files = HostTask.Current.Process.Files;
        KvmResult fd = files.GetUnusedFd(flags);
        if (fd.IsError) return fd;
        KvmResult r = NewAnonFile(name, operations, privateData, flags, out KvmFile? file);
        if (r.IsError)
        {
            files.PutUnusedFd(fd.Value);
            return r;
        }

        files.Install(fd.Value, file!);
        return fd;
    }
}
