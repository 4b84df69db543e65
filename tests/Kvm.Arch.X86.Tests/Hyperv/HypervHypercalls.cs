using Iced.Intel;
using Kvm.Abi;
using Kvm.Core;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Hyperv;

/// <summary>The hypercall page and the hypercalls (hyperv.c:kvm_hv_hypercall).</summary>
public unsafe class HypervHypercalls
{
    private const uint GuestOsId = 0x40000000, HypercallMsr = 0x40000001, Reset = 0x40000003, VpIndex = 0x40000002, CrashP0 = 0x40000100, CrashCtl = 0x40000105, SyndbgOptions = 0x400000ff;
    private const ulong Success = 0, InvalidCode = 2, InvalidInput = 3, InvalidAlignment = 4, InvalidParameter = 5, AccessDenied = 6, OperationDenied = 8, InvalidPort = 17, Fast = 1 << 16;
    private const ushort FlushSpace = 2, FlushList = 3, SpinWait = 8, SendIpi = 0xb, FlushSpaceEx = 0x13, FlushListEx = 0x14, SendIpiEx = 0x15, PostMessage = 0x5c, SignalEvent = 0x5d,
        PostDebugData = 0x69, ResetDebugSession = 0x6b;

    public static TheoryData<string> Vendors => ["amd", "intel"];

    private static void TurnOn(Assembler a)
    {
        HypervGuest.Wrmsr(a, GuestOsId, 0x8100_0000_0000_0001);
        HypervGuest.Wrmsr(a, HypercallMsr, HypervGuest.HypercallPage | 1);
    }

    /// <summary>Calls the hypercall page.</summary>
    private static void Call(Assembler a, ulong input, ulong first = 0, ulong second = 0)
    {
        a.mov(rcx, input);
        a.mov(rdx, first);
        a.mov(r8, second);
        a.mov(r9, HypervGuest.HypercallPage);
        a.call(r9);
    }

    private static ulong Status(HypervGuest g, ulong input, ulong first = 0, ulong second = 0)
    {
        g.Run(a =>
        {
            TurnOn(a);
            Call(a, input, first, second);
        });
        return g.Rax;
    }

    [Theory, InlineData("intel", 0xc1), InlineData("amd", 0xd9)]
    public void The_page_has_the_vendors_instruction(string vendor, byte last)
    {
        using var g = new HypervGuest(vendor);
        Status(g, SpinWait).Should().Be(Success);
        new ReadOnlySpan<byte>(g.Memory + HypervGuest.HypercallPage, 5).ToArray().Should().Equal(0x0f, 0x01, last, 0xc3, 0);
        g.Host.Vm.Vcpus[0].Stat.Hypercalls.Should().Be(1);
        Status(g, 0x7ff).Should().Be(InvalidCode);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void The_page_stays_off_without_a_guest_os_id(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.GuestSetMsr(HypercallMsr, HypervGuest.HypercallPage | 1).Should().BeTrue();
        g.GetMsr(HypercallMsr).Should().Be(0);
        g.Memory[HypervGuest.HypercallPage].Should().Be(0);
        g.GuestSetMsr(GuestOsId, 1).Should().BeTrue();
        g.GuestSetMsr(HypercallMsr, (1ul << 40) | 1).Should().BeFalse("no memory there");
        g.GuestSetMsr(HypercallMsr, HypervGuest.HypercallPage | 1).Should().BeTrue();
        g.GetMsr(HypercallMsr).Should().Be(HypervGuest.HypercallPage | 1);
        g.GuestSetMsr(GuestOsId, 0).Should().BeTrue();
        g.GetMsr(HypercallMsr).Should().Be(HypervGuest.HypercallPage, "it is turned off");
    }

    /// <summary>Without a guest OS id the instruction makes KVM's own hypercalls.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void Before_that_hypercalls_are_kvms(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.Run(a =>
        {
            a.mov(rax, 1000);
            if (vendor == "amd") a.vmmcall(); else a.vmcall();
        });
        g.Rax.Should().Be(unchecked((ulong)-KVM_ENOSYS));
    }

    public static TheoryData<ulong, ulong, ulong, ulong> Statuses => new()
    {
        { SpinWait, 0, 0, Success }, { SpinWait | (1ul << 32), 0, 0, InvalidInput }, { SpinWait | (1ul << 48), 0, 0, InvalidInput }, { SpinWait | (1ul << 17), 0, 0, InvalidInput },
        { SpinWait | (1ul << 27), 0, 0, InvalidInput }, { SpinWait | (1ul << 44), 0, 0, InvalidInput }, { SpinWait | (1ul << 60), 0, 0, InvalidInput },
        { 0x40 | (1ul << 31), 0, 0, InvalidInput }, { 0x40, 0, 0, InvalidCode },
        { SignalEvent | Fast, 1ul << 24, 0, InvalidInput }, { SignalEvent, HypervGuest.Data + 4, 0, InvalidAlignment }, { SignalEvent, 1ul << 40, 0, InvalidAlignment },
        { SignalEvent | Fast | (1ul << 17), 1, 0, InvalidInput }, { PostMessage | (1ul << 32), 0, 0, InvalidInput },
        { FlushSpace, HypervGuest.Data, 0, Success }, { FlushSpace, 1ul << 40, 0, InvalidInput }, { FlushSpace | (1ul << 32), HypervGuest.Data, 0, InvalidInput },
        { FlushSpace | (1ul << 17), HypervGuest.Data, 0, InvalidInput }, { FlushList, HypervGuest.Data, 0, InvalidInput }, { FlushList | (5ul << 32), HypervGuest.Data, 0, 5ul << 32 },
        { FlushList | (5ul << 32) | (1ul << 48), HypervGuest.Data, 0, InvalidInput }, { FlushListEx | (3ul << 32), HypervGuest.Data, 0, 3ul << 32 },
        { FlushSpaceEx, HypervGuest.Data, 0, Success }, { FlushSpaceEx | (1ul << 17), HypervGuest.Data, 0, InvalidInput },
        { SendIpi | Fast, 0x55, 0, Success }, { SendIpi | Fast, 0xf, 0, InvalidInput }, { SendIpi | Fast, 0x100, 0, InvalidInput }, { SendIpi | Fast, 0x1_0000_0055, 0, InvalidInput },
        { SendIpi | Fast | (1ul << 32), 0x55, 0, InvalidInput }, { SendIpi, 1ul << 40, 0, InvalidInput }, { SendIpiEx | Fast, 0xf, 0, Success }, { SendIpiEx | Fast, 0xf, 1, InvalidInput },
        { SendIpiEx | Fast | (1ul << 17), 0x55, 0, InvalidInput }, { ResetDebugSession, 0, 0, OperationDenied }, { PostDebugData | Fast, 0, 0, InvalidParameter },
    };

    [Theory, MemberData(nameof(Statuses))]
    public void Status_of_a_call(ulong input, ulong first, ulong second, ulong status)
    {
        using var g = new HypervGuest("amd");
        Status(g, input, first, second).Should().Be(status);
    }

    /// <summary>Result in EDX:EAX, parameters in register pairs.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void From_32_bit_code(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.Run(TurnOn);
        kvm_sregs s = g.Host.Sregs;
        s.cs.l = 0;
        s.cs.db = 1;
        g.Host.Sregs = s;

        // mov edx, 5; mov eax, FlushList; mov ebx, 0; mov ecx, Data; call HypercallPage; out 98, al
        byte[] code = [0xba, 5, 0, 0, 0, 0xb8, (byte)FlushList, 0, 0, 0, 0xbb, 0, 0, 0, 0, 0xb9, 0, 0, 2, 0, 0xbf, 0, 0x10, 3, 0, 0xff, 0xd7, 0xe6, HypervGuest.Port];
        code.CopyTo(new Span<byte>(g.Memory + HypervGuest.Code, code.Length));
        g.SetRip(HypervGuest.Code);
        g.RunToDone();
        g.Rax.Should().Be(Success);
        g.Host.Regs.rdx.Should().Be(5);
    }

    private static void ShouldBeUd(HypervGuest g)
    {
        g.SetRip(0);
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.Host.Run->io.port.Should().Be(HypervGuest.UnexpectedPort);
        g.Host.IoData[0].Should().Be(6);
    }

    private static void WriteInstruction(HypervGuest g) => new ReadOnlySpan<byte>(g.Memory + HypervGuest.HypercallPage, 3).CopyTo(new Span<byte>(g.Memory + HypervGuest.Code, 3));

    [Theory, MemberData(nameof(Vendors))]
    public void In_real_mode_it_is_ud(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.Run(TurnOn);
        WriteInstruction(g);
        kvm_sregs s = g.Host.Sregs;
        (s.cr0, s.cr4, s.efer, s.idt.@base, s.idt.limit) = (0x10, 0, 0, 0, 0x3ff);
        s.ds = s.es = s.ss = s.fs = s.gs = new kvm_segment { limit = 0xffff, type = 3, present = 1, s = 1 };
        s.cs = s.ds with { @base = HypervGuest.Code, selector = (ushort)(HypervGuest.Code >> 4), type = 11 };
        g.Host.Sregs = s;
        *(uint*)(g.Memory + (6 * 4)) = 0x4000 + (6 * 4);
        ShouldBeUd(g);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void In_ring_3_it_is_ud(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.Run(TurnOn);
        WriteInstruction(g);
        kvm_sregs s = g.Host.Sregs;
        for (ulong i = 0; i < 1025; i += 512)
            *(ulong*)(g.Memory + s.cr3 + (i * 8)) |= 4;
        *(ulong*)(g.Memory + 0x1004) = HypervGuest.Stack;
        s.cs = s.cs with { @base = HypervGuest.Code, dpl = 3, selector = 0x1b, l = 0, db = 1 };
        s.ss = s.ss with { dpl = 3, selector = 0x23 };
        g.Host.Sregs = s;
        ShouldBeUd(g);
    }

    [Theory]
    [InlineData(SpinWait, 4, 1, 0xffful)]
    [InlineData(SignalEvent, 3, 1, 1 << 5)]
    [InlineData(PostMessage, 3, 1, 1 << 4)]
    [InlineData(FlushSpace, 4, 0, 1 << 2)]
    [InlineData(FlushSpaceEx, 4, 0, 1 << 11)]
    [InlineData(SendIpi, 4, 0, 1 << 10)]
    [InlineData(SendIpiEx, 4, 0, 1 << 11)]
    [InlineData(PostDebugData, 3, 1, 1 << 11)]
    public void With_enforced_cpuid_a_call_needs_its_feature(ushort code, int leaf, int register, ulong bits)
    {
        kvm_cpuid_entry2 Without(kvm_cpuid_entry2 e)
        {
            if (e.function == 0x40000000 + (uint)leaf)
                (e.eax, e.ebx) = register == 0 ? (e.eax & ~(uint)bits, e.ebx) : (e.eax, e.ebx & ~(uint)bits);
            return e;
        }

        using var g = new HypervGuest("amd", leaves: Without);
        Status(g, code | (1ul << 31)).Should().Be(InvalidInput);
        g.EnableCap(KVM_CAP_HYPERV_ENFORCE_CPUID, argument: 1).Raw.Should().Be(0);
        Status(g, code | (1ul << 31)).Should().Be(AccessDenied, "before the input is looked at");
    }

    [Fact]
    public void With_enforced_cpuid_xmm_input_needs_its_feature()
    {
        using var g = new HypervGuest("amd", leaves: static e => e.function == 0x40000003 ? e with { edx = e.edx & ~0x10u } : e);
        Status(g, FlushSpace | Fast, 0, 1).Should().Be(Success);
        g.EnableCap(KVM_CAP_HYPERV_ENFORCE_CPUID, argument: 1).Raw.Should().Be(0);
        g.SetRip(HypervGuest.Code);
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.Host.Run->io.port.Should().Be(HypervGuest.UnexpectedPort);
        g.Host.IoData[0].Should().Be(6);
    }

    // ---- messages and events ----

    [Theory, MemberData(nameof(Vendors))]
    public void A_posted_message_goes_to_userspace_which_gives_the_result(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.Assemble(a =>
        {
            TurnOn(a);
            Call(a, PostMessage, HypervGuest.Data, 77);
            HypervGuest.Done(a);
        });
        g.SetRip(HypervGuest.Code);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HYPERV);
        ref kvm_hyperv_exit exit = ref g.Host.Run->hyperv;
        exit.type.Should().Be((uint)KVM_EXIT_HYPERV_HCALL);
        exit.u.hcall.input.Should().Be(PostMessage);
        exit.u.hcall.@params[0].Should().Be(HypervGuest.Data);
        exit.u.hcall.@params[1].Should().Be(77);
        exit.u.hcall.result = 0x1234_0000_0013;
        g.RunToDone();
        g.Rax.Should().Be(0x1234_0000_0013);
    }

    [Fact]
    public void Without_the_synic_userspace_is_not_asked()
    {
        using var g = new HypervGuest("amd", synic: false);
        Status(g, PostMessage, HypervGuest.Data).Should().Be(InvalidInput);
        Status(g, SignalEvent | Fast, 5).Should().Be(InvalidInput);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void An_event_signals_the_connections_eventfd(string vendor)
    {
        using var g = new HypervGuest(vendor);
        int fd = Guest.Ok(g.Host.Process.Eventfd(0, 0));
        var args = new kvm_hyperv_eventfd { conn_id = 5, fd = fd };
        Guest.Ok(g.Host.Process.Ioctl(g.Host.VmFd, KVM_HYPERV_EVENTFD, (ulong)&args));
        EventfdContext? eventfd;
        using (g.Host.Kernel.Host.Enter(g.Host.Process.Task))
            EventfdContext.FromFd(fd, out eventfd);

        Status(g, SignalEvent | Fast, 5).Should().Be(Success);
        eventfd!.Count.Should().Be(1);
        *(ulong*)(g.Memory + HypervGuest.Data) = 5;
        Status(g, SignalEvent, HypervGuest.Data).Should().Be(Success);
        eventfd.Count.Should().Be(2);

        // Other connections, and flags other than 0, are userspace's.
        foreach (ulong other in new[] { 6ul, 5 | (1ul << 32) })
        {
            g.Assemble(a =>
            {
                Call(a, SignalEvent | Fast, other);
                HypervGuest.Done(a);
            });
            g.SetRip(HypervGuest.Code);
            g.RunToExit().Should().Be((uint)KVM_EXIT_HYPERV);
            g.Host.Run->hyperv.u.hcall.@params[0].Should().Be(other);
            g.Host.Run->hyperv.u.hcall.result = InvalidPort;
            g.RunToDone();
            g.Rax.Should().Be(InvalidPort);
        }

        args.flags = KVM_HYPERV_EVENTFD_DEASSIGN;
        Guest.Ok(g.Host.Process.Ioctl(g.Host.VmFd, KVM_HYPERV_EVENTFD, (ulong)&args));
        g.SetRip(HypervGuest.Code);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HYPERV);
        eventfd.Count.Should().Be(2);
    }

    [Fact]
    public void The_debugger_is_userspaces()
    {
        using var g = new HypervGuest("amd");
        g.SetMsr(SyndbgOptions, 4).Should().BeTrue();
        g.Assemble(a =>
        {
            TurnOn(a);
            HypervGuest.Wrmsr(a, 0x400000f3, 0x5000);
            HypervGuest.Wrmsr(a, 0x400000f1, 9);
            HypervGuest.Rdmsr(a, 0x400000f2);
            a.mov(rbx, rax);
            Call(a, ResetDebugSession);
            HypervGuest.Done(a);
        });
        g.SetRip(HypervGuest.Code);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HYPERV);
        ref kvm_hyperv_exit exit = ref g.Host.Run->hyperv;
        exit.type.Should().Be((uint)KVM_EXIT_HYPERV_SYNDBG);
        exit.u.syndbg.msr.Should().Be(0x400000f1);
        exit.u.syndbg.control.Should().Be(9);
        exit.u.syndbg.send_page.Should().Be(0x5000);
        exit.u.syndbg.status = 0x42;
        g.RunToExit().Should().Be((uint)KVM_EXIT_HYPERV);
        exit.type.Should().Be((uint)KVM_EXIT_HYPERV_HCALL);
        exit.u.hcall.input.Should().Be(ResetDebugSession);
        exit.u.hcall.result = 0;
        g.RunToDone();
        g.Host.Regs.rbx.Should().Be(0x42);
    }

    // ---- other processors ----

    [Theory, MemberData(nameof(Vendors))]
    public void An_ipi_reaches_the_processors_of_the_mask(string vendor)
    {
        using var g = new HypervGuest(vendor, vcpus: 3);
        Status(g, SendIpi | Fast, 0x71, 0b100).Should().Be(Success);
        (g.IsRequested(1, 0x71), g.IsRequested(2, 0x71)).Should().Be((false, true));
        (*(uint*)(g.Memory + HypervGuest.Data), *(ulong*)(g.Memory + HypervGuest.Data + 8)) = (0x72, 0b10);
        Status(g, SendIpi, HypervGuest.Data).Should().Be(Success);
        (g.IsRequested(1, 0x72), g.IsRequested(2, 0x72)).Should().Be((true, false));

        // By VP index, once it is another than the vCPU's.
        g.SetMsr(VpIndex, 70, 1).Should().BeTrue();
        g.SetMsr(VpIndex, 1, 2).Should().BeTrue();
        Status(g, SendIpi | Fast, 0x73, 0b10).Should().Be(Success);
        (g.IsRequested(1, 0x73), g.IsRequested(2, 0x73)).Should().Be((false, true));

        // A set: vector, format, mask of banks, banks. Bank 1 has VP indexes 64 to 127.
        ulong* set = (ulong*)(g.Memory + HypervGuest.Data);
        (set[0], set[1], set[2], set[3]) = (0x74, 0, 0b10, 1ul << 6);
        Status(g, SendIpiEx | (1ul << 17), HypervGuest.Data).Should().Be(Success);
        (g.IsRequested(1, 0x74), g.IsRequested(2, 0x74)).Should().Be((true, false));
        (set[0], set[1], set[2]) = (0x75, 1, 0);
        Status(g, SendIpiEx, HypervGuest.Data).Should().Be(Success);
        (g.IsRequested(1, 0x75), g.IsRequested(2, 0x75)).Should().Be((true, true));
    }

    /// <summary>A fast call has the mask of banks and the first bank in XMM0.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void Sets_come_in_xmm_registers_too(string vendor)
    {
        using var g = new HypervGuest(vendor, vcpus: 3);
        ulong* xmm = (ulong*)(g.Memory + HypervGuest.Data);
        (xmm[0], xmm[1]) = (1, 0b110);
        g.Run(a =>
        {
            TurnOn(a);
            a.movups(xmm0, __xmmword_ptr[HypervGuest.Data]);
            Call(a, SendIpiEx | Fast | (1ul << 17), 0x76, 0);
        });
        g.Rax.Should().Be(Success);
        (g.IsRequested(0, 0x76), g.IsRequested(1, 0x76), g.IsRequested(2, 0x76)).Should().Be((false, true, true));
    }

    [Theory, MemberData(nameof(Vendors))]
    public void A_flush_is_requested_of_the_processors_of_the_mask(string vendor)
    {
        using var g = new HypervGuest(vendor, vcpus: 3);
        bool Asked(int i) => g.Vcpu(i).TestRequest(X86Request.KVM_REQ_TLB_FLUSH_GUEST);
        for (int i = 0; i < 3; i++)
            g.Vcpu(i).ClearRequest(X86Request.KVM_REQ_TLB_FLUSH_GUEST);
        ulong* input = (ulong*)(g.Memory + HypervGuest.Data);
        (input[0], input[1], input[2]) = (0, 0, 0b100);
        Status(g, FlushSpace, HypervGuest.Data).Should().Be(Success);
        (Asked(1), Asked(2)).Should().Be((false, true));
        g.Vcpu(2).ClearRequest(X86Request.KVM_REQ_TLB_FLUSH_GUEST);

        // address space, flags, format 0, bank 0, its VPs
        (input[2], input[3], input[4]) = (0, 1, 0b10);
        Status(g, FlushSpaceEx | (1ul << 17), HypervGuest.Data).Should().Be(Success);
        (Asked(1), Asked(2)).Should().Be((true, false));

        // All of them: the flag, or no processor.
        (input[1], input[2]) = (1, 0b1);
        Status(g, FlushSpace, HypervGuest.Data).Should().Be(Success);
        (Asked(1), Asked(2)).Should().Be((true, true));
        g.Vcpu(2).ClearRequest(X86Request.KVM_REQ_TLB_FLUSH_GUEST);
        (input[1], input[2]) = (0, 0);
        Status(g, FlushSpace, HypervGuest.Data).Should().Be(Success);
        Asked(2).Should().BeTrue();
    }

    [Fact]
    public void Tracepoints_have_the_kernels_text()
    {
        using var g = new HypervGuest("amd");
        g.Run(TurnOn);
        ulong* input = (ulong*)(g.Memory + HypervGuest.Data);
        (input[0], input[1], input[2], input[3]) = (0x77, 1, 0, 0);
        g.EventsOf(() => g.Run(static a =>
        {
            Call(a, FlushList | (5ul << 32) | Fast, 9, 4);
            Call(a, FlushSpaceEx, HypervGuest.Data);
            Call(a, SendIpi | Fast, 0x55, 2);
            Call(a, SendIpiEx, HypervGuest.Data);
            HypervGuest.Rdmsr(a, SyndbgOptions);
            HypervGuest.Wrmsr(a, SyndbgOptions, 0x44);
        })).Should().Equal(
            "kvm_hv_hypercall: code 0x3 fast var_cnt 0x0 rep_cnt 0x5 idx 0x0 in 0x9 out 0x4",
            "kvm_hv_flush_tlb: processor_mask 0x0 address_space 0x9 flags 0x4",
            "kvm_hv_hypercall_done: result 0x500000000",
            $"kvm_hv_hypercall: code 0x13 slow var_cnt 0x0 rep_cnt 0x0 idx 0x0 in 0x{HypervGuest.Data:x} out 0x0",
            "kvm_hv_flush_tlb_ex: valid_bank_mask 0x0 format 0x0 address_space 0x77 flags 0x1",
            "kvm_hv_hypercall_done: result 0x0",
            "kvm_hv_hypercall: code 0xb fast var_cnt 0x0 rep_cnt 0x0 idx 0x0 in 0x55 out 0x2",
            "kvm_hv_send_ipi: vector 55 processor_mask 0x2",
            "kvm_hv_hypercall_done: result 0x0",
            $"kvm_hv_hypercall: code 0x15 slow var_cnt 0x0 rep_cnt 0x0 idx 0x0 in 0x{HypervGuest.Data:x} out 0x0",
            "kvm_hv_send_ipi_ex: vector 77 format 1 valid_bank_mask 0x0",
            "kvm_hv_hypercall_done: result 0x0",
            "kvm_hv_syndbg_get_msr: vcpu_id 0 vp_index 0 msr 0x400000ff data 0x0",
            "kvm_hv_syndbg_set_msr: vcpu_id 0 vp_index 0 msr 0x400000ff data 0x44");
    }

    // ---- exits of partition MSRs ----

    [Theory, MemberData(nameof(Vendors))]
    public void Crash_and_reset_are_system_events(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.SetMsr(CrashCtl, ulong.MaxValue).Should().BeTrue();
        g.GetMsr(CrashCtl).Should().Be(1ul << 63);
        g.Assemble(a =>
        {
            HypervGuest.Wrmsr(a, CrashCtl, 1);
            for (uint i = 0; i < 5; i++)
                HypervGuest.Wrmsr(a, CrashP0 + i, 0x100 + i);
            HypervGuest.Wrmsr(a, CrashCtl, 1ul << 63);
            HypervGuest.Wrmsr(a, Reset, 2);
            HypervGuest.Wrmsr(a, Reset, 1);
            HypervGuest.Done(a);
        });
        g.SetRip(HypervGuest.Code);
        g.RunToExit().Should().Be((uint)KVM_EXIT_SYSTEM_EVENT);
        g.Host.Run->system_event.type.Should().Be((uint)KVM_SYSTEM_EVENT_CRASH);
        g.Host.Run->system_event.ndata.Should().Be(0);
        for (uint i = 0; i < 5; i++)
            g.GetMsr(CrashP0 + i).Should().Be(0x100 + i);
        g.RunToExit().Should().Be((uint)KVM_EXIT_SYSTEM_EVENT);
        g.Host.Run->system_event.type.Should().Be((uint)KVM_SYSTEM_EVENT_RESET);
        g.RunToDone();
    }
}
