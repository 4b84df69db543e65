using Kvm.Abi;

namespace Kvm.Client;

/// <summary>A counter of the backend's kernel that KVM_IRQFD and KVM_IOEVENTFD take, and that threads wait for.</summary>
public sealed unsafe class EventFd : IDisposable
{
    private readonly KvmFd _fd;

    /// <summary>eventfd(2), at 0.</summary>
    /// <exception cref="KvmException">EMFILE and the like.</exception>
    public EventFd(IKvmBackend backend)
    {
        ArgumentNullException.ThrowIfNull(backend);
        long fd = backend.Eventfd(0, 0);
        if (fd < 0) throw new KvmException("eventfd", (Errno)(-fd));
        _fd = new KvmFd(backend, (int)fd);
    }

    /// <summary>The descriptor's number, for KVM's structures.</summary>
    public int Number => _fd.Number;

    /// <summary>Adds 1; wakes who waits.</summary>
    /// <exception cref="KvmException">The descriptor is closed (EBADF).</exception>
    public void Signal()
    {
        ulong one = 1;
        long result = Transfer(write: true, &one);
        if (result < 0) throw new KvmException("write of an eventfd", (Errno)(-result));
    }

    /// <summary>Waits until the counter is not 0, and sets it to 0.</summary>
    /// <returns>What it was.</returns>
    /// <exception cref="KvmException">The descriptor is closed (EBADF).</exception>
    public ulong Wait()
    {
        ulong count;
        while (true)
        {
            long result = Transfer(write: false, &count);
            if (result >= 0) return count;
            if (result is not (-(long)Errno.EINTR or -(long)Errno.EAGAIN)) throw new KvmException("read of an eventfd", (Errno)(-result));
        }
    }

    /// <summary>Closes it, after a call in progress: signal first who waits.</summary>
    public void Dispose() => _fd.Dispose();

    private long Transfer(bool write, ulong* value)
    {
        bool added = false;
        try
        {
            _fd.DangerousAddRef(ref added);
            return write ? _fd.Backend.Write(_fd.Number, (ulong)value, sizeof(ulong)) : _fd.Backend.Read(_fd.Number, (ulong)value, sizeof(ulong));
        }
        catch (ObjectDisposedException)
        {
            return -(long)Errno.EBADF;
        }
        finally
        {
            if (added) _fd.DangerousRelease();
        }
    }
}
