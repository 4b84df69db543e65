using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>ASIDs, TLB flushes, the table root.</summary>
public sealed unsafe partial class KvmAmd
{
    /// <summary>The next free ASID of this CPU; when they are used up all ASIDs are flushed and numbering starts again in a new generation.</summary>
    [KernelFunction("new_asid", File = "arch/x86/kvm/svm/svm.c")]
    private static void NewAsid(VcpuSvm svm, ref SvmCpuData sd)
    {
        if (sd.NextAsid > sd.MaxAsid)
        {
            sd.AsidGeneration++;
            sd.NextAsid = sd.MinAsid;
            svm.Vmcb->Control.TlbControl = (TlbControl)TLB_CONTROL_FLUSH_ALL_ASID;
            MarkDirty(svm.Vmcb, VMCB_ASID);
        }

        svm.CurrentVmcb.AsidGeneration = sd.AsidGeneration;
        svm.Asid = sd.NextAsid++;
    }

    /// <summary>Flushes at the next entry: by TLB_CONTROL, or by taking a new ASID on processors that can't flush a single one.</summary>
    [KernelFunction("svm_flush_tlb_asid", File = "arch/x86/kvm/svm/svm.c")]
    private void FlushTlbAsid(VcpuSvm svm)
    {
        FunctionTrace.Leaf("svm_flush_tlb_asid");
        if (BootCpuHas(X86Feature.FLUSHBYASID))
            svm.Vmcb->Control.TlbControl = (TlbControl)TLB_CONTROL_FLUSH_ASID;
        else
            svm.CurrentVmcb.AsidGeneration--;
    }

    [KernelFunction("svm_flush_tlb_current", File = "arch/x86/kvm/svm/svm.c")]
    public void FlushTlbCurrent(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_flush_tlb_current");
        FlushTlbAsid(ToSvm(vcpu));
    }

    [KernelFunction("svm_flush_tlb_all", File = "arch/x86/kvm/svm/svm.c")]
    public void FlushTlbAll(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_flush_tlb_all");
        FlushTlbAsid(ToSvm(vcpu));
    }

    public void FlushTlbGuest(X86Vcpu vcpu) => FlushTlbAsid(ToSvm(vcpu));

    [KernelFunction("svm_flush_tlb_gva", File = "arch/x86/kvm/svm/svm.c")]
    public void FlushTlbGva(X86Vcpu vcpu, ulong addr)
    {
        FunctionTrace.Leaf("svm_flush_tlb_gva");
        VcpuSvm svm = ToSvm(vcpu);
        Expect(svm.Processor.Invlpga(addr, svm.Vmcb->Control.Asid));
    }

    [KernelFunction("svm_load_mmu_pgd", File = "arch/x86/kvm/svm/svm.c", Formerly = "svm_set_cr3")]
    public void LoadMmuPgd(X86Vcpu vcpu, ulong rootHpa, int rootLevel)
    {
        using var _ = FunctionTrace.Enter("svm_load_mmu_pgd");
        VcpuSvm svm = ToSvm(vcpu);
        ulong cr3;
        if (Params.Npt)
        {
            svm.Vmcb->Control.NestedCr3 = rootHpa;
            MarkDirty(svm.Vmcb, VMCB_NPT);
            FunctionTrace.Leaf("hv_track_root_tdp");
            cr3 = vcpu.Cr3;
        }
        else if (rootLevel >= PT64_ROOT_4LEVEL)
        {
            // kvm_get_active_pcid
            cr3 = rootHpa | (vcpu.ReadCr4Bits(X86_CR4_PCIDE) != 0 ? vcpu.ReadCr3() & X86_CR3_PCID_MASK : 0);
        }
        else
        {
            cr3 = rootHpa;
        }

        svm.Vmcb->Save.Cr3 = cr3;
        MarkDirty(svm.Vmcb, VMCB_CR);
    }
}
