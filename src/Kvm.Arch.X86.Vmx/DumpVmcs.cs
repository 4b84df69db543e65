using Kvm.Core.Tracing;
using Kvm.Emulator.Vmx;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>The VMCS as text in the kernel log, when an entry failed and dump_invalid_vmcs=1.</summary>
public sealed unsafe partial class KvmIntel
{
    [KernelFunction("dump_vmcs", File = "arch/x86/kvm/vmx/vmx.c")]
    private void DumpVmcs(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("dump_vmcs");
        if (!DumpInvalidVmcs)
        {
            PrWarnRatelimited("dump_vmcs", "set kvm_intel.dump_invalid_vmcs=1 to dump internal KVM state.");
            return;
        }
        PrErr($"VMCS {vmx.LoadedVmcs.Vmcs:x16}, last attempted VM-entry on CPU {vmx.LastVmentryCpu}");
        DumpGuestState(vmx);
        DumpHostState(vmx);
        DumpControlState(vmx);
    }

    private void DumpGuestState(VcpuVmx vmx)
    {
        uint entry = vmx.Read32(VM_ENTRY_CONTROLS);
        PrErr("*** Guest State ***");
        PrErr($"CR0: actual=0x{vmx.Readl(GUEST_CR0):x16}, shadow=0x{vmx.Readl(CR0_READ_SHADOW):x16}, gh_mask={vmx.Readl(CR0_GUEST_HOST_MASK):x16}");
        PrErr($"CR4: actual=0x{vmx.Readl(GUEST_CR4):x16}, shadow=0x{vmx.Readl(CR4_READ_SHADOW):x16}, gh_mask={vmx.Readl(CR4_GUEST_HOST_MASK):x16}");
        PrErr($"CR3 = 0x{vmx.Readl(GUEST_CR3):x16}");
        if (CpuHasVmxEpt)
        {
            PrErr($"PDPTR0 = 0x{vmx.Read64(GUEST_PDPTR0):x16}  PDPTR1 = 0x{vmx.Read64(GUEST_PDPTR1):x16}");
            PrErr($"PDPTR2 = 0x{vmx.Read64(GUEST_PDPTR2):x16}  PDPTR3 = 0x{vmx.Read64(GUEST_PDPTR3):x16}");
        }
        PrErr($"RSP = 0x{vmx.Readl(GUEST_RSP):x16}  RIP = 0x{vmx.Readl(GUEST_RIP):x16}");
        PrErr($"RFLAGS=0x{vmx.Readl(GUEST_RFLAGS):x8}         DR7 = 0x{vmx.Readl(GUEST_DR7):x16}");
        PrErr($"Sysenter RSP={vmx.Readl(GUEST_SYSENTER_ESP):x16} CS:RIP={vmx.Read32(GUEST_SYSENTER_CS):x4}:{vmx.Readl(GUEST_SYSENTER_EIP):x16}");
        DumpSel(vmx, "CS:  ", VCPU_SREG_CS);
        DumpSel(vmx, "DS:  ", VCPU_SREG_DS);
        DumpSel(vmx, "SS:  ", VCPU_SREG_SS);
        DumpSel(vmx, "ES:  ", VCPU_SREG_ES);
        DumpSel(vmx, "FS:  ", VCPU_SREG_FS);
        DumpSel(vmx, "GS:  ", VCPU_SREG_GS);
        DumpDtSel(vmx, "GDTR:", GUEST_GDTR_LIMIT, GUEST_GDTR_BASE);
        DumpSel(vmx, "LDTR:", VCPU_SREG_LDTR);
        DumpDtSel(vmx, "IDTR:", GUEST_IDTR_LIMIT, GUEST_IDTR_BASE);
        DumpSel(vmx, "TR:  ", VCPU_SREG_TR);
        DumpEfer(vmx, entry);
        if ((entry & VM_ENTRY_LOAD_IA32_PAT) != 0)
            PrErr($"PAT = 0x{vmx.Read64(GUEST_IA32_PAT):x16}");
        PrErr($"DebugCtl = 0x{vmx.Read64(GUEST_IA32_DEBUGCTL):x16}  DebugExceptions = 0x{vmx.Readl(GUEST_PENDING_DBG_EXCEPTIONS):x16}");
        if (CpuHasLoadPerfGlobalCtrl && (entry & VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL) != 0)
            PrErr($"PerfGlobCtl = 0x{vmx.Read64(GUEST_IA32_PERF_GLOBAL_CTRL):x16}");
        if ((entry & VM_ENTRY_LOAD_BNDCFGS) != 0)
            PrErr($"BndCfgS = 0x{vmx.Read64(GUEST_BNDCFGS):x16}");
        PrErr($"Interruptibility = {vmx.Read32(GUEST_INTERRUPTIBILITY_INFO):x8}  ActivityState = {vmx.Read32(GUEST_ACTIVITY_STATE):x8}");
        if ((vmx.SecondaryExecControlsGet() & SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY) != 0)
            PrErr($"InterruptStatus = {vmx.Read16(GUEST_INTR_STATUS):x4}");
        if (vmx.Read32(VM_ENTRY_MSR_LOAD_COUNT) > 0)
            DumpMsrs("guest autoload", in vmx.MsrAutoloadGuest);
    }

    private void DumpEfer(VcpuVmx vmx, uint entry)
    {
        int slot = vmx.MsrAutoloadGuest.Find(MSR_EFER);
        const ulong lmaLme = Emulator.Efer.LMA | Emulator.Efer.LME;
        if ((entry & VM_ENTRY_LOAD_IA32_EFER) != 0)
            PrErr($"EFER= 0x{vmx.Read64(GUEST_IA32_EFER):x16}");
        else if (slot >= 0)
            PrErr($"EFER= 0x{vmx.MsrAutoloadGuest.Values[slot].Value:x16} (autoload)");
        else if ((entry & VM_ENTRY_IA32E_MODE) != 0)
            PrErr($"EFER= 0x{vmx.Efer | lmaLme:x16} (effective)");
        else
            PrErr($"EFER= 0x{vmx.Efer & ~lmaLme:x16} (effective)");
    }

    private void DumpHostState(VcpuVmx vmx)
    {
        uint exit = vmx.Read32(VM_EXIT_CONTROLS);
        PrErr("*** Host State ***");
        PrErr($"RIP = 0x{vmx.Readl(HOST_RIP):x16}  RSP = 0x{vmx.Readl(HOST_RSP):x16}");
        PrErr($"CS={vmx.Read16(HOST_CS_SELECTOR):x4} SS={vmx.Read16(HOST_SS_SELECTOR):x4} DS={vmx.Read16(HOST_DS_SELECTOR):x4} ES={vmx.Read16(HOST_ES_SELECTOR):x4} " +
            $"FS={vmx.Read16(HOST_FS_SELECTOR):x4} GS={vmx.Read16(HOST_GS_SELECTOR):x4} TR={vmx.Read16(HOST_TR_SELECTOR):x4}");
        PrErr($"FSBase={vmx.Readl(HOST_FS_BASE):x16} GSBase={vmx.Readl(HOST_GS_BASE):x16} TRBase={vmx.Readl(HOST_TR_BASE):x16}");
        PrErr($"GDTBase={vmx.Readl(HOST_GDTR_BASE):x16} IDTBase={vmx.Readl(HOST_IDTR_BASE):x16}");
        PrErr($"CR0={vmx.Readl(HOST_CR0):x16} CR3={vmx.Readl(HOST_CR3):x16} CR4={vmx.Readl(HOST_CR4):x16}");
        PrErr($"Sysenter RSP={vmx.Readl(HOST_IA32_SYSENTER_ESP):x16} CS:RIP={vmx.Read32(HOST_IA32_SYSENTER_CS):x4}:{vmx.Readl(HOST_IA32_SYSENTER_EIP):x16}");
        if ((exit & VM_EXIT_LOAD_IA32_EFER) != 0)
            PrErr($"EFER= 0x{vmx.Read64(HOST_IA32_EFER):x16}");
        if ((exit & VM_EXIT_LOAD_IA32_PAT) != 0)
            PrErr($"PAT = 0x{vmx.Read64(HOST_IA32_PAT):x16}");
        if (CpuHasLoadPerfGlobalCtrl && (exit & VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL) != 0)
            PrErr($"PerfGlobCtl = 0x{vmx.Read64(HOST_IA32_PERF_GLOBAL_CTRL):x16}");
        if (vmx.Read32(VM_EXIT_MSR_LOAD_COUNT) > 0)
            DumpMsrs("host autoload", in vmx.MsrAutoloadHost);
    }

    private void DumpControlState(VcpuVmx vmx)
    {
        uint exec = vmx.Read32(CPU_BASED_VM_EXEC_CONTROL), pin = vmx.Read32(PIN_BASED_VM_EXEC_CONTROL);
        uint secondary = CpuHasSecondaryExecCtrls ? vmx.Read32(SECONDARY_VM_EXEC_CONTROL) : 0;
        ulong tertiary = CpuHasTertiaryExecCtrls ? vmx.Read64(TERTIARY_VM_EXEC_CONTROL) : 0;
        PrErr("*** Control State ***");
        PrErr($"CPUBased=0x{exec:x8} SecondaryExec=0x{secondary:x8} TertiaryExec=0x{tertiary:x16}");
        PrErr($"PinBased=0x{pin:x8} EntryControls={vmx.Read32(VM_ENTRY_CONTROLS):x8} ExitControls={vmx.Read32(VM_EXIT_CONTROLS):x8}");
        PrErr($"ExceptionBitmap={vmx.Read32(EXCEPTION_BITMAP):x8} PFECmask={vmx.Read32(PAGE_FAULT_ERROR_CODE_MASK):x8} PFECmatch={vmx.Read32(PAGE_FAULT_ERROR_CODE_MATCH):x8}");
        PrErr($"VMEntry: intr_info={vmx.Read32(VM_ENTRY_INTR_INFO_FIELD):x8} errcode={vmx.Read32(VM_ENTRY_EXCEPTION_ERROR_CODE):x8} ilen={vmx.Read32(VM_ENTRY_INSTRUCTION_LEN):x8}");
        PrErr($"VMExit: intr_info={vmx.Read32(VM_EXIT_INTR_INFO):x8} errcode={vmx.Read32(VM_EXIT_INTR_ERROR_CODE):x8} ilen={vmx.Read32(VM_EXIT_INSTRUCTION_LEN):x8}");
        PrErr($"        reason={vmx.Read32(VM_EXIT_REASON):x8} qualification={vmx.Readl(EXIT_QUALIFICATION):x16}");
        PrErr($"IDTVectoring: info={vmx.Read32(IDT_VECTORING_INFO_FIELD):x8} errcode={vmx.Read32(IDT_VECTORING_ERROR_CODE):x8}");
        PrErr($"TSC Offset = 0x{vmx.Read64(TSC_OFFSET):x16}");
        if ((secondary & SECONDARY_EXEC_TSC_SCALING) != 0)
            PrErr($"TSC Multiplier = 0x{vmx.Read64(TSC_MULTIPLIER):x16}");
        if ((exec & CPU_BASED_TPR_SHADOW) != 0)
            DumpVirtualApic(vmx, secondary);
        if ((pin & PIN_BASED_POSTED_INTR) != 0)
            PrErr($"PostedIntrVec = 0x{vmx.Read16(POSTED_INTR_NV):x2}");
        if ((secondary & SECONDARY_EXEC_ENABLE_EPT) != 0)
            PrErr($"EPT pointer = 0x{vmx.Read64(EPT_POINTER):x16}");
        if ((secondary & SECONDARY_EXEC_PAUSE_LOOP_EXITING) != 0)
            PrErr($"PLE Gap={vmx.Read32(PLE_GAP):x8} Window={vmx.Read32(PLE_WINDOW):x8}");
        if ((secondary & SECONDARY_EXEC_ENABLE_VPID) != 0)
            PrErr($"Virtual processor ID = 0x{vmx.Read16(VIRTUAL_PROCESSOR_ID):x4}");
    }

    private void DumpVirtualApic(VcpuVmx vmx, uint secondary)
    {
        string text = "";
        if ((secondary & SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY) != 0)
        {
            ushort status = vmx.Read16(GUEST_INTR_STATUS);
            text = $"SVI|RVI = {status >> 8:x2}|{status & 0xff:x2} ";
        }
        PrErr($"{text}TPR Threshold = 0x{vmx.Read32(TPR_THRESHOLD):x2}");
        text = (secondary & SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES) != 0 ? $"APIC-access addr = 0x{vmx.Read64(APIC_ACCESS_ADDR):x16} " : "";
        PrErr($"{text}virt-APIC addr = 0x{vmx.Read64(VIRTUAL_APIC_PAGE_ADDR):x16}");
    }

    private void DumpSel(VcpuVmx vmx, string name, int seg)
    {
        SegmentFields f = SegmentField[seg];
        PrErr($"{name} sel=0x{vmx.Read16(f.Selector):x4}, attr=0x{vmx.Read32(f.ArBytes):x5}, limit=0x{vmx.Read32(f.Limit):x8}, base=0x{vmx.Readl(f.Base):x16}");
    }

    private void DumpDtSel(VcpuVmx vmx, string name, VmcsField limit, VmcsField address) =>
        PrErr($"{name}                           limit=0x{vmx.Read32(limit):x8}, base=0x{vmx.Readl(address):x16}");

    private void DumpMsrs(string name, in MsrAutoload area)
    {
        PrErr($"MSR {name}:");
        for (int i = 0; i < area.Nr; i++)
            PrErr($"  {i,2}: msr=0x{area.Values[i].Index:x8} value=0x{area.Values[i].Value:x16}");
    }
}
