using Kvm.Emulator.Vmx;

namespace Kvm.Emulator.Tests.Vmx;

#pragma warning disable CA1707, CA1715

/// <summary>VMXON: what it checks, in order, and what it leaves behind.</summary>
public unsafe class VMXON
{
    private readonly VmxMachine m = new();

    private ulong Region(uint revision)
    {
        ulong page = m.Page();
        *(uint*)page = revision;
        return page;
    }

    private void EnableVmx() => m.Cpu.WriteCr(4, m.Cpu.ReadCr(4) | Cr4.VMXE).Ok.Should().BeTrue();

    [Fact]
    [Trait("Seed", "S3-11")]
    [Trait("Seed", "S0-1")]
    public void Needs_CR4_VMXE()
    {
        m.Cpu.Vmxon(Region(4)).Should().Be(InstructionResult.Faulted(Fault.Ud));
        EnableVmx();
        m.Cpu.InVmxOperation.Should().BeFalse("setting CR4.VMXE does not enter VMX operation");
        m.Cpu.Vmxon(Region(4)).Should().Be(InstructionResult.Success);
    }

    [Fact]
    [Trait("Seed", "S3-20")]
    public void Enters_root_operation_without_a_current_VMCS()
    {
        m.EnterVmx();
        m.Cpu.InVmxOperation.Should().BeTrue();
        m.Cpu.NonRoot.Should().BeNull();
        m.Cpu.Vmptrst(out ulong pointer).Should().Be(InstructionResult.Success);
        pointer.Should().Be(ulong.MaxValue);
    }

    [Theory]
    [InlineData(1UL)]
    [InlineData(0x800UL)]
    [InlineData(1UL << 48)]
    [InlineData(1UL << 63)]
    public void Fails_for_an_address_that_is_not_a_page_within_the_physical_width(ulong change)
    {
        EnableVmx();
        m.Cpu.Vmxon(Region(4) ^ change).Should().Be(InstructionResult.FailInvalid);
        m.Cpu.InVmxOperation.Should().BeFalse();
    }

    [Theory]
    [InlineData(3u), InlineData(5u), InlineData(0x8000_0004u), InlineData(0u)]
    [Trait("Seed", "S3-14")]
    public void Fails_for_a_revision_identifier_that_is_not_the_processors(uint revision)
    {
        EnableVmx();
        m.Cpu.Vmxon(Region(revision)).Should().Be(InstructionResult.FailInvalid);
    }

    [Fact]
    public void Fails_where_there_is_no_memory()
    {
        EnableVmx();
        m.Cpu.Vmxon(0x1000).Should().Be(InstructionResult.FailInvalid);
    }

    [Fact]
    public void In_VMX_operation_fails_with_error_15_or_VMfailInvalid_without_a_VMCS()
    {
        m.EnterVmx();
        m.Cpu.Vmxon(m.VmxonPage).Should().Be(InstructionResult.FailInvalid);
        ulong vmcs = m.NewVmcs();
        m.Cpu.Vmptrld(vmcs);
        m.Cpu.Vmxon(m.VmxonPage).Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.VmxonInVmxRoot);
    }

    [Fact]
    public void Faults_when_CR0_violates_the_fixed_bits()
    {
        EnableVmx();
        m.State->Cr0 &= ~Cr0.NE;
        m.Cpu.Vmxon(Region(4)).Should().Be(InstructionResult.Faulted(Fault.Gp()));
        m.State->Cr0 |= Cr0.NE;
        m.Cpu.Vmxon(Region(4)).Should().Be(InstructionResult.Success);
    }

    [Fact]
    public void CR4_VMXE_cannot_be_cleared_in_VMX_operation()
    {
        m.EnterVmx();
        m.Cpu.WriteCr(4, m.Cpu.ReadCr(4) & ~Cr4.VMXE).Should().Be(InstructionResult.Faulted(Fault.Gp()));
        m.Cpu.Vmxoff().Should().Be(InstructionResult.Success);
        m.Cpu.WriteCr(4, m.Cpu.ReadCr(4) & ~Cr4.VMXE).Should().Be(InstructionResult.Success);
    }

    [Fact]
    public void CR0_NE_cannot_be_cleared_in_VMX_operation()
    {
        m.EnterVmx();
        m.Cpu.WriteCr(0, m.Cpu.ReadCr(0) & ~Cr0.NE).Should().Be(InstructionResult.Faulted(Fault.Gp()));
    }

    [Fact]
    public void Can_be_told_to_fault_on_one_processor()
    {
        using var two = new VmxMachine(processors: 2);
        two.Machine.Processors[1].InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));
        two.EnterVmx();
        Processor other = two.Machine.Processors[1];
        other.WriteCr(4, other.ReadCr(4) | Cr4.VMXE);
        ulong region = two.NewVmcs();
        other.Vmxon(region).Should().Be(InstructionResult.Faulted(Fault.Gp()));
        other.InVmxOperation.Should().BeFalse();
        other.Vmxon(region).Should().Be(InstructionResult.Success, "one failure was asked for");
    }
}

/// <summary>IA32_FEATURE_CONTROL gates VMXON.</summary>
public unsafe class IA32_FEATURE_CONTROL
{
    [Theory]
    [InlineData(0UL, false)]
    [InlineData(1UL, false)]
    [InlineData(3UL, false)]
    [InlineData(4UL, false)]
    [InlineData(5UL, true)]
    [InlineData(7UL, true)]
    public void VMXON_needs_the_lock_bit_and_the_enable_bit_outside_SMX(ulong value, bool works)
    {
        using var m = new VmxMachine(bios: new BiosSettings { FeatureControl = value });
        m.Cpu.WriteCr(4, m.Cpu.ReadCr(4) | Cr4.VMXE);
        m.Cpu.Vmxon(m.NewVmcs()).Should().Be(works ? InstructionResult.Success : InstructionResult.Faulted(Fault.Gp()));
    }
}

public unsafe class VMXOFF
{
    private readonly VmxMachine m = new();

    [Fact]
    public void Leaves_VMX_operation()
    {
        m.EnterVmx();
        m.Cpu.Vmxoff().Should().Be(InstructionResult.Success);
        m.Cpu.InVmxOperation.Should().BeFalse();
        m.Cpu.Vmptrst(out _).Should().Be(InstructionResult.Faulted(Fault.Ud));
    }

    [Fact]
    public void Outside_VMX_operation_every_VMX_instruction_is_undefined()
    {
        InstructionResult ud = InstructionResult.Faulted(Fault.Ud);
        m.Cpu.Vmxoff().Should().Be(ud);
        m.Cpu.Vmclear(0).Should().Be(ud);
        m.Cpu.Vmptrld(0).Should().Be(ud);
        m.Cpu.Vmread(VmcsField.GUEST_RIP, out _).Should().Be(ud);
        m.Cpu.Vmwrite(VmcsField.GUEST_RIP, 0).Should().Be(ud);
        m.Cpu.Vmlaunch().Should().Be(ud);
        m.Cpu.Vmresume().Should().Be(ud);
        m.Cpu.Invept(2, 0).Should().Be(ud);
        m.Cpu.Invvpid(2, 0, 0).Should().Be(ud);
        m.Cpu.Vmcall().Should().Be(ud);
    }

    [Fact]
    public void VMCS_data_that_was_not_cleared_is_lost()
    {
        m.EnterVmx();
        ulong vmcs = m.NewVmcs();
        m.Cpu.Vmclear(vmcs);
        m.Cpu.Vmptrld(vmcs);
        m.Write(VmcsField.GUEST_RIP, 0x1234);
        m.Cpu.Vmxoff();
        m.Cpu.Vmxon(m.VmxonPage);
        m.Cpu.Vmptrld(vmcs);
        m.Read(VmcsField.GUEST_RIP).Should().Be(0);
    }
}

public unsafe class VMCLEAR
{
    private readonly VmxMachine m = new();
    private readonly ulong vmcs;

    public VMCLEAR()
    {
        m.EnterVmx();
        vmcs = m.NewVmcs();
        m.Cpu.Vmptrld(vmcs);
    }

    [Theory]
    [InlineData(8UL), InlineData(1UL << 48)]
    public void Of_an_invalid_address_is_error_2(ulong change)
    {
        m.Cpu.Vmclear(vmcs ^ change).Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.VmclearInvalidAddress);
    }

    [Fact]
    public void Of_the_VMXON_pointer_is_error_3()
    {
        m.Cpu.Vmclear(m.VmxonPage).Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.VmclearVmxonPointer);
    }

    [Fact]
    public void Of_the_current_VMCS_leaves_none_current()
    {
        m.Cpu.Vmclear(vmcs).Should().Be(InstructionResult.Success);
        m.Cpu.Vmptrst(out ulong pointer);
        pointer.Should().Be(ulong.MaxValue);
        m.Cpu.Vmread(VmcsField.GUEST_RIP, out _).Should().Be(InstructionResult.FailInvalid);
        m.Cpu.Vmclear(vmcs ^ 8).Should().Be(InstructionResult.FailInvalid, "there is no VMCS to hold an error number");
    }

    [Fact]
    public void Of_another_VMCS_keeps_the_current_one()
    {
        m.Cpu.Vmclear(m.NewVmcs()).Should().Be(InstructionResult.Success);
        m.Cpu.Vmptrst(out ulong pointer);
        pointer.Should().Be(vmcs);
    }

    [Fact]
    public void Does_not_look_at_the_revision_identifier()
    {
        ulong other = m.Page();
        *(uint*)other = 0xdead;
        m.Cpu.Vmclear(other).Should().Be(InstructionResult.Success);
    }

    [Fact]
    public void Writes_the_data_to_memory_so_that_another_load_finds_it()
    {
        m.Write(VmcsField.GUEST_RIP, 0xabcd);
        m.Write(VmcsField.HOST_CS_SELECTOR, 0x10);
        m.Cpu.Vmclear(vmcs);
        ulong copy = m.Page();
        new Span<byte>((void*)vmcs, 4096).CopyTo(new Span<byte>((void*)copy, 4096));
        m.Cpu.Vmptrld(copy);
        m.Read(VmcsField.GUEST_RIP).Should().Be(0xabcd);
        m.Read(VmcsField.HOST_CS_SELECTOR).Should().Be(0x10);
    }
}

public unsafe class VMPTRLD
{
    private readonly VmxMachine m = new(processors: 2);
    private readonly ulong vmcs;

    public VMPTRLD()
    {
        m.EnterVmx();
        vmcs = m.NewVmcs();
        m.Cpu.Vmclear(vmcs);
        m.Cpu.Vmptrld(vmcs).Should().Be(InstructionResult.Success);
    }

    [Theory]
    [InlineData(0x10UL), InlineData(1UL << 50)]
    public void Of_an_invalid_address_is_error_9(ulong change)
    {
        m.Cpu.Vmptrld(vmcs ^ change).Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.VmptrldInvalidAddress);
        m.Cpu.Vmptrst(out ulong pointer);
        pointer.Should().Be(vmcs);
    }

    [Fact]
    public void Of_the_VMXON_pointer_is_error_10()
    {
        m.Cpu.Vmptrld(m.VmxonPage).Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.VmptrldVmxonPointer);
    }

    [Theory]
    [InlineData(5u), InlineData(0u)]
    public void Of_another_revision_is_error_11(uint revision)
    {
        ulong other = m.Page();
        *(uint*)other = revision;
        m.Cpu.Vmptrld(other).Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.VmptrldIncorrectVmcsRevisionId);
    }

    [Fact]
    public void Of_a_shadow_VMCS_needs_VMCS_shadowing()
    {
        ulong shadow = m.Page();
        *(uint*)shadow = 0x8000_0004;
        m.Cpu.Vmptrld(shadow).Should().Be(InstructionResult.Success);

        using var old = new VmxMachine(c => c with { ProcBased2 = c.ProcBased2 & ~((ulong)SecondaryControls.VmcsShadowing << 32) });
        old.EnterVmx();
        ulong page = old.Page();
        *(uint*)page = 0x8000_0004;
        old.Cpu.Vmptrld(page).Should().Be(InstructionResult.FailInvalid);
    }

    [Fact]
    public void Several_VMCSs_stay_active()
    {
        ulong second = m.NewVmcs();
        m.Cpu.Vmclear(second);
        m.Write(VmcsField.GUEST_RIP, 1);
        m.Cpu.Vmptrld(second);
        m.Write(VmcsField.GUEST_RIP, 2);
        m.Cpu.Vmptrld(vmcs);
        m.Read(VmcsField.GUEST_RIP).Should().Be(1);
        m.Cpu.Vmptrld(second);
        m.Read(VmcsField.GUEST_RIP).Should().Be(2);
    }

    [Fact]
    public void On_another_processor_after_VMCLEAR_finds_everything()
    {
        m.Write(VmcsField.GUEST_RIP, 0x77);
        m.Cpu.Vmclear(vmcs);
        Processor other = m.Machine.Processors[1];
        m.EnterVmx(other);
        other.Vmptrld(vmcs).Should().Be(InstructionResult.Success);
        other.Vmread(VmcsField.GUEST_RIP, out ulong value);
        value.Should().Be(0x77);
    }

    /// <summary>Software error: the first processor still holds the data; the second reads what memory has.</summary>
    [Fact]
    public void On_another_processor_without_VMCLEAR_shows_stale_data()
    {
        m.Write(VmcsField.GUEST_RIP, 0x77);
        Processor other = m.Machine.Processors[1];
        m.EnterVmx(other);
        other.Vmptrld(vmcs).Should().Be(InstructionResult.Success);
        other.Vmread(VmcsField.GUEST_RIP, out ulong value);
        value.Should().Be(0);
    }
}

public unsafe class VMREAD_VMWRITE
{
    private readonly VmxMachine m = new();

    public VMREAD_VMWRITE()
    {
        m.EnterVmx();
        m.Cpu.Vmptrld(m.NewVmcs());
    }

    [Theory]
    [InlineData(VmcsField.GUEST_CS_SELECTOR, 0xffffUL)]
    [InlineData(VmcsField.GUEST_CS_LIMIT, 0xffff_ffffUL)]
    [InlineData(VmcsField.EXCEPTION_BITMAP, 0xffff_ffffUL)]
    [InlineData(VmcsField.TSC_OFFSET, ulong.MaxValue)]
    [InlineData(VmcsField.GUEST_RIP, ulong.MaxValue)]
    public void Keep_as_many_bits_as_the_component_is_wide(VmcsField field, ulong expected)
    {
        m.Write(field, ulong.MaxValue);
        m.Read(field).Should().Be(expected);
    }

    [Fact]
    public void Odd_encodings_reach_the_upper_half()
    {
        m.Write(VmcsField.TSC_OFFSET, 0x1111_2222_3333_4444);
        m.Read(VmcsField.TSC_OFFSET_HIGH).Should().Be(0x1111_2222);
        m.Write(VmcsField.TSC_OFFSET_HIGH, 0xffff_ffff_aaaa_bbbb);
        m.Read(VmcsField.TSC_OFFSET).Should().Be(0xaaaa_bbbb_3333_4444);
    }

    [Fact]
    public void An_unsupported_component_is_error_12()
    {
        m.Cpu.Vmread(VmcsField.TERTIARY_VM_EXEC_CONTROL, out _).Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.UnsupportedVmcsComponent);
        m.Write(VmcsField.VM_INSTRUCTION_ERROR, 0);
        m.Cpu.Vmwrite(0x6c1e, 0).Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.UnsupportedVmcsComponent);
    }

    [Fact]
    public void Exit_information_is_writable_only_where_IA32_VMX_MISC_says_so()
    {
        m.Cpu.Vmwrite(VmcsField.EXIT_QUALIFICATION, 5).Should().Be(InstructionResult.Success);
        using var old = new VmxMachine(c => c with { Misc = c.Misc & ~(1UL << 29) });
        old.EnterVmx();
        old.Cpu.Vmptrld(old.NewVmcs());
        old.Cpu.Vmwrite(VmcsField.EXIT_QUALIFICATION, 5).Should().Be(InstructionResult.FailValid);
        old.Error.Should().Be(VmxInstructionError.VmwriteReadOnlyVmcsComponent);
    }

    [Fact]
    public void Every_component_gives_back_what_was_written()
    {
        var written = new Dictionary<VmcsField, ulong>();
        ulong seed = 0x9e37_79b9_7f4a_7c15;
        foreach (VmcsField field in Enum.GetValues<VmcsField>().Where(f => ((uint)f & 1) == 0))
        {
            seed = seed * 6364136223846793005 + 1442695040888963407;
            if (m.Cpu.Vmwrite(field, seed).Ok)
                written[field] = ((uint)field >> 13 & 3) switch { 0 => (ushort)seed, 2 => (uint)seed, _ => seed };
        }
        written.Should().HaveCountGreaterThan(130);
        // VM_INSTRUCTION_ERROR changes with the failures above.
        written.Remove(VmcsField.VM_INSTRUCTION_ERROR);
        foreach ((VmcsField field, ulong value) in written)
            m.Read(field).Should().Be(value, "{0}", field);
    }

    [Fact]
    public void Can_be_told_to_fail()
    {
        m.Cpu.InstructionFaults.Add("VMWRITE", InstructionResult.FailValid, skip: 1, count: 2);
        m.Cpu.Vmwrite(VmcsField.GUEST_RIP, 1).Ok.Should().BeTrue();
        m.Cpu.Vmwrite(VmcsField.GUEST_RIP, 2).ZF.Should().BeTrue();
        m.Cpu.Vmwrite(VmcsField.GUEST_RIP, 3).ZF.Should().BeTrue();
        m.Read(VmcsField.GUEST_RIP).Should().Be(1);
        m.Cpu.Vmwrite(VmcsField.GUEST_RIP, 4).Ok.Should().BeTrue();
    }
}

public unsafe class INVEPT
{
    private readonly VmxMachine m = new();
    private const ulong Valid = 0x1000 | 6 | 3 << 3;

    public INVEPT()
    {
        m.EnterVmx();
        m.Cpu.Vmptrld(m.NewVmcs());
    }

    [Theory]
    [InlineData(1UL, Valid, true)]
    [InlineData(2UL, 0UL, true)]
    [InlineData(0UL, Valid, false)]
    [InlineData(3UL, Valid, false)]
    [InlineData(1UL, 0x1000UL | 5 | 3 << 3, false)]
    [InlineData(1UL, 0x1000UL | 6 | 2 << 3, false)]
    [InlineData(1UL, 0x1000UL | 6 | 3 << 3 | 0x80, false)]
    [InlineData(1UL, 1UL << 52 | 6 | 3 << 3, false)]
    public void Accepts_the_announced_types_and_a_valid_EPTP(ulong type, ulong eptp, bool succeeds)
    {
        m.Cpu.Invept(type, eptp).Should().Be(succeeds ? InstructionResult.Success : InstructionResult.FailValid);
        if (!succeeds)
            m.Error.Should().Be(VmxInstructionError.InvalidOperandToInveptInvvpid);
    }

    [Fact]
    public void Without_EPT_is_undefined()
    {
        using var old = new VmxMachine(c => c with { ProcBased2 = c.ProcBased2 & ~((ulong)SecondaryControls.EnableEpt << 32) });
        old.EnterVmx();
        old.Cpu.Invept(2, 0).Should().Be(InstructionResult.Faulted(Fault.Ud));
    }
}

public unsafe class INVVPID
{
    private readonly VmxMachine m = new();

    public INVVPID()
    {
        m.EnterVmx();
        m.Cpu.Vmptrld(m.NewVmcs());
    }

    [Theory]
    [InlineData(0UL, 1, 0x1000UL, true)]
    [InlineData(0UL, 0, 0x1000UL, false)]
    [InlineData(0UL, 1, 0x8000_0000_0000UL, false)]
    [InlineData(1UL, 1, 0x8000_0000_0000UL, true)]
    [InlineData(1UL, 0, 0UL, false)]
    [InlineData(2UL, 0, 0UL, true)]
    [InlineData(3UL, 7, 0UL, true)]
    [InlineData(3UL, 0, 0UL, false)]
    [InlineData(4UL, 1, 0UL, false)]
    public void Checks_type_VPID_and_address(ulong type, int vpid, ulong linear, bool succeeds)
    {
        m.Cpu.Invvpid(type, (ushort)vpid, linear).Should().Be(succeeds ? InstructionResult.Success : InstructionResult.FailValid);
        if (!succeeds)
            m.Error.Should().Be(VmxInstructionError.InvalidOperandToInveptInvvpid);
    }
}

public unsafe class VMLAUNCH_VMRESUME
{
    private readonly VmxMachine m = new();

    [Fact]
    public void Without_a_current_VMCS_is_VMfailInvalid()
    {
        m.EnterVmx();
        m.Cpu.Vmlaunch().Should().Be(InstructionResult.FailInvalid);
        m.Cpu.Vmresume().Should().Be(InstructionResult.FailInvalid);
    }

    [Fact]
    public void Of_a_shadow_VMCS_is_VMfailInvalid()
    {
        m.EnterVmx();
        ulong shadow = m.Page();
        *(uint*)shadow = 0x8000_0004;
        m.Cpu.Vmptrld(shadow);
        m.Cpu.Vmlaunch().Should().Be(InstructionResult.FailInvalid);
    }

    [Fact]
    public void VMRESUME_needs_a_launched_VMCS()
    {
        m.WithGuest();
        m.Cpu.Vmresume().Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.VmresumeNonlaunchedVmcs);
    }

    [Fact]
    public void VMLAUNCH_needs_a_clear_VMCS()
    {
        m.WithGuest();
        m.Code(16, a => a.hlt());
        m.Launch().Should().Be(VmxExitReason.HLT);
        m.Cpu.Vmlaunch().Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.VmlaunchNonclearVmcs);
        m.Resume().Should().Be(VmxExitReason.HLT);
        m.Cpu.Vmclear(m.VmcsPage);
        m.Cpu.Vmptrld(m.VmcsPage);
        m.Cpu.Vmresume().ZF.Should().BeTrue("VMCLEAR made it clear again");
        m.Launch().Should().Be(VmxExitReason.HLT);
    }

    [Fact]
    public void Blocking_by_MOV_SS_is_error_26()
    {
        m.WithGuest();
        m.State->InterruptShadow = 2;
        m.Cpu.Vmlaunch().Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.EntryEventsBlockedByMovSs);
    }

    [Fact]
    public void VMCALL_in_root_operation_is_error_1()
    {
        m.EnterVmx();
        m.Cpu.Vmcall().Should().Be(InstructionResult.FailInvalid);
        m.Cpu.Vmptrld(m.NewVmcs());
        m.Cpu.Vmcall().Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(VmxInstructionError.VmcallInVmxRoot);
    }
}
