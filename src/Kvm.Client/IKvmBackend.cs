namespace Kvm.Client;

/// <summary>
/// The system calls that a VMM makes, on whichever kernel: a real one, or the model.
/// Every method returns what the system call returns to assembly: a value &gt;= 0, or a negative errno.
/// </summary>
public interface IKvmBackend
{
    /// <summary>For messages: <c>native</c>, <c>model (Intel)</c>.</summary>
    string Name { get; }

    /// <summary>open(2).</summary>
    long Open(string path, int flags);

    /// <param name="fd">A descriptor of this backend.</param>
    /// <param name="request">The ioctl number.</param>
    /// <param name="argument">A value, or the address of a structure in this process.</param>
    long Ioctl(int fd, uint request, ulong argument);

    /// <summary>close(2).</summary>
    long Close(int fd);

    /// <summary>dup(2).</summary>
    long Dup(int fd);

    /// <summary>Maps a descriptor's pages (a vCPU's shared pages).</summary>
    /// <returns>The address, or a negative errno.</returns>
    long Mmap(int fd, ulong length, int prot, int flags, long offset);

    /// <summary>Allocates zeroed, page-aligned memory that can become guest RAM.</summary>
    /// <returns>The address, or a negative errno.</returns>
    long MapAnonymous(ulong length);

    /// <summary>munmap(2): frees what <see cref="Mmap"/> or <see cref="MapAnonymous"/> returned.</summary>
    long Munmap(ulong address, ulong length);

    /// <summary>Changes the protection of whole pages.</summary>
    long Mprotect(ulong address, ulong length, int prot);

    /// <summary>A counter that KVM_IRQFD and KVM_IOEVENTFD take; read and written as 8 bytes.</summary>
    /// <returns>A descriptor, or a negative errno.</returns>
    long Eventfd(uint initial, int flags);

    /// <summary>read(2) into memory of this process.</summary>
    long Read(int fd, ulong buffer, ulong count);

    /// <summary>pread(2) into memory of this process: the descriptor's position stays.</summary>
    long Pread(int fd, ulong buffer, ulong count, long offset);

    /// <summary>write(2) from memory of this process.</summary>
    long Write(int fd, ulong buffer, ulong count);

    /// <summary>lseek(2).</summary>
    long Lseek(int fd, long offset, int whence);

    /// <summary>The events of a descriptor that are ready now (POLLIN, POLLOUT…), or a negative errno.</summary>
    long Poll(int fd);

    /// <summary>Names the calling thread, for <see cref="Interrupt"/>.</summary>
    long CurrentThread();

    /// <summary>Makes the named thread leave a sleeping system call, as a handled signal would.</summary>
    void Interrupt(long thread);

    /// <summary>One more object uses the backend.</summary>
    void AddUser();

    /// <summary>One object less; the last one out releases what the backend holds.</summary>
    void RemoveUser();
}
