using Kvm.Abi;

namespace Kvm.Core;

/// <summary>struct file_operations: what a kind of file can do. The defaults answer as a file without the operation does.</summary>
public abstract class FileOperations
{
    /// <summary>The module that every open file of this kind pins; null = built in.</summary>
    public HostModule? Owner { get; set; }

    /// <summary>unlocked_ioctl; -ENOTTY without one.</summary>
    public virtual KvmResult Ioctl(KvmFile file, uint request, ulong arg) => Errno.ENOTTY;

    /// <summary>mmap: may refuse the mapping; -ENODEV without one.</summary>
    public virtual KvmResult Mmap(KvmFile file, Vma vma) => Errno.ENODEV;

    /// <summary>vm_ops->fault: the kernel page behind page <paramref name="pageOffset"/> of the file, or 0 = SIGBUS.</summary>
    public virtual ulong Fault(KvmFile file, ulong pageOffset) => 0;

    /// <summary>read; -EINVAL without one.</summary>
    public virtual KvmResult Read(KvmFile file, ulong buffer, ulong count, ref long position) => Errno.EINVAL;

    /// <summary>write; -EINVAL without one.</summary>
    public virtual KvmResult Write(KvmFile file, ulong buffer, ulong count, ref long position) => Errno.EINVAL;

    /// <summary>llseek; noop_llseek: succeeds and does nothing.</summary>
    public virtual KvmResult Llseek(KvmFile file, long offset, int whence) => file.Position;

    /// <summary>poll: the ready events (EPOLLIN…); always ready without one (DEFAULT_POLLMASK).</summary>
    public virtual uint Poll(KvmFile file) => 0x145;

    /// <summary>release: the last reference is gone.</summary>
    public virtual void Release(KvmFile file)
    {
    }
}
