using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Kvm.Interop;

namespace Kvm.Core;

/// <summary>
/// copy_from_user and copy_to_user. Mappings of the process are copied directly; any other memory of the program goes through the kernel, which answers EFAULT
/// for wild pointers instead of a signal.
/// </summary>
public static unsafe class UserMemory
{
    /// <summary>TASK_SIZE_MAX of x86-64 with four-level paging.</summary>
    public const ulong TaskSizeMax = 0x7fff_ffff_f000;

    private const int EPERM = 1;
    private const int ENOSYS = 38;

    private static readonly int s_pid = LibC.getpid();
    private static volatile bool s_direct = true;

    [ThreadStatic]
    private static int* t_pipe;

    /// <summary>Where the calling thread's stack ends; 0 = not known yet, 1 = the system does not say.</summary>
    [ThreadStatic]
    private static ulong t_stackEnd;

    /// <summary>access_ok.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool AccessOk(ulong address, ulong size) => size <= TaskSizeMax && address <= TaskSizeMax - size;

    /// <summary>True when all bytes were copied; false is -EFAULT (some may have been).</summary>
    public static bool CopyFromUser(void* to, ulong from, ulong size)
    {
        if (size == 0) return true;
        if (!AccessOk(from, size)) return false;
        if (OnStack(from, size))
        {
            Unsafe.CopyBlockUnaligned(to, (void*)from, (uint)size);
            return true;
        }

        return HostTask.CurrentOrNull?.Mm is { } mm ? mm.CopyFrom(to, from, size) : ProbeRead(to, from, size);
    }

    /// <summary>True when all bytes were copied; false is -EFAULT (some may have been).</summary>
    public static bool CopyToUser(ulong to, void* from, ulong size)
    {
        if (size == 0) return true;
        if (!AccessOk(to, size)) return false;
        if (OnStack(to, size))
        {
            Unsafe.CopyBlockUnaligned((void*)to, from, (uint)size);
            return true;
        }

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

    /// <summary>
    /// The bytes lie in the part of the calling thread's stack that is in use, where arguments of system calls mostly are. It can be accessed and stays as long
    /// as the thread is in the call: nobody has to be asked.
    /// </summary>
    [MethodImpl(MethodImplOptions.NoInlining)] // "here" is below all that the caller has
    internal static bool OnStack(ulong address, ulong size)
    {
        byte here;
        ulong end = t_stackEnd;
        if (end == 0) end = t_stackEnd = StackEnd((ulong)&here);
        return address > (ulong)&here && address < end && size <= end - address;
    }

    internal static ulong StackEnd(ulong here)
    {
        byte* attributes = stackalloc byte[128]; // pthread_attr_t: 56 bytes
        if (LibC.pthread_getattr_np(LibC.pthread_self(), attributes) != 0) return 1;
        void* start;
        nuint size;
        int error = LibC.pthread_attr_getstack(attributes, &start, &size);
        _ = LibC.pthread_attr_destroy(attributes);
        ulong end = (ulong)start + size;
        return error == 0 && (ulong)start <= here && here < end ? end : 1;
    }

    internal static bool ProbeRead(void* to, ulong from, ulong size)
    {
        if (s_direct)
        {
            var local = new LibC.iovec { iov_base = to, iov_len = (nuint)size };
            var remote = new LibC.iovec { iov_base = (void*)from, iov_len = (nuint)size };
            nint n = LibC.process_vm_readv(s_pid, &local, 1, &remote, 1, 0);
            int errno = Marshal.GetLastPInvokeError();
            if (n >= 0) return n == (nint)size;
            if (errno is not (EPERM or ENOSYS)) return false;
            s_direct = false;
        }

        return ThroughPipe((ulong)to, from, size);
    }

    internal static bool ProbeWrite(ulong to, void* from, ulong size)
    {
        if (s_direct)
        {
            var local = new LibC.iovec { iov_base = from, iov_len = (nuint)size };
            var remote = new LibC.iovec { iov_base = (void*)to, iov_len = (nuint)size };
            nint n = LibC.process_vm_writev(s_pid, &local, 1, &remote, 1, 0);
            int errno = Marshal.GetLastPInvokeError();
            if (n >= 0) return n == (nint)size;
            if (errno is not (EPERM or ENOSYS)) return false;
            s_direct = false;
        }

        return ThroughPipe(to, (ulong)from, size);
    }

    /// <summary>Where process_vm_readv is not allowed: a pipe's read and write answer EFAULT for wild pointers too.</summary>
    internal static bool ThroughPipe(ulong to, ulong from, ulong size)
    {
        int* fds = t_pipe;
        if (fds == null)
        {
            fds = (int*)NativeMemory.Alloc(8); // lives as long as the thread's pipe
            if (LibC.pipe(fds) != 0)
            {
                NativeMemory.Free(fds);
                return false;
            }

            t_pipe = fds;
        }

        while (size > 0)
        {
            nuint n = (nuint)Math.Min(size, 4096);
            nint wrote = LibC.write(fds[1], (void*)from, n);
            if (wrote <= 0) return false;
            nint read = LibC.read(fds[0], (void*)to, (nuint)wrote);
            if (read != wrote)
            {
                // What is left in the pipe must not reach the next copy.
                byte* drain = stackalloc byte[4096];
                nint left = wrote - Math.Max(read, 0);
                while (left > 0) left -= LibC.read(fds[0], drain, (nuint)left);
                return false;
            }

            to += (ulong)wrote;
            from += (ulong)wrote;
            size -= (ulong)wrote;
        }

        return true;
    }
}
