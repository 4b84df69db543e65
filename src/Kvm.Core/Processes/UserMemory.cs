using System.Runtime.CompilerServices;
using Kvm.Core.Interop;

namespace Kvm.Core;

/// <summary>
/// copy_from_user and copy_to_user. Mappings of the process are copied directly; any other memory of the program goes through the kernel, which answers EFAULT
/// for wild pointers instead of a signal.
/// </summary>
public static unsafe class UserMemory
{
    /// <summary>TASK_SIZE_MAX of x86-64 with four-level paging.</summary>
    public const ulong TaskSizeMax = 0x7fff_ffff_f000;

    private static readonly int s_pid = LibC.getpid();

    /// <summary>access_ok.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool AccessOk(ulong address, ulong size) => size <= TaskSizeMax && address <= TaskSizeMax - size;

    /// <summary>True when all bytes were copied; false is -EFAULT (some may have been).</summary>
    public static bool CopyFromUser(void* to, ulong from, ulong size)
    {
        if (size == 0) return true;
        if (!AccessOk(from, size)) return false;
        return HostTask.CurrentOrNull?.Mm is { } mm ? mm.CopyFrom(to, from, size) : ProbeRead(to, from, size);
    }

    /// <summary>True when all bytes were copied; false is -EFAULT (some may have been).</summary>
    public static bool CopyToUser(ulong to, void* from, ulong size)
    {
        if (size == 0) return true;
        if (!AccessOk(to, size)) return false;
        return HostTask.CurrentOrNull?.Mm is { } mm ? mm.CopyTo(to, from, size) : ProbeWrite(to, from, size);
    }

    /// <summary>clear_user.</summary>
    public static bool ClearUser(ulong to, ulong size)
    {
        byte* zero = stackalloc byte[256];
        new Span<byte>(zero, 256).Clear();
        while (size > 0)
        {
            ulong n = Math.Min(size, 256);
            if (!CopyToUser(to, zero, n)) return false;
            to += n;
            size -= n;
        }

        return true;
    }

    internal static bool ProbeRead(void* to, ulong from, ulong size)
    {
        var local = new LibC.iovec { iov_base = to, iov_len = (nuint)size };
        var remote = new LibC.iovec { iov_base = (void*)from, iov_len = (nuint)size };
        return LibC.process_vm_readv(s_pid, &local, 1, &remote, 1, 0) == (nint)size;
    }

    internal static bool ProbeWrite(ulong to, void* from, ulong size)
    {
        var local = new LibC.iovec { iov_base = from, iov_len = (nuint)size };
        var remote = new LibC.iovec { iov_base = (void*)to, iov_len = (nuint)size };
        return LibC.process_vm_writev(s_pid, &local, 1, &remote, 1, 0) == (nint)size;
    }
}
