using System.Runtime.InteropServices;
using Kvm.Abi;

namespace Kvm.Client;

/// <summary>An open descriptor of a backend. A call in progress keeps it open: disposing it meanwhile closes it when the call returns.</summary>
public sealed class KvmFd : SafeHandle
{
    public KvmFd(IKvmBackend backend, int fd)
        : base(-1, ownsHandle: true)
    {
        Backend = backend;
        backend.AddUser();
        SetHandle(fd);
    }

    private ulong _mapping, _mappingLength;

    public IKvmBackend Backend { get; }

    /// <summary>The descriptor's number, for structures that name another descriptor.</summary>
    public int Number => (int)handle;

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

    public unsafe T Get<T>(uint request) where T : unmanaged
    {
        T value = default;
        Ioctl(request, (ulong)&value);
        return value;
    }

    public unsafe long Set<T>(uint request, in T value) where T : unmanaged
    {
        fixed (T* pointer = &value)
            return Ioctl(request, (ulong)pointer);
    }

    public unsafe long Exchange<T>(uint request, ref T value) where T : unmanaged
    {
        fixed (T* pointer = &value)
            return Ioctl(request, (ulong)pointer);
    }

    /// <summary>Maps pages of the descriptor; they stay as long as it is open.</summary>
    /// <returns>The address, or a negative errno.</returns>
    internal long Map(ulong length)
    {
        long address = Backend.Mmap((int)handle, length, Abi.Uapi.PROT_READ | Abi.Uapi.PROT_WRITE, Abi.Uapi.MAP_SHARED, 0);
        if (address >= 0) (_mapping, _mappingLength) = ((ulong)address, length);
        return address;
    }

    protected override bool ReleaseHandle()
    {
        if (_mappingLength != 0) Backend.Munmap(_mapping, _mappingLength);
        bool closed = Backend.Close((int)handle) == 0;
        Backend.RemoveUser();
        return closed;
    }
}
