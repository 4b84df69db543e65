using Kvm.Abi;
using static Kvm.Abi.Uapi;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

public class KVM_CREATE_IRQCHIP
{
    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void A_second_one_is_EEXIST(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        Fails(g.Vm.CreateIrqchip).Should().Be(Errno.EEXIST);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Behind_a_vcpu_is_EINVAL(string kernel)
    {
        using var g = new InterruptGuest(kernel, irqchip: false);
        Fails(g.Vm.CreateIrqchip).Should().Be(Errno.EINVAL);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Chips_and_their_state_need_it(string kernel)
    {
        using var g = new InterruptGuest(kernel, irqchip: false);
        Fails(() => g.Vm.GetIrqchip(0)).Should().Be(Errno.ENXIO);
        Fails(() => g.Vm.SetIrqchip(default)).Should().Be(Errno.ENXIO);
        Fails(() => g.Vm.IrqLine(0, true)).Should().Be(Errno.ENXIO);
        Fails(() => _ = g.Vm.Pit2).Should().Be(Errno.ENXIO);
        Fails(() => _ = g.Vcpu.Lapic).Should().Be(Errno.EINVAL);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void There_are_three_chips(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Pic(0).elcr_mask.Should().Be(0xf8);
        g.Pic(1).elcr_mask.Should().Be(0xde);
        g.Ioapic.base_address.Should().Be(IoapicBase);
        Fails(() => g.Vm.GetIrqchip(3)).Should().Be(Errno.EINVAL);
        Fails(() => g.Vm.SetIrqchip(new kvm_irqchip { chip_id = 3 })).Should().Be(Errno.EINVAL);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void A_split_one_has_local_APICs_only(string kernel)
    {
        using KvmSystem system = Kernels.Open(kernel);
        using Vm vm = system.CreateVm();
        Fails(() => vm.EnableCap(KVM_CAP_SPLIT_IRQCHIP, 4097)).Should().Be(Errno.EINVAL);
        vm.CreateSplitIrqchip();
        Fails(() => vm.EnableCap(KVM_CAP_SPLIT_IRQCHIP, 24)).Should().Be(Errno.EEXIST);
        Fails(vm.CreateIrqchip).Should().Be(Errno.EEXIST);
        Fails(() => vm.GetIrqchip(0)).Should().Be(Errno.ENXIO);
        using Vcpu vcpu = vm.CreateVcpu(0);
        vcpu.Lapic.Should().NotBeNull();
    }
}
