using Kvm.Abi;

namespace Kvm.Core;

/// <summary>eventfd_fops.</summary>
internal sealed class EventfdOperations : FileOperations
{
    /// <summary>O_NONBLOCK, EFD_NONBLOCK.</summary>
    public const int Nonblock = 0x800;

    public static readonly EventfdOperations Instance = new();

    public override KvmResult Read(KvmFile file, ulong buffer, ulong count, ref long position)
    {
        if (count < 8) return Errno.EINVAL;
        var context = (EventfdContext)file.PrivateData!;
        ulong value = 0;
        if (!context.TryTake(out value))
        {
            if ((file.Flags & Nonblock) != 0) return Errno.EAGAIN;
            if (!context.Wait(() => context.TryTake(out value))) return Errno.EINTR;
        }

        return new UserPtr<ulong>(buffer).Write(in value) ? 8 : Errno.EFAULT;
    }

    public override KvmResult Write(KvmFile file, ulong buffer, ulong count, ref long position)
    {
        if (count < 8) return Errno.EINVAL;
        if (!new UserPtr<ulong>(buffer).Read(out ulong value)) return Errno.EFAULT;
        if (value == ulong.MaxValue) return Errno.EINVAL;
        var context = (EventfdContext)file.PrivateData!;
        if (context.TryAdd(value)) return 8;
        if ((file.Flags & Nonblock) != 0) return Errno.EAGAIN;
        return context.Wait(() => context.TryAdd(value)) ? 8 : Errno.EINTR;
    }

    public override void Release(KvmFile file) => ((EventfdContext)file.PrivateData!).Hangup();

    /// <summary>EPOLLIN with a count, EPOLLOUT unless full, EPOLLERR when it overflowed.</summary>
    public override uint Poll(KvmFile file)
    {
        ulong count = ((EventfdContext)file.PrivateData!).Count;
        return (count > 0 ? 1u : 0) | (count == ulong.MaxValue ? 8u : 0) | (count < ulong.MaxValue - 1 ? 4u : 0);
    }
}
