using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;

namespace Kvm.Arch.X86.Svm;

/// <summary>KVM's own dump of a VMCB that could not be entered.</summary>
public sealed unsafe partial class KvmAmd
{
    [KernelFunction("dump_vmcb", File = "arch/x86/kvm/svm/svm.c")]
    private void DumpVmcb(VcpuSvm svm)
    {
        if (!Params.DumpInvalidVmcb)
        {
            Host.Log.Ratelimited(LogLevel.Warning, "dump_vmcb", "SVM: set kvm_amd.dump_invalid_vmcb=1 to dump internal KVM state.");
            return;
        }

        PrErr($"VMCB {svm.CurrentVmcb.Pa:x16}, last attempted VMRUN on CPU {svm.LastVmentryCpu}");
        PrErr("VMCB Control Area:");
        DumpControl(&svm.Vmcb->Control);
        PrErr("VMCB State Save Area:");
        DumpSegments(&svm.Vmcb->Save, &svm.Vmcb01.Ptr->Save);
        DumpSave(&svm.Vmcb->Save, &svm.Vmcb01.Ptr->Save);
    }

    private void DumpControl(VmcbControlArea* c)
    {
        void Line(string name, string value) => PrErr($"{name,-20}{value}");
        Line("cr_read:", $"{c->InterceptCrRead:x4}");
        Line("cr_write:", $"{c->InterceptCrWrite:x4}");
        Line("dr_read:", $"{c->InterceptDrRead:x4}");
        Line("dr_write:", $"{c->InterceptDrWrite:x4}");
        Line("exceptions:", $"{c->InterceptExceptions:x8}");
        Line("intercepts:", $"{c->Intercepts[3]:x8} {c->Intercepts[4]:x8}");
        Line("pause filter count:", $"{c->PauseFilterCount}");
        Line("pause filter threshold:", $"{c->PauseFilterThreshold}");
        Line("iopm_base_pa:", $"{c->IopmBasePa:x16}");
        Line("msrpm_base_pa:", $"{c->MsrpmBasePa:x16}");
        Line("tsc_offset:", $"{c->TscOffset:x16}");
        Line("asid:", $"{c->Asid}");
        Line("tlb_ctl:", $"{(byte)c->TlbControl}");
        Line("int_ctl:", $"{(uint)c->IntControl:x8}");
        Line("int_vector:", $"{c->IntVector:x8}");
        Line("int_state:", $"{(uint)c->IntState:x8}");
        Line("exit_code:", $"{(uint)c->ExitCode:x8}");
        Line("exit_info1:", $"{c->ExitInfo1:x16}");
        Line("exit_info2:", $"{c->ExitInfo2:x16}");
        Line("exit_int_info:", $"{c->ExitIntInfo:x8}");
        Line("exit_int_info_err:", $"{c->ExitIntInfoError:x8}");
        Line("nested_ctl:", $"{(ulong)c->NestedControl}");
        Line("nested_cr3:", $"{c->NestedCr3:x16}");
        Line("avic_vapic_bar:", $"{c->AvicVapicBar:x16}");
        Line("ghcb:", $"{c->GhcbGpa:x16}");
        Line("event_inj:", $"{c->EventInj:x8}");
        Line("event_inj_err:", $"{c->EventInjError:x8}");
        Line("virt_ext:", $"{(ulong)c->VirtualExtensions}");
        Line("next_rip:", $"{c->NextRip:x16}");
        Line("avic_backing_page:", $"{c->AvicBackingPage:x16}");
        Line("avic_logical_id:", $"{c->AvicLogicalId:x16}");
        Line("avic_physical_id:", $"{c->AvicPhysicalId:x16}");
        Line("vmsa_pa:", $"{c->VmsaPa:x16}");
    }

    private void DumpSegments(VmcbSaveArea* save, VmcbSaveArea* save01)
    {
        void Line(string name, in VmcbSegment s) => PrErr($"{name,-5} s: {s.Selector:x4} a: {s.Attributes:x4} l: {s.Limit:x8} b: {s.Base:x16}");
        Line("es:", save->Es);
        Line("cs:", save->Cs);
        Line("ss:", save->Ss);
        Line("ds:", save->Ds);
        Line("fs:", save01->Fs);
        Line("gs:", save01->Gs);
        Line("gdtr:", save->Gdtr);
        Line("ldtr:", save01->Ldtr);
        Line("idtr:", save->Idtr);
        Line("tr:", save01->Tr);
    }

    private void DumpSave(VmcbSaveArea* save, VmcbSaveArea* save01)
    {
        void Line(string name1, ulong value1, string name2, ulong value2) => PrErr($"{name1,-15} {value1:x16} {name2,-13} {value2:x16}");
        PrErr($"vmpl: {save->Vmpl}   cpl:  {save->Cpl}               efer:          {save->Efer:x16}");
        Line("cr0:", save->Cr0, "cr2:", save->Cr2);
        Line("cr3:", save->Cr3, "cr4:", save->Cr4);
        Line("dr6:", save->Dr6, "dr7:", save->Dr7);
        Line("rip:", save->Rip, "rflags:", save->Rflags);
        Line("rsp:", save->Rsp, "rax:", save->Rax);
        Line("star:", save01->Star, "lstar:", save01->Lstar);
        Line("cstar:", save01->Cstar, "sfmask:", save01->Sfmask);
        Line("kernel_gs_base:", save01->KernelGsBase, "sysenter_cs:", save01->SysenterCs);
        Line("sysenter_esp:", save01->SysenterEsp, "sysenter_eip:", save01->SysenterEip);
        Line("gpat:", save->GPat, "dbgctl:", save->DebugCtl);
        Line("br_from:", save->BrFrom, "br_to:", save->BrTo);
        Line("excp_from:", save->LastExcpFrom, "excp_to:", save->LastExcpTo);
    }
}
