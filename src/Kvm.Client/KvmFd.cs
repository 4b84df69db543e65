using System.Runtime.InteropServices;
using Kvm.Abi;

namespace Kvm.Client;

/// <summary>An open descriptor of a backend. A call in progress keeps it open: disposing it meanwhile closes it when the call returns.</summary>
public sealed class KvmFd : SafeHandle
{
    /// <summary>Owns an open descriptor from now on.</summary>
    public KvmFd(IKvmBackend backend, int fd)
        : base(-1, ownsHandle: true)
    {
        Backend = backend;
        backend.AddUser();
        SetHandle(fd);
    }

    private ulong _mapping, _mappingLength;

    /// <summary>Where the descriptor is open.</summary>
    public IKvmBackend Backend { get; }

    /// <summary>The descriptor's number, for structures that name another descriptor.</summary>
    public int Number => (int)handle;

    /// <inheritdoc/>
    public override bool IsInvalid => handle < 0;

    /// <summary>The raw ioctl: a value &gt;= 0, or a negative errno (<c>-EBADF</c> after disposal).</summary>
    public long TryIoctl(uint request, ulong argument)
    {
        bool added = false;
        try
        {
            DangerousAddRef(ref added);
            return Backend.Ioctl((int)handle, request, argument);
        }
        catch (ObjectDisposedException)
        {
            return -(long)Errno.EBADF;
        }
        finally
        {
            if (added) DangerousRelease();
        }
    }

    /// <summary>The ioctl, an errno as <see cref="KvmException"/>.</summary>
    public long Ioctl(uint request, ulong argument)
    {
        long result = TryIoctl(request, argument);
        return result >= 0 ? result : throw new KvmException(IoctlNames.Of(request), (Errno)(-result));
    }

    /// <summary>An ioctl that fills a structure.</summary>
    /// <exception cref="ArgumentException">The ioctl's structure is larger than <typeparamref name="T"/>.</exception>
    /// <exception cref="KvmException">The call failed.</exception>
    public unsafe T Get<T>(uint request) where T : unmanaged
    {
        CheckSize<T>(request);
        T value = default;
        Ioctl(request, (ulong)&value);
        return value;
    }

    /// <summary>An ioctl that reads a structure.</summary>
    /// <exception cref="ArgumentException">The ioctl's structure is larger than <typeparamref name="T"/>.</exception>
    /// <exception cref="KvmException">The call failed.</exception>
    public unsafe long Set<T>(uint request, in T value) where T : unmanaged
    {
        CheckSize<T>(request);
        fixed (T* pointer = &value)
            return Ioctl(request, (ulong)pointer);
    }

    /// <summary>An ioctl that reads and fills a structure.</summary>
    /// <exception cref="ArgumentException">The ioctl's structure is larger than <typeparamref name="T"/>.</exception>
    /// <exception cref="KvmException">The call failed.</exception>
    public unsafe long Exchange<T>(uint request, ref T value) where T : unmanaged
    {
        CheckSize<T>(request);
        fixed (T* pointer = &value)
            return Ioctl(request, (ulong)pointer);
    }

    /// <summary>The kernel believes the size in the number: it must not reach beyond the structure.</summary>
    private static unsafe void CheckSize<T>(uint request) where T : unmanaged
    {
        const int SizeShift = 16, SizeMask = 0x3fff;
        int size = (int)(request >> SizeShift) & SizeMask;
        if (size > sizeof(T)) throw new ArgumentException($"{IoctlNames.Of(request)} takes {size} bytes, {typeof(T).Name} has {sizeof(T)}", nameof(request));
    }

    /// <summary>Maps pages of the descriptor; they stay as long as it is open.</summary>
    /// <returns>The address, or a negative errno.</returns>
    internal long Map(ulong length)
    {
        long address = Backend.Mmap((int)handle, length, Abi.Uapi.PROT_READ | Abi.Uapi.PROT_WRITE, Abi.Uapi.MAP_SHARED, 0);
        if (address >= 0) (_mapping, _mappingLength) = ((ulong)address, length);
        return address;
    }

    /// <summary>Unmaps and closes.</summary>
    protected override bool ReleaseHandle()
    {
        if (_mappingLength != 0) Backend.Munmap(_mapping, _mappingLength);
        bool closed = Backend.Close((int)handle) == 0;
        Backend.RemoveUser();
        return closed;
    }
}
