using Kvm.Core.Tracing;
using Kvm.Emulator;
using Kvm.Emulator.Vmx;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>VMX instructions outside of VMCS access, and what is said when one fails.</summary>
/// <remarks>arch/x86/kvm/vmx/vmx_ops.h. The flags of VMCLEAR, VMPTRLD, INVEPT and INVVPID are looked at only to print; an exception is a bug of the kernel unless it is rebooting.</remarks>
public sealed unsafe partial class KvmIntel
{
    [KernelFunction("vmread_error", File = "arch/x86/kvm/vmx/vmx.c")]
    internal void VmreadError(uint field, bool fault)
    {
        if (fault)
            KvmSpuriousFault();
        else
            InsnFailed("vmread", $"kvm: vmread failed: field={field:x}");
    }

    [KernelFunction("vmwrite_error", File = "arch/x86/kvm/vmx/vmx.c")]
    internal void VmwriteError(Processor cpu, uint field, ulong value) =>
        InsnFailed("vmwrite", $"kvm: vmwrite failed: field={field:x} val={value:x} err={InstructionError(cpu)}");

    [KernelFunction("vmclear_error", File = "arch/x86/kvm/vmx/vmx.c")]
    private void VmclearError(Processor cpu, ulong vmcs) =>
        InsnFailed("vmclear", $"kvm: vmclear failed: {vmcs:x16}/{vmcs:x} err={InstructionError(cpu)}");

    [KernelFunction("vmptrld_error", File = "arch/x86/kvm/vmx/vmx.c")]
    private void VmptrldError(Processor cpu, ulong vmcs) =>
        InsnFailed("vmptrld", $"kvm: vmptrld failed: {vmcs:x16}/{vmcs:x} err={InstructionError(cpu)}");

    [KernelFunction("invvpid_error", File = "arch/x86/kvm/vmx/vmx.c")]
    private void InvvpidError(ulong ext, ushort vpid, ulong gva) =>
        InsnFailed("invvpid", $"kvm: invvpid failed: ext=0x{ext:x} vpid={vpid} gva=0x{gva:x}");

    [KernelFunction("invept_error", File = "arch/x86/kvm/vmx/vmx.c")]
    private void InveptError(ulong ext, ulong eptp, ulong gpa) =>
        InsnFailed("invept", $"kvm: invept failed: ext=0x{ext:x} eptp={eptp:x} gpa=0x{gpa:x}");

    /// <summary>The VM-instruction error of the current VMCS; 0, after a message of its own, when there is none.</summary>
    private uint InstructionError(Processor cpu)
    {
        InstructionResult result = cpu.Vmread((uint)VmcsField.VM_INSTRUCTION_ERROR, out ulong error);
        if (result.Ok)
            return (uint)error;
        VmreadError((uint)VmcsField.VM_INSTRUCTION_ERROR, result.IsFault);
        return 0;
    }

    /// <summary>One warning per place in the code, and a (rate-limited) line each time.</summary>
    private void InsnFailed(string place, string text)
    {
        WarnOnce(place, text);
        PrWarnRatelimited(place, text);
    }

    [KernelFunction("vmcs_clear", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void VmcsClear(ulong vmcs)
    {
        Processor cpu = ThisCpu;
        InstructionResult result = cpu.Vmclear(vmcs);
        if (result.Ok)
            return;
        if (result.IsFault)
            KvmSpuriousFault();
        else
            VmclearError(cpu, vmcs);
    }

    [KernelFunction("vmcs_load", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void VmcsLoad(Processor cpu, ulong vmcs)
    {
        InstructionResult result = cpu.Vmptrld(vmcs);
        if (result.Ok)
            return;
        if (result.IsFault)
            KvmSpuriousFault();
        else
            VmptrldError(cpu, vmcs);
    }

    [KernelFunction("__invvpid", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void Invvpid(ulong ext, ushort vpid, ulong gva)
    {
        InstructionResult result = ThisCpu.Invvpid(ext, vpid, gva);
        if (result.Ok)
            return;
        if (result.IsFault)
            KvmSpuriousFault();
        else
            InvvpidError(ext, vpid, gva);
    }

    [KernelFunction("__invept", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void Invept(ulong ext, ulong eptp)
    {
        InstructionResult result = ThisCpu.Invept(ext, eptp);
        if (result.Ok)
            return;
        if (result.IsFault)
            KvmSpuriousFault();
        else
            InveptError(ext, eptp, 0);
    }

    [KernelFunction("vpid_sync_vcpu_single", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void VpidSyncVcpuSingle(int vpid)
    {
        if (vpid != 0)
            Invvpid(VMX_VPID_EXTENT_SINGLE_CONTEXT, (ushort)vpid, 0);
    }

    [KernelFunction("vpid_sync_vcpu_global", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void VpidSyncVcpuGlobal() => Invvpid(VMX_VPID_EXTENT_ALL_CONTEXT, 0, 0);

    [KernelFunction("vpid_sync_context", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void VpidSyncContext(int vpid)
    {
        if (CpuHasVmxInvvpidSingle)
            VpidSyncVcpuSingle(vpid);
        else if (vpid != 0)
            VpidSyncVcpuGlobal();
    }

    [KernelFunction("vpid_sync_vcpu_addr", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void VpidSyncVcpuAddr(int vpid, ulong address)
    {
        if (vpid == 0)
            return;
        if (CpuHasVmxInvvpidIndividualAddr)
            Invvpid(VMX_VPID_EXTENT_INDIVIDUAL_ADDR, (ushort)vpid, address);
        else
            VpidSyncContext(vpid);
    }

    [KernelFunction("ept_sync_global", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void EptSyncGlobal() => Invept(VMX_EPT_EXTENT_GLOBAL, 0);

    [KernelFunction("ept_sync_context", File = "arch/x86/kvm/vmx/vmx_ops.h")]
    private void EptSyncContext(ulong eptp)
    {
        if (CpuHasVmxInveptContext)
            Invept(VMX_EPT_EXTENT_CONTEXT, eptp);
        else
            EptSyncGlobal();
    }
}
