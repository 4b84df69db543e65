using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>ioeventfd: a guest's write to an address signals an eventfd instead of exiting.</remarks>
public abstract unsafe partial class KvmVm
{
    private readonly List<Ioeventfd> _ioeventfds = [];

    /// <summary>KVM_IOEVENTFD.</summary>
    [KernelFunction("kvm_ioeventfd", File = "virt/kvm/eventfd.c")]
    internal KvmResult IoctlIoeventfd(in kvm_ioeventfd args)
    {
        using var _ = FunctionTrace.Enter("kvm_ioeventfd");
        return (args.flags & Uapi.KVM_IOEVENTFD_FLAG_DEASSIGN) != 0 ? DeassignIoeventfd(in args) : AssignIoeventfd(in args);
    }

    private static KvmBus BusOf(uint flags) =>
        (flags & Uapi.KVM_IOEVENTFD_FLAG_PIO) != 0 ? KvmBus.Pio
        : (flags & Uapi.KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY) != 0 ? KvmBus.VirtioCcwNotify : KvmBus.Mmio;

    [KernelFunction("kvm_assign_ioeventfd", File = "virt/kvm/eventfd.c")]
    private KvmResult AssignIoeventfd(in kvm_ioeventfd args)
    {
        KvmBus bus = BusOf(args.flags);
        if (args.len is not (0 or 1 or 2 or 4 or 8)) return Errno.EINVAL;
        if (unchecked(args.addr + args.len) < args.addr) return Errno.EINVAL;
        if ((args.flags & ~(uint)Uapi.KVM_IOEVENTFD_VALID_FLAG_MASK) != 0) return Errno.EINVAL;
        if (args.len == 0 && (args.flags & Uapi.KVM_IOEVENTFD_FLAG_DATAMATCH) != 0) return Errno.EINVAL;
        KvmResult r = AssignIoeventfd(bus, in args);
        if (r.IsError || args.len != 0 || bus != KvmBus.Mmio) return r;
        // Without a length, MMIO is also on a bus of its own that is looked up before anything else.
        r = AssignIoeventfd(KvmBus.FastMmio, in args);
        if (r.IsError) _ = DeassignIoeventfd(bus, in args);
        return r;
    }

    [KernelFunction("kvm_assign_ioeventfd_idx", File = "virt/kvm/eventfd.c")]
    private KvmResult AssignIoeventfd(KvmBus bus, in kvm_ioeventfd args)
    {
        using var _ = FunctionTrace.Enter("kvm_assign_ioeventfd_idx");
        FunctionTrace.Leaf("eventfd_ctx_fdget");
        KvmResult r = EventfdContext.FromFd(args.fd, out EventfdContext? eventfd);
        if (r.IsError) return r;
        if (Host.Faults.ShouldFail("kzalloc", "_ioeventfd")) return Errno.ENOMEM;
        bool wildcard = (args.flags & Uapi.KVM_IOEVENTFD_FLAG_DATAMATCH) == 0;
        var device = new Ioeventfd(this, bus, args.addr, (int)args.len, eventfd!, wildcard, args.datamatch);
        using var slots = SlotsLock.Enter();
        if (_ioeventfds.Exists(device.Collides)) return Errno.EEXIST;
        r = IoBusRegisterDev(bus, args.addr, (int)args.len, device);
        if (r.IsError) return r;
        AddIoeventfd(bus, 1);
        _ioeventfds.Add(device);
        return 0;
    }

    [KernelFunction("kvm_deassign_ioeventfd", File = "virt/kvm/eventfd.c")]
    private KvmResult DeassignIoeventfd(in kvm_ioeventfd args)
    {
        KvmBus bus = BusOf(args.flags);
        KvmResult r = DeassignIoeventfd(bus, in args);
        if (args.len == 0 && bus == KvmBus.Mmio) _ = DeassignIoeventfd(KvmBus.FastMmio, in args);
        return r;
    }

    [KernelFunction("kvm_deassign_ioeventfd_idx", File = "virt/kvm/eventfd.c")]
    private KvmResult DeassignIoeventfd(KvmBus bus, in kvm_ioeventfd args)
    {
        KvmResult r = EventfdContext.FromFd(args.fd, out EventfdContext? eventfd);
        if (r.IsError) return r;
        using var slots = SlotsLock.Enter();
        foreach (Ioeventfd device in _ioeventfds)
        {
            if (!device.Is(bus, eventfd!, in args)) continue;
            _ = IoBusUnregisterDev(bus, device);
            AddIoeventfd(bus, -1);
            _ioeventfds.Remove(device);
            return 0;
        }

        return Errno.ENOENT;
    }

    private sealed class Ioeventfd(KvmVm vm, KvmBus bus, ulong address, int length, EventfdContext eventfd, bool wildcard, ulong datamatch) : KvmIoDevice
    {
        private readonly KvmBus _bus = bus;
        private readonly ulong _address = address;
        private readonly int _length = length;
        private readonly bool _wildcard = wildcard;
        private readonly ulong _datamatch = datamatch;

        public bool Is(KvmBus otherBus, EventfdContext other, in kvm_ioeventfd args) =>
            _bus == otherBus && eventfd == other && _address == args.addr && _length == (int)args.len &&
            _wildcard == ((args.flags & Uapi.KVM_IOEVENTFD_FLAG_DATAMATCH) == 0) && (_wildcard || _datamatch == args.datamatch);

        /// <summary>ioeventfd_check_collision.</summary>
        public bool Collides(Ioeventfd other) =>
            other._bus == _bus && other._address == _address &&
            (other._length == 0 || _length == 0 ||
             (other._length == _length && (other._wildcard || _wildcard || other._datamatch == _datamatch)));

        [KernelFunction("ioeventfd_write", File = "virt/kvm/eventfd.c")]
        public override KvmResult Write(KvmVcpu? vcpu, ulong address, int length, void* value)
        {
            if (!Hits(address, length, value)) return Errno.EOPNOTSUPP;
            using var _ = FunctionTrace.Enter("ioeventfd_write");
            eventfd.Signal();
            return 0;
        }

        public override void Destructor() => vm._ioeventfds.Remove(this);

        private bool Hits(ulong address, int length, void* value)
        {
            if (address != _address) return false;
            if (_length == 0) return true;
            if (length != _length) return false;
            if (_wildcard) return true;
            ulong written = length switch
            {
                1 => *(byte*)value,
                2 => *(ushort*)value,
                4 => *(uint*)value,
                _ => *(ulong*)value,
            };
            return written == _datamatch;
        }
    }
}
