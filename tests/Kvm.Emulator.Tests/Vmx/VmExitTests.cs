using Iced.Intel;
using Kvm.Emulator.Vmx;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>Every instruction and event that can leave VMX non-root operation, with the information it leaves in the VMCS; and that it does not without its control.</summary>
public unsafe class VmExitTests
{
    private static VmxMachine Real(Action<Assembler> code)
    {
        VmxMachine m = new VmxMachine().WithGuest();
        m.Code(16, code);
        return m;
    }

    private static VmxMachine Long(Action<Assembler> code)
    {
        VmxMachine m = new VmxMachine().WithGuest(longMode: true);
        m.Code(64, code);
        return m;
    }

    private static void Expect(VmxMachine m, VmxExitReason reason, ulong qualification, ulong length)
    {
        m.Launch().Should().Be(reason);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(qualification);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(length);
        (m.Read(VmcsField.VM_EXIT_INTR_INFO) >> 31).Should().Be(0);
        (m.Read(VmcsField.IDT_VECTORING_INFO_FIELD) >> 31).Should().Be(0);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
        m.Cpu.NonRoot.Should().BeNull();
        m.State->Rip.Should().Be(VmxMachine.HostRip);
    }

    // ---- instructions that always exit ----

    [Fact]
    public void CPUID()
    {
        using VmxMachine m = Real(a => a.cpuid());
        Expect(m, VmxExitReason.CPUID, 0, 2);
    }

    [Fact]
    public void INVD()
    {
        using VmxMachine m = Real(a => a.invd());
        Expect(m, VmxExitReason.INVD, 0, 2);
    }

    [Fact]
    public void XSETBV()
    {
        // XSAVE in CPUID.1:ECX[26].
        using VmxMachine m = new VmxMachine(model: c => c.WithCpuid(1, 0, new CpuidLeaf(0, 0, 1 << 26, 0))).WithGuest(longMode: true);
        m.Code(64, a => a.xsetbv());
        m.Set(VmcsField.GUEST_CR4, Cr4.OSXSAVE);
        Expect(m, VmxExitReason.XSETBV, 0, 3);
    }

    [Fact]
    public void VMCALL_in_real_mode_too()
    {
        using VmxMachine m = Real(a => a.vmcall());
        Expect(m, VmxExitReason.VMCALL, 0, 3);
    }

    [Theory]
    [InlineData("vmlaunch", VmxExitReason.VMLAUNCH, 3UL)]
    [InlineData("vmresume", VmxExitReason.VMRESUME, 3UL)]
    [InlineData("vmxoff", VmxExitReason.VMOFF, 3UL)]
    public void VMX_instructions_without_operands(string which, VmxExitReason reason, ulong length)
    {
        using VmxMachine m = Long(a => (which switch { "vmlaunch" => (Action)a.vmlaunch, "vmresume" => a.vmresume, _ => a.vmxoff })());
        Expect(m, reason, 0, length);
    }

    [Fact]
    public void VMX_instructions_in_real_mode_are_undefined()
    {
        using VmxMachine m = Real(a => a.vmresume());
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.UD);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0306);
    }

    /// <summary>VMPTRLD [rbx+rcx*4+0x40]: scale 2, address size 2, segment DS, index RCX, base RBX.</summary>
    [Fact]
    public void Memory_operands_are_described()
    {
        using VmxMachine m = Long(a => a.vmptrld(__qword_ptr[rbx + (rcx * 4) + 0x40]));
        Expect(m, VmxExitReason.VMPTRLD, 0x40, 5);
        m.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(2 | 2 << 7 | 3 << 15 | 1 << 18 | 3 << 23);
    }

    [Fact]
    public void A_missing_index_and_base_are_marked_invalid()
    {
        using VmxMachine m = Long(a => a.vmclear(__qword_ptr[0x1234]));
        Expect(m, VmxExitReason.VMCLEAR, 0x1234, 9);
        m.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(2 << 7 | 3 << 15 | 1 << 22 | 1 << 27);
    }

    [Fact]
    public void RIP_relative_operands_give_the_address()
    {
        using VmxMachine m = Long(a => a.db(0x0f, 0xc7, 0x3d, 0x10, 0, 0, 0));
        Expect(m, VmxExitReason.VMPTRST, VmxMachine.CodeAddress + 7 + 0x10, 7);
        m.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(2 << 7 | 3 << 15 | 1 << 22 | 1 << 27);
    }

    [Fact]
    public void VMREAD_describes_both_registers()
    {
        using VmxMachine m = Long(a => a.vmread(rdi, rsi));
        Expect(m, VmxExitReason.VMREAD, 0, 3);
        m.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(7 << 3 | 1 << 10 | 6 << 28);
    }

    [Fact]
    public void VMWRITE_from_memory()
    {
        using VmxMachine m = Long(a => a.vmwrite(r9, __qword_ptr.gs[rax - 8]));
        Expect(m, VmxExitReason.VMWRITE, unchecked((ulong)-8L), 6);
        m.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(2 << 7 | 5 << 15 | 1 << 22 | 9u << 28);
    }

    [Fact]
    public void INVEPT_and_INVVPID()
    {
        using VmxMachine m = Long(a => a.invept(rdx, __xmmword_ptr[rax]));
        Expect(m, VmxExitReason.INVEPT, 0, 5);
        m.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(2 << 7 | 3 << 15 | 1 << 22 | 2u << 28);
        using VmxMachine n = Long(a => a.invvpid(rdx, __xmmword_ptr[rax]));
        Expect(n, VmxExitReason.INVVPID, 0, 5);
    }

    [Fact]
    public void VMXON_exits_in_VMX_non_root_operation()
    {
        using VmxMachine m = Long(a => a.vmxon(__qword_ptr[rsp]));
        Expect(m, VmxExitReason.VMON, 0, 5);
    }

    // ---- instructions that exit by a control ----

    public static TheoryData<string, VmcsField, ulong, VmxExitReason, ulong, ulong> Controlled => new()
    {
        { "F4", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.HltExiting, VmxExitReason.HLT, 0, 1 },
        { "0F31", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.RdtscExiting, VmxExitReason.RDTSC, 0, 2 },
        { "F390", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.PauseExiting, VmxExitReason.PAUSE_INSTRUCTION, 0, 2 },
        { "0F013F", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.InvlpgExiting, VmxExitReason.INVLPG, 0x5000, 3 },
        { "0F09", VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.WbinvdExiting, VmxExitReason.WBINVD, 0, 2 },
        { "0F01C8", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.MonitorExiting, VmxExitReason.MONITOR_INSTRUCTION, 0, 3 },
        { "0F01C9", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.MwaitExiting, VmxExitReason.MWAIT_INSTRUCTION, 0, 3 },
        { "0F20D8", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.Cr3StoreExiting, VmxExitReason.CR_ACCESS, 0x13, 3 },
        { "0F22DB", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.Cr3LoadExiting, VmxExitReason.CR_ACCESS, 0x303, 3 },
        { "440F20C7", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.Cr8StoreExiting, VmxExitReason.CR_ACCESS, 0x718, 4 },
        { "440F22C0", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.Cr8LoadExiting, VmxExitReason.CR_ACCESS, 8, 4 },
        { "0F21F8", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.MovDrExiting, VmxExitReason.DR_ACCESS, 0x17, 3 },
        { "0F23C3", VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.MovDrExiting, VmxExitReason.DR_ACCESS, 0x300, 3 },
        { "0F0107", VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.DescriptorTableExiting, VmxExitReason.GDTR_IDTR, 0, 3 },
        { "0F00C0", VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.DescriptorTableExiting, VmxExitReason.LDTR_TR, 0, 3 },
    };

    [Theory]
    [MemberData(nameof(Controlled))]
    public void Exits_with_its_control_and_not_without(string code, VmcsField field, ulong control, VmxExitReason reason, ulong qualification, ulong length)
    {
        byte[] bytes = Convert.FromHexString(code);
        foreach (bool on in new[] { true, false })
        {
            using VmxMachine m = Long(a => { a.db(bytes); a.vmcall(); });
            m.State->Gpr[0] = m.State->Gpr[3] = 0;
            m.State->Gpr[7] = 0x5000;
            m.State->Gpr[3] = code == "0F22DB" ? VmxMachine.PageTables : 0;
            if (code == "0F01C8")
                m.State->Gpr[1] = m.State->Gpr[2] = 0;
            if (on)
            {
                m.Set(field, control);
                Expect(m, reason, qualification, length);
                continue;
            }
            m.Clear(field, control);
            if (code == "F4")
            {
                // A guest that may halt sits there until an event leads out: here an interrupt.
                m.Cpu.RaiseInterrupt(0x41);
                m.Launch().Should().Be(VmxExitReason.EXTERNAL_INTERRUPT);
                continue;
            }
            m.Launch().Should().Be(code == "0F01C9" ? m.ExitReason : VmxExitReason.VMCALL);
        }
    }

    [Fact]
    public void RDTSCP_is_undefined_unless_enabled_and_exits_with_RDTSC_exiting()
    {
        using VmxMachine m = Long(a => { a.rdtscp(); a.vmcall(); });
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.UD);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.EnableRdtscp);
        m.Resume().Should().Be(VmxExitReason.VMCALL);
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.RdtscExiting);
        m.Resume().Should().Be(VmxExitReason.RDTSCP);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(3);
    }

    [Fact]
    public void INVPCID_is_undefined_unless_enabled_and_exits_with_INVLPG_exiting()
    {
        // INVPCID in CPUID.7:EBX[10].
        using VmxMachine m = new VmxMachine(model: c => c.WithCpuid(7, 0, new CpuidLeaf(0, 1 << 10, 0, 0))).WithGuest(longMode: true);
        m.Code(64, a => { a.invpcid(rbx, __xmmword_ptr[rdi + 0x10]); a.vmcall(); });
        m.State->Gpr[7] = 0x5000;
        m.State->Gpr[3] = 2;
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.UD);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.EnableInvpcid);
        m.Resume().Should().Be(VmxExitReason.VMCALL);
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.InvlpgExiting);
        m.Resume().Should().Be(VmxExitReason.INVPCID);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x10);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(6);
        m.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(2 << 7 | 3 << 15 | 1 << 22 | 7 << 23 | 3u << 28);
    }

    /// <summary>Exit when EDX:EAX, IA32_XSS and the XSS-exiting bitmap have a bit in common; CPL is checked before, CR0.TS after.</summary>
    [Theory]
    [InlineData(false), InlineData(true)]
    public void XSAVES_and_XRSTORS_are_undefined_unless_enabled_and_exit_by_the_XSS_bitmap(bool restore)
    {
        using VmxMachine m = new VmxMachine().WithGuest(longMode: true);
        m.Code(64, a => { if (restore) a.xrstors(__[0x5000]); else a.xsaves(__[0x5000]); a.vmcall(); });
        m.Set(VmcsField.GUEST_CR4, Cr4.OSXSAVE);
        m.State->Gpr[0] = 0x103;
        m.State->Gpr[2] = 0;
        m.State->Xcr0 = 3;
        *(ulong*)(m.Guest + 0x5000 + 520) = 1UL << 63;
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.UD | 1 << Fault.NM | 1 << Fault.GP);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        (m.Read(VmcsField.VM_EXIT_INTR_INFO) & 0xff).Should().Be(Fault.UD);
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.EnableXsaves);
        m.Write(VmcsField.XSS_EXIT_BITMAP, 0x100);
        m.Resume().Should().Be(VmxExitReason.VMCALL, "IA32_XSS has no bits");
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.State->Xss = 0x100;
        m.Set(VmcsField.GUEST_CR0, Cr0.TS);
        m.Resume().Should().Be(restore ? VmxExitReason.XRSTORS : VmxExitReason.XSAVES);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(8);
        m.Write(VmcsField.XSS_EXIT_BITMAP, 0x200);
        m.Resume().Should().Be(VmxExitReason.EXCEPTION_NMI);
        (m.Read(VmcsField.VM_EXIT_INTR_INFO) & 0xff).Should().Be(Fault.NM);
        m.State->Xss = 0;
    }

    [Theory]
    [InlineData(false), InlineData(true)]
    public void RDRAND_and_RDSEED_describe_their_destination(bool seed)
    {
        // RDRAND in CPUID.1:ECX[30], RDSEED in CPUID.7:EBX[18].
        using VmxMachine m = new VmxMachine(model: c => c.WithCpuid(1, 0, new CpuidLeaf(0, 0, 1u << 30, 0)).WithCpuid(7, 0, new CpuidLeaf(0, 1 << 18, 0, 0))).WithGuest(longMode: true);
        m.Code(64, a => { if (seed) a.rdseed(r9d); else a.rdrand(r9d); a.vmcall(); });
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)(seed ? SecondaryControls.RdseedExiting : SecondaryControls.RdrandExiting));
        m.Resume().Should().Be(seed ? VmxExitReason.RDSEED : VmxExitReason.RDRAND);
        m.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(9 << 3 | 1 << 11);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(4);
    }

    [Fact]
    public void GETSEC_exits_where_SMX_is_on()
    {
        // SMX in CPUID.1:ECX[6].
        using VmxMachine m = new VmxMachine(model: c => c.WithCpuid(1, 0, new CpuidLeaf(0, 0, 1 << 6, 0))).WithGuest(longMode: true);
        m.Code(64, a => a.getsec());
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.UD);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Set(VmcsField.GUEST_CR4, Cr4.SMXE);
        m.Resume().Should().Be(VmxExitReason.GETSEC);
    }

    [Fact]
    public void LGDT_and_LTR_describe_what_they_are()
    {
        using VmxMachine m = Long(a => a.lgdt(__[rdi + 8]));
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.DescriptorTableExiting);
        m.Launch().Should().Be(VmxExitReason.GDTR_IDTR);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(8);
        (m.Read(VmcsField.VMX_INSTRUCTION_INFO) >> 28).Should().Be(2);
        using VmxMachine n = Long(a => a.ltr(dx));
        n.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.DescriptorTableExiting);
        n.Launch().Should().Be(VmxExitReason.LDTR_TR);
        n.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(2 << 3 | 1 << 10 | 3u << 28);
    }

    // ---- I/O ----

    [Theory]
    [InlineData("E680", 0x0080_0040UL, 2)]                 // out 0x80, al
    [InlineData("E780", 0x0080_0041UL, 2)]                 // out 0x80, ax
    [InlineData("66E780", 0x0080_0043UL, 3)]               // out 0x80, eax
    [InlineData("EC", 0x03f8_0008UL, 1)]                   // in al, dx
    [InlineData("6C", 0x03f8_0018UL, 1)]                   // insb
    [InlineData("F36E", 0x03f8_0030UL, 2)]                 // rep outsb
    [InlineData("F36D", 0x03f8_0039UL, 2)]                 // rep insw
    public void IO_qualification(string code, ulong qualification, ulong length)
    {
        using VmxMachine m = Real(a => a.db(Convert.FromHexString(code)));
        m.State->Gpr[2] = 0x3f8;
        m.State->Gpr[1] = 4;
        m.State->Gpr[6] = m.State->Gpr[7] = 0x2000;
        Expect(m, VmxExitReason.IO_INSTRUCTION, qualification, length);
        if ((qualification & 0x10) != 0)
            m.Read(VmcsField.GUEST_LINEAR_ADDRESS).Should().Be(0x2000);
    }

    [Fact]
    public void OUTS_reports_address_size_and_segment()
    {
        using VmxMachine m = Long(a => a.db(0x65, 0x6e));
        m.Launch().Should().Be(VmxExitReason.IO_INSTRUCTION);
        m.Read(VmcsField.VMX_INSTRUCTION_INFO).Should().Be(2 << 7 | 5 << 15);
    }

    [Theory]
    [InlineData(0x70, 1, 0x70, true)]
    [InlineData(0x71, 1, 0x70, false)]
    [InlineData(0x6f, 2, 0x70, true)]
    [InlineData(0x6c, 4, 0x70, false)]
    [InlineData(0x6d, 4, 0x70, true)]
    [InlineData(0x8000, 1, 0x8000, true)]
    [InlineData(0x7fff, 2, 0x8000, true)]
    [InlineData(0xffff, 2, 0x70, true)]
    [InlineData(0xfffe, 2, 0x70, false)]
    public void IO_bitmaps_decide_by_any_port_of_the_access(int port, int size, int intercepted, bool exits)
    {
        using VmxMachine m = Real(a => { a.db(size == 1 ? [0xec] : size == 2 ? [0xed] : new byte[] { 0x66, 0xed }); a.vmcall(); });
        m.IoBitmaps[intercepted / 8] = (byte)(1 << (intercepted & 7));
        m.Write(VmcsField.IO_BITMAP_A, (ulong)m.IoBitmaps);
        m.Write(VmcsField.IO_BITMAP_B, (ulong)m.IoBitmaps + 4096);
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.UseIoBitmaps);
        m.State->Gpr[2] = (ulong)port;
        m.Launch().Should().Be(exits ? VmxExitReason.IO_INSTRUCTION : VmxExitReason.VMCALL);
    }

    // ---- MSRs ----

    [Theory]
    [InlineData(0x174u, false, 0x000 + (0x174 / 8), 1 << 4)]
    [InlineData(0x174u, true, 0x800 + (0x174 / 8), 1 << 4)]
    [InlineData(0xc000_0080u, false, 0x400 + 0x10, 1)]
    [InlineData(0xc000_0080u, true, 0xc00 + 0x10, 1)]
    public void MSR_bitmaps_have_four_parts(uint index, bool write, int at, int bit)
    {
        foreach (bool exits in new[] { true, false })
        {
            using VmxMachine m = Long(a => { if (write) a.wrmsr(); else a.rdmsr(); a.vmcall(); });
            new Span<byte>(m.MsrBitmap, 4096).Fill(exits ? (byte)0 : (byte)0xff);
            m.MsrBitmap[at] ^= (byte)bit;
            m.State->Gpr[1] = index;
            m.State->Gpr[0] = index == 0x174 ? 0u : 0x500;
            m.State->Gpr[2] = 0;
            m.Launch().Should().Be(!exits ? VmxExitReason.VMCALL : write ? VmxExitReason.MSR_WRITE : VmxExitReason.MSR_READ);
            if (exits)
                m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(2);
        }
    }

    [Theory]
    [InlineData(0x2000u), InlineData(0xc000_2000u), InlineData(0x4b56_4d00u)]
    public void MSRs_outside_the_bitmaps_always_exit(uint index)
    {
        using VmxMachine m = Long(a => a.rdmsr());
        m.State->Gpr[1] = index;
        Expect(m, VmxExitReason.MSR_READ, 0, 2);
    }

    [Fact]
    public void Without_bitmaps_every_MSR_exits()
    {
        using VmxMachine m = Long(a => a.wrmsr());
        m.Clear(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.UseMsrBitmaps);
        m.State->Gpr[1] = 0x174;
        Expect(m, VmxExitReason.MSR_WRITE, 0, 2);
    }

    // ---- control registers ----

    [Fact]
    public void CR0_exits_where_a_masked_bit_differs_from_its_shadow()
    {
        using VmxMachine m = Long(a => { a.mov(cr0, rax); a.mov(rbx, cr0); a.vmcall(); });
        ulong old = m.Read(VmcsField.GUEST_CR0);
        m.Write(VmcsField.CR0_GUEST_HOST_MASK, Cr0.TS);
        m.Write(VmcsField.CR0_READ_SHADOW, Cr0.TS);
        m.State->Gpr[0] = old;
        Expect(m, VmxExitReason.CR_ACCESS, 0, 3);
        m.State->Gpr[0] = old | Cr0.TS;
        m.Resume().Should().Be(VmxExitReason.VMCALL);
        m.State->Gpr[3].Should().Be(old | Cr0.TS, "reads see the shadow");
        m.Read(VmcsField.GUEST_CR0).Should().Be(old, "the host-owned bit did not change");
    }

    [Fact]
    public void CR4_reads_see_the_shadow_and_writes_keep_host_bits()
    {
        using VmxMachine m = Long(a => { a.mov(rbx, cr4); a.mov(cr4, rax); a.vmcall(); });
        m.Write(VmcsField.CR4_GUEST_HOST_MASK, Cr4.VMXE);
        m.Write(VmcsField.CR4_READ_SHADOW, 0);
        m.State->Gpr[0] = Cr4.PAE | Cr4.PGE;
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        m.State->Gpr[3].Should().Be(Cr4.PAE);
        m.Read(VmcsField.GUEST_CR4).Should().Be(Cr4.PAE | Cr4.PGE | Cr4.VMXE);
    }

    [Fact]
    public void CR3_targets_do_not_exit()
    {
        using VmxMachine m = Long(a => { a.mov(cr3, rax); a.vmcall(); });
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.Cr3LoadExiting);
        m.Write(VmcsField.CR3_TARGET_VALUE1, VmxMachine.PageTables);
        m.Write(VmcsField.CR3_TARGET_COUNT, 1);
        m.State->Gpr[0] = VmxMachine.PageTables;
        Expect(m, VmxExitReason.CR_ACCESS, 3, 3);
        m.Write(VmcsField.CR3_TARGET_COUNT, 2);
        m.Resume().Should().Be(VmxExitReason.VMCALL);
    }

    [Theory]
    [InlineData(true, true, VmxExitReason.CR_ACCESS)]
    [InlineData(true, false, VmxExitReason.VMCALL)]
    [InlineData(false, true, VmxExitReason.VMCALL)]
    public void CLTS_exits_when_TS_is_masked_and_set_in_the_shadow(bool mask, bool shadow, VmxExitReason reason)
    {
        using VmxMachine m = Long(a => { a.clts(); a.vmcall(); });
        m.Set(VmcsField.GUEST_CR0, Cr0.TS);
        m.Write(VmcsField.CR0_GUEST_HOST_MASK, mask ? Cr0.TS : 0);
        m.Write(VmcsField.CR0_READ_SHADOW, shadow ? Cr0.TS : 0);
        m.Launch().Should().Be(reason);
        if (reason == VmxExitReason.CR_ACCESS)
            m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x20);
        else
            ((m.Read(VmcsField.GUEST_CR0) & Cr0.TS) != 0).Should().Be(mask, "a host-owned TS stays");
    }

    [Fact]
    public void LMSW_reports_its_source()
    {
        using VmxMachine m = Long(a => a.db(0x0f, 0x01, 0xf1));
        m.Write(VmcsField.CR0_GUEST_HOST_MASK, Cr0.MP);
        m.Write(VmcsField.CR0_READ_SHADOW, 0);
        m.State->Gpr[1] = 0xabc3;
        Expect(m, VmxExitReason.CR_ACCESS, 0xabc3_0030, 3);
    }

    // ---- exceptions ----

    [Fact]
    public void Exception_bitmap_selects_and_describes()
    {
        using VmxMachine m = Long(a => a.ud2());
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.UD);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0306);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
        (m.Read(VmcsField.GUEST_RFLAGS) & Flags.RF).Should().Be(Flags.RF);
    }

    [Fact]
    public void General_protection_carries_its_error_code()
    {
        using VmxMachine m = Long(a => a.mov(ds, eax));
        m.State->Gpr[0] = 0xf00;
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.GP);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0b0d);
        m.Read(VmcsField.VM_EXIT_INTR_ERROR_CODE).Should().Be(0xf00);
    }

    [Theory]
    [InlineData(0u, 0u, true)]
    [InlineData(2u, 0u, false)]
    [InlineData(2u, 2u, true)]
    public void Page_faults_are_filtered_by_mask_and_match(uint mask, uint match, bool exits)
    {
        using VmxMachine m = Long(a => a.mov(__dword_ptr[rdi], eax));
        m.State->Gpr[7] = 0x4000_1234;
        m.State->Cr2 = 0x99;
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.PF);
        m.Write(VmcsField.PAGE_FAULT_ERROR_CODE_MASK, mask);
        m.Write(VmcsField.PAGE_FAULT_ERROR_CODE_MATCH, match);
        m.Write(VmcsField.GUEST_IDTR_LIMIT, 0);
        m.Launch().Should().Be(exits ? VmxExitReason.EXCEPTION_NMI : VmxExitReason.TRIPLE_FAULT);
        if (!exits)
            return;
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x4000_1234);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0b0e);
        m.Read(VmcsField.VM_EXIT_INTR_ERROR_CODE).Should().Be(2);
        m.State->Cr2.Should().Be(0x99, "CR2 is not written when #PF exits");
    }

    [Fact]
    public void Without_bit_14_a_mask_that_matches_nothing_makes_page_faults_exit()
    {
        using VmxMachine m = Long(a => a.mov(__dword_ptr[rdi], eax));
        m.State->Gpr[7] = 0x4000_0000;
        m.Write(VmcsField.PAGE_FAULT_ERROR_CODE_MASK, 0);
        m.Write(VmcsField.PAGE_FAULT_ERROR_CODE_MATCH, 1);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
    }

    [Theory]
    [InlineData("CC", 0x8000_0603UL, 1UL, 3)]
    [InlineData("F1", 0x8000_0501UL, 1UL, 1)]
    public void Software_exceptions_carry_the_instruction_length(string code, ulong info, ulong length, int vector)
    {
        using VmxMachine m = Long(a => a.db(Convert.FromHexString(code)));
        m.Write(VmcsField.EXCEPTION_BITMAP, 1u << vector);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(info);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(length);
    }

    [Fact]
    public void Single_step_reports_DR6_bits_and_leaves_DR6_alone()
    {
        using VmxMachine m = Long(a => { a.nop(); a.vmcall(); });
        m.Set(VmcsField.GUEST_RFLAGS, Flags.TF);
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.DB);
        ulong dr6 = m.State->Dr[6];
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0301);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(1 << 14);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 1);
        m.State->Dr[6].Should().Be(dr6);
    }

    [Fact]
    public void Triple_fault()
    {
        using VmxMachine m = Long(a => a.ud2());
        m.Write(VmcsField.GUEST_IDTR_LIMIT, 0);
        m.Launch().Should().Be(VmxExitReason.TRIPLE_FAULT);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0);
        (m.Read(VmcsField.IDT_VECTORING_INFO_FIELD) >> 31).Should().Be(0);
        m.Read(VmcsField.GUEST_ACTIVITY_STATE).Should().Be(0);
    }

    [Fact]
    public void An_exception_during_delivery_records_IDT_vectoring()
    {
        using VmxMachine m = Long(a => a.@int(0x30));
        m.Write(VmcsField.GUEST_IDTR_LIMIT, 0x20);
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.GP);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0b0d);
        m.Read(VmcsField.VM_EXIT_INTR_ERROR_CODE).Should().Be((0x30 * 8) | 2);
        m.Read(VmcsField.IDT_VECTORING_INFO_FIELD).Should().Be(0x8000_0430);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(2);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
    }

    [Fact]
    public void A_double_fault_is_not_during_delivery()
    {
        using VmxMachine m = Long(a => a.mov(ds, eax));
        m.State->Gpr[0] = 0xf00;
        m.Write(VmcsField.GUEST_IDTR_LIMIT, 0x20);
        m.Write(VmcsField.EXCEPTION_BITMAP, 1 << Fault.DF);
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0b08);
        (m.Read(VmcsField.IDT_VECTORING_INFO_FIELD) >> 31).Should().Be(0);
    }

    // ---- physical events ----

    [Fact]
    public void External_interrupts_are_acknowledged_on_exit()
    {
        using VmxMachine m = Long(a => { a.nop(); a.vmcall(); });
        m.Cpu.RaiseInterrupt(0x31);
        m.Cpu.RaiseInterrupt(0x99);
        m.Launch().Should().Be(VmxExitReason.EXTERNAL_INTERRUPT);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0099);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
        m.Cpu.AcknowledgeInterrupt().Should().Be(0x31);
        m.Resume().Should().Be(VmxExitReason.VMCALL);
    }

    [Fact]
    public void External_interrupts_stay_pending_without_acknowledge()
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Clear(VmcsField.VM_EXIT_CONTROLS, (ulong)VmExitControls.AcknowledgeInterruptOnExit);
        m.Cpu.RaiseInterrupt(0x31);
        m.Launch().Should().Be(VmxExitReason.EXTERNAL_INTERRUPT);
        (m.Read(VmcsField.VM_EXIT_INTR_INFO) >> 31).Should().Be(0);
        m.Cpu.InterruptPending.Should().BeTrue();
    }

    [Fact]
    public void An_NMI_exits_and_blocks_NMIs_in_root_operation()
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Cpu.RaiseNmi();
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0202);
        m.State->NmiBlocked.Should().Be(1);
    }

    [Fact]
    public void Virtual_NMI_blocking_does_not_hold_back_a_physical_NMI()
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)PinBasedControls.VirtualNmis);
        m.Write(VmcsField.GUEST_INTERRUPTIBILITY_INFO, Interruptibility.Nmi);
        m.Cpu.RaiseNmi();
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.GUEST_INTERRUPTIBILITY_INFO).Should().Be(Interruptibility.Nmi);
    }

    [Theory]
    [InlineData(PinBasedControls.NmiExiting | PinBasedControls.VirtualNmis, true)]
    [InlineData(PinBasedControls.NmiExiting, false)]
    [InlineData((PinBasedControls)0, true)]
    public void An_injected_NMI_blocks_others_where_IRET_can_end_it(PinBasedControls nmi, bool blocks)
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Clear(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)(PinBasedControls.NmiExiting | PinBasedControls.VirtualNmis));
        m.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)nmi);
        // The interrupt table is empty: delivery faults, which changes nothing about the blocking.
        m.Write(VmcsField.EXCEPTION_BITMAP, uint.MaxValue);
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, InterruptionInfo.Make(Fault.NMI, InterruptionInfo.Nmi, errorCode: false));
        m.Launch();
        m.Read(VmcsField.GUEST_INTERRUPTIBILITY_INFO).Should().Be(blocks ? Interruptibility.Nmi : 0);
    }

    [Fact]
    public void INIT_exits_from_non_root_and_waits_in_root_operation()
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Cpu.RaiseInit();
        m.Launch().Should().Be(VmxExitReason.INIT_SIGNAL);
    }

    [Fact]
    public void SIPI_exits_in_wait_for_SIPI()
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Write(VmcsField.GUEST_ACTIVITY_STATE, (ulong)ActivityState.WaitForSipi);
        m.Cpu.RaiseSipi(0x9a);
        m.Launch().Should().Be(VmxExitReason.SIPI_SIGNAL);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x9a);
        m.Read(VmcsField.GUEST_ACTIVITY_STATE).Should().Be((ulong)ActivityState.WaitForSipi);
    }

    // ---- windows, timers, traps ----

    [Fact]
    public void The_interrupt_window_opens_one_instruction_after_STI()
    {
        using VmxMachine m = Long(a => { a.nop(); a.sti(); a.nop(); a.nop(); a.vmcall(); });
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.InterruptWindowExiting);
        m.Launch().Should().Be(VmxExitReason.INTERRUPT_WINDOW);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 3);
        m.Read(VmcsField.GUEST_INTERRUPTIBILITY_INFO).Should().Be(0);
    }

    [Fact]
    public void An_open_interrupt_window_exits_before_the_first_instruction()
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Set(VmcsField.GUEST_RFLAGS, Flags.IF);
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.InterruptWindowExiting);
        m.Launch().Should().Be(VmxExitReason.INTERRUPT_WINDOW);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
    }

    [Fact]
    public void The_NMI_window_opens_with_IRET()
    {
        using VmxMachine m = Long(a => { a.nop(); a.iretq(); });
        m.Code(64, a => { a.nop(); a.iretq(); });
        ulong* stack = (ulong*)(m.Guest + VmxMachine.StackAddress);
        stack[0] = VmxMachine.CodeAddress + 0x100;
        stack[1] = 8;
        stack[2] = 2;
        stack[3] = VmxMachine.StackAddress;
        stack[4] = 0x10;
        m.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)PinBasedControls.VirtualNmis);
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.NmiWindowExiting);
        m.Write(VmcsField.GUEST_INTERRUPTIBILITY_INFO, Interruptibility.Nmi);
        m.Launch().Should().Be(VmxExitReason.NMI_WINDOW);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 0x100);
    }

    [Fact]
    public void The_monitor_trap_flag_exits_after_each_instruction()
    {
        using VmxMachine m = Long(a => { a.nop(); a.inc(eax); a.vmcall(); });
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.MonitorTrapFlag);
        m.Launch().Should().Be(VmxExitReason.MONITOR_TRAP_FLAG);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 1);
        m.Resume().Should().Be(VmxExitReason.MONITOR_TRAP_FLAG);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 3);
        m.Resume().Should().Be(VmxExitReason.VMCALL);
    }

    [Fact]
    public void An_injected_monitor_trap_exits_before_the_first_instruction()
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, 0x8000_0700);
        m.Launch().Should().Be(VmxExitReason.MONITOR_TRAP_FLAG);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
    }

    [Fact]
    public void A_preemption_timer_of_zero_exits_at_once()
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)PinBasedControls.PreemptionTimer);
        m.Write(VmcsField.VMX_PREEMPTION_TIMER_VALUE, 0);
        m.Launch().Should().Be(VmxExitReason.PREEMPTION_TIMER);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress);
        m.Write(VmcsField.VMX_PREEMPTION_TIMER_VALUE, uint.MaxValue);
        m.Set(VmcsField.VM_EXIT_CONTROLS, (ulong)VmExitControls.SavePreemptionTimer);
        m.Resume().Should().Be(VmxExitReason.VMCALL);
        m.Read(VmcsField.VMX_PREEMPTION_TIMER_VALUE).Should().BeInRange(1, uint.MaxValue);
    }

    [Fact]
    public void A_preemption_timer_ends_an_endless_loop()
    {
        using VmxMachine m = Long(a => a.db(0xeb, 0xfe));
        m.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)PinBasedControls.PreemptionTimer);
        m.Set(VmcsField.VM_EXIT_CONTROLS, (ulong)VmExitControls.SavePreemptionTimer);
        m.Write(VmcsField.VMX_PREEMPTION_TIMER_VALUE, (m.Cpu.Model.TscHz / 2) >> m.Capabilities.PreemptionTimerShift);
        m.Launch().Should().Be(VmxExitReason.PREEMPTION_TIMER);
        m.Read(VmcsField.VMX_PREEMPTION_TIMER_VALUE).Should().Be(0);
    }

    [Fact]
    public void A_preemption_timer_ends_a_halted_guest()
    {
        using VmxMachine m = Long(a => a.hlt());
        m.Clear(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.HltExiting);
        m.Set(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (ulong)PinBasedControls.PreemptionTimer);
        m.Write(VmcsField.VMX_PREEMPTION_TIMER_VALUE, (m.Cpu.Model.TscHz / 2) >> m.Capabilities.PreemptionTimerShift);
        m.Launch().Should().Be(VmxExitReason.PREEMPTION_TIMER);
        m.Read(VmcsField.GUEST_ACTIVITY_STATE).Should().Be((ulong)ActivityState.Hlt);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 1);
    }

    [Fact]
    public void A_pause_loop_exits_after_its_window()
    {
        using VmxMachine m = Long(a => { Label loop = a.CreateLabel(); a.Label(ref loop); a.pause(); a.jmp(loop); });
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.PauseLoopExiting);
        m.Write(VmcsField.PLE_GAP, uint.MaxValue);
        m.Write(VmcsField.PLE_WINDOW, 4096);
        m.Launch().Should().Be(VmxExitReason.PAUSE_INSTRUCTION);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(2);
    }

    // ---- other state ----

    [Fact]
    public void TSC_offset_and_multiplier()
    {
        using VmxMachine m = Long(a => { a.rdtsc(); a.vmcall(); });
        m.Set(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (ulong)PrimaryControls.UseTscOffsetting);
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.UseTscScaling);
        m.Write(VmcsField.TSC_MULTIPLIER, 3UL << 48);
        m.Write(VmcsField.TSC_OFFSET, 1UL << 60);
        ulong before = m.Cpu.ReadTsc();
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        ulong after = m.Cpu.ReadTsc();
        ulong guest = (m.State->Gpr[0] | m.State->Gpr[2] << 32) - (1UL << 60);
        guest.Should().BeInRange(before * 3, after * 3);
    }

    [Fact]
    public void Host_state_after_an_exit()
    {
        using VmxMachine m = Real(a => a.hlt());
        m.Write(VmcsField.HOST_FS_BASE, 0x1111_0000);
        m.Write(VmcsField.HOST_IA32_SYSENTER_EIP, 0x2222_0000);
        m.Launch().Should().Be(VmxExitReason.HLT);
        CpuState* s = m.State;
        s->Rip.Should().Be(VmxMachine.HostRip);
        s->Gpr[4].Should().Be(0xffff_8000_0000_7000);
        m.Cpu.Rflags.Should().Be(2);
        s->Cr0.Should().Be(m.Read(VmcsField.HOST_CR0));
        s->Cr3.Should().Be(0x1000);
        s->Efer.Should().Be(m.Read(VmcsField.HOST_IA32_EFER));
        s->Dr[7].Should().Be(0x400);
        s->SysenterEip.Should().Be(0x2222_0000);
        s->Segs[(int)Seg.CS].Should().BeEquivalentTo(new SegmentCache { Selector = 0x10, Limit = uint.MaxValue, AccessRights = 0xa09b }, o => o.ComparingByMembers<SegmentCache>());
        s->Segs[(int)Seg.SS].AccessRights.Should().Be(0xc093);
        s->Segs[(int)Seg.DS].Unusable.Should().BeTrue();
        s->Segs[(int)Seg.FS].Base.Should().Be(0x1111_0000);
        s->Segs[(int)Seg.GS].Base.Should().Be(0xffff_8000_0000_4000);
        s->Segs[(int)Seg.TR].Should().BeEquivalentTo(new SegmentCache { Selector = 0x40, Base = 0xffff_8000_0000_3000, Limit = 0x67, AccessRights = 0x8b }, o => o.ComparingByMembers<SegmentCache>());
        s->Segs[(int)Seg.LDTR].Unusable.Should().BeTrue();
        s->Gdtr.Base.Should().Be(0xffff_8000_0000_1000);
        s->Gdtr.Limit.Should().Be(0xffff);
        s->Cpl.Should().Be(0);
    }

    [Fact]
    public void Guest_state_is_saved_and_general_registers_stay()
    {
        using VmxMachine m = Long(a =>
        {
            a.mov(rax, 0x1122_3344_5566_7788);
            a.mov(rsp, 0x6000);
            a.xor(ebx, ebx);
            a.vmcall();
        });
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        m.State->Gpr[0].Should().Be(0x1122_3344_5566_7788);
        m.Read(VmcsField.GUEST_RSP).Should().Be(0x6000);
        (m.Read(VmcsField.GUEST_RFLAGS) & (Flags.ZF | Flags.PF)).Should().Be(Flags.ZF | Flags.PF);
        m.Read(VmcsField.GUEST_CS_AR_BYTES).Should().Be(0xa09b);
    }

    [Fact]
    public void A_guest_that_enters_long_mode_updates_the_entry_control()
    {
        using VmxMachine m = Real(a =>
        {
            // Real mode straight to compatibility mode: CR3 and CR4 are the guest's own by then.
            a.mov(eax, (uint)VmxMachine.PageTables);
            a.mov(cr3, eax);
            a.mov(eax, cr4);
            a.or(eax, (int)Cr4.PAE);
            a.mov(cr4, eax);
            a.mov(ecx, unchecked((int)0xc000_0080));
            a.xor(edx, edx);
            a.mov(eax, 0x100);
            a.wrmsr();
            a.mov(eax, cr0);
            a.or(eax, unchecked((int)0x8000_0001));
            a.mov(cr0, eax);
            a.vmcall();
        });
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        (m.Read(VmcsField.VM_ENTRY_CONTROLS) & (ulong)VmEntryControls.Ia32eModeGuest).Should().NotBe(0);
        m.Read(VmcsField.GUEST_IA32_EFER).Should().Be(Efer.LME | Efer.LMA);
    }

    [Fact]
    public void MSR_areas_are_stored_and_loaded()
    {
        using VmxMachine m = Long(a => { a.mov(ecx, unchecked((int)0xc000_0102)); a.mov(eax, 0x55); a.xor(edx, edx); a.wrmsr(); a.vmcall(); });
        ulong* store = (ulong*)m.Page();
        ulong* load = (ulong*)m.Page();
        store[0] = load[0] = Msr.IA32_KERNEL_GS_BASE;
        load[1] = 0x99;
        m.Write(VmcsField.VM_EXIT_MSR_STORE_ADDR, (ulong)store);
        m.Write(VmcsField.VM_EXIT_MSR_STORE_COUNT, 1);
        m.Write(VmcsField.VM_EXIT_MSR_LOAD_ADDR, (ulong)load);
        m.Write(VmcsField.VM_EXIT_MSR_LOAD_COUNT, 1);
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        store[1].Should().Be(0x55);
        m.State->KernelGsBase.Should().Be(0x99);
    }

    [Fact]
    public void An_MSR_list_beyond_the_recommended_length_is_a_VMX_abort()
    {
        using VmxMachine m = Long(a => a.vmcall());
        m.Write(VmcsField.VM_EXIT_MSR_STORE_ADDR, m.Machine.Memory.Allocate(4 * 4096));
        m.Write(VmcsField.VM_EXIT_MSR_STORE_COUNT, 513);
        m.Cpu.Vmlaunch().Ok.Should().BeFalse();
        ((uint*)m.VmcsPage)[1].Should().Be(5);
    }

    [Theory]
    [InlineData(true, 1u)]
    [InlineData(false, 4u)]
    public void A_bad_MSR_area_at_exit_is_a_VMX_abort(bool store, uint indicator)
    {
        using VmxMachine m = Long(a => a.vmcall());
        ulong* area = (ulong*)m.Page();
        area[0] = 0xdead_beef;
        m.Write(store ? VmcsField.VM_EXIT_MSR_STORE_ADDR : VmcsField.VM_EXIT_MSR_LOAD_ADDR, (ulong)area);
        m.Write(store ? VmcsField.VM_EXIT_MSR_STORE_COUNT : VmcsField.VM_EXIT_MSR_LOAD_COUNT, 1);
        m.Cpu.Vmlaunch().Ok.Should().BeFalse();
        ((uint*)m.VmcsPage)[1].Should().Be(indicator);
        m.State->Activity.Should().Be(ActivityState.Shutdown);
    }
}
