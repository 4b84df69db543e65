using System.Runtime.InteropServices;
using Kvm.Interop;
using static Kvm.Abi.Uapi;

namespace Kvm.Client.Backends;

/// <summary>The host's system calls.</summary>
internal sealed unsafe class NativeBackend : IKvmBackend
{
    [ThreadStatic] private static long t_thread;

    private int _signal;

    public string Name => "native";

    public long Open(string path, int flags) => Result(LibC.open(path, flags));

    public long Ioctl(int fd, uint request, ulong argument)
    {
        int result = LibC.ioctl(fd, request, (nuint)argument);
        return result >= 0 ? result : -LibC.errno;
    }

    public long Close(int fd) => Result(LibC.close(fd));

    public long Dup(int fd) => Result(LibC.dup(fd));

    public long Mmap(int fd, ulong length, int prot, int flags, long offset)
    {
        void* address = LibC.mmap(null, (nuint)length, prot, flags, fd, offset);
        return (nint)address != -1 ? (long)address : -LibC.errno;
    }

    public long MapAnonymous(ulong length) =>
        Mmap(-1, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, 0);

    public long Munmap(ulong address, ulong length) => Result(LibC.munmap((void*)address, (nuint)length));

    public long Mprotect(ulong address, ulong length, int prot) => Result(LibC.mprotect((void*)address, (nuint)length, prot));

    public long Eventfd(uint initial, int flags) => Result(LibC.eventfd(initial, flags));

    public long Read(int fd, ulong buffer, ulong count)
    {
        nint result = LibC.read(fd, (void*)buffer, (nuint)count);
        return result >= 0 ? result : -LibC.errno;
    }

    public long Pread(int fd, ulong buffer, ulong count, long offset)
    {
        nint result = LibC.pread(fd, (void*)buffer, (nuint)count, offset);
        return result >= 0 ? result : -LibC.errno;
    }

    public long Write(int fd, ulong buffer, ulong count)
    {
        nint result = LibC.write(fd, (void*)buffer, (nuint)count);
        return result >= 0 ? result : -LibC.errno;
    }

    public long Lseek(int fd, long offset, int whence)
    {
        long result = LibC.lseek(fd, offset, whence);
        return result >= 0 ? result : -LibC.errno;
    }

    public long Poll(int fd)
    {
        var poll = new LibC.pollfd { fd = fd, events = POLLIN | POLLPRI | POLLOUT };
        int result = LibC.poll(&poll, 1, 0);
        return result >= 0 ? (poll.revents & POLLNVAL) != 0 ? -(long)Abi.Errno.EBADF : poll.revents : -LibC.errno;
    }

    public long CurrentThread()
    {
        if (t_thread == 0)
        {
            InstallHandler();
            t_thread = LibC.syscall(LibC.SYS_gettid, 0, 0, 0);
        }

        return t_thread;
    }

    public void Interrupt(long thread) => LibC.syscall(LibC.SYS_tgkill, LibC.getpid(), (nint)thread, _signal);

    public void AddUser() { }

    public void RemoveUser() { }

    /// <summary>
    /// Gives one real-time signal a handler that does nothing, so that it interrupts KVM_RUN and disturbs nothing else.
    /// </summary>
    /// <remarks>
    /// The handler must not be managed code: it can run at any instruction. <c>abs(int)</c> of the C library has a handler's signature and no effect.
    /// SA_RESTART spares the runtime's own system calls; KVM_RUN returns EINTR all the same.
    /// </remarks>
    private void InstallHandler()
    {
        lock (this)
        {
            if (_signal != 0) return;
            int signal = LibC.__libc_current_sigrtmin() + 6;
            var action = new LibC.SigAction
            {
                sa_handler = NativeLibrary.GetExport(NativeLibrary.Load("libc", typeof(LibC).Assembly, null), "abs"),
                sa_flags = LibC.SA_RESTART,
            };
            LibC.sigaction(signal, &action, null);
            _signal = signal;
        }
    }

    private static long Result(int result) => result >= 0 ? result : -LibC.errno;
}
