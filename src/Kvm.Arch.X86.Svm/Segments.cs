using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.VcpuSreg;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>Segment and descriptor-table registers, RFLAGS.</summary>
public sealed unsafe partial class KvmAmd
{
    [KernelFunction("svm_seg", File = "arch/x86/kvm/svm/svm.c")]
    private static VmcbSegment* Seg(VcpuSvm svm, int seg)
    {
        FunctionTrace.Leaf("svm_seg");
        VmcbSaveArea* save = &svm.Vmcb->Save;
        // VMLOAD and VMSAVE always use the VM's own VMCB.
        VmcbSaveArea* save01 = &svm.Vmcb01.Ptr->Save;
        return seg switch
        {
            VCPU_SREG_CS => &save->Cs,
            VCPU_SREG_DS => &save->Ds,
            VCPU_SREG_ES => &save->Es,
            VCPU_SREG_FS => &save01->Fs,
            VCPU_SREG_GS => &save01->Gs,
            VCPU_SREG_SS => &save->Ss,
            VCPU_SREG_TR => &save01->Tr,
            _ => &save01->Ldtr,
        };
    }

    [KernelFunction("svm_get_segment_base", File = "arch/x86/kvm/svm/svm.c")]
    public ulong GetSegmentBase(X86Vcpu vcpu, int seg)
    {
        using var _ = FunctionTrace.Enter("svm_get_segment_base");
        return Seg(ToSvm(vcpu), seg)->Base;
    }

    /// <summary>
    /// Reads a segment as userspace sees it, made to fit what an Intel host would accept: G from the limit, TR busy, data segments accessed, no D/B in an unusable SS.
    /// </summary>
    [KernelFunction("svm_get_segment", File = "arch/x86/kvm/svm/svm.c")]
    public void GetSegment(X86Vcpu vcpu, out kvm_segment var, int seg)
    {
        using var _ = FunctionTrace.Enter("svm_get_segment");
        VcpuSvm svm = ToSvm(vcpu);
        VmcbSegment* s = Seg(svm, seg);
        uint attrib = s->Attributes;
        var = new kvm_segment
        {
            @base = s->Base,
            limit = s->Limit,
            selector = s->Selector,
            type = (byte)(attrib & 0xf),
            s = (byte)(attrib >> 4 & 1),
            dpl = (byte)(attrib >> 5 & 3),
            present = (byte)(attrib >> 7 & 1),
            avl = (byte)(attrib >> 8 & 1),
            l = (byte)(attrib >> 9 & 1),
            db = (byte)(attrib >> 10 & 1),
            g = (byte)(s->Limit > 0xfffff ? 1 : 0),
        };
        var.unusable = (byte)(var.present ^ 1);
        switch (seg)
        {
            case VCPU_SREG_TR:
                var.type |= 2;
                break;
            case VCPU_SREG_DS or VCPU_SREG_ES or VCPU_SREG_FS or VCPU_SREG_GS:
                if (var.unusable == 0)
                    var.type |= 1;
                break;
            case VCPU_SREG_SS:
                if (var.unusable != 0)
                    var.db = 0;
                var.dpl = svm.Vmcb->Save.Cpl;
                break;
        }
    }

    [KernelFunction("svm_set_segment", File = "arch/x86/kvm/svm/svm.c")]
    public void SetSegment(X86Vcpu vcpu, in kvm_segment var, int seg)
    {
        using var _ = FunctionTrace.Enter("svm_set_segment");
        VcpuSvm svm = ToSvm(vcpu);
        VmcbSegment* s = Seg(svm, seg);
        s->Base = var.@base;
        s->Limit = var.limit;
        s->Selector = var.selector;
        int attrib = var.type & 0xf;
        attrib |= (var.s & 1) << 4;
        attrib |= (var.dpl & 3) << 5;
        attrib |= ((var.present & 1) != 0 && var.unusable == 0 ? 1 : 0) << 7;
        attrib |= (var.avl & 1) << 8;
        attrib |= (var.l & 1) << 9;
        attrib |= (var.db & 1) << 10;
        attrib |= (var.g & 1) << 11;
        s->Attributes = (ushort)attrib;
        // CPL is SS.DPL, except after a SYSRET that left another DPL: a case that is given up, as userspace has no place for CPL.
        if (seg == VCPU_SREG_SS)
            svm.Vmcb->Save.Cpl = (byte)(var.dpl & 3);
        MarkDirty(svm.Vmcb, VMCB_SEG);
    }

    [KernelFunction("svm_get_cpl", File = "arch/x86/kvm/svm/svm.c")]
    public int GetCpl(X86Vcpu vcpu)
    {
        FunctionTrace.Leaf("svm_get_cpl");
        return ToSvm(vcpu).Vmcb->Save.Cpl;
    }

    [KernelFunction("svm_get_cs_db_l_bits", File = "arch/x86/kvm/svm/svm.c")]
    public void GetCsDbLBits(X86Vcpu vcpu, out bool db, out bool l)
    {
        using var _ = FunctionTrace.Enter("svm_get_cs_db_l_bits");
        GetSegment(vcpu, out kvm_segment cs, VCPU_SREG_CS);
        db = cs.db != 0;
        l = cs.l != 0;
    }

    [KernelFunction("svm_get_idt", File = "arch/x86/kvm/svm/svm.c")]
    public void GetIdt(X86Vcpu vcpu, out DescPtr dt)
    {
        FunctionTrace.Leaf("svm_get_idt");
        VmcbSegment idtr = ToSvm(vcpu).Vmcb->Save.Idtr;
        dt = new DescPtr { Size = (ushort)idtr.Limit, Address = idtr.Base };
    }

    [KernelFunction("svm_set_idt", File = "arch/x86/kvm/svm/svm.c")]
    public void SetIdt(X86Vcpu vcpu, in DescPtr dt)
    {
        FunctionTrace.Leaf("svm_set_idt");
        Vmcb* vmcb = ToSvm(vcpu).Vmcb;
        vmcb->Save.Idtr.Limit = dt.Size;
        vmcb->Save.Idtr.Base = dt.Address;
        MarkDirty(vmcb, VMCB_DT);
    }

    [KernelFunction("svm_get_gdt", File = "arch/x86/kvm/svm/svm.c")]
    public void GetGdt(X86Vcpu vcpu, out DescPtr dt)
    {
        FunctionTrace.Leaf("svm_get_gdt");
        VmcbSegment gdtr = ToSvm(vcpu).Vmcb->Save.Gdtr;
        dt = new DescPtr { Size = (ushort)gdtr.Limit, Address = gdtr.Base };
    }

    [KernelFunction("svm_set_gdt", File = "arch/x86/kvm/svm/svm.c")]
    public void SetGdt(X86Vcpu vcpu, in DescPtr dt)
    {
        FunctionTrace.Leaf("svm_set_gdt");
        Vmcb* vmcb = ToSvm(vcpu).Vmcb;
        vmcb->Save.Gdtr.Limit = dt.Size;
        vmcb->Save.Gdtr.Base = dt.Address;
        MarkDirty(vmcb, VMCB_DT);
    }

    /// <summary>RFLAGS without the TF and RF that single-stepping to an NMI window added.</summary>
    [KernelFunction("svm_get_rflags", File = "arch/x86/kvm/svm/svm.c")]
    public ulong GetRflags(X86Vcpu vcpu)
    {
        FunctionTrace.Leaf("svm_get_rflags");
        VcpuSvm svm = ToSvm(vcpu);
        ulong rflags = svm.Vmcb->Save.Rflags;
        if (svm.NmiSinglestep)
        {
            if ((svm.NmiSinglestepGuestRflags & X86_EFLAGS_TF) == 0)
                rflags &= ~X86_EFLAGS_TF;
            if ((svm.NmiSinglestepGuestRflags & X86_EFLAGS_RF) == 0)
                rflags &= ~X86_EFLAGS_RF;
        }

        return rflags;
    }

    [KernelFunction("svm_set_rflags", File = "arch/x86/kvm/svm/svm.c")]
    public void SetRflags(X86Vcpu vcpu, ulong rflags)
    {
        FunctionTrace.Leaf("svm_set_rflags");
        VcpuSvm svm = ToSvm(vcpu);
        if (svm.NmiSinglestep)
            rflags |= X86_EFLAGS_TF | X86_EFLAGS_RF;
        svm.Vmcb->Save.Rflags = rflags;
    }

    [KernelFunction("svm_get_if_flag", File = "arch/x86/kvm/svm/svm.c")]
    public bool GetIfFlag(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_get_if_flag");
        return (vcpu.GetRflags() & X86_EFLAGS_IF) != 0;
    }
}
