// How an ioctl number is composed: asm-generic/ioctl.h.

namespace Kvm.Abi;

/// <summary>
/// Everything that Linux 6.1's KVM headers define for x86-64 userspace, names verbatim: <c>using static Kvm.Abi.Uapi;</c>.
/// Constants that fit are <c>int</c>, so that they mix with every field width as in C.
/// </summary>
public static partial class Uapi
{
    public const int _IOC_NRBITS = 8;
    public const int _IOC_TYPEBITS = 8;
    public const int _IOC_SIZEBITS = 14;
    public const int _IOC_DIRBITS = 2;

    public const int _IOC_NRSHIFT = 0;
    public const int _IOC_TYPESHIFT = _IOC_NRSHIFT + _IOC_NRBITS;
    public const int _IOC_SIZESHIFT = _IOC_TYPESHIFT + _IOC_TYPEBITS;
    public const int _IOC_DIRSHIFT = _IOC_SIZESHIFT + _IOC_SIZEBITS;

    public const uint _IOC_NONE = 0;
    public const uint _IOC_WRITE = 1;
    public const uint _IOC_READ = 2;

    public static uint _IOC(uint dir, uint type, uint nr, uint size) =>
        (dir << _IOC_DIRSHIFT) | (type << _IOC_TYPESHIFT) | (nr << _IOC_NRSHIFT) | (size << _IOC_SIZESHIFT);

    public static uint _IO(uint type, uint nr) => _IOC(_IOC_NONE, type, nr, 0);

    public static unsafe uint _IOR<T>(uint type, uint nr) where T : unmanaged => _IOC(_IOC_READ, type, nr, (uint)sizeof(T));

    public static unsafe uint _IOW<T>(uint type, uint nr) where T : unmanaged => _IOC(_IOC_WRITE, type, nr, (uint)sizeof(T));

    public static unsafe uint _IOWR<T>(uint type, uint nr) where T : unmanaged => _IOC(_IOC_READ | _IOC_WRITE, type, nr, (uint)sizeof(T));

    public static uint _IOC_DIR(uint request) => request >> _IOC_DIRSHIFT;

    public static uint _IOC_TYPE(uint request) => (request >> _IOC_TYPESHIFT) & ((1u << _IOC_TYPEBITS) - 1);

    public static uint _IOC_NR(uint request) => request & ((1u << _IOC_NRBITS) - 1);

    public static uint _IOC_SIZE(uint request) => (request >> _IOC_SIZESHIFT) & ((1u << _IOC_SIZEBITS) - 1);
}
