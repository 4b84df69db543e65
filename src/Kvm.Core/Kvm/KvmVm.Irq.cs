using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>Interrupt ioctls: their generic checks. What a VM with an in-kernel interrupt controller does is the architecture's.</remarks>
public abstract partial class KvmVm
{
    /// <summary>KVM_IRQFD: without an in-kernel interrupt controller only its checks answer.</summary>
    [KernelFunction("kvm_irqfd", File = "virt/kvm/eventfd.c")]
    internal KvmResult IoctlIrqfd(in kvm_irqfd args)
    {
        using var _ = FunctionTrace.Enter("kvm_irqfd");
        if ((args.flags & ~(uint)(Uapi.KVM_IRQFD_FLAG_DEASSIGN | Uapi.KVM_IRQFD_FLAG_RESAMPLE)) != 0) return Errno.EINVAL;
        if ((args.flags & Uapi.KVM_IRQFD_FLAG_DEASSIGN) == 0) return Arch.IrqfdAssign(this, in args);
        KvmResult r = EventfdContext.FromFd((int)args.fd, out EventfdContext? eventfd);
        return r.IsError ? r : Arch.IrqfdDeassign(this, eventfd!, args.gsi);
    }

    /// <summary>KVM_SET_GSI_ROUTING: -EINVAL without an interrupt controller, beyond 4096 entries or with flags; the entries are copied then.</summary>
    internal KvmResult IoctlSetGsiRouting(UserPtr<kvm_irq_routing> argp)
    {
        if (!argp.Read(out kvm_irq_routing routing)) return Errno.EFAULT;
        if (!Arch.CanSetIrqRouting(this)) return Errno.EINVAL;
        if (routing.nr > KvmLimits.KVM_MAX_IRQ_ROUTES || routing.flags != 0) return Errno.EINVAL;
        var entries = new kvm_irq_routing_entry[routing.nr];
        if (routing.nr != 0 && Host.Faults.ShouldFail("vmalloc", "irq_routing_entries")) return Errno.ENOMEM;
        if (!argp.Offset<kvm_irq_routing_entry>(8).Read(entries.AsSpan())) return Errno.EFAULT;
        return Arch.SetIrqRouting(this, entries);
    }
}
