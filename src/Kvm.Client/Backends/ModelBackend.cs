using Kvm.Abi;

namespace Kvm.Client.Backends;

/// <summary>Waiting for the kernel model: until it can be loaded there is no such device.</summary>
internal sealed class ModelBackend(ModelOptions options) : IKvmBackend
{
    public string Name => $"model ({options.Cpu?.Name ?? options.Vendor.ToString()})";

    public long Open(string path, int flags) => -(long)Errno.ENODEV;

    public long Ioctl(int fd, uint request, ulong argument) => -(long)Errno.EBADF;

    public long Close(int fd) => -(long)Errno.EBADF;

    public long Dup(int fd) => -(long)Errno.EBADF;

    public long Mmap(int fd, ulong length, int prot, int flags, long offset) => -(long)Errno.EBADF;

    public long MapAnonymous(ulong length) => -(long)Errno.ENOMEM;

    public long Munmap(ulong address, ulong length) => -(long)Errno.EINVAL;

    public long CurrentThread() => 0;

    public void Interrupt(long thread) { }

    public void AddUser() { }

    public void RemoveUser() { }
}
