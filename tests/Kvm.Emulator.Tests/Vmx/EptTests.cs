using Iced.Intel;
using Kvm.Emulator.Vmx;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>EPT: permissions, violations with their qualification, misconfigurations, large pages, accessed and dirty flags, page-modification logging, VPID.</summary>
public unsafe class EptTests
{
    private const int DataPage = (int)(VmxMachine.DataAddress >> 12);
    private const int FarPage = 0x20;
    private const ulong FarAddress = FarPage << 12;

    private static readonly Action<Assembler> ReadCode = a => { a.mov(eax, __dword_ptr[rdi]); a.vmcall(); };
    private static readonly Action<Assembler> WriteCode = a => { a.mov(__dword_ptr[rdi], eax); a.vmcall(); };
    private static readonly Action<Assembler> ModifyCode = a => { a.inc(__dword_ptr[rdi]); a.vmcall(); };
    private static readonly Action<Assembler> JumpCode = a => a.jmp(rdi);

    private static VmxMachine Guest(Action<Assembler> code, Func<VmxCapabilities, VmxCapabilities>? capabilities = null, ulong address = FarAddress)
    {
        VmxMachine m = new VmxMachine(capabilities).WithGuest(longMode: true);
        m.Code(64, code);
        // VMCALL where the jump goes.
        m.Guest[FarAddress] = 0x0f;
        m.Guest[FarAddress + 1] = 0x01;
        m.Guest[FarAddress + 2] = 0xc1;
        m.State->Gpr[7] = address;
        return m;
    }

    private static Action<Assembler> Access(char kind) => kind switch { 'r' => ReadCode, 'w' => WriteCode, 'm' => ModifyCode, _ => JumpCode };

    /// <summary>Rights of the leaf (R 1, W 2, X 4) against reads, writes, read-modify-writes and fetches; -1: misconfiguration, otherwise the qualification's low six bits or 0.</summary>
    [Theory]
    [InlineData('r', 0, 0x01), InlineData('w', 0, 0x02), InlineData('m', 0, 0x03), InlineData('x', 0, 0x04)]
    [InlineData('r', 1, 0), InlineData('w', 1, 0x0a), InlineData('m', 1, 0x0b), InlineData('x', 1, 0x0c)]
    [InlineData('r', 2, -1), InlineData('w', 2, -1), InlineData('x', 2, -1)]
    [InlineData('r', 3, 0), InlineData('w', 3, 0), InlineData('m', 3, 0), InlineData('x', 3, 0x1c)]
    [InlineData('r', 4, 0x21), InlineData('w', 4, 0x22), InlineData('m', 4, 0x23), InlineData('x', 4, 0)]
    [InlineData('r', 5, 0), InlineData('w', 5, 0x2a), InlineData('m', 5, 0x2b), InlineData('x', 5, 0)]
    [InlineData('r', 6, -1), InlineData('w', 6, -1), InlineData('x', 6, -1)]
    [InlineData('r', 7, 0), InlineData('w', 7, 0), InlineData('m', 7, 0), InlineData('x', 7, 0)]
    public void Permission_matrix(char access, int rights, int expected)
    {
        using VmxMachine m = Guest(Access(access));
        ref ulong entry = ref m.EptEntry(FarPage);
        entry = (entry & ~7UL) | (uint)rights;
        VmxExitReason reason = m.Launch();
        if (expected == 0)
        {
            reason.Should().Be(VmxExitReason.VMCALL);
            return;
        }
        reason.Should().Be(expected < 0 ? VmxExitReason.EPT_MISCONFIG : VmxExitReason.EPT_VIOLATION);
        m.Read(VmcsField.GUEST_PHYSICAL_ADDRESS).Should().Be(FarAddress);
        (m.Read(VmcsField.GUEST_RFLAGS) & Flags.RF).Should().Be(Flags.RF);
        (m.Read(VmcsField.IDT_VECTORING_INFO_FIELD) >> 31).Should().Be(0);
        m.Read(VmcsField.GUEST_RIP).Should().Be(access == 'x' ? FarAddress : VmxMachine.CodeAddress);
        if (expected < 0)
            return;
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be((ulong)expected | 0x180);
        m.Read(VmcsField.GUEST_LINEAR_ADDRESS).Should().Be(FarAddress);
        // Repair and go on: the same access succeeds.
        entry |= 7;
        m.Resume().Should().Be(VmxExitReason.VMCALL);
    }

    [Fact]
    public void The_address_is_that_of_the_access_and_the_length_that_of_the_instruction()
    {
        using VmxMachine m = Guest(WriteCode, address: FarAddress + 0x123);
        m.EptEntry(FarPage) = 0;
        m.Launch().Should().Be(VmxExitReason.EPT_VIOLATION);
        m.Read(VmcsField.GUEST_PHYSICAL_ADDRESS).Should().Be(FarAddress + 0x123);
        m.Read(VmcsField.GUEST_LINEAR_ADDRESS).Should().Be(FarAddress + 0x123);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(2);
    }

    [Fact]
    public void Rights_of_all_levels_are_combined()
    {
        using VmxMachine m = Guest(WriteCode);
        ulong pdpt = *(ulong*)m.EptRoot & ~0xfffUL;
        *(ulong*)pdpt &= ~2UL;
        m.EptEntry(FarPage) &= ~4UL;
        // The guest's page tables need no write here: their accessed bits are set beforehand.
        ulong* tables = (ulong*)(m.Guest + VmxMachine.PageTables);
        tables[0] |= 0x20;
        tables[512] |= 0x20;
        tables[1024] |= 0x60;
        m.Launch().Should().Be(VmxExitReason.EPT_VIOLATION);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x18a);
    }

    /// <summary>The guest's own page table is not readable: the linear address is valid, the access is not to its translation.</summary>
    [Fact]
    public void A_page_walk_access_clears_bit_8()
    {
        using VmxMachine m = Guest(ReadCode);
        m.EptEntry((int)((VmxMachine.PageTables + 0x1000) >> 12)) = 0;
        m.Launch().Should().Be(VmxExitReason.EPT_VIOLATION);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x081);
        m.Read(VmcsField.GUEST_LINEAR_ADDRESS).Should().Be(VmxMachine.CodeAddress);
        (m.Read(VmcsField.GUEST_PHYSICAL_ADDRESS) & ~0xfffUL).Should().Be(VmxMachine.PageTables + 0x1000);
    }

    /// <summary>With accessed and dirty flags for EPT, page walks count as writes: bits 0 and 1 are both set.</summary>
    [Fact]
    public void With_AD_flags_a_page_walk_is_a_write()
    {
        using VmxMachine m = Guest(ReadCode);
        m.Set(VmcsField.EPT_POINTER, 0x40);
        m.EptEntry((int)((VmxMachine.PageTables + 0x1000) >> 12)) &= ~2UL;
        m.Launch().Should().Be(VmxExitReason.EPT_VIOLATION);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x3 | 5 << 3 | 0x80);
    }

    /// <summary>Advanced information (capability bit 22): user-mode address, writable, execute-disable as the guest's own tables say.</summary>
    [Theory]
    [InlineData(0x87UL, 0x600UL)]
    [InlineData(0x83UL, 0x400UL)]
    [InlineData(0x85UL, 0x200UL)]
    public void Advanced_information_about_the_guest_translation(ulong directoryEntry, ulong information)
    {
        using VmxMachine m = Guest(ReadCode, c => c with { EptVpid = c.EptVpid | 1 << 22 });
        ((ulong*)(m.Guest + VmxMachine.PageTables))[1024] = directoryEntry;
        m.EptEntry(FarPage) = 0;
        m.Launch().Should().Be(VmxExitReason.EPT_VIOLATION);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x181 | information);
    }

    [Theory]
    [InlineData(0x87UL, 7UL, VmxExitReason.EPT_VIOLATION)]
    [InlineData(0x87UL, 0x403UL, VmxExitReason.VMCALL)]
    [InlineData(0x83UL, 7UL, VmxExitReason.VMCALL)]
    [InlineData(0x83UL, 0x403UL, VmxExitReason.EPT_VIOLATION)]
    public void Mode_based_execute_control_separates_user_and_supervisor_addresses(ulong directoryEntry, ulong rights, VmxExitReason reason)
    {
        using VmxMachine m = Guest(JumpCode, c => c with { ProcBased2 = c.ProcBased2 | (ulong)SecondaryControls.ModeBasedExecuteEpt << 32 });
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.ModeBasedExecuteEpt);
        ((ulong*)(m.Guest + VmxMachine.PageTables))[1024] = directoryEntry;
        ulong* pdpt = (ulong*)(*(ulong*)m.EptRoot & ~0xfffUL);
        *(ulong*)m.EptRoot |= 0x400;
        *pdpt |= 0x400;
        *(ulong*)(*pdpt & ~0xfffUL) |= 0x400;
        for (int i = 0; i < 512; i++)
            m.EptEntry(i) |= 0x400;
        m.EptEntry(FarPage) = (m.EptEntry(FarPage) & ~0x407UL) | rights;
        m.Launch().Should().Be(reason);
        if (reason == VmxExitReason.EPT_VIOLATION)
            m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(0x184 | (rights & 7) << 3 | (rights & 0x400) >> 4);
    }

    // ---- misconfigurations ----

    [Theory]
    [InlineData(1UL << 48)]
    [InlineData(1UL << 51)]
    [InlineData(2UL << 3)]
    [InlineData(3UL << 3)]
    [InlineData(7UL << 3)]
    public void Leaf_misconfigurations(ulong bits)
    {
        using VmxMachine m = Guest(ReadCode);
        m.EptEntry(FarPage) = (m.EptEntry(FarPage) & ~0x38UL) | bits;
        m.Launch().Should().Be(VmxExitReason.EPT_MISCONFIG);
        m.Read(VmcsField.GUEST_PHYSICAL_ADDRESS).Should().Be(FarAddress);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(2);
    }

    [Theory]
    [InlineData(0, 0x80UL)]
    [InlineData(0, 0x08UL)]
    [InlineData(1, 0x40UL)]
    [InlineData(2, 0x08UL)]
    [InlineData(1, 1UL << 49)]
    public void Reserved_bits_of_upper_levels_are_misconfigurations(int level, ulong bit)
    {
        using VmxMachine m = Guest(ReadCode);
        ulong* pml4 = (ulong*)m.EptRoot;
        ulong* pdpt = (ulong*)(*pml4 & ~0xfffUL);
        ulong* pd = (ulong*)(*pdpt & ~0xfffUL);
        *(level == 0 ? pml4 : level == 1 ? pdpt : pd) |= bit;
        m.Launch().Should().Be(VmxExitReason.EPT_MISCONFIG);
    }

    [Fact]
    public void Execute_only_without_the_capability_is_a_misconfiguration()
    {
        using VmxMachine m = Guest(JumpCode, c => c with { EptVpid = c.EptVpid & ~1UL });
        m.EptEntry(FarPage) = (m.EptEntry(FarPage) & ~7UL) | 4;
        m.Launch().Should().Be(VmxExitReason.EPT_MISCONFIG);
    }

    [Theory]
    [InlineData(0x1000UL, true)]
    [InlineData(0UL, false)]
    public void A_2_MiB_page_has_no_low_address_bits(ulong lowBits, bool misconfigured)
    {
        using VmxMachine m = Guest(ReadCode);
        ulong* pd = (ulong*)(*(ulong*)(*(ulong*)m.EptRoot & ~0xfffUL) & ~0xfffUL);
        // The second 2 MiB of guest-physical space, mapped large.
        ((ulong*)(m.Guest + VmxMachine.PageTables))[1025] = 0x20_0087;
        ulong large = m.Machine.Memory.Allocate(4 << 20);
        large = (large + 0x1fffff) & ~0x1fffffUL;
        pd[1] = large | lowBits | 0x80 | 6 << 3 | 7;
        *(uint*)(large + 0x12345 & ~3UL) = 0xfeed_f00d;
        m.State->Gpr[7] = 0x20_0000 + (0x12345 & ~3UL);
        m.Launch().Should().Be(misconfigured ? VmxExitReason.EPT_MISCONFIG : VmxExitReason.VMCALL);
        if (!misconfigured)
            m.State->Gpr[0].Should().Be(0xfeed_f00d);
    }

    [Fact]
    public void Tables_outside_memory_read_as_ones()
    {
        using VmxMachine m = Guest(ReadCode);
        m.Write(VmcsField.EPT_POINTER, 0x1000 | 6 | 3 << 3);
        m.Launch().Should().Be(VmxExitReason.EPT_MISCONFIG);
    }

    // ---- accessed, dirty, PML ----

    [Theory]
    [InlineData('r', false)]
    [InlineData('w', true)]
    public void Accessed_and_dirty_flags(char access, bool dirty)
    {
        using VmxMachine m = Guest(Access(access));
        m.Set(VmcsField.EPT_POINTER, 0x40);
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        (m.EptEntry(FarPage) & 0x300).Should().Be(dirty ? 0x300u : 0x100u);
        (*(ulong*)m.EptRoot & 0x100).Should().Be(0x100);
        (m.EptEntry(FarPage + 1) & 0x300).Should().Be(0);
    }

    [Fact]
    public void Without_AD_in_the_EPTP_no_flags_are_set()
    {
        using VmxMachine m = Guest(WriteCode);
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        (m.EptEntry(FarPage) & 0x300).Should().Be(0);
    }

    [Fact]
    public void A_read_then_a_write_sets_dirty_at_the_write()
    {
        using VmxMachine m = Guest(a => { a.mov(eax, __dword_ptr[rdi]); a.vmcall(); a.mov(__dword_ptr[rdi], eax); a.vmcall(); });
        m.Set(VmcsField.EPT_POINTER, 0x40);
        m.Launch();
        (m.EptEntry(FarPage) & 0x300).Should().Be(0x100);
        m.Skip();
        m.Resume();
        (m.EptEntry(FarPage) & 0x300).Should().Be(0x300);
    }

    private static ulong* WithPml(VmxMachine m, int index)
    {
        ulong* log = (ulong*)m.Page();
        m.Set(VmcsField.EPT_POINTER, 0x40);
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.EnablePml);
        m.Write(VmcsField.PML_ADDRESS, (ulong)log);
        m.Write(VmcsField.GUEST_PML_INDEX, (ulong)index);
        // The guest's tables are dirty already, so that only the data page is logged.
        for (int i = 0; i < 3; i++)
            m.EptEntry((int)(VmxMachine.PageTables >> 12) + i) |= 0x300;
        return log;
    }

    [Fact]
    public void PML_logs_a_page_once()
    {
        using VmxMachine m = Guest(a => { a.mov(__dword_ptr[rdi], eax); a.mov(__dword_ptr[rdi + 4], eax); a.vmcall(); });
        ulong* log = WithPml(m, 511);
        m.State->Gpr[7] = FarAddress + 0x18;
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        log[511].Should().Be(FarAddress);
        m.Read(VmcsField.GUEST_PML_INDEX).Should().Be(510);
    }

    [Fact]
    public void PML_wraps_its_index_below_zero_and_then_exits()
    {
        using VmxMachine m = Guest(a => { a.mov(__dword_ptr[rdi], eax); a.mov(__dword_ptr[rdi + 0x1000], eax); a.vmcall(); });
        ulong* log = WithPml(m, 0);
        m.Launch().Should().Be(VmxExitReason.PML_FULL);
        log[0].Should().Be(FarAddress);
        m.Read(VmcsField.GUEST_PML_INDEX).Should().Be(0xffff);
        m.Read(VmcsField.GUEST_RIP).Should().Be(VmxMachine.CodeAddress + 2);
        (m.EptEntry(FarPage + 1) & 0x200).Should().Be(0, "the second write has not happened");
        m.Write(VmcsField.GUEST_PML_INDEX, 511);
        m.Resume().Should().Be(VmxExitReason.VMCALL);
        log[511].Should().Be(FarAddress + 0x1000);
    }

    // ---- TLB ----

    /// <summary>Translations survive exits and entries with a VPID, so a changed entry needs INVEPT.</summary>
    [Fact]
    public void Stale_translations_stay_until_INVEPT()
    {
        using VmxMachine m = Guest(a => { a.mov(eax, __dword_ptr[rdi]); a.vmcall(); });
        *(uint*)(m.Guest + FarAddress) = 1;
        *(uint*)(m.Guest + FarAddress + 0x1000) = 2;
        m.Launch();
        m.State->Gpr[0].Should().Be(1);
        m.EptEntry(FarPage) = m.EptEntry(FarPage + 1);
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.Resume();
        m.State->Gpr[0].Should().Be(1, "nothing told the processor");
        m.Cpu.Invept(1, m.Read(VmcsField.EPT_POINTER)).Ok.Should().BeTrue();
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.Resume();
        m.State->Gpr[0].Should().Be(2);
    }

    [Theory]
    [InlineData(0UL, true), InlineData(1UL, true), InlineData(2UL, true), InlineData(3UL, true)]
    public void Guest_translations_go_with_INVVPID(ulong type, bool gone)
    {
        using VmxMachine m = Guest(a => { a.mov(eax, __dword_ptr[rdi]); a.vmcall(); });
        ulong* tables = (ulong*)(m.Guest + VmxMachine.PageTables);
        // 4 KiB page of the guest at 1 GiB, first at FarAddress, then at the page behind.
        tables[513] = 0xe000 | 7;
        *(ulong*)(m.Guest + 0xe000) = 0xf000 | 7;
        *(ulong*)(m.Guest + 0xf000) = FarAddress | 7;
        *(uint*)(m.Guest + FarAddress) = 1;
        *(uint*)(m.Guest + FarAddress + 0x1000) = 2;
        m.State->Gpr[7] = 0x4000_0000;
        m.Launch();
        m.State->Gpr[0].Should().Be(1);
        *(ulong*)(m.Guest + 0xf000) = (FarAddress + 0x1000) | 7;
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.Resume();
        m.State->Gpr[0].Should().Be(1);
        m.Cpu.Invvpid(type, 1, 0x4000_0000).Ok.Should().BeTrue();
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.Resume();
        m.State->Gpr[0].Should().Be(gone ? 2u : 1u);
    }

    [Fact]
    public void Without_VPID_every_transition_flushes()
    {
        using VmxMachine m = Guest(a => { a.mov(eax, __dword_ptr[rdi]); a.vmcall(); });
        m.Clear(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.EnableVpid);
        *(uint*)(m.Guest + FarAddress) = 1;
        *(uint*)(m.Guest + FarAddress + 0x1000) = 2;
        m.Launch();
        m.EptEntry(FarPage) = m.EptEntry(FarPage + 1);
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.Resume();
        m.State->Gpr[0].Should().Be(2);
    }

    [Fact]
    public void Different_VPIDs_do_not_share_translations()
    {
        using VmxMachine m = Guest(a => { a.mov(eax, __dword_ptr[rdi]); a.vmcall(); });
        *(uint*)(m.Guest + FarAddress) = 1;
        *(uint*)(m.Guest + FarAddress + 0x1000) = 2;
        m.Launch();
        m.EptEntry(FarPage) = m.EptEntry(FarPage + 1);
        m.Write(VmcsField.VIRTUAL_PROCESSOR_ID, 9);
        m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
        m.Resume();
        m.State->Gpr[0].Should().Be(2);
    }

    // ---- event delivery, #VE, EPTP switching ----

    [Fact]
    public void A_violation_during_delivery_records_the_event()
    {
        using VmxMachine m = Guest(a => a.@int(0x30));
        m.EptEntry((int)(VmxMachine.IdtAddress >> 12)) = 0;
        m.Launch().Should().Be(VmxExitReason.EPT_VIOLATION);
        m.Read(VmcsField.IDT_VECTORING_INFO_FIELD).Should().Be(0x8000_0430);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(2);
        m.Read(VmcsField.GUEST_PHYSICAL_ADDRESS).Should().Be(VmxMachine.IdtAddress + 0x300);
        (m.Read(VmcsField.GUEST_RFLAGS) & Flags.RF).Should().Be(0);
    }

    [Fact]
    public void An_injected_event_whose_delivery_exits_can_be_injected_again()
    {
        using VmxMachine m = Guest(a => a.nop());
        m.EptEntry((int)(VmxMachine.IdtAddress >> 12)) = 0;
        m.Write(VmcsField.VM_ENTRY_INTR_INFO_FIELD, 0x8000_0b0e);
        m.Write(VmcsField.VM_ENTRY_EXCEPTION_ERROR_CODE, 6);
        m.Launch().Should().Be(VmxExitReason.EPT_VIOLATION);
        m.Read(VmcsField.IDT_VECTORING_INFO_FIELD).Should().Be(0x8000_0b0e);
        m.Read(VmcsField.IDT_VECTORING_ERROR_CODE).Should().Be(6);
        (m.Read(VmcsField.VM_ENTRY_INTR_INFO_FIELD) >> 31).Should().Be(0, "every exit clears the valid bit");
    }

    [Fact]
    public void Convertible_violations_become_virtualization_exceptions()
    {
        using VmxMachine m = Guest(ReadCode);
        ulong area = m.Page();
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.EptViolationVe);
        m.Write(VmcsField.VE_INFO_ADDRESS, area);
        m.Write(VmcsField.EXCEPTION_BITMAP, 1u << Fault.VE);
        m.EptEntry(FarPage) = 0;
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
        m.Read(VmcsField.VM_EXIT_INTR_INFO).Should().Be(0x8000_0314);
        ((uint*)area)[0].Should().Be(48);
        ((uint*)area)[1].Should().Be(uint.MaxValue);
        ((ulong*)area)[1].Should().Be(0x181);
        ((ulong*)area)[2].Should().Be(FarAddress);
        ((ulong*)area)[3].Should().Be(FarAddress);
        // The area is busy now, and suppressed entries exit anyway.
        m.Resume().Should().Be(VmxExitReason.EPT_VIOLATION);
        ((uint*)area)[1] = 0;
        m.EptEntry(FarPage) = 1UL << 63;
        m.Resume().Should().Be(VmxExitReason.EPT_VIOLATION);
    }

    [Fact]
    public void VMFUNC_switches_the_EPTP()
    {
        using VmxMachine m = Guest(a => { a.xor(eax, eax); a.mov(ecx, 1); a.vmfunc(); a.mov(eax, __dword_ptr[rdi]); a.vmcall(); });
        ulong* list = (ulong*)m.Page();
        ulong leaf = m.Page(), pd = m.Page(), pdpt = m.Page(), root = m.Page();
        for (int i = 0; i < 512; i++)
            ((ulong*)leaf)[i] = m.EptEntry(i);
        ((ulong*)leaf)[FarPage] = m.EptEntry(FarPage + 1);
        *(ulong*)pd = leaf | 7;
        *(ulong*)pdpt = pd | 7;
        *(ulong*)root = pdpt | 7;
        list[1] = root | 6 | 3 << 3;
        *(uint*)(m.Guest + FarAddress + 0x1000) = 0x77;
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.EnableVmFunctions);
        m.Write(VmcsField.VM_FUNCTION_CONTROL, 1);
        m.Write(VmcsField.EPTP_LIST_ADDRESS, (ulong)list);
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        m.State->Gpr[0].Should().Be(0x77);
        m.Read(VmcsField.EPT_POINTER).Should().Be(list[1]);
    }

    [Theory]
    [InlineData(0u, 0u)]
    [InlineData(0u, 512u)]
    [InlineData(1u, 0u)]
    public void VMFUNC_exits_for_an_invalid_EPTP_index_or_function(uint function, uint index)
    {
        using VmxMachine m = Guest(a => a.vmfunc());
        m.State->Gpr[0] = function;
        m.State->Gpr[1] = index;
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.EnableVmFunctions);
        m.Write(VmcsField.VM_FUNCTION_CONTROL, 1);
        m.Write(VmcsField.EPTP_LIST_ADDRESS, m.Page());
        m.Launch().Should().Be(VmxExitReason.VMFUNC);
        m.Read(VmcsField.VM_EXIT_INSTRUCTION_LEN).Should().Be(3);
    }

    [Fact]
    public void VMFUNC_is_undefined_without_its_control()
    {
        using VmxMachine m = Guest(a => a.vmfunc());
        m.Write(VmcsField.EXCEPTION_BITMAP, 1u << Fault.UD);
        m.State->Gpr[0] = 0;
        m.Launch().Should().Be(VmxExitReason.EXCEPTION_NMI);
    }

    [Fact]
    public void Data_written_by_the_guest_is_in_the_mapped_page()
    {
        using VmxMachine m = Guest(a => { a.mov(__dword_ptr[rdi], 0x1234_5678); a.vmcall(); });
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        (*(uint*)(m.Guest + FarAddress)).Should().Be(0x1234_5678);
        DataPage.Should().NotBe(FarPage);
    }
}
