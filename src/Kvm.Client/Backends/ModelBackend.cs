using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Client.Backends;

/// <summary>The model: one host, one process on it. Booted by the first user, powered off by the last.</summary>
public sealed class ModelBackend : IKvmBackend
{
    /// <summary>SIGUSR1: its handler does nothing, its arrival interrupts KVM_RUN.</summary>
    private const int KickSignal = 10;

    private readonly Lock _lock = new();
    private readonly ModelOptions _options;
    private ModelHost? _host;
    private HostProcess? _process;
    private int _users;

    internal ModelBackend(ModelOptions options) => _options = options;

    /// <inheritdoc/>
    public string Name => $"model, {_options.Processor.Name}";

    /// <summary>The running host: its log, modules, processors. Null while nobody uses it.</summary>
    public Host? Host => Volatile.Read(ref _host)?.Host;

    /// <inheritdoc/>
    public long Open(string path, int flags) => Process.Open(path, flags).Raw;

    /// <inheritdoc/>
    public long Ioctl(int fd, uint request, ulong argument) => Process.Ioctl(fd, request, argument).Raw;

    /// <inheritdoc/>
    public long Close(int fd) => Process.Close(fd).Raw;

    /// <inheritdoc/>
    public long Dup(int fd) => Process.Dup(fd).Raw;

    /// <inheritdoc/>
    public long Mmap(int fd, ulong length, int prot, int flags, long offset) => Process.Mmap(length, prot, flags, fd, (ulong)offset).Raw;

    /// <inheritdoc/>
    public long MapAnonymous(ulong length) => Process.Mmap(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS).Raw;

    /// <inheritdoc/>
    public long Munmap(ulong address, ulong length) => Process.Munmap(address, length).Raw;

    /// <inheritdoc/>
    public long Mprotect(ulong address, ulong length, int prot) => Process.Mprotect(address, length, prot).Raw;

    /// <inheritdoc/>
    public long Eventfd(uint initial, int flags) => Process.Eventfd(initial, flags).Raw;

    /// <inheritdoc/>
    public long Read(int fd, ulong buffer, ulong count) => Process.Read(fd, buffer, count).Raw;

    /// <inheritdoc/>
    public long Pread(int fd, ulong buffer, ulong count, long offset) => Process.Pread(fd, buffer, count, offset).Raw;

    /// <inheritdoc/>
    public long Write(int fd, ulong buffer, ulong count) => Process.Write(fd, buffer, count).Raw;

    /// <inheritdoc/>
    public long Lseek(int fd, long offset, int whence) => Process.Lseek(fd, offset, whence).Raw;

    /// <inheritdoc/>
    public long Poll(int fd)
    {
        long ready = Process.Poll(fd).Raw;
        return ready < 0 ? ready : ready & (POLLIN | POLLPRI | POLLOUT | POLLERR | POLLHUP);
    }

    /// <inheritdoc/>
    public long CurrentThread() => Process.Task.Pid;

    /// <inheritdoc/>
    public void Interrupt(long thread) => Volatile.Read(ref _process)?.FindTask((int)thread)?.Send(KickSignal);

    /// <inheritdoc/>
    public void AddUser()
    {
        lock (_lock)
        {
            if (_users == 0)
            {
                _host = ModelHost.Boot(_options);
                _process = _host.Host.CreateProcess("vmm");
                _process.SignalHandler = static (_, _) => { };
            }

            _users++;
        }
    }

    /// <inheritdoc/>
    public void RemoveUser()
    {
        lock (_lock)
        {
            if (--_users > 0) return;
            _process!.Exit();
            _process = null;
            _host?.Dispose(); // a forked process has none of its own
            _host = null;
        }
    }

    /// <summary>fork(2): another process of the same host, with the same open files and an address space of its own.</summary>
    /// <returns>Its back end, with one user; the process ends with the last. Must not outlive this one.</returns>
    public ModelBackend Fork()
    {
        var child = new ModelBackend(_options) { _users = 1, _process = Process.Fork() };
        child._process.SignalHandler = static (_, _) => { };
        return child;
    }

    /// <summary>The process whose descriptors these are.</summary>
    public HostProcess Process => Volatile.Read(ref _process) ?? throw new ObjectDisposedException(Name);
}
