namespace Kvm.Arch.X86;

/// <summary>Error numbers as positive integers, for functions that return a C-style int (<c>return -EINVAL;</c>).</summary>
/// <remarks>include/uapi/asm-generic/errno-base.h, errno.h.</remarks>
public static class Errnos
{
    public const int EPERM = 1;
    public const int ENOENT = 2;
    public const int EINTR = 4;
    public const int EIO = 5;
    public const int ENXIO = 6;
    public const int E2BIG = 7;
    public const int EBADF = 9;
    public const int EAGAIN = 11;
    public const int ENOMEM = 12;
    public const int EFAULT = 14;
    public const int EBUSY = 16;
    public const int EEXIST = 17;
    public const int ENODEV = 19;
    public const int EINVAL = 22;
    public const int ENOTTY = 25;
    public const int ENOSPC = 28;
    public const int ERANGE = 34;
    public const int ENOSYS = 38;
    public const int EOPNOTSUPP = 95;

    /// <summary>Kernel-internal: the operation is not supported (include/linux/errno.h).</summary>
    public const int ENOTSUPP = 524;
}
