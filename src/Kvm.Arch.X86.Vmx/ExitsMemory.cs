using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Exits for guest-physical addresses: EPT violations and misconfigurations, page-modification logging, APIC accesses.</summary>
public sealed unsafe partial class KvmIntel
{
    /// <summary>Turns the exit qualification into the error code of the common page-fault handler: a read is "user", any of R/W/X in the entry is "present".</summary>
    [KernelFunction("handle_ept_violation", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleEptViolation(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_ept_violation");
        ulong qualification = GetExitQual(vmx);
        RestoreNmiBlocking(kvmIntel, vmx, qualification);
        ulong gpa = vmx.Read64(GUEST_PHYSICAL_ADDRESS);
        TracePageFault(vmx, gpa, qualification);

        ulong errorCode = (qualification & EPT_VIOLATION_ACC_READ) != 0 ? PFERR_USER_MASK : 0ul;
        errorCode |= (qualification & EPT_VIOLATION_ACC_WRITE) != 0 ? PFERR_WRITE_MASK : 0ul;
        errorCode |= (qualification & EPT_VIOLATION_ACC_INSTR) != 0 ? PFERR_FETCH_MASK : 0ul;
        errorCode |= (qualification & EPT_VIOLATION_RWX_MASK) != 0 ? PFERR_PRESENT_MASK : 0ul;
        errorCode |= (qualification & EPT_VIOLATION_GVA_TRANSLATED) != 0 ? PFERR_GUEST_FINAL_MASK : PFERR_GUEST_PAGE_MASK;
        vmx.ExitQualification = qualification;

        // An address beyond the guest's MAXPHYADDR is the guest's page fault, which the emulator produces.
        if (kvmIntel.AllowSmallerMaxphyaddr && vmx.IsIllegalGpa(gpa))
            return vmx.EmulateInstruction(EmulType.None);
        return vmx.MmuPageFault(gpa, errorCode, default);
    }

    /// <summary>The exit happened inside an IRET that was unblocking NMIs: they are blocked still.</summary>
    private static void RestoreNmiBlocking(KvmIntel kvmIntel, VcpuVmx vmx, ulong qualification)
    {
        if ((vmx.IdtVectoringInfo & VECTORING_INFO_VALID_MASK) == 0 && kvmIntel.EnableVnmi && (qualification & INTR_INFO_UNBLOCK_NMI) != 0)
            vmx.SetBits(GUEST_INTERRUPTIBILITY_INFO, GUEST_INTR_STATE_NMI);
    }

    /// <summary>KVM marks MMIO by entries that are misconfigured on purpose; an ioeventfd without data match is served here at once.</summary>
    [KernelFunction("handle_ept_misconfig", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleEptMisconfig(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_ept_misconfig");
        if (!kvmIntel.CanEmulateInstruction(vmx, EmulType.EMULTYPE_PF, default))
            return 1;
        ulong gpa = vmx.Read64(GUEST_PHYSICAL_ADDRESS);
        if (vmx.Vm.IoBusWrite(vmx, KvmBus.FastMmio, gpa, 0, null) == 0)
        {
            TraceFastMmio(vmx, gpa);
            return vmx.SkipEmulatedInstruction();
        }
        return vmx.MmuPageFault(gpa, PFERR_RSVD_MASK, default);
    }

    /// <summary>The log was flushed at the beginning of the exit; only the blocking of NMIs may need repair.</summary>
    [KernelFunction("handle_pml_full", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandlePmlFull(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        RestoreNmiBlocking(kvmIntel, vmx, GetExitQual(vmx));
        return 1;
    }

    /// <summary>Moves logged guest-physical addresses to the dirty bitmap. The index points at the next free entry, counting down from 511.</summary>
    [KernelFunction("vmx_flush_pml_buffer", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void FlushPmlBuffer(VcpuVmx vmx)
    {
        int index = vmx.Read16(GUEST_PML_INDEX);
        if (index == PML_ENTITY_NUM - 1)
            return;
        index = index >= PML_ENTITY_NUM ? 0 : index + 1;
        ulong* buffer = (ulong*)vmx.PmlPage;
        for (; index < PML_ENTITY_NUM; index++)
            vmx.MarkPageDirty(buffer[index] >> 12);
        vmx.Write16(GUEST_PML_INDEX, PML_ENTITY_NUM - 1);
    }

    [KernelFunction("vmx_update_cpu_dirty_logging", File = "arch/x86/kvm/vmx/vmx.c")]
    public void UpdateCpuDirtyLogging(X86Vcpu vcpu)
    {
        VcpuVmx vmx = ToVmx(vcpu);
        if (vcpu.Vm.CpuDirtyLoggingCount != 0)
            vmx.SecondaryExecControlsSetbit(SECONDARY_EXEC_ENABLE_PML);
        else
            vmx.SecondaryExecControlsClearbit(SECONDARY_EXEC_ENABLE_PML);
    }
}
