using System.Collections.Concurrent;
using Kvm.Abi;

namespace Kvm.Core;

/// <summary>A process of the host: descriptors, address space, threads, and the system calls that the KVM interface needs.</summary>
/// <remarks>Any thread of the program may call; each is a task of its own with its own signals and CPU.</remarks>
public sealed partial class HostProcess
{
    private readonly ConcurrentDictionary<int, HostTask> _tasks = new();

    [ThreadStatic]
    private static HostTask? t_task;

    internal HostProcess(Host host, string name)
    {
        Host = host;
        Name = name;
        Pid = host.AllocatePid();
        Mm = new Mm(host);
        Files = new FileTable(host, host.Options.OpenFilesLimit);
    }

    public Host Host { get; }

    /// <summary>task_comm.</summary>
    public string Name { get; }

    /// <summary>The process id.</summary>
    public int Pid { get; }

    public Mm Mm { get; }

    public FileTable Files { get; }

    /// <summary>Gets every delivered signal (as a handler would); null = ignored.</summary>
    public Action<HostTask, int>? SignalHandler { get; set; }

    /// <summary>The calling thread's task in this process.</summary>
    public HostTask Task => t_task is { } t && t.Process == this ? t : TaskOfThread();

    /// <summary>The thread with that id, or null.</summary>
    public HostTask? FindTask(int pid)
    {
        foreach ((_, HostTask task) in _tasks)
        {
            if (task.Pid == pid) return task;
        }

        return null;
    }

    internal void OnSignal(HostTask task, int signal) => SignalHandler?.Invoke(task, signal);

    private HostTask TaskOfThread()
    {
        HostTask task = _tasks.GetOrAdd(Environment.CurrentManagedThreadId, _ => new HostTask(Host, this, _tasks.IsEmpty ? Pid : Host.AllocatePid(), Name));
        t_task = task;
        return task;
    }

    /// <summary>ioctl(2): what the file answers, -EBADF, -ENOTTY.</summary>
    public KvmResult Ioctl(int fd, uint request, ulong arg = 0)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        KvmFile? file = Files.Get(fd);
        if (file is null) return Errno.EBADF;
        KvmResult r = file.Operations.Ioctl(file, request, arg);
        file.Put();
        return r.Raw == -(long)Errno.ENOIOCTLCMD ? Errno.ENOTTY : r;
    }

    /// <summary>ioctl(2) with a pointer to <paramref name="value"/>, which is copied back whatever the result.</summary>
    public unsafe KvmResult Ioctl<T>(int fd, uint request, ref T value) where T : unmanaged
    {
        fixed (T* p = &value) return Ioctl(fd, request, (ulong)p);
    }

    /// <summary>open(2): device files that drivers registered. -ENOENT without one; -EMFILE, -ENFILE.</summary>
    public KvmResult Open(string path, int flags = Fcntl.O_RDWR)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        KvmResult fd = Files.GetUnusedFd(flags);
        if (fd.IsError) return fd;
        KvmResult r = Host.Devices.Open(path, flags, out KvmFile? file);
        if (r.IsError)
        {
            Files.PutUnusedFd(fd.Value);
            return r;
        }

        Files.Install(fd.Value, file!);
        return fd;
    }

    /// <summary>close(2).</summary>
    public KvmResult Close(int fd)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (Files.Remove(fd) is not { } file) return Errno.EBADF;
        file.Put();
        return 0;
    }

    /// <summary>dup(2).</summary>
    public KvmResult Dup(int fd)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (Files.Get(fd) is not { } file) return Errno.EBADF;
        KvmResult r = Files.GetUnusedFd(0);
        if (r.IsError) file.Put();
        else Files.Install(r.Value, file);
        return r;
    }

    /// <summary>
    /// mmap(2) of a descriptor, or of anonymous memory with <paramref name="fd"/> -1: the address, -EINVAL, -EBADF, -ENODEV, -ENOMEM.
    /// </summary>
    public KvmResult Mmap(ulong length, int protection, int flags, int fd = -1, ulong offset = 0)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (length == 0 || offset % PageAllocator.PageSize != 0) return Errno.EINVAL;
        int type = flags & 3;
        if (type is 0 or 3) return Errno.EINVAL;
        if (length > UserMemory.TaskSizeMax) return Errno.ENOMEM;
        ulong bytes = (length + PageAllocator.PageSize - 1) & ~(ulong)(PageAllocator.PageSize - 1);
        KvmFile? file = null;
        if ((flags & Fcntl.MAP_ANONYMOUS) == 0)
        {
            file = Files.Get(fd);
            if (file is null) return Errno.EBADF;
            if (type == Fcntl.MAP_SHARED && (protection & Fcntl.PROT_WRITE) != 0 && (file.Flags & Fcntl.O_ACCMODE) != Fcntl.O_RDWR)
            {
                file.Put();
                return Errno.EACCES;
            }
        }

        ulong address = Mm.Map(bytes, protection, flags, file, offset / PageAllocator.PageSize, out KvmResult error);
        file?.Put();
        return address == 0 ? error : (KvmResult)(long)address;
    }

    /// <summary>Anonymous memory, readable and writable: the usual guest RAM. 0 when there is none.</summary>
    public ulong MapAnonymous(ulong length)
    {
        KvmResult r = Mmap(length, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_PRIVATE | Fcntl.MAP_ANONYMOUS);
        return r.IsError ? 0 : (ulong)r.Raw;
    }

    /// <summary>munmap(2).</summary>
    public KvmResult Munmap(ulong address, ulong length)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (address % PageAllocator.PageSize != 0 || length == 0 || !UserMemory.AccessOk(address, length)) return Errno.EINVAL;
        return Mm.Unmap(address, (length + PageAllocator.PageSize - 1) & ~(ulong)(PageAllocator.PageSize - 1));
    }

    /// <summary>mprotect(2).</summary>
    public KvmResult Mprotect(ulong address, ulong length, int protection)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (address % PageAllocator.PageSize != 0) return Errno.EINVAL;
        if (length > UserMemory.TaskSizeMax) return Errno.ENOMEM;
        return Mm.Protect(address, (length + PageAllocator.PageSize - 1) & ~(ulong)(PageAllocator.PageSize - 1), protection);
    }

    /// <summary>read(2).</summary>
    public KvmResult Read(int fd, ulong buffer, ulong count)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (Files.Get(fd) is not { } file) return Errno.EBADF;
        long position = file.Position;
        KvmResult r = (file.Flags & Fcntl.O_ACCMODE) == Fcntl.O_WRONLY ? Errno.EBADF : file.Operations.Read(file, buffer, count, ref position);
        file.Position = position;
        file.Put();
        return r;
    }

    /// <summary>pread64(2).</summary>
    public KvmResult Pread(int fd, ulong buffer, ulong count, long offset)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (offset < 0) return Errno.EINVAL;
        if (Files.Get(fd) is not { } file) return Errno.EBADF;
        long position = offset;
        KvmResult r = (file.Flags & Fcntl.O_ACCMODE) == Fcntl.O_WRONLY ? Errno.EBADF : file.Operations.Read(file, buffer, count, ref position);
        file.Put();
        return r;
    }

    /// <summary>write(2).</summary>
    public KvmResult Write(int fd, ulong buffer, ulong count)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (Files.Get(fd) is not { } file) return Errno.EBADF;
        long position = file.Position;
        KvmResult r = (file.Flags & Fcntl.O_ACCMODE) == Fcntl.O_RDONLY ? Errno.EBADF : file.Operations.Write(file, buffer, count, ref position);
        file.Position = position;
        file.Put();
        return r;
    }

    /// <summary>lseek(2).</summary>
    public KvmResult Lseek(int fd, long offset, int whence)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (Files.Get(fd) is not { } file) return Errno.EBADF;
        KvmResult r = file.Operations.Llseek(file, offset, whence);
        file.Put();
        return r;
    }

    /// <summary>poll(2) of one descriptor without waiting: the ready events, or -EBADF.</summary>
    public KvmResult Poll(int fd)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        if (Files.Get(fd) is not { } file) return Errno.EBADF;
        KvmResult r = file.Operations.Poll(file);
        file.Put();
        return r;
    }

    /// <summary>eventfd2(2): EFD_SEMAPHORE 1, EFD_NONBLOCK 0x800, EFD_CLOEXEC 0x80000.</summary>
    public KvmResult Eventfd(uint initial = 0, int flags = 0)
    {
        using Host.KernelScope _ = Host.Enter(Task);
        const int semaphore = 1;
        if ((flags & ~(semaphore | EventfdOperations.Nonblock | Fcntl.O_CLOEXEC)) != 0) return Errno.EINVAL;
        var context = new EventfdContext(initial, (flags & semaphore) != 0);
        return Host.AnonInodeGetFd("[eventfd]", EventfdOperations.Instance, context, Fcntl.O_RDWR | (flags & ~semaphore));
    }

    /// <summary>fork(2): a new address space, the same open files. KVM descriptors then answer -EIO.</summary>
    public HostProcess Fork()
    {
        HostProcess child = Host.CreateProcess(Name);
        Files.CopyTo(child.Files);
        return child;
    }

    /// <summary>exit(2): descriptors are closed, the address space goes. Idempotent.</summary>
    public void Exit()
    {
        if (Mm.Dead) return;
        using Host.KernelScope _ = Host.Enter(Task);
        Mm.Exit();
        // Files are closed in order, and released by task work, which runs the last one first.
        foreach (int fd in Files.Open.Reverse()) Files.Remove(fd)?.Put();
        Host.Forget(this);
    }
}
