using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>A virtual CPU: the vCPU ioctls and the pages it shares with the kernel. One thread at a time runs it.</summary>
public sealed unsafe partial class Vcpu : IDisposable
{
    private readonly kvm_run* _run;
    private long _runner;

    internal Vcpu(KvmFd fd, uint id, int mmapSize)
    {
        Fd = fd;
        Id = id;
        long address = fd.Map((ulong)mmapSize);
        if (address < 0)
        {
            fd.Dispose();
            throw new KvmException("mmap of the vCPU", (Errno)(-address));
        }

        _run = (kvm_run*)address;
    }

    /// <summary>The vCPU's descriptor.</summary>
    public KvmFd Fd { get; }

    /// <summary>The id it was created with: its APIC id.</summary>
    public uint Id { get; }

    /// <summary>The shared page: what the last exit said, and what the next KVM_RUN shall know.</summary>
    /// <exception cref="ObjectDisposedException">The vCPU is closed and its pages unmapped.</exception>
    public ref kvm_run RunPage => ref *Page;

    /// <summary>What the shared page says of the last exit, for callers of <see cref="TryRun"/>.</summary>
    public VcpuExit LastExit => new(Page, 0);

    private kvm_run* Page => !Fd.IsClosed ? _run : throw new ObjectDisposedException(nameof(Vcpu));

    /// <summary>KVM_RUN: enters the guest until it needs something.</summary>
    /// <returns>A view of the exit, valid until the next call; <see cref="VcpuExit.Interrupted"/> when a kick ended it.</returns>
    /// <exception cref="KvmException">EFAULT: the guest touched a slot whose memory is gone. ENOEXEC, EINVAL…: as the kernel says.</exception>
    public VcpuExit Run()
    {
        long result = TryRun();
        if (result < 0 && result != -(long)Errno.EINTR && result != -(long)Errno.EAGAIN)
            throw new KvmException(nameof(KVM_RUN), (Errno)(-result));
        return new VcpuExit(_run, result);
    }

    /// <summary>KVM_RUN: 0, or a negative errno. A pending kick is consumed when it makes the call end with EINTR.</summary>
    public long TryRun()
    {
        bool added = false;
        try
        {
            Fd.DangerousAddRef(ref added); // keeps the pages mapped
            Volatile.Write(ref _runner, Fd.Backend.CurrentThread());
            long result = Fd.Backend.Ioctl(Fd.Number, KVM_RUN, 0);
            Volatile.Write(ref _runner, 0);
            if (result == -(long)Errno.EINTR) Volatile.Write(ref _run->immediate_exit, 0);
            return result;
        }
        finally
        {
            if (added) Fd.DangerousRelease();
        }
    }

    /// <summary>Makes the KVM_RUN in progress, or else the next one, return interrupted. From any thread.</summary>
    /// <remarks>
    /// immediate_exit is set before the thread is looked up: a thread that is about to enter sees the flag, one that has entered gets the signal.
    /// </remarks>
    public void Kick()
    {
        bool added = false;
        try
        {
            Fd.DangerousAddRef(ref added);
            Volatile.Write(ref _run->immediate_exit, 1);
            Interlocked.MemoryBarrier();
            long runner = Volatile.Read(ref _runner);
            if (runner != 0) Fd.Backend.Interrupt(runner);
        }
        catch (ObjectDisposedException)
        {
            // Nothing left to kick.
        }
        finally
        {
            if (added) Fd.DangerousRelease();
        }
    }

    /// <summary>KVM_INTERRUPT: queues an external interrupt (userspace irqchip).</summary>
    public void Interrupt(uint vector) => Fd.Set(KVM_INTERRUPT, new kvm_interrupt { irq = vector });

    /// <summary>KVM_NMI.</summary>
    public void Nmi() => Fd.Ioctl(KVM_NMI, 0);

    /// <summary>KVM_SMI.</summary>
    public void Smi() => Fd.Ioctl(KVM_SMI, 0);

    /// <summary>KVM_SET_GUEST_DEBUG.</summary>
    public void SetGuestDebug(in kvm_guest_debug debug) => Fd.Set(KVM_SET_GUEST_DEBUG, debug);

    /// <summary>KVM_TRANSLATE: walks the guest's page tables.</summary>
    public kvm_translation Translate(ulong linearAddress)
    {
        var translation = new kvm_translation { linear_address = linearAddress };
        Fd.Exchange(KVM_TRANSLATE, ref translation);
        return translation;
    }

    /// <summary>KVM_GET_SUPPORTED_HV_CPUID: the Hyper-V leaves that this vCPU's guest could be shown.</summary>
    public kvm_cpuid_entry2[] GetSupportedHvCpuid() => Cpuid.Get(Fd, KVM_GET_SUPPORTED_HV_CPUID);

    /// <summary>KVM_ENABLE_CAP for the vCPU.</summary>
    public void EnableCap(int capability, params ReadOnlySpan<ulong> args) => Capability.Enable(Fd, capability, args);

    /// <summary>KVM_GET_STATS_FD: the kernel's counters of this vCPU by name, such as <c>exits</c>. Histograms are left out.</summary>
    /// <exception cref="KvmException">ENOTTY or EINVAL: a kernel older than 5.14.</exception>
    public IReadOnlyDictionary<string, ulong> ReadStats()
    {
        using KvmStatistics statistics = OpenStatistics();
        return statistics.Read();
    }

    /// <summary>KVM_GET_STATS_FD: to be read again and again, while it runs; not to be opened then.</summary>
    /// <exception cref="KvmException">ENOTTY or EINVAL: a kernel older than 5.14.</exception>
    public KvmStatistics OpenStatistics() => new(Fd);

    /// <summary>Any other ioctl.</summary>
    public long Ioctl(uint request, ulong argument = 0) => Fd.Ioctl(request, argument);

    /// <summary>Any other ioctl with a structure that it reads, writes or both.</summary>
    public long Ioctl<T>(uint request, ref T argument) where T : unmanaged => Fd.Exchange(request, ref argument);

    /// <summary>Closes the descriptor and unmaps the shared pages, after a KVM_RUN in progress. The VM lives on while any descriptor of it is open.</summary>
    public void Dispose() => Fd.Dispose();
}
