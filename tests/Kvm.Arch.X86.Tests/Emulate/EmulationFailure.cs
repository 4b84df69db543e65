using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Emulate;

/// <summary>KVM_INTERNAL_ERROR_EMULATION: when, with what data, and what becomes of the instruction otherwise.</summary>
public sealed unsafe class EmulationFailure
{
    private const ulong unemulated = ModeGuest.Hole + 0x40;

    /// <summary>paddb xmm0, [ebx]: the processor has it, the emulator does not.</summary>
    private static readonly byte[] paddb = [0x66, 0x0f, 0xfc, 0x03];

    public static TheoryData<string> Vendors => ["intel", "amd"];

    /// <summary>A 32-bit guest about to execute an access to a device that the emulator cannot do.</summary>
    private static ModeGuest Failing(string vendor, int cpl)
    {
        var g = new ModeGuest(vendor, 32);
        var code = new Span<byte>(g.Memory + ModeGuest.Code, 0x40);
        code.Fill(0xf4);
        paddb.CopyTo(code);
        kvm_regs r = default;
        r.rip = ModeGuest.Code;
        r.rsp = ModeGuest.StackTop;
        r.rflags = 2;
        r.rbx = unemulated;
        g.Guest.Regs = r;
        if (cpl == 3)
            User(g);
        return g;
    }

    /// <summary>The code segment's and the stack's privilege become 3; exceptions find the stack of level 0 in the TSS.</summary>
    private static void User(ModeGuest g)
    {
        kvm_sregs s = g.Guest.Sregs;
        s.cs.selector |= 3;
        s.cs.dpl = 3;
        s.ss.selector |= 3;
        s.ss.dpl = 3;
        g.Guest.Sregs = s;
        *(uint*)(g.Memory + s.tr.@base + 4) = (uint)ModeGuest.StackTop + 0x80;
        *(uint*)(g.Memory + s.tr.@base + 8) = 16;
    }

    private static KvmResult ExitOnFailure(ModeGuest g, ulong value)
    {
        var cap = new kvm_enable_cap { cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE };
        cap.args[0] = value;
        return g.Guest.Process.Ioctl(g.Guest.VmFd, KVM_ENABLE_CAP, (ulong)&cap);
    }

    private static void BeTheFailureOfPaddb(ModeGuest g, string vendor)
    {
        kvm_run* run = g.Guest.Run;
        run->exit_reason.Should().Be((uint)KVM_EXIT_INTERNAL_ERROR);
        run->@internal.suberror.Should().Be((uint)KVM_INTERNAL_ERROR_EMULATION);
        run->emulation_failure.flags.Should().Be((ulong)KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
        run->@internal.ndata.Should().Be(8, "flags, two words of instruction, exit reason, two of exit information, interruption, error code");
        byte* insn = (byte*)&run->@internal.data[1];
        insn[0].Should().Be(15, "as many bytes as could be fetched");
        new Span<byte>(insn + 1, 4).ToArray().Should().Equal(paddb);
        new Span<byte>(insn + 5, 11).ToArray().Should().OnlyContain(b => b == 0xf4);
        if (vendor == "amd")
        {
            run->@internal.data[3].Should().Be(0x400, "#VMEXIT(NPF)");
            run->@internal.data[5].Should().Be(unemulated);
        }
        else
        {
            run->@internal.data[3].Should().BeOneOf(48, 49);
        }

        g.Guest.Regs.rip.Should().Be(ModeGuest.Code, "the instruction is not done");
    }

    [Theory, MemberData(nameof(Vendors))]
    public void At_privilege_0_KVM_RUN_ends_and_UD_is_queued(string vendor)
    {
        using ModeGuest g = Failing(vendor, 0);
        g.Guest.RunToExit();
        BeTheFailureOfPaddb(g, vendor);
        (g.Guest.Events.exception.nr, g.Guest.Events.exception.injected).Should().Be(((byte)6, (byte)1));
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Guest.Regs.rip.Should().Be(ModeGuest.Handlers + 7, "the handler of #UD is a HLT");
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Above_privilege_0_the_guest_gets_UD(string vendor)
    {
        using ModeGuest g = Failing(vendor, 3);
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Guest.Regs.rip.Should().Be(ModeGuest.Handlers + 7);
        (*(uint*)(g.Memory + g.Guest.Regs.rsp)).Should().Be((uint)ModeGuest.Code, "it returns to the instruction");
    }

    [Theory, MemberData(nameof(Vendors))]
    public void With_the_capability_userspace_gets_it_at_any_privilege_and_nothing_is_queued(string vendor)
    {
        foreach (int cpl in (int[])[0, 3])
        {
            using ModeGuest g = Failing(vendor, cpl);
            ExitOnFailure(g, 1).Raw.Should().Be(0);
            g.Guest.RunToExit();
            BeTheFailureOfPaddb(g, vendor);
            (g.Guest.Events.exception.injected, g.Guest.Events.exception.pending).Should().Be(((byte)0, (byte)0));
        }
    }

    [Theory, MemberData(nameof(Vendors))]
    public void The_capability_can_be_taken_back_and_takes_no_other_value(string vendor)
    {
        using ModeGuest g = Failing(vendor, 3);
        ExitOnFailure(g, 1).Raw.Should().Be(0);
        ExitOnFailure(g, 2).Raw.Should().Be(-(int)Errno.EINVAL);
        ExitOnFailure(g, 0).Raw.Should().Be(0);
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void An_instruction_that_cannot_be_skipped_is_a_failure_at_any_privilege(string vendor)
    {
        using ModeGuest g = Failing(vendor, 3);
        g.Guest.OnVcpu(v => v.EmulateInstruction(EmulType.EMULTYPE_SKIP)).Should().Be(0);
        g.Guest.Run->exit_reason.Should().Be((uint)KVM_EXIT_INTERNAL_ERROR);
        g.Guest.Run->@internal.suberror.Should().Be((uint)KVM_INTERNAL_ERROR_EMULATION);
        g.Guest.Run->@internal.ndata.Should().Be(8);
        g.Guest.Events.exception.injected.Should().Be(0);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void A_UD_exit_of_an_unknown_instruction_stays_UD(string vendor)
    {
        using ModeGuest g = Failing(vendor, 0);
        g.Guest.OnVcpu(v => v.EmulateInstruction(EmulType.EMULTYPE_TRAP_UD)).Should().Be(1);
        (g.Guest.Events.exception.nr, g.Guest.Events.exception.injected).Should().Be(((byte)6, (byte)1));
    }

    [Theory, MemberData(nameof(Vendors))]
    public void An_operand_without_memory_is_a_failure_without_instruction_bytes_and_a_page_fault_is_the_guests(string vendor)
    {
        using ModeGuest g = Failing(vendor, 0);
        X86Exception fault = default;
        g.Guest.OnVcpu(v => v.HandleMemoryFailure(X86EmulateContext.IoNeeded, in fault)).Should().Be(0);
        kvm_run* run = g.Guest.Run;
        run->exit_reason.Should().Be((uint)KVM_EXIT_INTERNAL_ERROR);
        (run->@internal.suberror, run->@internal.ndata, run->emulation_failure.flags).Should().Be(((uint)KVM_INTERNAL_ERROR_EMULATION, 6u, 0ul));
        fault.Vector = 14;
        fault.ErrorCodeValid = true;
        fault.Address = 0x1234;
        g.Guest.OnVcpu(v => v.HandleMemoryFailure(X86EmulateContext.PropagateFault, in fault)).Should().Be(1);
        (g.Guest.Events.exception.nr, g.Guest.Events.exception.injected).Should().Be(((byte)14, (byte)1));
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Code_that_cannot_be_fetched_faults_or_fails(string vendor)
    {
        using ModeGuest g = Failing(vendor, 0);
        kvm_regs r = g.Guest.Regs;
        r.rip = ModeGuest.Hole;
        g.Guest.Regs = r;
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_INTERNAL_ERROR);
        g.Guest.Run->@internal.suberror.Should().Be((uint)KVM_INTERNAL_ERROR_EMULATION);
        (g.Guest.Run->@internal.ndata, g.Guest.Run->emulation_failure.flags).Should().Be((6u, 0ul), "no byte of it is known");
    }

    [Fact]
    public void A_task_switch_that_faults_leaves_the_guest_where_it_was()
    {
        using ModeGuest g = Failing("intel", 0);
        // A TSS descriptor that is not present.
        *(ulong*)(g.Memory + 0x2000 + 24) = 0x0000090040000067;
        g.Guest.OnVcpu(v => v.TaskSwitch(24, -1, TaskSwitchReason.TASK_SWITCH_JMP, false, 0)).Should().Be(1);
        g.Guest.Regs.rip.Should().Be(ModeGuest.Code);
    }
}
