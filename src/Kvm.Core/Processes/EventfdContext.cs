using Kvm.Abi;

namespace Kvm.Core;

/// <summary>struct eventfd_ctx: a 64-bit counter that writers add to and readers take.</summary>
public sealed class EventfdContext
{
    private readonly object _gate = new();
    private readonly WaitQueue _wait = new();
    private readonly bool _semaphore;
    private ulong _count;
    private IEventfdWaiter[] _waiters = [];
    private bool _hangup;

    internal EventfdContext(ulong count, bool semaphore)
    {
        _count = count;
        _semaphore = semaphore;
    }

    /// <summary>The counter.</summary>
    public ulong Count
    {
        get => Volatile.Read(ref _count);
    }

    /// <summary>eventfd_signal: adds, saturating below 2^64 - 1. Never waits.</summary>
    [Tracing.KernelFunction("eventfd_signal", File = "fs/eventfd.c")]
    public void Signal(ulong n = 1)
    {
        lock (_gate)
        {
            _count = ulong.MaxValue - _count < n ? ulong.MaxValue : _count + n;
            WakeWaiters();
        }

        _wait.WakeUpAll();
    }

    private void WakeWaiters()
    {
        foreach (IEventfdWaiter waiter in _waiters)
            if (_count > 0) waiter.OnReadable();
    }

    /// <summary>vfs_poll with a queue entry: it is told of every signal, before any reader. True when the counter is above zero already.</summary>
    internal bool AddWaiter(IEventfdWaiter waiter)
    {
        lock (_gate)
        {
            _waiters = [.. _waiters, waiter];
            if (_hangup) waiter.OnHangup();
            return _count > 0;
        }
    }

    /// <summary>eventfd_ctx_remove_wait_queue: the entry's functions do not run any more. Takes the counter.</summary>
    internal void RemoveWaiter(IEventfdWaiter waiter)
    {
        lock (_gate)
        {
            _waiters = [.. _waiters.Where(w => w != waiter)];
            TakeLocked(out _);
        }
    }

    /// <summary>eventfd_ctx_do_read, with the lock held.</summary>
    internal void DoRead() => TakeLocked(out _);

    /// <summary>eventfd_release.</summary>
    internal void Hangup()
    {
        lock (_gate)
        {
            _hangup = true;
            foreach (IEventfdWaiter waiter in _waiters) waiter.OnHangup();
        }
    }

    private bool TakeLocked(out ulong value)
    {
        value = _semaphore && _count > 0 ? 1 : _count;
        if (_count == 0) return false;
        _count -= value;
        return true;
    }

    internal bool TryTake(out ulong value)
    {
        // Who polls must not hold up who signals.
        value = 0;
        if (Volatile.Read(ref _count) == 0) return false;
        lock (_gate)
        {
            if (!TakeLocked(out value)) return false;
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
            WakeWaiters();
        }

        _wait.WakeUpAll();
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
