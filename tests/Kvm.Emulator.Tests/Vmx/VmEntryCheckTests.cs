using System.Globalization;
using Kvm.Emulator.Vmx;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>
/// VM-entry checks: every row breaks one rule of a VMCS that enters, or stands just on the right side of it. Changes are written
/// <c>FIELD=hex</c>, <c>FIELD|hex</c> (set bits), <c>FIELD~hex</c> (clear bits); <c>$</c> is the address of a page of RAM.
/// The rule column is part of the text that the processor reports.
/// </summary>
public unsafe class VmEntryCheckTests
{
    private sealed record Observed(List<string> Rules) : IHardwareObserver
    {
        public void Msr(Processor cpu, bool write, uint index, ulong value, bool faulted) { }
        public void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue) { }
        public void Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result) { }
        public void EntryCheckFailed(Processor cpu, string rule) => Rules.Add(rule);
        public void VmExit(Processor cpu, ulong reason, ulong qualification) { }
    }

    internal static void Apply(VmxMachine m, string changes)
    {
        foreach (string change in changes.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            int at = change.IndexOfAny(['=', '|', '~']);
            VmcsField field = Enum.Parse<VmcsField>(change[..at]);
            string text = change[(at + 1)..];
            ulong value = text.StartsWith('$')
                ? m.Page() + (text.Length > 1 ? ulong.Parse(text[1..], NumberStyles.HexNumber, CultureInfo.InvariantCulture) : 0)
                : ulong.Parse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            ulong old = m.Read(field);
            m.Write(field, change[at] switch { '=' => value, '|' => old | value, _ => old & ~value });
        }
    }

    private static VmxMachine Guest(string mode)
    {
        VmxMachine m = new VmxMachine(c => mode.Contains('u') ? c : c).WithGuest(longMode: mode[0] == 'l');
        m.Code(mode[0] == 'l' ? 64 : 16, a => a.hlt());
        if (mode[0] == 'v')
        {
            // Virtual-8086 mode: the guest's own tables are not needed, the first instruction (HLT at CPL 3) faults and the exception exits.
            Apply(m, "GUEST_CR0|1 GUEST_RFLAGS|20000 EXCEPTION_BITMAP=ffffffff");
            foreach (string s in new[] { "ES", "CS", "SS", "DS", "FS", "GS" })
                Apply(m, $"GUEST_{s}_AR_BYTES=f3");
        }
        if (mode[0] == 'p')
        {
            // Protected mode with PAE paging and without EPT-independent state: 32-bit segments, CR3 at the guest's tables.
            Apply(m, "GUEST_CR0|80000001 GUEST_CR4|20 GUEST_CR3=8000 GUEST_PDPTR0=a001");
            foreach (string s in new[] { "ES", "SS", "DS", "FS", "GS" })
                Apply(m, $"GUEST_{s}_AR_BYTES=c093 GUEST_{s}_LIMIT=ffffffff");
            Apply(m, "GUEST_CS_AR_BYTES=c09b GUEST_CS_LIMIT=ffffffff");
            *(ulong*)(m.Guest + 0xa000) = 0x83;
        }
        return m;
    }

    private static void Check(string mode, string changes, string outcome, string rule)
    {
        using VmxMachine m = Guest(mode);
        var observed = new Observed([]);
        Apply(m, changes);
        m.Cpu.Observer = observed;
        InstructionResult result = m.Cpu.Vmlaunch();
        m.Cpu.Observer = null;
        switch (outcome)
        {
            case "ok":
                observed.Rules.Should().BeEmpty();
                result.Should().Be(InstructionResult.Success);
                (m.Read(VmcsField.VM_EXIT_REASON) >> 31).Should().Be(0);
                break;
            case "7" or "8":
                result.Should().Be(InstructionResult.FailValid);
                ((int)m.Error).ToString(CultureInfo.InvariantCulture).Should().Be(outcome);
                observed.Rules.Should().ContainSingle().Which.Should().Contain(rule);
                m.State->Rip.Should().NotBe(VmxMachine.HostRip);
                break;
            default:
                string[] parts = outcome.Split('/');
                result.Should().Be(InstructionResult.Success);
                m.Read(VmcsField.VM_EXIT_REASON).Should().Be(0x8000_0000 | ulong.Parse(parts[0], CultureInfo.InvariantCulture));
                m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(parts.Length > 1 ? ulong.Parse(parts[1], CultureInfo.InvariantCulture) : 0);
                m.State->Rip.Should().Be(VmxMachine.HostRip);
                m.Cpu.Vmresume().ZF.Should().BeTrue("a failed entry does not launch the VMCS");
                if (parts[0] == "33")
                    observed.Rules.Should().ContainSingle().Which.Should().Contain(rule);
                break;
        }
        m.Cpu.NonRoot.Should().BeNull();
    }

    [Theory]
    // "VM-Execution Control Fields"
    [InlineData("r", "", "ok", "")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL~2", "7", "PinBasedVmExecControl")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL|100", "7", "PinBasedVmExecControl")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL~2", "7", "CpuBasedVmExecControl")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|20000", "7", "CpuBasedVmExecControl")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|1", "7", "CpuBasedVmExecControl")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|40000000", "7", "SecondaryVmExecControl")]
    [InlineData("r", "CR3_TARGET_COUNT=4", "ok", "")]
    [InlineData("r", "CR3_TARGET_COUNT=5", "7", "Cr3TargetCount")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|2000000 IO_BITMAP_A=$ IO_BITMAP_B=$", "ok", "")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|2000000 IO_BITMAP_A=$8 IO_BITMAP_B=$", "7", "IoBitmapA")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|2000000 IO_BITMAP_A=$ IO_BITMAP_B=1000000000000", "7", "IoBitmapB")]
    [InlineData("r", "IO_BITMAP_A=8", "ok", "")]
    [InlineData("r", "MSR_BITMAP|800", "7", "MsrBitmap")]
    [InlineData("r", "MSR_BITMAP|1000000000000", "7", "MsrBitmap")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$", "ok", "")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$10", "7", "VirtualApicPageAddr")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ TPR_THRESHOLD=10", "7", "TprThreshold >> 4")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ TPR_THRESHOLD=1", "7", "virtualTpr")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ SECONDARY_VM_EXEC_CONTROL|1 APIC_ACCESS_ADDR=$ TPR_THRESHOLD=1", "ok", "")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|10", "7", "needTprShadow")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|100", "7", "needTprShadow")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|200", "7", "needTprShadow")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL|20", "ok", "")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL~8 PIN_BASED_VM_EXEC_CONTROL|20", "7", "NmiExiting")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|400000", "7", "NmiWindowExiting")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL|20 CPU_BASED_VM_EXEC_CONTROL|400000", "ok", "")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|1 APIC_ACCESS_ADDR=$", "ok", "")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|1 APIC_ACCESS_ADDR=$1", "7", "ApicAccessAddr")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ SECONDARY_VM_EXEC_CONTROL|11 APIC_ACCESS_ADDR=$", "7", "VirtualizeX2ApicMode")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ SECONDARY_VM_EXEC_CONTROL|200", "ok", "")]
    [InlineData("r", "CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ SECONDARY_VM_EXEC_CONTROL|200 PIN_BASED_VM_EXEC_CONTROL~1", "7", "ExternalInterruptExiting")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL|80", "7", "VirtualInterruptDelivery")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL|80 CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ SECONDARY_VM_EXEC_CONTROL|200 POSTED_INTR_DESC_ADDR=$40", "ok", "")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL|80 CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ SECONDARY_VM_EXEC_CONTROL|200 POSTED_INTR_DESC_ADDR=$20", "7", "PostedIntrDescAddr")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL|80 CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ SECONDARY_VM_EXEC_CONTROL|200 POSTED_INTR_NV=100", "7", "PostedIntrNv")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL|80 CPU_BASED_VM_EXEC_CONTROL|200000 VIRTUAL_APIC_PAGE_ADDR=$ SECONDARY_VM_EXEC_CONTROL|200 VM_EXIT_CONTROLS~8000", "7", "AcknowledgeInterruptOnExit")]
    [InlineData("r", "VIRTUAL_PROCESSOR_ID=0", "7", "VirtualProcessorId")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL~20 VIRTUAL_PROCESSOR_ID=0", "ok", "")]
    [InlineData("r", "EPT_POINTER~7", "ok", "")]
    [InlineData("r", "EPT_POINTER|1", "7", "EptPointer")]
    [InlineData("r", "EPT_POINTER~8", "7", "EptPointer")]
    [InlineData("r", "EPT_POINTER|40", "ok", "")]
    [InlineData("r", "EPT_POINTER|80", "7", "EptPointer")]
    [InlineData("r", "EPT_POINTER|1000000000000", "7", "EptPointer")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL~2", "7", "needEpt")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|20000 PML_ADDRESS=$", "ok", "")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|20000 PML_ADDRESS=$800", "7", "PmlAddress")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|20000 SECONDARY_VM_EXEC_CONTROL~82 PML_ADDRESS=$", "7", "EnableEpt")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|2000 VM_FUNCTION_CONTROL=1 EPTP_LIST_ADDRESS=$", "ok", "")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|2000 VM_FUNCTION_CONTROL=2", "7", "VmFunctionControl")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|2000 VM_FUNCTION_CONTROL=1 EPTP_LIST_ADDRESS=$8", "7", "EptpListAddress")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|4000 VMREAD_BITMAP=$ VMWRITE_BITMAP=$", "ok", "")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|4000 VMREAD_BITMAP=$1 VMWRITE_BITMAP=$", "7", "VmreadBitmap")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|4000 VMREAD_BITMAP=$ VMWRITE_BITMAP=$1", "7", "VmwriteBitmap")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|40000 VE_INFO_ADDRESS=$20", "7", "VeInfoAddress")]
    [InlineData("r", "SECONDARY_VM_EXEC_CONTROL|2000000 TSC_MULTIPLIER=0", "7", "TscMultiplier")]
    [InlineData("r", "TSC_MULTIPLIER=0", "ok", "")]
    // "VM-Exit Control Fields"
    [InlineData("r", "VM_EXIT_CONTROLS~1", "7", "VmExitControls")]
    [InlineData("r", "VM_EXIT_CONTROLS|800000", "7", "VmExitControls")]
    [InlineData("r", "VM_EXIT_CONTROLS|400000", "7", "SavePreemptionTimer")]
    [InlineData("r", "VM_EXIT_CONTROLS|400000 PIN_BASED_VM_EXEC_CONTROL|40 VMX_PREEMPTION_TIMER_VALUE=ffffffff", "ok", "")]
    [InlineData("r", "VM_EXIT_MSR_STORE_COUNT=1 VM_EXIT_MSR_STORE_ADDR=$8", "7", "VmExitMsrStoreAddr")]
    [InlineData("r", "VM_EXIT_MSR_STORE_COUNT=0 VM_EXIT_MSR_STORE_ADDR=$8", "ok", "")]
    [InlineData("r", "VM_EXIT_MSR_LOAD_COUNT=1 VM_EXIT_MSR_LOAD_ADDR=1000000000000", "7", "VmExitMsrLoadAddr")]
    [InlineData("r", "VM_EXIT_MSR_LOAD_COUNT=2 VM_EXIT_MSR_LOAD_ADDR=fffffffffff0", "7", "VmExitMsrLoadAddr")]
    // "VM-Entry Control Fields"
    [InlineData("r", "VM_ENTRY_CONTROLS~1", "7", "VmEntryControls")]
    [InlineData("r", "VM_ENTRY_CONTROLS|10000", "7", "VmEntryControls")]
    [InlineData("r", "VM_ENTRY_CONTROLS|400", "7", "EntryToSmm")]
    [InlineData("r", "VM_ENTRY_CONTROLS|800", "7", "DeactivateDualMonitor")]
    [InlineData("r", "VM_ENTRY_MSR_LOAD_COUNT=1 VM_ENTRY_MSR_LOAD_ADDR=$4", "7", "VmEntryMsrLoadAddr")]
    [InlineData("r", "VM_ENTRY_INTR_INFO_FIELD=80000120", "7", "ReservedType")]
    [InlineData("r", "VM_ENTRY_INTR_INFO_FIELD=120", "ok", "")]
    [InlineData("r", "VM_ENTRY_INTR_INFO_FIELD=80000203", "7", "vector != 2")]
    [InlineData("r", "VM_ENTRY_INTR_INFO_FIELD=80000320", "7", "vector > 31")]
    [InlineData("r", "VM_ENTRY_INTR_INFO_FIELD=80000701", "7", "vector != 0")]
    [InlineData("r", "VM_ENTRY_INTR_INFO_FIELD=80000b0d", "7", "errorCode != wantsErrorCode")]
    [InlineData("l", "VM_ENTRY_INTR_INFO_FIELD=8000030d", "7", "errorCode != wantsErrorCode")]
    [InlineData("l", "VM_ENTRY_INTR_INFO_FIELD=80000b06", "7", "errorCode != wantsErrorCode")]
    [InlineData("l", "VM_ENTRY_INTR_INFO_FIELD=80001306", "7", "ReservedBits")]
    [InlineData("l", "VM_ENTRY_INTR_INFO_FIELD=80000b0d VM_ENTRY_EXCEPTION_ERROR_CODE=10000", "7", "VmEntryExceptionErrorCode")]
    [InlineData("l", "VM_ENTRY_INTR_INFO_FIELD=80000603 VM_ENTRY_INSTRUCTION_LEN=10", "7", "VmEntryInstructionLen > 15")]
    public void Controls(string mode, string changes, string outcome, string rule) => Check(mode, changes, outcome, rule);

    [Theory]
    [InlineData("r", "HOST_CR0~20", "8", "HostCr0")]
    [InlineData("r", "HOST_CR0~80000000", "8", "HostCr0")]
    [InlineData("r", "HOST_CR0|100000000", "8", "HostCr0")]
    [InlineData("r", "HOST_CR4~2000", "8", "HostCr4")]
    [InlineData("r", "HOST_CR4|80000000", "8", "HostCr4")]
    [InlineData("r", "HOST_CR3=1000000000000", "8", "HostCr3")]
    [InlineData("r", "HOST_IA32_SYSENTER_ESP=800000000000", "8", "HostIa32SysenterEsp")]
    [InlineData("r", "HOST_IA32_SYSENTER_EIP=ffff7fffffffffff", "8", "HostIa32SysenterEip")]
    [InlineData("r", "HOST_IA32_SYSENTER_EIP=ffff800000000000", "ok", "")]
    [InlineData("r", "HOST_IA32_PAT=0007040600070402", "8", "HostIa32Pat")]
    [InlineData("r", "HOST_IA32_PAT=0007040600070408", "8", "HostIa32Pat")]
    [InlineData("r", "HOST_IA32_PAT=0504010607000701", "ok", "")]
    [InlineData("r", "VM_EXIT_CONTROLS|1000 HOST_IA32_PERF_GLOBAL_CTRL=8000000000000000", "8", "HostIa32PerfGlobalCtrl")]
    [InlineData("r", "HOST_IA32_EFER|2", "8", "HostIa32Efer")]
    [InlineData("r", "HOST_IA32_EFER~400", "8", "LMA")]
    [InlineData("r", "HOST_IA32_EFER~100", "8", "LME")]
    [InlineData("r", "HOST_ES_SELECTOR=1", "8", "HostEsSelector")]
    [InlineData("r", "HOST_CS_SELECTOR=14", "8", "HostCsSelector")]
    [InlineData("r", "HOST_SS_SELECTOR=1b", "8", "HostSsSelector")]
    [InlineData("r", "HOST_DS_SELECTOR=4", "8", "HostDsSelector")]
    [InlineData("r", "HOST_FS_SELECTOR=2", "8", "HostFsSelector")]
    [InlineData("r", "HOST_GS_SELECTOR=3", "8", "HostGsSelector")]
    [InlineData("r", "HOST_TR_SELECTOR=44", "8", "HostTrSelector")]
    [InlineData("r", "HOST_CS_SELECTOR=0", "8", "HostCsSelector == 0")]
    [InlineData("r", "HOST_TR_SELECTOR=0", "8", "HostTrSelector == 0")]
    [InlineData("r", "HOST_SS_SELECTOR=0", "ok", "")]
    [InlineData("r", "HOST_FS_BASE=800000000000", "8", "HostFsBase")]
    [InlineData("r", "HOST_GS_BASE=800000000000", "8", "HostGsBase")]
    [InlineData("r", "HOST_GDTR_BASE=800000000000", "8", "HostGdtrBase")]
    [InlineData("r", "HOST_IDTR_BASE=800000000000", "8", "HostIdtrBase")]
    [InlineData("r", "HOST_TR_BASE=800000000000", "8", "HostTrBase")]
    [InlineData("r", "VM_EXIT_CONTROLS~200 HOST_IA32_EFER~500", "8", "longMode != hostLong")]
    [InlineData("r", "HOST_CR4~20", "8", "Cr4.PAE")]
    [InlineData("r", "HOST_RIP=800000000000", "8", "HostRip")]
    [InlineData("r", "HOST_RIP=7fffffffffff", "ok", "")]
    public void HostState(string mode, string changes, string outcome, string rule) => Check(mode, changes, outcome, rule);

    [Theory]
    // "Checks on Guest Control Registers, Debug Registers, and MSRs"
    [InlineData("l", "", "ok", "")]
    [InlineData("p", "", "ok", "")]
    [InlineData("v", "", "ok", "")]
    [InlineData("r", "GUEST_CR0~20", "33", "GuestCr0")]
    [InlineData("r", "GUEST_CR0|100000000", "33", "GuestCr0")]
    [InlineData("r", "GUEST_CR0|80000000", "33", "Cr0.PG")]
    [InlineData("r", "GUEST_CR4~2000", "33", "GuestCr4")]
    [InlineData("r", "GUEST_CR4|1000", "33", "GuestCr4")]
    [InlineData("r", "VM_ENTRY_CONTROLS|4 GUEST_IA32_DEBUGCTL=4", "33", "GuestIa32Debugctl")]
    [InlineData("r", "VM_ENTRY_CONTROLS|4 GUEST_IA32_DEBUGCTL=1", "ok", "")]
    [InlineData("r", "VM_ENTRY_CONTROLS|200 GUEST_IA32_EFER=500", "33", "Cr0.PG")]
    [InlineData("l", "GUEST_CR4~20", "33", "Cr4.PAE")]
    [InlineData("r", "GUEST_CR4|20000", "33", "PCIDE")]
    [InlineData("l", "GUEST_CR4|20000", "ok", "")]
    [InlineData("r", "GUEST_CR3=1000000000000", "33", "GuestCr3")]
    [InlineData("r", "GUEST_DR7=100000400", "33", "GuestDr7")]
    [InlineData("r", "GUEST_SYSENTER_ESP=800000000000", "33", "GuestSysenterEsp")]
    [InlineData("r", "GUEST_SYSENTER_EIP=800000000000", "33", "GuestSysenterEip")]
    [InlineData("r", "GUEST_IA32_PAT=2", "33", "GuestIa32Pat")]
    [InlineData("r", "VM_ENTRY_CONTROLS~4000 GUEST_IA32_PAT=2", "ok", "")]
    [InlineData("r", "GUEST_IA32_EFER=2", "33", "GuestIa32Efer")]
    [InlineData("r", "GUEST_IA32_EFER=400", "33", "longGuest")]
    [InlineData("l", "GUEST_IA32_EFER~400", "33", "longGuest")]
    [InlineData("l", "GUEST_IA32_EFER~100", "33", "LME")]
    [InlineData("r", "GUEST_IA32_EFER=100", "ok", "")]
    // "Checks on Guest Segment Registers"
    [InlineData("r", "GUEST_TR_SELECTOR=4", "33", "Seg.TR).Selector")]
    [InlineData("r", "GUEST_LDTR_AR_BYTES=82 GUEST_LDTR_SELECTOR=4", "33", "ldtr.Selector")]
    [InlineData("r", "GUEST_LDTR_SELECTOR=4", "ok", "")]
    [InlineData("r", "GUEST_LDTR_AR_BYTES=82", "ok", "")]
    [InlineData("v", "GUEST_DS_BASE=10", "33", "Base !=")]
    [InlineData("v", "GUEST_DS_BASE=10 GUEST_DS_SELECTOR=1", "ok", "")]
    [InlineData("v", "GUEST_GS_LIMIT=fffe", "33", "Limit != 0xffff")]
    [InlineData("v", "GUEST_CS_AR_BYTES=9b", "33", "AccessRights != 0xf3")]
    [InlineData("r", "GUEST_TR_BASE=800000000000", "33", "Seg.TR).Base")]
    [InlineData("r", "GUEST_FS_BASE=800000000000", "33", "Seg.FS).Base")]
    [InlineData("r", "GUEST_GS_BASE=800000000000", "33", "Seg.GS).Base")]
    [InlineData("l", "GUEST_GS_BASE=ffff800000000000", "ok", "")]
    [InlineData("r", "GUEST_LDTR_AR_BYTES=82 GUEST_LDTR_BASE=800000000000", "33", "Seg.LDTR).Base")]
    [InlineData("r", "GUEST_CS_BASE=100000000", "33", "Seg.CS).Base")]
    [InlineData("r", "GUEST_SS_BASE=100000000", "33", "Seg.SS).Base")]
    [InlineData("r", "GUEST_DS_BASE=100000000", "33", "Seg.DS).Base")]
    [InlineData("r", "GUEST_ES_BASE=100000000", "33", "Seg.ES).Base")]
    [InlineData("r", "GUEST_ES_BASE=100000000 GUEST_ES_AR_BYTES=10000", "ok", "")]
    [InlineData("l", "GUEST_CS_AR_BYTES=a091", "33", "cs.Type")]
    [InlineData("r", "GUEST_CS_AR_BYTES=93", "ok", "")]
    [InlineData("r", "GUEST_CS_AR_BYTES=f3", "33", "cs.Dpl != 0")]
    [InlineData("r", "GUEST_CS_AR_BYTES=8b", "33", "!cs.S")]
    [InlineData("l", "GUEST_CS_AR_BYTES=a0fb", "33", "cs.Dpl != stackDpl")]
    [InlineData("l", "GUEST_CS_AR_BYTES=a0ff", "33", "cs.Dpl > stackDpl")]
    [InlineData("l", "GUEST_CS_AR_BYTES=a09f", "ok", "")]
    [InlineData("r", "GUEST_CS_AR_BYTES=1b", "33", "!cs.Present")]
    [InlineData("r", "GUEST_CS_AR_BYTES=49b", "33", "ReservedRights")]
    [InlineData("r", "GUEST_CS_AR_BYTES=2009b", "33", "ReservedRights")]
    [InlineData("l", "GUEST_CS_AR_BYTES=e09b", "33", "cs.Db")]
    [InlineData("r", "GUEST_CS_AR_BYTES=c09b GUEST_CS_LIMIT=ffff0", "33", "GranularityMatches(cs)")]
    [InlineData("r", "GUEST_CS_LIMIT=100000", "33", "GranularityMatches(cs)")]
    [InlineData("r", "GUEST_CS_LIMIT=fffff", "ok", "")]
    [InlineData("r", "GUEST_SS_AR_BYTES=91", "33", "ss.Type")]
    [InlineData("r", "GUEST_SS_AR_BYTES=97", "ok", "")]
    [InlineData("r", "GUEST_CS_AR_BYTES=fb GUEST_SS_AR_BYTES=f3", "33", "ss.Dpl != 0")]
    [InlineData("r", "GUEST_SS_AR_BYTES=83", "33", "!segment.S")]
    [InlineData("r", "GUEST_SS_AR_BYTES=13", "33", "!segment.Present")]
    [InlineData("r", "GUEST_SS_AR_BYTES=193", "33", "ReservedRights")]
    [InlineData("r", "GUEST_SS_LIMIT=100000", "33", "GranularityMatches(segment)")]
    [InlineData("r", "GUEST_SS_AR_BYTES=10000", "ok", "")]
    [InlineData("r", "GUEST_DS_AR_BYTES=92", "33", "segment.Type & 1")]
    [InlineData("r", "GUEST_ES_AR_BYTES=99", "33", "segment.Type & 2")]
    [InlineData("r", "GUEST_ES_AR_BYTES=9b", "ok", "")]
    [InlineData("r", "GUEST_FS_AR_BYTES=83", "33", "!segment.S")]
    [InlineData("r", "GUEST_GS_AR_BYTES=13", "33", "!segment.Present")]
    [InlineData("r", "GUEST_GS_AR_BYTES=893", "33", "ReservedRights")]
    [InlineData("r", "GUEST_DS_AR_BYTES=8093", "ok", "")]
    [InlineData("r", "GUEST_DS_AR_BYTES=8093 GUEST_DS_LIMIT=fffe", "33", "GranularityMatches(segment)")]
    [InlineData("r", "GUEST_TR_AR_BYTES=83", "ok", "")]
    [InlineData("l", "GUEST_TR_AR_BYTES=83", "33", "tr.Type")]
    [InlineData("r", "GUEST_TR_AR_BYTES=89", "33", "tr.Type")]
    [InlineData("r", "GUEST_TR_AR_BYTES=9b", "33", "tr.S")]
    [InlineData("r", "GUEST_TR_AR_BYTES=b", "33", "!tr.Present")]
    [InlineData("r", "GUEST_TR_AR_BYTES=f8b", "33", "tr.AccessRights & ReservedRights")]
    [InlineData("r", "GUEST_TR_LIMIT=100000", "33", "GranularityMatches(tr)")]
    [InlineData("r", "GUEST_TR_AR_BYTES=1008b", "33", "tr.Unusable")]
    [InlineData("r", "GUEST_LDTR_AR_BYTES=83", "33", "ldtr.Type")]
    [InlineData("r", "GUEST_LDTR_AR_BYTES=92", "33", "ldtr.S")]
    [InlineData("r", "GUEST_LDTR_AR_BYTES=2", "33", "!ldtr.Present")]
    [InlineData("r", "GUEST_LDTR_AR_BYTES=182", "33", "ldtr.AccessRights & ReservedRights")]
    [InlineData("r", "GUEST_LDTR_AR_BYTES=82 GUEST_LDTR_LIMIT=100000", "33", "GranularityMatches(ldtr)")]
    // "Checks on Guest Descriptor-Table Registers"
    [InlineData("r", "GUEST_GDTR_BASE=800000000000", "33", "GuestGdtr.Base")]
    [InlineData("r", "GUEST_IDTR_BASE=800000000000", "33", "GuestIdtr.Base")]
    [InlineData("r", "GUEST_GDTR_LIMIT=10000", "33", "GuestGdtr.Limit")]
    [InlineData("r", "GUEST_IDTR_LIMIT=10000", "33", "GuestIdtr.Limit")]
    [InlineData("r", "GUEST_IDTR_LIMIT=ffff", "ok", "")]
    // "Checks on Guest RIP, RFLAGS"
    [InlineData("r", "GUEST_RIP=100001000", "33", "GuestRip >> 32")]
    [InlineData("l", "GUEST_RIP=800000001000", "33", "GuestRip")]
    [InlineData("r", "GUEST_RFLAGS=0", "33", "Fixed1")]
    [InlineData("r", "GUEST_RFLAGS=a", "33", "reserved")]
    [InlineData("r", "GUEST_RFLAGS=8002", "33", "reserved")]
    [InlineData("r", "GUEST_RFLAGS=400002", "33", "reserved")]
    [InlineData("r", "GUEST_RFLAGS=20002", "33", "AccessRights != 0xf3")]
    [InlineData("r", "VM_ENTRY_INTR_INFO_FIELD=80000020", "33", "Flags.IF")]
    // "Checks on Guest Non-Register State"
    [InlineData("r", "GUEST_ACTIVITY_STATE=4", "33", "WaitForSipi")]
    [InlineData("r", "GUEST_ACTIVITY_STATE=1 GUEST_INTERRUPTIBILITY_INFO=1 GUEST_RFLAGS=202", "33", "GuestInterruptibilityInfo")]
    [InlineData("r", "GUEST_ACTIVITY_STATE=1 VM_ENTRY_INTR_INFO_FIELD=80000306", "33", "ActivityAllowsInjection")]
    [InlineData("r", "GUEST_ACTIVITY_STATE=3 VM_ENTRY_INTR_INFO_FIELD=80000202", "33", "ActivityAllowsInjection")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=20", "33", "Interruptibility.Reserved")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=3 GUEST_RFLAGS=202", "33", "sti && movSs")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=1", "33", "Flags.IF")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=1 GUEST_RFLAGS=202", "ok", "")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=2", "ok", "")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=1 GUEST_RFLAGS=202 VM_ENTRY_INTR_INFO_FIELD=80000020", "33", "ExternalInterrupt")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=2 VM_ENTRY_INTR_INFO_FIELD=80000202", "33", "movSs && injectsNmi")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=1 GUEST_RFLAGS=202 VM_ENTRY_INTR_INFO_FIELD=80000202", "33/3", "sti && injectsNmi")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=4", "33", "Interruptibility.Smi")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=8", "ok", "")]
    [InlineData("r", "PIN_BASED_VM_EXEC_CONTROL|20 GUEST_INTERRUPTIBILITY_INFO=8 VM_ENTRY_INTR_INFO_FIELD=80000202", "33", "VirtualNmis")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=10", "33", "Enclave")]
    [InlineData("r", "GUEST_PENDING_DBG_EXCEPTIONS=10", "33", "defined")]
    [InlineData("r", "GUEST_PENDING_DBG_EXCEPTIONS=2000", "33", "defined")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=2 GUEST_RFLAGS=102", "33", "SingleStep")]
    [InlineData("r", "GUEST_INTERRUPTIBILITY_INFO=2 GUEST_PENDING_DBG_EXCEPTIONS=4000", "33", "SingleStep")]
    [InlineData("r", "VMCS_LINK_POINTER=123", "33/4", "IsPage(link)")]
    [InlineData("r", "VMCS_LINK_POINTER=$", "33/4", "RevisionId")]
    // "Checks on Guest Page-Directory-Pointer-Table Entries"
    [InlineData("p", "GUEST_PDPTR1=3", "33/2", "IsValidPdpte")]
    [InlineData("p", "GUEST_PDPTR3=1000000000001", "33/2", "IsValidPdpte")]
    [InlineData("p", "GUEST_PDPTR1=2", "ok", "")]
    public void GuestState(string mode, string changes, string outcome, string rule) => Check(mode, changes, outcome, rule);

    /// <summary>Rules that exist only while the guest is not unrestricted.</summary>
    [Theory]
    [InlineData("p", "", "ok", "")]
    [InlineData("p", "GUEST_CR0~80000000", "33", "GuestCr0")]
    [InlineData("p", "GUEST_SS_SELECTOR=1", "33", "Selector & 3")]
    [InlineData("p", "GUEST_CS_AR_BYTES=c093", "33", "cs.Type")]
    [InlineData("p", "GUEST_SS_SELECTOR=3 GUEST_CS_SELECTOR=3", "33", "ss.Dpl !=")]
    [InlineData("p", "GUEST_DS_SELECTOR=3", "33", "segment.Dpl < (segment.Selector & 3)")]
    [InlineData("p", "GUEST_DS_SELECTOR=3 GUEST_DS_AR_BYTES=c0f3", "ok", "")]
    public void Without_unrestricted_guest(string mode, string changes, string outcome, string rule) =>
        Check(mode, "SECONDARY_VM_EXEC_CONTROL~80 " + changes, outcome, rule);

    [Fact]
    public void Controls_come_before_host_state_and_host_state_before_guest_state()
    {
        Check("r", "GUEST_RFLAGS=0 HOST_RIP=800000000000 VIRTUAL_PROCESSOR_ID=0", "7", "VirtualProcessorId");
        Check("r", "GUEST_RFLAGS=0 HOST_RIP=800000000000", "8", "HostRip");
        Check("r", "GUEST_RFLAGS=0", "33", "Fixed1");
    }

    /// <summary>A re-entry checks only what was written, with the same outcome.</summary>
    [Theory]
    [InlineData("GUEST_RFLAGS=0", "GUEST_RFLAGS=2")]
    [InlineData("GUEST_CS_AR_BYTES=1b", "GUEST_CS_AR_BYTES=9b")]
    [InlineData("GUEST_CR4~2000", "GUEST_CR4|2000")]
    [InlineData("GUEST_TR_AR_BYTES=83 GUEST_TR_LIMIT=100000", "GUEST_TR_LIMIT=ffff")]
    [InlineData("GUEST_CR0|1 GUEST_RFLAGS=20002", "GUEST_CR0~1 GUEST_RFLAGS=2")]
    public void Breaking_and_mending_a_field_between_entries(string broken, string mended)
    {
        using VmxMachine m = Guest("r");
        m.Launch().Should().Be(VmxExitReason.HLT);
        m.Resume().Should().Be(VmxExitReason.HLT);
        Apply(m, broken);
        m.Resume().Should().Be(VmxExitReason.INVALID_STATE);
        m.Resume().Should().Be(VmxExitReason.INVALID_STATE);
        Apply(m, mended);
        m.Resume().Should().Be(VmxExitReason.HLT);
    }

    [Theory]
    [InlineData("HOST_RIP=800000000000", VmxInstructionError.EntryInvalidHostStateField, "HOST_RIP=1000")]
    [InlineData("VIRTUAL_PROCESSOR_ID=0", VmxInstructionError.EntryInvalidControlField, "VIRTUAL_PROCESSOR_ID=5")]
    [InlineData("VM_ENTRY_INTR_INFO_FIELD=80000120", VmxInstructionError.EntryInvalidControlField, "VM_ENTRY_INTR_INFO_FIELD=0")]
    public void Breaking_and_mending_host_state_and_controls_between_entries(string broken, VmxInstructionError error, string mended)
    {
        using VmxMachine m = Guest("r");
        m.Launch().Should().Be(VmxExitReason.HLT);
        Apply(m, broken);
        m.Cpu.Vmresume().Should().Be(InstructionResult.FailValid);
        m.Error.Should().Be(error);
        m.Cpu.Vmresume().Should().Be(InstructionResult.FailValid);
        Apply(m, mended);
        m.Resume().Should().Be(VmxExitReason.HLT);
    }

    /// <summary>IA32_VMX_MISC recommends at most 512 MSRs here; a longer list is a machine check during entry.</summary>
    [Fact]
    public void An_MSR_list_beyond_the_recommended_length_is_exit_41()
    {
        using VmxMachine m = Guest("r");
        m.Write(VmcsField.VM_ENTRY_MSR_LOAD_ADDR, m.Machine.Memory.Allocate(4 * 4096));
        m.Write(VmcsField.VM_ENTRY_MSR_LOAD_COUNT, 513);
        m.Cpu.Vmlaunch().Should().Be(InstructionResult.Success);
        m.Read(VmcsField.VM_EXIT_REASON).Should().Be(0x8000_0029);
        m.State->Rip.Should().Be(VmxMachine.HostRip);
    }

    /// <summary>A failing MSR-load entry: exit 34, qualification = its 1-based number.</summary>
    [Theory]
    [InlineData(0xc000_0100u, 0UL)]
    [InlineData(0xc000_0101u, 0UL)]
    [InlineData(0x808u, 0UL)]
    [InlineData(0xdead_beefu, 0UL)]
    [InlineData(0x277u, 0x2UL)]
    public void An_MSR_that_cannot_be_loaded_is_exit_34(uint index, ulong value)
    {
        using VmxMachine m = Guest("r");
        ulong* area = (ulong*)m.Page();
        area[0] = Msr.IA32_KERNEL_GS_BASE;
        area[1] = 0x1234;
        area[2] = index;
        area[3] = value;
        m.Write(VmcsField.VM_ENTRY_MSR_LOAD_ADDR, (ulong)area);
        m.Write(VmcsField.VM_ENTRY_MSR_LOAD_COUNT, 2);
        m.Cpu.Vmlaunch().Should().Be(InstructionResult.Success);
        m.Read(VmcsField.VM_EXIT_REASON).Should().Be(0x8000_0022);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(2);
        m.State->KernelGsBase.Should().Be(0x1234, "the first entry was loaded");
        m.Write(VmcsField.VM_ENTRY_MSR_LOAD_COUNT, 1);
        m.Launch().Should().Be(VmxExitReason.HLT);
    }
}
