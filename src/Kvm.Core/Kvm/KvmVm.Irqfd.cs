using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Core;

/// <remarks>irqfd: a signal of an eventfd raises a GSI (virt/kvm/eventfd.c).</remarks>
public abstract unsafe partial class KvmVm
{
    private readonly object _irqfdsLock = new();
    private readonly List<Irqfd> _irqfds = [];
    private readonly KernelMutex _resamplerLock = new();
    private readonly List<IrqfdResampler> _resamplers = [];

    /// <summary>KVM_IRQFD: -EINVAL for unknown flags.</summary>
    [KernelFunction("kvm_irqfd", File = "virt/kvm/eventfd.c")]
    internal KvmResult IoctlIrqfd(in kvm_irqfd args)
    {
        using var _ = FunctionTrace.Enter("kvm_irqfd");
        if ((args.flags & ~(uint)(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE)) != 0) return Errno.EINVAL;
        return (args.flags & KVM_IRQFD_FLAG_DEASSIGN) != 0 ? IrqfdDeassign(in args) : IrqfdAssign(in args);
    }

    /// <summary>-EINVAL without a fitting interrupt controller, -ENOMEM, -EBADF, -EINVAL for another kind of file, -EBUSY for an eventfd that is bound already.</summary>
    [KernelFunction("kvm_irqfd_assign", File = "virt/kvm/eventfd.c")]
    private KvmResult IrqfdAssign(in kvm_irqfd args)
    {
        if (!Arch.IrqfdAllowed(this, in args)) return Errno.EINVAL;
        if (Host.Faults.ShouldFail("kzalloc", "kvm_kernel_irqfd")) return Errno.ENOMEM;
        KvmResult r = EventfdContext.FromFd((int)args.fd, out EventfdContext? eventfd);
        if (r.IsError) return r;
        var irqfd = new Irqfd(this, args.gsi, eventfd!);
        if ((args.flags & KVM_IRQFD_FLAG_RESAMPLE) != 0)
        {
            r = EventfdContext.FromFd((int)args.resamplefd, out irqfd.Resamplefd);
            if (r.IsError) return r;
            r = JoinResampler(irqfd);
            if (r.IsError) return r;
        }

        bool busy;
        lock (_irqfdsLock)
        {
            busy = _irqfds.Exists(other => other.Eventfd == eventfd);
            if (!busy)
            {
                irqfd.Update();
                irqfd.Active = true;
                _irqfds.Add(irqfd);
            }
        }

        if (busy)
        {
            LeaveResampler(irqfd);
            return Errno.EBUSY;
        }

        // A signal from before is not lost.
        FunctionTrace.Leaf("irqfd_ptable_queue_proc");
        if (eventfd!.AddWaiter(irqfd)) Host.ScheduleWork(irqfd.InjectWork);
        return 0;
    }

    /// <summary>One resampler per GSI: irqfds that share it share the line.</summary>
    private KvmResult JoinResampler(Irqfd irqfd)
    {
        using var _ = _resamplerLock.Enter();
        IrqfdResampler? resampler = _resamplers.Find(r => r.Gsi == irqfd.Gsi);
        if (resampler is null)
        {
            if (Host.Faults.ShouldFail("kzalloc", "kvm_kernel_irqfd_resampler")) return Errno.ENOMEM;
            resampler = new IrqfdResampler(this) { Gsi = irqfd.Gsi };
            _resamplers.Add(resampler);
            RegisterIrqAckNotifier(resampler);
        }

        irqfd.Resampler = resampler;
        resampler.Irqfds = [irqfd, .. resampler.Irqfds];
        using (FunctionTrace.Enter("synchronize_srcu")) IrqSrcu.Synchronize();
        return 0;
    }

    [KernelFunction("irqfd_resampler_shutdown", File = "virt/kvm/eventfd.c")]
    private void LeaveResampler(Irqfd irqfd)
    {
        if (irqfd.Resampler is not { } resampler) return;
        using var _ = FunctionTrace.Enter("irqfd_resampler_shutdown");
        using var held = _resamplerLock.Enter();
        resampler.Irqfds = [.. resampler.Irqfds.Where(i => i != irqfd)];
        using (FunctionTrace.Enter("synchronize_srcu")) IrqSrcu.Synchronize();
        if (resampler.Irqfds.Length != 0) return;
        _resamplers.Remove(resampler);
        UnregisterIrqAckNotifier(resampler);
        SetIrq(KVM_IRQFD_RESAMPLE_IRQ_SOURCE_ID, resampler.Gsi, 0, false);
    }

    /// <summary>Ends those with this eventfd and GSI; 0 also when there is none.</summary>
    [KernelFunction("kvm_irqfd_deassign", File = "virt/kvm/eventfd.c")]
    private KvmResult IrqfdDeassign(in kvm_irqfd args)
    {
        FunctionTrace.Leaf("eventfd_ctx_fdget");
        KvmResult r = EventfdContext.FromFd((int)args.fd, out EventfdContext? eventfd);
        if (r.IsError) return r;
        uint gsi = args.gsi;
        Shutdown(i => i.Eventfd == eventfd && i.Gsi == gsi);
        return 0;
    }

    /// <summary>kvm_irqfd_release: the VM's file is closed.</summary>
    [KernelFunction("kvm_irqfd_release", File = "virt/kvm/eventfd.c")]
    internal void IrqfdRelease()
    {
        using var _ = FunctionTrace.Enter("kvm_irqfd_release");
        Shutdown(static _ => true);
    }

    private void Shutdown(Predicate<Irqfd> which)
    {
        List<Irqfd> gone;
        lock (_irqfdsLock)
        {
            gone = _irqfds.FindAll(which);
            foreach (Irqfd irqfd in gone)
            {
                FunctionTrace.Leaf("irqfd_deactivate");
                irqfd.Active = false;
            }

            _irqfds.RemoveAll(which);
        }

        gone.ForEach(static i => i.Shutdown());
        // Those whose eventfd was closed are ended by the workqueue.
        HostWork[] leaving;
        lock (_irqfdsLock) leaving = [.. _leaving];
        foreach (HostWork work in leaving) Module.IrqfdCleanup.Flush(work);
    }

    private readonly List<HostWork> _leaving = [];

    /// <summary>kvm_irq_routing_update: irqfds look their routes up anew.</summary>
    [KernelFunction("kvm_irq_routing_update", File = "virt/kvm/eventfd.c")]
    private void IrqRoutingUpdate()
    {
        using var _ = FunctionTrace.Enter("kvm_irq_routing_update");
        lock (_irqfdsLock) _irqfds.ForEach(static i => i.Update());
    }

    /// <summary>struct kvm_kernel_irqfd.</summary>
    private sealed class Irqfd : IEventfdWaiter
    {
        private readonly KvmVm _vm;

        public Irqfd(KvmVm vm, uint gsi, EventfdContext eventfd)
        {
            _vm = vm;
            Gsi = gsi;
            Eventfd = eventfd;
            InjectWork = new HostWork(Inject);
        }

        public readonly uint Gsi;
        public readonly EventfdContext Eventfd;
        public readonly HostWork InjectWork;
        public EventfdContext? Resamplefd;
        public IrqfdResampler? Resampler;

        /// <summary>It is in the VM's list; under the list's lock.</summary>
        public volatile bool Active;

        /// <summary>The GSI's route when it has exactly one.</summary>
        private volatile KvmKernelIrqRoutingEntry? _entry;

        /// <summary>irqfd_update.</summary>
        [KernelFunction("irqfd_update", File = "virt/kvm/eventfd.c")]
        public void Update()
        {
            using var _ = FunctionTrace.Enter("irqfd_update");
            ReadOnlySpan<KvmKernelIrqRoutingEntry> entries = _vm.IrqMapGsi(Gsi);
            _entry = entries.Length == 1 ? entries[0] : null;
        }

        [KernelFunction("irqfd_wakeup", File = "virt/kvm/eventfd.c")]
        public void OnReadable()
        {
            using var _ = FunctionTrace.Enter("irqfd_wakeup");
            Eventfd.DoRead();
            int index = _vm.IrqSrcu.ReadLock();
            KvmKernelIrqRoutingEntry? entry = _entry;
            const int wouldBlock = -(int)Errno.EAGAIN;
            if (!Active || entry is null || _vm.Arch.SetIrqInatomic(_vm, entry, KVM_USERSPACE_IRQ_SOURCE_ID, 1, false) == wouldBlock)
                _vm.Host.ScheduleWork(InjectWork);
            _vm.IrqSrcu.ReadUnlock(index);
        }

        /// <summary>The eventfd is gone: whoever takes it off the list ends it.</summary>
        public void OnHangup()
        {
            HostWork work;
            lock (_vm._irqfdsLock)
            {
                if (!Active) return;
                Active = false;
                _vm._irqfds.Remove(this);
                work = new HostWork(ShutdownLater);
                _leavingWork = work;
                _vm._leaving.Add(work);
            }

            _vm.Module.IrqfdCleanup.Queue(work);
        }

        private HostWork? _leavingWork;

        private void ShutdownLater()
        {
            Shutdown();
            lock (_vm._irqfdsLock) _vm._leaving.Remove(_leavingWork!);
        }

        [KernelFunction("irqfd_inject", File = "virt/kvm/eventfd.c")]
        private void Inject()
        {
            if (Resampler is null)
            {
                _vm.SetIrq(KVM_USERSPACE_IRQ_SOURCE_ID, Gsi, 1, false);
                _vm.SetIrq(KVM_USERSPACE_IRQ_SOURCE_ID, Gsi, 0, false);
            }
            else
            {
                _vm.SetIrq(KVM_IRQFD_RESAMPLE_IRQ_SOURCE_ID, Gsi, 1, false);
            }
        }

        /// <summary>No event comes after this, and none is on its way.</summary>
        [KernelFunction("irqfd_shutdown", File = "virt/kvm/eventfd.c")]
        public void Shutdown()
        {
            using var _ = FunctionTrace.Enter("irqfd_shutdown");
            _vm.IrqSrcu.Synchronize();
            Eventfd.RemoveWaiter(this);
            _vm.Host.SystemWorkqueue.Flush(InjectWork);
            _vm.LeaveResampler(this);
        }
    }

    /// <summary>struct kvm_kernel_irqfd_resampler: one level-triggered line that several irqfds may hold.</summary>
    private sealed class IrqfdResampler(KvmVm vm) : KvmIrqAckNotifier
    {
        public volatile Irqfd[] Irqfds = [];

        /// <summary>irqfd_resampler_ack: lowers the line once, then lets every device look whether it still wants it up.</summary>
        [KernelFunction("irqfd_resampler_ack", File = "virt/kvm/eventfd.c")]
        public override void IrqAcked()
        {
            using var _ = FunctionTrace.Enter("irqfd_resampler_ack");
            vm.SetIrq(KVM_IRQFD_RESAMPLE_IRQ_SOURCE_ID, Gsi, 0, false);
            int index = vm.IrqSrcu.ReadLock();
            foreach (Irqfd irqfd in Irqfds) irqfd.Resamplefd!.Signal();
            vm.IrqSrcu.ReadUnlock(index);
        }
    }
}
