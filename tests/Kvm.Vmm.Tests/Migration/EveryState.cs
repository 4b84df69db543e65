using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Client.Tests.Soak;
using Kvm.Vmm.Migration;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm.Tests.Migration;

/// <summary>Every GET has its SET: state that is unlike that of a new VM everywhere comes back from a file as it was.</summary>
public sealed unsafe class EveryState
{
    public static TheoryData<string> Kernels => Client.Tests.Kernels.Models;

    [Theory, MemberData(nameof(Kernels))]
    public void That_is_unlike_the_initial_one_is_restored(string kernel)
    {
        using var saved = SmpVm.Empty(Client.Tests.Kernels.Backend(kernel), 2);
        saved.Vm.CreatePit2();
        VmState initial = VmState.Save(saved.System, saved.Vm, saved.Vcpus);
        Fill(saved);
        VmState state = VmState.Save(saved.System, saved.Vm, saved.Vcpus);

        // The test would prove nothing of what it does not change.
        VcpuState before = initial.Vcpus[1], after = state.Vcpus[1];
        Differ(before.Regs, after.Regs);
        Differ(before.SRegs, after.SRegs);
        Differ(before.DebugRegs, after.DebugRegs);
        Differ(before.Xcrs, after.Xcrs);
        Differ(before.Events, after.Events);
        Differ(before.Lapic!.Value, after.Lapic!.Value);
        after.Xsave.Should().NotEqual(before.Xsave);
        after.MpState.Should().NotBe(before.MpState);
        MemoryMarshal.AsBytes(after.Cpuid.AsSpan()).SequenceEqual(MemoryMarshal.AsBytes(before.Cpuid.AsSpan())).Should().BeFalse("CPUID");
        foreach (int chip in (int[])[0, 1, 2]) Differ(initial.Irqchips[chip], state.Irqchips[chip]);
        Differ(initial.Pit!.Value, state.Pit!.Value);
        int changed = before.Msrs.Zip(after.Msrs).Count(static m => m.First.data != m.Second.data);
        changed.Should().BeGreaterThan(30, "MSRs have other values than at first");

        using var file = new MemoryStream();
        using (var writer = new StateWriter(file, state.Vendor))
        {
            state.Write(writer);
            MemoryState.Write(writer, saved.Memory);
            writer.Finish();
        }

        file.Position = 0;
        using var restored = SmpVm.Empty(Client.Tests.Kernels.Backend(kernel), 2);
        restored.Vm.CreatePit2();
        using var reader = new StateReader(file, "the file");
        VmState read = VmState.Read(reader, section => MemoryState.Take(section, [restored.Memory]));
        StateComparison.Differences(state, read).Should().BeEmpty("the file keeps everything");
        read.Restore(restored.System, restored.Vm, restored.Vcpus);
        StateComparison.Differences(state, VmState.Save(restored.System, restored.Vm, restored.Vcpus)).Should().BeEmpty();
        restored.Memory.Span.SequenceEqual(saved.Memory.Span).Should().BeTrue();
        restored.Vm.Clock.clock.Should().BeGreaterThanOrEqualTo(state.Clock.clock);
        long tsc = (long)restored.Vcpus[1].GetMsr(0x10), was = (long)after.Msrs.Single(static m => m.index == 0x10).data;
        tsc.Should().BeGreaterThanOrEqualTo(was, "time does not go back");
        (tsc - was).Should().BeLessThan(after.TscKhz * 60_000L, "nor far ahead");
    }

    private static void Differ<T>(T a, T b) where T : unmanaged =>
        MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in a)).SequenceEqual(MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in b))).Should().BeFalse(typeof(T).Name);

    private static void Fill(SmpVm vm)
    {
        new Random(5).NextBytes(vm.Memory.Span[..0x20000]);
        FillChips(vm.Vm);
        foreach (Vcpu vcpu in vm.Vcpus) FillVcpu(vcpu, vm.System);
    }

    private static void FillChips(Vm vm)
    {
        for (uint chip = 0; chip < 2; chip++)
        {
            kvm_irqchip pic = vm.GetIrqchip(chip);
            pic.chip.pic.imr = (byte)(0xa5 + chip);
            pic.chip.pic.irq_base = (byte)(0x60 + chip * 8);
            pic.chip.pic.isr = 4;
            pic.chip.pic.elcr = 0x20;
            vm.SetIrqchip(pic);
        }

        kvm_irqchip ioapic = vm.GetIrqchip((uint)KVM_IRQCHIP_IOAPIC);
        ioapic.chip.ioapic.id = 7;
        ioapic.chip.ioapic.ioregsel = 0x15;
        var redirections = new Span<ulong>((byte*)&ioapic.chip + 24, 24);
        for (int i = 0; i < redirections.Length; i++) redirections[i] = 0x0100000000010000ul | (uint)(0x30 + i); // masked
        vm.SetIrqchip(ioapic);
        kvm_pit_state2 pit = vm.Pit2;
        Span<byte> channels = new((byte*)&pit, sizeof(kvm_pit_channel_state) * 3);
        ref kvm_pit_channel_state second = ref MemoryMarshal.Cast<byte, kvm_pit_channel_state>(channels)[1];
        second.count = 1234;
        second.mode = 2;
        second.rw_mode = 3;
        vm.Pit2 = pit;
        vm.SetGsiRouting([new kvm_irq_routing_entry { gsi = 9, type = (uint)KVM_IRQ_ROUTING_MSI }]);
    }

    private static void FillVcpu(Vcpu vcpu, KvmSystem system)
    {
        kvm_cpuid_entry2[] cpuid = vcpu.GetCpuid();
        for (int i = 0; i < cpuid.Length; i++)
        {
            if (cpuid[i].function == 0x80000002) cpuid[i].eax = 0x656e6f53;
        }

        vcpu.SetCpuid(cpuid);
        var guest = new SmpGuest(2);
        guest.Load(new byte[SmpGuest.MemorySize]);
        guest.SetUp(vcpu); // long mode, x2APIC, runnable
        kvm_regs regs = vcpu.Regs;
        var numbers = new Span<ulong>(&regs, 16);
        for (int i = 0; i < numbers.Length; i++) numbers[i] = 0x1111111111111111ul * (ulong)(i + 1);
        regs.rflags = 0x246;
        vcpu.Regs = regs;
        vcpu.Xcrs = Widest(vcpu.Xcrs);
        kvm_xsave xsave = vcpu.Xsave;
        var area = new Span<byte>(&xsave, sizeof(kvm_xsave));
        for (int i = 32; i < 416; i++) area[i] = (byte)(i * 7); // st0-7, xmm0-15
        for (int i = 32; i < 160; i += 16) area[(i + 10)..(i + 16)].Clear();
        area[24] = 0x80;
        area[25] = 0x3f;                    // MXCSR: rounding, masks
        area[512] = 7;                      // XSTATE_BV
        for (int i = 576; i < 576 + 256; i++) area[i] = (byte)(i * 11); // upper halves of ymm
        vcpu.Xsave = xsave;
        vcpu.DebugRegs = new kvm_debugregs { dr6 = 0xffff4ff1, dr7 = 0x455 };
        FillMsrs(vcpu, system);
        kvm_lapic_state lapic = vcpu.Lapic;
        var apic = new Span<uint>(&lapic, sizeof(kvm_lapic_state) / 4);
        apic[0xf0 / 4] = 0x1ff;
        apic[0x80 / 4] = 0x20;
        apic[0x320 / 4] = 0x400d0;
        apic[0x350 / 4] = 0x10700;
        apic[0x220 / 4] = 0x8000; // a pending interrupt
        apic[0x120 / 4] = 0x10;   // one in service
        vcpu.Lapic = lapic;
        vcpu.SetMsr(0x6e0, 1UL << 60);
        if (vcpu.Id == 1) vcpu.MpState = (uint)KVM_MP_STATE_HALTED;
        kvm_vcpu_events events = vcpu.VcpuEvents;
        events.nmi.pending = 1;
        events.nmi.masked = 1;
        events.interrupt.injected = 1;
        events.interrupt.nr = 0x77;
        events.interrupt.shadow = 1;
        events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
        vcpu.VcpuEvents = events;
    }

    private static kvm_xcrs Widest(kvm_xcrs xcrs)
    {
        xcrs.nr_xcrs = 1;
        new Span<ulong>((byte*)&xcrs + 16, 1)[0] = 7;
        return xcrs;
    }

    /// <summary>Each MSR gets a value near its own if the kernel takes one; those that must be canonical, or have few bits, find theirs by trying.</summary>
    private static void FillMsrs(Vcpu vcpu, KvmSystem system)
    {
        uint[] leave = [0x10, 0x6e0, 0x3b, 0x40000001, 0x12, 0x11, 0x4b564d01, 0x4b564d00];
        foreach (uint index in system.GetMsrIndexList().Except(leave))
        {
            Span<kvm_msr_entry> entry = [new kvm_msr_entry { index = index }];
            if (vcpu.GetMsrs(entry) != 1) continue;
            ulong old = entry[0].data;
            foreach (ulong flip in (ulong[])[0x12345000, 0x1000, 0x40, 6, 1])
            {
                entry[0].data = old ^ flip;
                if (vcpu.SetMsrs(entry) == 1) break;
            }
        }
    }
}
