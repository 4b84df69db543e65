using Kvm.Abi;

namespace Kvm.Core;

/// <summary>struct eventfd_ctx: a 64-bit counter that writers add to and readers take.</summary>
public sealed class EventfdContext
{
    private readonly object _gate = new();
    private readonly WaitQueue _wait = new();
    private readonly bool _semaphore;
    private ulong _count;

    internal EventfdContext(ulong count, bool semaphore)
    {
        _count = count;
        _semaphore = semaphore;
    }

    /// <summary>Called after each signal, outside the lock: irqfd's way of listening.</summary>
    public event Action? Signaled;

    /// <summary>The counter.</summary>
    public ulong Count
    {
        get { lock (_gate) return _count; }
    }

    /// <summary>eventfd_signal: adds, saturating below 2^64 - 1. Never waits.</summary>
    [Tracing.KernelFunction("eventfd_signal", File = "fs/eventfd.c")]
    public void Signal(ulong n = 1)
    {
        lock (_gate) _count = ulong.MaxValue - _count < n ? ulong.MaxValue : _count + n;
        _wait.WakeUpAll();
        Signaled?.Invoke();
    }

    internal bool TryTake(out ulong value)
    {
        lock (_gate)
        {
            value = _semaphore && _count > 0 ? 1 : _count;
            if (_count == 0) return false;
            _count -= value;
        }

        _wait.WakeUpAll();
        return true;
    }

    internal bool TryAdd(ulong n)
    {
        lock (_gate)
        {
            // The largest value that a write reaches is 2^64 - 2.
            if (ulong.MaxValue - _count <= n) return false;
            _count += n;
        }

        _wait.WakeUpAll();
        Signaled?.Invoke();
        return true;
    }

    internal bool Wait(Func<bool> condition) => _wait.WaitEvent(condition, interruptible: true);

    /// <summary>eventfd_ctx_fdget: -EBADF for no file, -EINVAL for a file that is no eventfd.</summary>
    public static KvmResult FromFd(int fd, out EventfdContext? context)
    {
        context = null;
        KvmFile? file = HostTask.Current.Process.Files.Get(fd);
        if (file is null) return Errno.EBADF;
        context = file.Operations is EventfdOperations ? (EventfdContext)file.PrivateData! : null;
        file.Put();
        return context is null ? Errno.EINVAL : 0;
    }
}
