using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;

namespace Kvm.Arch.X86;

/// <remarks>The calls on a VM that make its interrupt controllers and carry their state.</remarks>
public sealed unsafe partial class X86Arch
{
    private const ulong MAX_NR_RESERVED_IOAPIC_PINS = KvmLimits.KVM_MAX_IRQ_ROUTES;

    /// <summary>-EEXIST with an irqchip, split ones included; -EINVAL with a vCPU; -ENOMEM, -ENOSPC: nothing is left then.</summary>
    private static KvmResult CreateIrqchip(X86Vm vm)
    {
        using var held = vm.Lock.Enter();
        if (vm.IrqchipInKernel)
            return -EEXIST;
        if (vm.CreatedVcpus != 0)
            return -EINVAL;
        KvmResult r = KvmPic.Init(vm);
        if (r.IsError)
            return r;
        r = KvmIoapic.Init(vm);
        if (r.IsError)
        {
            KvmPic.Destroy(vm);
            return r;
        }

        r = SetupDefaultIrqRouting(vm);
        if (r.IsError)
        {
            KvmIoapic.Destroy(vm);
            KvmPic.Destroy(vm);
            return r;
        }

        vm.IrqchipMode = X86Vm.KVM_IRQCHIP_KERNEL;
        vm.SetOrClearApicvInhibit(ApicvInhibit.APICV_INHIBIT_REASON_ABSENT, false);
        return 0;
    }

    /// <summary>KVM_CAP_SPLIT_IRQCHIP: -EINVAL beyond 4096 pins, -EEXIST with an irqchip or a vCPU.</summary>
    private static KvmResult CreateSplitIrqchip(X86Vm vm, ulong pins)
    {
        using var held = vm.Lock.Enter();
        if (pins > MAX_NR_RESERVED_IOAPIC_PINS)
            return -EINVAL;
        if (vm.IrqchipInKernel || vm.CreatedVcpus != 0)
            return -EEXIST;
        KvmResult r = vm.SetIrqRouting([]);
        if (r.IsError)
            return r;
        vm.IrqchipMode = X86Vm.KVM_IRQCHIP_SPLIT;

        // A byte in the kernel: 256 and more wrap.
        vm.NrReservedIoapicPins = (byte)pins;
        vm.SetOrClearApicvInhibit(ApicvInhibit.APICV_INHIBIT_REASON_ABSENT, false);
        return 0;
    }

    private KvmResult GetIrqchip(X86Vm vm, ulong arg)
    {
        if (Host.Faults.ShouldFail("memdup_user", "kvm_irqchip"))
            return -ENOMEM;
        var argp = new UserPtr<kvm_irqchip>(arg);
        if (!argp.Read(out kvm_irqchip chip))
            return -EFAULT;
        if (!vm.IoapicInKernel)
            return -ENXIO;
        switch (chip.chip_id)
        {
            case KVM_IRQCHIP_PIC_MASTER or KVM_IRQCHIP_PIC_SLAVE:
                chip.chip.pic = vm.Pic!.Get((int)chip.chip_id);
                break;
            case KVM_IRQCHIP_IOAPIC:
                chip.chip.ioapic = vm.Ioapic!.Get();
                break;
            default:
                return -EINVAL;
        }

        return argp.Write(in chip) ? 0 : -EFAULT;
    }

    private KvmResult SetIrqchip(X86Vm vm, ulong arg)
    {
        if (Host.Faults.ShouldFail("memdup_user", "kvm_irqchip"))
            return -ENOMEM;
        if (!new UserPtr<kvm_irqchip>(arg).Read(out kvm_irqchip chip))
            return -EFAULT;
        if (!vm.IoapicInKernel)
            return -ENXIO;
        KvmResult r = 0;
        switch (chip.chip_id)
        {
            case KVM_IRQCHIP_PIC_MASTER or KVM_IRQCHIP_PIC_SLAVE:
                vm.Pic!.Set((int)chip.chip_id, in chip.chip.pic);
                break;
            case KVM_IRQCHIP_IOAPIC:
                vm.Ioapic!.Set(in chip.chip.ioapic);
                break;
            default:
                r = -EINVAL;
                break;
        }

        vm.Pic!.UpdateIrq();
        return r;
    }

    // ---- PIT ----

    /// <summary>-EEXIST with a PIT; whatever else fails is -ENOMEM.</summary>
    private static KvmResult CreatePit(X86Vm vm, uint flags)
    {
        using var held = vm.Lock.Enter();
        if (vm.Pit is not null)
            return -EEXIST;
        vm.Pit = KvmPit.Create(vm, flags);
        return vm.Pit is null ? -ENOMEM : 0;
    }

    private static KvmResult GetPit(X86Vm vm, ulong arg)
    {
        var argp = new UserPtr<kvm_pit_state>(arg);
        if (!argp.Read(out kvm_pit_state _))
            return -EFAULT;
        if (vm.Pit is not { } pit)
            return -ENXIO;
        return argp.Write(pit.GetState()) ? 0 : -EFAULT;
    }

    private static KvmResult SetPit(X86Vm vm, ulong arg)
    {
        if (!new UserPtr<kvm_pit_state>(arg).Read(out kvm_pit_state state))
            return -EFAULT;
        using var held = vm.Lock.Enter();
        if (vm.Pit is not { } pit)
            return -ENXIO;
        pit.SetState(in state);
        return 0;
    }

    private static KvmResult SetPit2(X86Vm vm, ulong arg)
    {
        if (!new UserPtr<kvm_pit_state2>(arg).Read(out kvm_pit_state2 state))
            return -EFAULT;
        using var held = vm.Lock.Enter();
        if (vm.Pit is not { } pit)
            return -ENXIO;
        pit.SetState2(in state);
        return 0;
    }

    private static KvmResult ReinjectControl(X86Vm vm, ulong arg)
    {
        if (!new UserPtr<kvm_reinject_control>(arg).Read(out kvm_reinject_control control))
            return -EFAULT;
        if (vm.Pit is not { } pit)
            return -ENXIO;
        using var held = pit.Lock.Enter();
        pit.SetReinject(control.pit_reinject != 0);
        return 0;
    }
}
