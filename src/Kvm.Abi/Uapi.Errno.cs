// Second names of errnos: asm-generic/errno.h.

namespace Kvm.Abi;

public static partial class Uapi
{
    public const Errno EWOULDBLOCK = Errno.EAGAIN;
    public const Errno EDEADLOCK = Errno.EDEADLK;
    public const Errno ENOTSUP = Errno.EOPNOTSUPP;
}
