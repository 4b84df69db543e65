using System.Runtime.InteropServices;
using Kvm.Emulator.Vmx;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>Where VMCS components live, and which of them a set of capabilities has.</summary>
public unsafe class VmcsLayoutTests
{
    private static readonly VmcsField[] Never =
    [
        VmcsField.SUB_PAGE_PERMISSION_TABLE_POINTER, VmcsField.ENCLV_EXITING_BITMAP, VmcsField.HLAT_POINTER, VmcsField.GUEST_IA32_LBR_CTL, VmcsField.GUEST_IA32_PKRS,
        VmcsField.HOST_IA32_PKRS, VmcsField.GUEST_S_CET, VmcsField.GUEST_SSP, VmcsField.GUEST_INTR_SSP_TABLE, VmcsField.HOST_S_CET, VmcsField.HOST_SSP, VmcsField.HOST_INTR_SSP_TABLE,
    ];

    private static readonly VmxCapabilities Everything = new()
    {
        PinBased = 0xffff_ffff_0000_0016,
        ProcBased = 0xffff_ffff_0401_e172,
        ProcBased2 = 0xffff_ffff_0000_0000,
        ProcBased3 = ulong.MaxValue,
        Exit = 0xffff_ffff_0003_6dff,
        Entry = 0xffff_ffff_0000_11ff,
    };

    private static bool IsNever(VmcsField field) => Never.Contains((VmcsField)((uint)field & ~1u));

    [Fact]
    public void The_region_fits_what_IA32_VMX_BASIC_announces() => Marshal.SizeOf<Vmcs>().Should().BeLessThanOrEqualTo(new VmxCapabilities().RegionSize);

    [Fact]
    public void Every_encoding_has_its_own_place_of_its_own_width()
    {
        var layout = new VmcsLayout(Everything);
        var used = new Dictionary<int, VmcsField>();
        foreach (VmcsField field in Enum.GetValues<VmcsField>().Where(f => ((uint)f & 1) == 0 && !IsNever(f)))
        {
            layout.TryFind((uint)field, out VmcsSlot slot).Should().BeTrue("{0} is a component", field);
            ((int)slot.Size).Should().Be(((uint)field >> 13 & 3) switch { 0 => 2, 2 => 4, _ => 8 });
            for (int i = 0; i < slot.Size; i++)
                used.TryAdd(slot.Offset + i, field).Should().BeTrue("{0} and {1} do not overlap", field, used.GetValueOrDefault(slot.Offset + i));
            (slot.Offset % slot.Size).Should().Be(0);
        }
    }

    [Fact]
    public void The_upper_half_exists_for_64_bit_components_only()
    {
        var layout = new VmcsLayout(Everything);
        foreach (VmcsField field in Enum.GetValues<VmcsField>().Where(f => ((uint)f & 1) == 0 && !IsNever(f)))
            layout.TryFind((uint)field | 1, out _).Should().Be(((uint)field >> 13 & 3) == 1, "{0}", field);
    }

    [Theory]
    [InlineData(0x1000UL), InlineData(0x8000UL), InlineData(0x1_0000_0000UL), InlineData(0x0006UL), InlineData(0x203eUL), InlineData(0x6410UL), InlineData(0xffff_ffffUL)]
    public void Reserved_encodings_are_unsupported(ulong field) => new VmcsLayout(Everything).TryFind(field, out _).Should().BeFalse();

    [Fact]
    public void The_default_capabilities_leave_out_what_they_do_not_announce()
    {
        var layout = new VmcsLayout(new VmxCapabilities());
        VmcsField[] absent =
        [
            VmcsField.TERTIARY_VM_EXEC_CONTROL, VmcsField.PID_POINTER_TABLE, VmcsField.LAST_PID_POINTER_INDEX, VmcsField.GUEST_BNDCFGS, VmcsField.GUEST_IA32_RTIT_CTL,
            VmcsField.ENCLS_EXITING_BITMAP, VmcsField.NOTIFY_WINDOW,
        ];
        IEnumerable<VmcsField> missing = Enum.GetValues<VmcsField>().Where(f => ((uint)f & 1) == 0 && !IsNever(f) && !layout.TryFind((uint)f, out _));
        missing.Should().BeEquivalentTo(absent);
    }

    [Theory]
    [InlineData(VmcsField.VIRTUAL_PROCESSOR_ID, SecondaryControls.EnableVpid)]
    [InlineData(VmcsField.EPT_POINTER, SecondaryControls.EnableEpt)]
    [InlineData(VmcsField.GUEST_PHYSICAL_ADDRESS, SecondaryControls.EnableEpt)]
    [InlineData(VmcsField.GUEST_PDPTR2, SecondaryControls.EnableEpt)]
    [InlineData(VmcsField.APIC_ACCESS_ADDR, SecondaryControls.VirtualizeApicAccesses)]
    [InlineData(VmcsField.GUEST_INTR_STATUS, SecondaryControls.VirtualInterruptDelivery)]
    [InlineData(VmcsField.EOI_EXIT_BITMAP3, SecondaryControls.VirtualInterruptDelivery)]
    [InlineData(VmcsField.PML_ADDRESS, SecondaryControls.EnablePml)]
    [InlineData(VmcsField.GUEST_PML_INDEX, SecondaryControls.EnablePml)]
    [InlineData(VmcsField.VMREAD_BITMAP, SecondaryControls.VmcsShadowing)]
    [InlineData(VmcsField.VM_FUNCTION_CONTROL, SecondaryControls.EnableVmFunctions)]
    [InlineData(VmcsField.EPTP_LIST_ADDRESS, SecondaryControls.EnableVmFunctions)]
    [InlineData(VmcsField.XSS_EXIT_BITMAP, SecondaryControls.EnableXsaves)]
    [InlineData(VmcsField.TSC_MULTIPLIER, SecondaryControls.UseTscScaling)]
    [InlineData(VmcsField.PLE_WINDOW, SecondaryControls.PauseLoopExiting)]
    [InlineData(VmcsField.VE_INFO_ADDRESS, SecondaryControls.EptViolationVe)]
    public void A_component_exists_only_with_its_control(VmcsField field, SecondaryControls control)
    {
        var with = new VmxCapabilities();
        VmxCapabilities without = with with { ProcBased2 = with.ProcBased2 & ~((ulong)control << 32) };
        new VmcsLayout(with).TryFind((uint)field, out _).Should().BeTrue();
        new VmcsLayout(without).TryFind((uint)field, out _).Should().BeFalse();
    }

    [Fact]
    public void CR3_target_values_exist_as_far_as_IA32_VMX_MISC_counts()
    {
        var layout = new VmcsLayout(new VmxCapabilities { Misc = 0x7002_81e7 });
        layout.TryFind((uint)VmcsField.CR3_TARGET_VALUE1, out _).Should().BeTrue();
        layout.TryFind((uint)VmcsField.CR3_TARGET_VALUE2, out _).Should().BeFalse();
    }

    [Theory]
    [InlineData(0x480u, true), InlineData(0x48bu, true), InlineData(0x48cu, true), InlineData(0x490u, true), InlineData(0x491u, true), InlineData(0x492u, false), InlineData(0x493u, false)]
    public void Capability_MSRs_exist_as_announced(uint msr, bool exists) => new VmxCapabilities().TryRead(msr, out _).Should().Be(exists);

    [Fact]
    [Trait("Seed", "S0-24")]
    [Trait("Seed", "S0-30")]
    [Trait("Seed", "S1-2")]
    public void Architectural_numbers()
    {
        Cr4.VMXE.Should().Be(1 << 13);
        Msr.IA32_FEATURE_CONTROL.Should().Be(0x3a);
        Msr.IA32_VMX_PINBASED_CTLS.Should().Be(0x481);
        Msr.IA32_VMX_PROCBASED_CTLS.Should().Be(0x482);
        Msr.IA32_VMX_PROCBASED_CTLS2.Should().Be(0x48b);
    }

    [Fact]
    public void Capabilities_survive_the_way_through_MSRs()
    {
        var original = new VmxCapabilities();
        VmxCapabilities.From(original.ToMsrs()).Should().Be(original);
    }
}
