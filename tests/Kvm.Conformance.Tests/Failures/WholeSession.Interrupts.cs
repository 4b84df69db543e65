using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Failures;

/// <content>A VM with interrupt controllers in the kernel.</content>
internal sealed unsafe partial class WholeSession
{
    private int _irqVm, _irqVcpu, _irqAp, _resample;

    private void Interrupts()
    {
        AddFd("KVM_CREATE_VM with interrupts", () => Process.Ioctl(_kvm, KVM_CREATE_VM), fd => _irqVm = fd);
        Add("KVM_CREATE_IRQCHIP", () => Process.Ioctl(_irqVm, KVM_CREATE_IRQCHIP));
        Add("KVM_CREATE_PIT2", () =>
        {
            var config = new kvm_pit_config { flags = (uint)KVM_PIT_SPEAKER_DUMMY };
            return Process.Ioctl(_irqVm, KVM_CREATE_PIT2, ref config);
        });
        AddFd("KVM_CREATE_VCPU with an APIC", () => Process.Ioctl(_irqVm, KVM_CREATE_VCPU, 0), fd => _irqVcpu = fd);
        AddFd("KVM_CREATE_VCPU with a second APIC", () => Process.Ioctl(_irqVm, KVM_CREATE_VCPU, 1), fd => _irqAp = fd);
        Add("KVM_GET_IRQCHIP, KVM_SET_IRQCHIP", () =>
        {
            var chip = new kvm_irqchip { chip_id = (uint)KVM_IRQCHIP_IOAPIC };
            KvmResult r = Process.Ioctl(_irqVm, KVM_GET_IRQCHIP, ref chip);
            return r.IsError ? r : Process.Ioctl(_irqVm, KVM_SET_IRQCHIP, ref chip);
        });
        Add("KVM_GET_LAPIC, KVM_SET_LAPIC", () =>
        {
            kvm_lapic_state state = default;
            KvmResult r = Process.Ioctl(_irqVcpu, KVM_GET_LAPIC, ref state);
            return r.IsError ? r : Process.Ioctl(_irqVcpu, KVM_SET_LAPIC, ref state);
        });
        Add("KVM_SET_GSI_ROUTING", () =>
        {
            var routing = (kvm_irq_routing*)(_scratch + 0x8000);
            *routing = new kvm_irq_routing { nr = 2 };
            var entries = (kvm_irq_routing_entry*)(routing + 1);
            entries[0] = new kvm_irq_routing_entry { gsi = 5, type = (uint)KVM_IRQ_ROUTING_IRQCHIP };
            entries[0].u.irqchip = new kvm_irq_routing_irqchip { irqchip = (uint)KVM_IRQCHIP_IOAPIC, pin = 5 };
            entries[1] = new kvm_irq_routing_entry { gsi = 30, type = (uint)KVM_IRQ_ROUTING_MSI };
            entries[1].u.msi = new kvm_irq_routing_msi { address_lo = 0xfee00000, data = 0x40 };
            return Process.Ioctl(_irqVm, KVM_SET_GSI_ROUTING, (ulong)routing);
        });
        AddFd("eventfd for resampling", () => Process.Eventfd(), fd => _resample = fd);
        const uint resample = (uint)KVM_IRQFD_FLAG_RESAMPLE, deassign = (uint)KVM_IRQFD_FLAG_DEASSIGN;
        Add("KVM_IRQFD assign", () => Irqfd(30, 0));
        Add("KVM_IRQFD deassign", () => Irqfd(30, deassign));
        Add("KVM_IRQFD assign with resampling", () => Irqfd(5, resample));
        Add("KVM_IRQ_LINE", () =>
        {
            var level = new kvm_irq_level { irq = 5, level = 1 };
            return Process.Ioctl(_irqVm, KVM_IRQ_LINE, ref level);
        });
        Add("KVM_HYPERV_EVENTFD", () =>
        {
            var args = new kvm_hyperv_eventfd { conn_id = 1, fd = _event };
            return Process.Ioctl(_irqVm, KVM_HYPERV_EVENTFD, ref args);
        });
        Add("KVM_ENABLE_CAP Hyper-V's interrupts", () =>
        {
            var cap = new kvm_enable_cap { cap = KVM_CAP_HYPERV_SYNIC };
            return Process.Ioctl(_irqVcpu, KVM_ENABLE_CAP, ref cap);
        });
    }

    private KvmResult Irqfd(uint gsi, uint flags)
    {
        var args = new kvm_irqfd { fd = (uint)_event, gsi = gsi, flags = flags, resamplefd = (uint)_resample };
        return Process.Ioctl(_irqVm, KVM_IRQFD, ref args);
    }
}
