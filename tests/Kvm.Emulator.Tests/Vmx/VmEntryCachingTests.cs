using Kvm.Emulator.Vmx;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>What the processor remembers between entries never changes an outcome: a VMCS that was entered before behaves like one that is loaded afresh.</summary>
public unsafe class VmEntryCachingTests
{
    private static readonly string[] Changes =
    [
        "GUEST_RFLAGS=2", "GUEST_RFLAGS=0", "GUEST_RFLAGS=202", "GUEST_RFLAGS=20002", "GUEST_CR0~1", "GUEST_CR0|1", "GUEST_CR0~20", "GUEST_CR0|20", "GUEST_CR4~2000", "GUEST_CR4|2000",
        "GUEST_CS_AR_BYTES=9b", "GUEST_CS_AR_BYTES=93", "GUEST_CS_AR_BYTES=1b", "GUEST_SS_AR_BYTES=93", "GUEST_SS_AR_BYTES=10000", "GUEST_DS_LIMIT=ffff", "GUEST_DS_LIMIT=100000",
        "GUEST_TR_AR_BYTES=8b", "GUEST_TR_AR_BYTES=83", "GUEST_TR_AR_BYTES=b", "GUEST_GDTR_LIMIT=ff", "GUEST_GDTR_LIMIT=10000", "GUEST_IA32_PAT=0007040600070406", "GUEST_IA32_PAT=2",
        "GUEST_INTERRUPTIBILITY_INFO=0", "GUEST_INTERRUPTIBILITY_INFO=1", "GUEST_INTERRUPTIBILITY_INFO=3", "GUEST_ACTIVITY_STATE=0", "GUEST_PENDING_DBG_EXCEPTIONS=0", "GUEST_PENDING_DBG_EXCEPTIONS=10",
        "GUEST_IA32_EFER=0", "GUEST_IA32_EFER=100", "GUEST_IA32_EFER=400", "VMCS_LINK_POINTER=ffffffffffffffff", "VMCS_LINK_POINTER=8",
        "HOST_RIP=1000", "HOST_RIP=800000000000", "HOST_CS_SELECTOR=10", "HOST_CS_SELECTOR=11", "HOST_CR4|20", "HOST_CR4~20", "HOST_TR_SELECTOR=40", "HOST_TR_SELECTOR=0", "HOST_FS_BASE=4000",
        "VIRTUAL_PROCESSOR_ID=1", "VIRTUAL_PROCESSOR_ID=0", "VIRTUAL_PROCESSOR_ID=2", "SECONDARY_VM_EXEC_CONTROL|80", "SECONDARY_VM_EXEC_CONTROL~80", "SECONDARY_VM_EXEC_CONTROL|40000000",
        "SECONDARY_VM_EXEC_CONTROL~40000000", "VM_ENTRY_CONTROLS|200", "VM_ENTRY_CONTROLS~200", "VM_EXIT_CONTROLS~1", "VM_EXIT_CONTROLS|1", "CR3_TARGET_COUNT=0", "CR3_TARGET_COUNT=9",
        "VM_ENTRY_INTR_INFO_FIELD=0", "VM_ENTRY_INTR_INFO_FIELD=80000120", "EPT_POINTER|80", "EPT_POINTER~80", "PIN_BASED_VM_EXEC_CONTROL|20", "PIN_BASED_VM_EXEC_CONTROL~20",
        "CPU_BASED_VM_EXEC_CONTROL|400000", "CPU_BASED_VM_EXEC_CONTROL~400000", "GUEST_LDTR_AR_BYTES=10000", "GUEST_LDTR_AR_BYTES=2", "GUEST_ES_BASE=0", "GUEST_ES_BASE=100000000",
    ];

    private static (InstructionOutcome, ulong, ulong, ulong, string?, ulong, ulong, ulong) Outcome(VmxMachine m, bool launch)
    {
        // The instruction error of an earlier failure would stay behind.
        m.Write(VmcsField.VM_INSTRUCTION_ERROR, 0);
        m.Write(VmcsField.EXIT_QUALIFICATION, 0);
        InstructionResult result = launch ? m.Cpu.Vmlaunch() : m.Cpu.Vmresume();
        return (result.Outcome, m.Read(VmcsField.VM_INSTRUCTION_ERROR), m.Read(VmcsField.VM_EXIT_REASON), m.Read(VmcsField.EXIT_QUALIFICATION), m.Cpu.Vmx.FailedRule,
            m.State->Rip, m.Read(VmcsField.GUEST_RIP), m.Read(VmcsField.GUEST_RFLAGS));
    }

    [Theory]
    [InlineData(1), InlineData(2), InlineData(3), InlineData(4)]
    public void A_re_entry_behaves_like_a_first_entry(int seed)
    {
        using VmxMachine warm = new VmxMachine().WithGuest();
        using VmxMachine cold = new VmxMachine().WithGuest();
        foreach (VmxMachine m in new[] { warm, cold })
            m.Code(16, a => a.hlt());
        warm.Launch().Should().Be(VmxExitReason.HLT);
        cold.Launch().Should().Be(VmxExitReason.HLT);
        var random = new Random(seed);
        int entered = 0;
        for (int i = 0; i < 1500; i++)
        {
            for (int n = random.Next(1, 4); n > 0; n--)
            {
                string change = Changes[random.Next(Changes.Length)];
                VmEntryCheckTests.Apply(warm, change);
                VmEntryCheckTests.Apply(cold, change);
            }
            if (i % 7 == 0)
            {
                // Back to a VMCS that enters.
                foreach (VmxMachine m in new[] { warm, cold })
                    VmEntryCheckTests.Apply(m, string.Join(' ', Good));
            }
            // Cold: out to memory, in again, everything unknown.
            cold.Cpu.Vmclear(cold.VmcsPage);
            cold.Cpu.Vmptrld(cold.VmcsPage);
            var expected = Outcome(cold, launch: true);
            var actual = Outcome(warm, launch: false);
            actual.Should().Be(expected, "step {0}", i);
            if (expected.Item3 == (ulong)VmxExitReason.HLT && expected.Item5 is null)
                entered++;
        }
        entered.Should().BeGreaterThan(100);
    }

    private static readonly string[] Good =
    [
        "GUEST_RFLAGS=2", "GUEST_CR0~1", "GUEST_CR0|20", "GUEST_CR4|2000", "GUEST_CS_AR_BYTES=9b", "GUEST_SS_AR_BYTES=93", "GUEST_DS_LIMIT=ffff", "GUEST_TR_AR_BYTES=8b", "GUEST_GDTR_LIMIT=ff",
        "GUEST_IA32_PAT=0007040600070406", "GUEST_INTERRUPTIBILITY_INFO=0", "GUEST_PENDING_DBG_EXCEPTIONS=0", "GUEST_IA32_EFER=0", "VMCS_LINK_POINTER=ffffffffffffffff", "HOST_RIP=1000",
        "HOST_CS_SELECTOR=10", "HOST_CR4|20", "HOST_TR_SELECTOR=40", "VIRTUAL_PROCESSOR_ID=1", "SECONDARY_VM_EXEC_CONTROL|80", "SECONDARY_VM_EXEC_CONTROL~40000000", "VM_ENTRY_CONTROLS~200",
        "VM_EXIT_CONTROLS|1", "CR3_TARGET_COUNT=0", "VM_ENTRY_INTR_INFO_FIELD=0", "EPT_POINTER~80", "CPU_BASED_VM_EXEC_CONTROL~400000", "GUEST_LDTR_AR_BYTES=10000", "GUEST_ES_BASE=0",
    ];

    /// <summary>Two guests taking turns on one processor: each keeps its own state and translations.</summary>
    [Fact]
    public void Guests_that_alternate_do_not_see_each_other()
    {
        using VmxMachine m = new VmxMachine().WithGuest();
        m.Code(16, a => { a.inc(Iced.Intel.AssemblerRegisters.__word_ptr[0x3000]); a.hlt(); });
        m.Launch().Should().Be(VmxExitReason.HLT);
        // A second VMCS: a copy with its own VPID and its own EPT, mapping other memory.
        ulong second = m.NewVmcs();
        byte* memory = (byte*)m.Machine.Memory.Allocate(VmxMachine.GuestMemorySize);
        ulong leaf = m.Page(), pd = m.Page(), pdpt = m.Page(), root = m.Page();
        *(ulong*)root = pdpt | 7;
        *(ulong*)pdpt = pd | 7;
        *(ulong*)pd = leaf | 7;
        for (int i = 0; i < 512; i++)
            ((ulong*)leaf)[i] = ((ulong)memory + ((ulong)i << 12)) | 7 | 6 << 3;
        new Span<byte>(m.Guest, 0x4000).CopyTo(new Span<byte>(memory, 0x4000));
        *(ushort*)(memory + 0x3000) = 1000;
        m.Cpu.Vmclear(m.VmcsPage);
        new Span<byte>((void*)m.VmcsPage, 4096).CopyTo(new Span<byte>((void*)second, 4096));
        m.Cpu.Vmptrld(second);
        m.Write(VmcsField.EPT_POINTER, root | 6 | 3 << 3);
        m.Write(VmcsField.VIRTUAL_PROCESSOR_ID, 2);
        m.Cpu.Vmptrld(m.VmcsPage);
        for (int i = 0; i < 50; i++)
        {
            foreach (ulong vmcs in new[] { m.VmcsPage, second })
            {
                m.Cpu.Vmptrld(vmcs);
                m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
                (i == 0 ? m.Cpu.Vmlaunch() : m.Cpu.Vmresume()).Ok.Should().BeTrue();
                m.ExitReason.Should().Be(VmxExitReason.HLT);
            }
        }
        (*(ushort*)(m.Guest + 0x3000)).Should().Be(51);
        (*(ushort*)(memory + 0x3000)).Should().Be(1050);
    }

    [Fact]
    public void An_entry_and_exit_allocate_nothing()
    {
        using VmxMachine m = new VmxMachine().WithGuest();
        m.Code(16, a => a.hlt());
        m.Launch();
        for (int i = 0; i < 200; i++)
            m.Cpu.Vmresume();
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 1000; i++)
            m.Cpu.Vmresume();
        (GC.GetAllocatedBytesForCurrentThread() - before).Should().Be(0);
    }
}
