using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.Errnos;

namespace Kvm.Arch.X86;

/// <remarks>Where GSIs go on x86 (irq_comm.c): pins of the in-kernel controllers, and messages.</remarks>
public sealed unsafe partial class X86Arch
{
    public bool IrqfdAllowed(KvmVm kvm, in kvm_irqfd args)
    {
        FunctionTrace.Leaf("kvm_arch_irqfd_allowed");
        var vm = (X86Vm)kvm;
        return (args.flags & KVM_IRQFD_FLAG_RESAMPLE) != 0 ? vm.IoapicInKernel : vm.IrqchipInKernel;
    }

    public bool CanSetIrqRouting(KvmVm vm) => ((X86Vm)vm).IrqchipInKernel;

    /// <summary>-EINVAL: a chip with the split controller, a pin or chip that there is not, an MSI whose x2APIC destination has low address bits, an unknown type.</summary>
    [KernelFunction("kvm_set_routing_entry", File = "arch/x86/kvm/irq_comm.c")]
    public KvmResult SetRoutingEntry(KvmVm kvm, KvmKernelIrqRoutingEntry entry, in kvm_irq_routing_entry user)
    {
        using var _ = FunctionTrace.Enter("kvm_set_routing_entry");
        var vm = (X86Vm)kvm;
        switch (user.type)
        {
            case KVM_IRQ_ROUTING_IRQCHIP:
                return vm.IrqchipSplit ? -EINVAL : SetIrqchipEntry(entry, user.u.irqchip);
            case KVM_IRQ_ROUTING_MSI:
                entry.Set = &SetMsi;
                entry.AddressLo = user.u.msi.address_lo;
                entry.AddressHi = user.u.msi.address_hi;
                entry.Data = user.u.msi.data;
                return MsiRouteInvalid(vm, entry.AddressHi) ? -EINVAL : 0;
            case KVM_IRQ_ROUTING_HV_SINT:
                entry.Set = &SetHvSint;
                entry.HvSintVcpu = user.u.hv_sint.vcpu;
                entry.HvSint = user.u.hv_sint.sint;
                return 0;
            default:
                return -EINVAL;
        }
    }

    private static KvmResult SetIrqchipEntry(KvmKernelIrqRoutingEntry entry, in kvm_irq_routing_irqchip user)
    {
        entry.Irqchip = user.irqchip;
        entry.Pin = user.pin;
        switch (user.irqchip)
        {
            case KVM_IRQCHIP_PIC_MASTER or KVM_IRQCHIP_PIC_SLAVE:
                if (user.pin >= KvmPic.PIC_NUM_PINS / 2)
                    return -EINVAL;
                if (user.irqchip == KVM_IRQCHIP_PIC_SLAVE)
                    entry.Pin += KvmPic.PIC_NUM_PINS / 2;
                entry.Set = &SetPicIrq;
                return 0;
            case KVM_IRQCHIP_IOAPIC:
                if (user.pin >= KvmIoapic.IOAPIC_NUM_PINS)
                    return -EINVAL;
                entry.Set = &SetIoapicIrq;
                return 0;
            default:
                return -EINVAL;
        }
    }

    [KernelFunction("kvm_set_pic_irq", File = "arch/x86/kvm/irq_comm.c")]
    private static int SetPicIrq(KvmKernelIrqRoutingEntry e, KvmVm vm, int sourceId, int level, bool lineStatus)
    {
        using var _ = FunctionTrace.Enter("kvm_set_pic_irq");
        return ((X86Vm)vm).Pic!.SetIrq((int)e.Pin, sourceId, level != 0);
    }

    [KernelFunction("kvm_set_ioapic_irq", File = "arch/x86/kvm/irq_comm.c")]
    private static int SetIoapicIrq(KvmKernelIrqRoutingEntry e, KvmVm vm, int sourceId, int level, bool lineStatus)
    {
        using var _ = FunctionTrace.Enter("kvm_set_ioapic_irq");
        return ((X86Vm)vm).Ioapic!.SetIrq((int)e.Pin, sourceId, level != 0, lineStatus);
    }

    [KernelFunction("kvm_set_msi", File = "arch/x86/kvm/irq_comm.c")]
    private static int SetMsi(KvmKernelIrqRoutingEntry e, KvmVm vm, int sourceId, int level, bool lineStatus) =>
        SetMsi((X86Vm)vm, e.AddressLo, e.AddressHi, e.Data, level);

    [KernelFunction("kvm_hv_set_sint", File = "arch/x86/kvm/irq_comm.c")]
    private static int SetHvSint(KvmKernelIrqRoutingEntry e, KvmVm vm, int sourceId, int level, bool lineStatus) =>
        level != 0 ? ((X86Vm)vm).Hyperv.SynicSetIrq(e.HvSintVcpu, e.HvSint) : -1;

    /// <summary>-EINVAL for an address that can't be; -1 for a falling edge or no target; else how many took it.</summary>
    private static int SetMsi(X86Vm vm, uint lo, uint hi, uint data, int level)
    {
        using var _ = FunctionTrace.Enter("kvm_set_msi");
        if (MsiRouteInvalid(vm, hi))
            return -EINVAL;
        if (level == 0)
            return -1;
        KvmLapicIrq irq = SetMsiIrq(vm, lo, hi, data);
        return vm.IrqDeliveryToApic(null, ref irq, null);
    }

    /// <summary>kvm_msi_route_invalid: bits 7:0 of the upper address half are reserved in x2APIC format.</summary>
    private static bool MsiRouteInvalid(X86Vm vm, uint hi) => vm.X2apicFormat && (hi & 0xff) != 0;

    /// <summary>kvm_set_msi_irq: address and data of a message-signalled interrupt as a bus message (SDM vol 3A, "Message Signalled Interrupts").</summary>
    [KernelFunction("kvm_set_msi_irq", File = "arch/x86/kvm/irq_comm.c")]
    internal static KvmLapicIrq SetMsiIrq(X86Vm vm, uint lo, uint hi, uint data)
    {
        FunctionTrace.Leaf("kvm_set_msi_irq");
        if (Tracepoints.Enabled)
            TraceMsi(lo | (vm.X2apicFormat ? (ulong)hi << 32 : 0), data);
        return new KvmLapicIrq
        {
            DestId = (lo >> 12 & 0xff) | (vm.X2apicFormat ? hi & 0xffffff00 : 0),
            Vector = (byte)data,
            DestMode = DestMode((lo & 4) != 0),
            TrigMode = data >> 15 & 1,
            DeliveryMode = (int)(data & APIC_MODE_MASK),
            MsiRedirHint = (lo & 8) != 0,
            Level = true,
        };
    }

    private static void TraceMsi(ulong address, uint data) =>
        Tracepoints.Emit("kvm_msi_set_irq", $"dst {(uint)(byte)(address >> 12) | (uint)(address >> 32):x} vec {(byte)data} ({KvmLapic.ModeName((int)(data & APIC_MODE_MASK))}"
            + $"|{((address & 4) != 0 ? "logical" : "physical")}|{((data & 0x8000) != 0 ? "level" : "edge")}{((address & 8) != 0 ? "|rh" : "")})");

    public int SetIrqInatomic(KvmVm kvm, KvmKernelIrqRoutingEntry entry, int sourceId, int level, bool lineStatus)
    {
        FunctionTrace.Leaf("kvm_arch_set_irq_inatomic");
        if (entry.Type == KVM_IRQ_ROUTING_HV_SINT)
            return SetHvSint(entry, kvm, sourceId, level, lineStatus);
        if (entry.Type != KVM_IRQ_ROUTING_MSI)
            return -EAGAIN;
        var vm = (X86Vm)kvm;
        if (MsiRouteInvalid(vm, entry.AddressHi))
            return -EINVAL;
        KvmLapicIrq irq = SetMsiIrq(vm, entry.AddressLo, entry.AddressHi, entry.Data);
        return vm.IrqDeliveryToApicFast(null, in irq, out int r, null) ? r : -EAGAIN;
    }

    public KvmResult SendUserspaceMsi(KvmVm kvm, in kvm_msi msi)
    {
        using var _ = FunctionTrace.Enter("kvm_send_userspace_msi");
        var vm = (X86Vm)kvm;
        if (!vm.IrqchipInKernel || (msi.flags & ~(uint)KVM_MSI_VALID_DEVID) != 0)
            return -EINVAL;
        return SetMsi(vm, msi.address_lo, msi.address_hi, msi.data, 1);
    }

    [KernelFunction("kvm_vm_ioctl_irq_line", File = "arch/x86/kvm/x86.c")]
    public KvmResult VmIoctlIrqLine(KvmVm vm, ref kvm_irq_level level, bool lineStatus)
    {
        using var _ = FunctionTrace.Enter("kvm_vm_ioctl_irq_line");
        if (!((X86Vm)vm).IrqchipInKernel)
            return -ENXIO;
        level.status = vm.SetIrq(KvmVm.KVM_USERSPACE_IRQ_SOURCE_ID, level.irq, (int)level.level, lineStatus);
        return 0;
    }

    // ---- tables ----

    /// <summary>kvm_setup_default_irq_routing: GSIs 0–15 to PIC and IOAPIC, 16–23 to the IOAPIC.</summary>
    [KernelFunction("kvm_setup_default_irq_routing", File = "arch/x86/kvm/irq_comm.c")]
    private static KvmResult SetupDefaultIrqRouting(X86Vm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_setup_default_irq_routing");
        var entries = new List<kvm_irq_routing_entry>();
        for (uint gsi = 0; gsi < KvmIoapic.IOAPIC_NUM_PINS; gsi++)
        {
            entries.Add(Entry(gsi, KVM_IRQCHIP_IOAPIC, gsi));
            if (gsi < KvmPic.PIC_NUM_PINS)
                entries.Add(Entry(gsi, gsi < 8 ? (uint)KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8));
        }

        return vm.SetIrqRouting(entries.ToArray());

        static kvm_irq_routing_entry Entry(uint gsi, uint chip, uint pin)
        {
            var e = new kvm_irq_routing_entry { gsi = gsi, type = KVM_IRQ_ROUTING_IRQCHIP };
            e.u.irqchip = new kvm_irq_routing_irqchip { irqchip = chip, pin = pin };
            return e;
        }
    }

    [KernelFunction("kvm_arch_irq_routing_update", File = "arch/x86/kvm/irq_comm.c")]
    public void IrqRoutingUpdate(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_irq_routing_update");
        ((X86Vm)vm).Hyperv.IrqRoutingUpdate();
    }

    [KernelFunction("kvm_arch_post_irq_routing_update", File = "arch/x86/kvm/irq_comm.c")]
    public void PostIrqRoutingUpdate(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_post_irq_routing_update");
        if (((X86Vm)vm).IrqchipSplit)
            ((X86Vm)vm).MakeScanIoapicRequest();
    }

    [KernelFunction("kvm_arch_post_irq_ack_notifier_list_update", File = "arch/x86/kvm/ioapic.c")]
    public void PostIrqAckNotifierListUpdate(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_post_irq_ack_notifier_list_update");
        if (((X86Vm)vm).IoapicInKernel)
            ((X86Vm)vm).MakeScanIoapicRequest();
    }
}
