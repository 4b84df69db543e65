using Iced.Intel;
using Kvm.Abi;
using Kvm.Core;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Run;

/// <summary>Exits that userspace asks for or does without: KVM_CAP_EXIT_HYPERCALL, KVM_CAP_X86_DISABLE_EXITS, KVM_CAP_X86_USER_SPACE_MSR, bus locks, notification windows.</summary>
public sealed unsafe class OptionalExits
{
    public static TheoryData<string> Vendors => ["amd", "intel"];

    private static KvmResult Enable(Guest g, uint cap, ulong args)
    {
        var enable = new kvm_enable_cap { cap = cap };
        enable.args[0] = args;
        return g.Process.Ioctl(g.VmFd, KVM_ENABLE_CAP, ref enable);
    }

    private static byte[] Assemble(Action<Assembler> program)
    {
        var a = new Assembler(16);
        program(a);
        using var code = new MemoryStream();
        a.Assemble(new StreamCodeWriter(code), 0x1000);
        return code.ToArray();
    }

    private static byte[] MapGpaRange(string vendor, uint gpa, uint pages, uint attributes) => Assemble(a =>
    {
        a.mov(eax, KVM_HC_MAP_GPA_RANGE);
        a.mov(ebx, gpa);
        a.mov(ecx, pages);
        a.mov(edx, attributes);
        if (vendor == "amd")
            a.vmmcall();
        else
            a.vmcall();
        a.mov(__dword_ptr[0x7000], eax);
        a.@out(0x80, al);
    });

    /// <summary>What userspace leaves in hypercall.ret is RAX of the guest.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void MAP_GPA_RANGE_exits_when_it_is_asked_for(string vendor)
    {
        using var g = new Guest(vendor);
        g.Load(MapGpaRange(vendor, 0x5000, 3, 0x10));
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        (*(int*)(g.Memory + 0x7000)).Should().Be(-1000, "KVM_ENOSYS");

        Enable(g, KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_MAP_GPA_RANGE).Should().Be(KvmResult.Ok);
        g.Process.Ioctl(g.VmFd, KVM_CHECK_EXTENSION, KVM_CAP_EXIT_HYPERCALL).Value.Should().Be(1 << KVM_HC_MAP_GPA_RANGE);
        g.ForgetExit();
        g.Load(MapGpaRange(vendor, 0x5000, 3, 0x10));
        g.RunToExit().Should().Be((uint)KVM_EXIT_HYPERCALL);
        (g.Run->hypercall.nr, g.Run->hypercall.args[0], g.Run->hypercall.args[1], g.Run->hypercall.args[2]).Should().Be(((ulong)KVM_HC_MAP_GPA_RANGE, 0x5000ul, 3ul, 0x10ul));
        g.Run->hypercall.ret = 77;
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        (*(int*)(g.Memory + 0x7000)).Should().Be(77);

        // Ranges of nothing, or not of pages, are answered here.
        foreach ((uint gpa, uint pages) in new[] { (0x5001u, 1u), (0x5000u, 0u) })
        {
            g.ForgetExit();
            g.Load(MapGpaRange(vendor, gpa, pages, 0));
            g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
            (*(int*)(g.Memory + 0x7000)).Should().Be(-22, "KVM_EINVAL");
        }

        Enable(g, KVM_CAP_EXIT_HYPERCALL, 1 << 11).Should().Be((KvmResult)Errno.EINVAL);
    }

    /// <summary>A guest that may halt by itself does not leave KVM_RUN, and an interrupt goes on with it.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void HLT_without_exits_waits_in_the_guest(string vendor)
    {
        using var g = new Guest(vendor, irqchip: true, beforeVcpus: static g => Enable(g, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT).Should().Be(KvmResult.Ok));
        *(uint*)(g.Memory + 4 * 8) = 0x2000;
        new byte[] { 0xcf }.CopyTo(new Span<byte>(g.Memory + 0x2000, 1)); // IRET
        g.Load(Assemble(static a =>
        {
            a.sti();
            a.hlt();
            a.mov(al, 0x42);
            a.@out(0x80, al);
        }));
        using var interrupt = new Timer(_ =>
        {
            var line = new kvm_irq_level { irq = 0, level = 1 };
            g.Process.Ioctl(g.VmFd, KVM_IRQ_LINE, ref line);
        }, null, 200, Timeout.Infinite);
        Pic(g);
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.IoData[0].Should().Be(0x42);
        g.Vcpu.Stat.HaltExits.Should().Be(0);
    }

    /// <summary>Vectors from 8 on, IRQ 0 unmasked.</summary>
    private static void Pic(Guest g)
    {
        var chip = new kvm_irqchip { chip_id = 0 };
        g.Process.Ioctl(g.VmFd, KVM_GET_IRQCHIP, ref chip).Should().Be(KvmResult.Ok);
        chip.chip.pic.irq_base = 8;
        chip.chip.pic.imr = 0xfe;
        chip.chip.pic.init4 = 1;
        g.Process.Ioctl(g.VmFd, KVM_SET_IRQCHIP, ref chip).Should().Be(KvmResult.Ok);
    }

    /// <summary>Only known exits can be disabled; only before vCPUs would it be of use, but later it is no error in 6.1.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void Only_known_exits_can_be_disabled(string vendor)
    {
        using var g = new Guest(vendor);
        int known = (int)g.Process.Ioctl(g.VmFd, KVM_CHECK_EXTENSION, KVM_CAP_X86_DISABLE_EXITS).Value;
        known.Should().Be(KVM_X86_DISABLE_EXITS_MWAIT & known | KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_CSTATE);
        Enable(g, KVM_CAP_X86_DISABLE_EXITS, 16).Should().Be((KvmResult)Errno.EINVAL);
        Enable(g, KVM_CAP_X86_DISABLE_EXITS, 15).Should().Be(KvmResult.Ok);
    }

    /// <summary>No processor model has bus-lock or notification exits: the capabilities are 0, a bus-lock mode is taken without effect, notifications are refused.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void Bus_lock_and_notify_exits_are_not_there(string vendor)
    {
        using var g = new Guest(vendor);
        foreach ((uint cap, ulong args) in new (uint, ulong)[] { (KVM_CAP_X86_BUS_LOCK_EXIT, 1ul), (KVM_CAP_X86_BUS_LOCK_EXIT, 2ul), (KVM_CAP_X86_BUS_LOCK_EXIT, 3ul), (KVM_CAP_X86_BUS_LOCK_EXIT, 4ul), (KVM_CAP_X86_NOTIFY_VMEXIT, 1ul), (KVM_CAP_X86_NOTIFY_VMEXIT, 0ul) })
        {
            g.Process.Ioctl(g.VmFd, KVM_CHECK_EXTENSION, cap).Value.Should().Be(0);
            bool mode = cap == KVM_CAP_X86_BUS_LOCK_EXIT && (args is 1 or 2);
            Enable(g, cap, args).Should().Be(mode ? KvmResult.Ok : (KvmResult)Errno.EINVAL, "{0} {1}", cap, args);
        }
    }

    /// <summary>An MSR that nobody knows exits with the reason that was asked for; the answer is userspace's.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void Unknown_MSRs_exit_to_userspace(string vendor)
    {
        using var g = new Guest(vendor);
        Enable(g, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN).Should().Be(KvmResult.Ok);
        g.Load(Assemble(static a =>
        {
            a.mov(ecx, 0x4b564dff);
            a.rdmsr();
            a.inc(eax);
            a.wrmsr();
            a.@out(0x80, al);
        }));
        g.RunToExit().Should().Be((uint)KVM_EXIT_X86_RDMSR);
        (g.Run->msr.index, g.Run->msr.reason).Should().Be((0x4b564dffu, (uint)KVM_MSR_EXIT_REASON_UNKNOWN));
        g.Run->msr.data = 0x1_0000_0041;
        g.RunToExit().Should().Be((uint)KVM_EXIT_X86_WRMSR);
        g.Run->msr.data.Should().Be(0x1_0000_0042);
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.IoData[0].Should().Be(0x42);
    }
}
