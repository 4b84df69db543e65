using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Whether a processor without unrestricted guest could enter the guest's segment state.</summary>
public sealed unsafe partial class KvmIntel
{
    private const ushort segmentRplMask = 3, segmentTiMask = 4;

    [KernelFunction("vmx_guest_state_valid", File = "arch/x86/kvm/vmx/vmx.h")]
    private bool GuestStateValid(VcpuVmx vmx) => EnableUnrestrictedGuest || GuestStateValidSlow(vmx);

    [KernelFunction("vmx_emulation_required", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool IsEmulationRequired(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_emulation_required");
        return EmulateInvalidGuestState && !GuestStateValid(vmx);
    }

    [KernelFunction("__vmx_guest_state_valid", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool GuestStateValidSlow(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("__vmx_guest_state_valid");
        if (!vmx.IsProtmode || (GetRflags(vmx) & Flags.VM) != 0)
        {
            return RmodeSegmentValid(vmx, VCPU_SREG_CS) && RmodeSegmentValid(vmx, VCPU_SREG_SS) && RmodeSegmentValid(vmx, VCPU_SREG_DS) &&
                RmodeSegmentValid(vmx, VCPU_SREG_ES) && RmodeSegmentValid(vmx, VCPU_SREG_FS) && RmodeSegmentValid(vmx, VCPU_SREG_GS);
        }
        return CsSsRplCheck(vmx) && CodeSegmentValid(vmx) && StackSegmentValid(vmx) && DataSegmentValid(vmx, VCPU_SREG_DS) && DataSegmentValid(vmx, VCPU_SREG_ES) &&
            DataSegmentValid(vmx, VCPU_SREG_FS) && DataSegmentValid(vmx, VCPU_SREG_GS) && TrValid(vmx) && LdtrValid(vmx);
    }

    [KernelFunction("rmode_segment_valid", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool RmodeSegmentValid(VcpuVmx vmx, int seg)
    {
        GetSegment(vmx, out kvm_segment var, seg);
        var.dpl = 3;
        if (seg == VCPU_SREG_CS)
            var.type = 3;
        return var.@base == (ulong)var.selector << 4 && var.limit == 0xffff && SegmentAccessRights(in var) == 0xf3;
    }

    [KernelFunction("code_segment_valid", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool CodeSegmentValid(VcpuVmx vmx)
    {
        GetSegment(vmx, out kvm_segment cs, VCPU_SREG_CS);
        int rpl = cs.selector & segmentRplMask;
        if (cs.unusable != 0)
            return false;
        if ((~(uint)cs.type & (VMX_AR_TYPE_CODE_MASK | VMX_AR_TYPE_ACCESSES_MASK)) != 0)
            return false;
        if (cs.s == 0)
            return false;
        if ((cs.type & VMX_AR_TYPE_WRITEABLE_MASK) != 0)
        {
            if (cs.dpl > rpl)
                return false;
        }
        else if (cs.dpl != rpl)
        {
            return false;
        }
        return cs.present != 0;
    }

    [KernelFunction("stack_segment_valid", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool StackSegmentValid(VcpuVmx vmx)
    {
        GetSegment(vmx, out kvm_segment ss, VCPU_SREG_SS);
        if (ss.unusable != 0)
            return true;
        return (ss.type is 3 or 7) && ss.s != 0 && ss.dpl == (ss.selector & segmentRplMask) && ss.present != 0;
    }

    [KernelFunction("data_segment_valid", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool DataSegmentValid(VcpuVmx vmx, int seg)
    {
        GetSegment(vmx, out kvm_segment var, seg);
        if (var.unusable != 0)
            return true;
        if (var.s == 0 || var.present == 0)
            return false;
        return (~(uint)var.type & (VMX_AR_TYPE_CODE_MASK | VMX_AR_TYPE_WRITEABLE_MASK)) == 0 || var.dpl >= (var.selector & segmentRplMask);
    }

    [KernelFunction("tr_valid", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool TrValid(VcpuVmx vmx)
    {
        GetSegment(vmx, out kvm_segment tr, VCPU_SREG_TR);
        return tr.unusable == 0 && (tr.selector & segmentTiMask) == 0 && (tr.type is 3 or 11) && tr.present != 0;
    }

    [KernelFunction("ldtr_valid", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool LdtrValid(VcpuVmx vmx)
    {
        GetSegment(vmx, out kvm_segment ldtr, VCPU_SREG_LDTR);
        return ldtr.unusable != 0 || ((ldtr.selector & segmentTiMask) == 0 && ldtr.type == 2 && ldtr.present != 0);
    }

    [KernelFunction("cs_ss_rpl_check", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool CsSsRplCheck(VcpuVmx vmx)
    {
        GetSegment(vmx, out kvm_segment cs, VCPU_SREG_CS);
        GetSegment(vmx, out kvm_segment ss, VCPU_SREG_SS);
        return (cs.selector & segmentRplMask) == (ss.selector & segmentRplMask);
    }
}
