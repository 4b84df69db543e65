using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.Svm.SvmConst;

namespace Kvm.Arch.X86.Svm;

/// <summary>Last-branch records: virtualized by the processor while the guest's DEBUGCTL.LBR is set.</summary>
public sealed unsafe partial class KvmAmd
{
    private static ref ulong Extensions(Vmcb* vmcb) => ref *(ulong*)&vmcb->Control.VirtualExtensions;

    private static ulong GetLbrMsr(VcpuSvm svm, uint index)
    {
        VmcbSaveArea* save = (Extensions(svm.Vmcb) & LBR_CTL_ENABLE_MASK) != 0 ? &svm.Vmcb->Save : &svm.Vmcb01.Ptr->Save;
        return index switch
        {
            MSR_IA32_DEBUGCTLMSR => save->DebugCtl,
            MSR_IA32_LASTBRANCHFROMIP => save->BrFrom,
            MSR_IA32_LASTBRANCHTOIP => save->BrTo,
            MSR_IA32_LASTINTFROMIP => save->LastExcpFrom,
            _ => save->LastExcpTo,
        };
    }

    private static void SetLbrMsrInterception(VcpuSvm svm, bool pass)
    {
        SetMsrInterception(svm, MSR_IA32_LASTBRANCHFROMIP, pass, pass);
        SetMsrInterception(svm, MSR_IA32_LASTBRANCHTOIP, pass, pass);
        SetMsrInterception(svm, MSR_IA32_LASTINTFROMIP, pass, pass);
        SetMsrInterception(svm, MSR_IA32_LASTINTTOIP, pass, pass);
    }

    [KernelFunction("svm_update_lbrv", File = "arch/x86/kvm/svm/svm.c")]
    private static void UpdateLbrv(VcpuSvm svm)
    {
        bool enable = (GetLbrMsr(svm, MSR_IA32_DEBUGCTLMSR) & DEBUGCTLMSR_LBR) != 0;
        bool current = (Extensions(svm.Vmcb) & LBR_CTL_ENABLE_MASK) != 0;
        if (enable == current)
            return;
        Extensions(svm.Vmcb) ^= LBR_CTL_ENABLE_MASK;
        SetLbrMsrInterception(svm, enable);
    }

    /// <summary>Bits 5:2 are dropped: they once selected external pins, which KVM accepted and never had.</summary>
    private int SetDebugctl(VcpuSvm svm, uint index, ulong data)
    {
        if (Params.Lbrv == 0)
        {
            arch.PrUnimplWrmsr(svm, index, data);
            return 0;
        }

        data &= ~0x3cul;
        if ((data & DEBUGCTL_RESERVED_BITS) != 0)
            return 1;
        VmcbSaveArea* save = (Extensions(svm.Vmcb) & LBR_CTL_ENABLE_MASK) != 0 ? &svm.Vmcb->Save : &svm.Vmcb01.Ptr->Save;
        if (save->DebugCtl == data)
            return 0;
        save->DebugCtl = data;
        MarkDirty(svm.Vmcb, VMCB_LBR);
        UpdateLbrv(svm);
        return 0;
    }
}
