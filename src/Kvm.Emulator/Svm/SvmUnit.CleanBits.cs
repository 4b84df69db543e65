using System.Runtime.InteropServices;

namespace Kvm.Emulator.Svm;

/// <summary>
/// VMCB clean bits (APM vol 2, "VMCB State Caching"). The processor may use what it has cached of a group whose bit is set; by default it reads everything
/// from memory, which is always allowed. In the strict mode it really uses the cached copy, so that software which forgets to mark a group dirty is found out.
/// </summary>
internal sealed unsafe partial class SvmUnit
{
    private Vmcb* shadow;
    private ulong shadowPa = ulong.MaxValue;

    /// <summary>Use cached state wherever clean bits allow it.</summary>
    internal bool StrictCleanBits { get; set; }

    private Vmcb* MergeClean(Vmcb* v, ulong pa)
    {
        if (shadow == null)
            shadow = (Vmcb*)NativeMemory.AlignedAlloc(Vmcb.PageSize, Vmcb.PageSize);
        VmcbClean clean = shadowPa == pa && Has(SvmFeatures.VmcbClean) ? v->Control.Clean : VmcbClean.None;
        shadowPa = pa;
        if (clean == VmcbClean.None)
        {
            *shadow = *v;
            return shadow;
        }
        CopyAlways(v);
        CopyControls(v, clean);
        CopyState(v, clean);
        return shadow;
    }

    /// <summary>State that no clean bit covers.</summary>
    private void CopyAlways(Vmcb* v)
    {
        shadow->Control.TlbControl = v->Control.TlbControl;
        shadow->Control.IntState = v->Control.IntState;
        shadow->Control.EventInj = v->Control.EventInj;
        shadow->Control.EventInjError = v->Control.EventInjError;
        shadow->Control.NextRip = v->Control.NextRip;
        shadow->Control.VirtualExtensions = v->Control.VirtualExtensions;
        shadow->Save.Rflags = v->Save.Rflags;
        shadow->Save.Rip = v->Save.Rip;
        shadow->Save.Rsp = v->Save.Rsp;
        shadow->Save.Rax = v->Save.Rax;
    }

    private void CopyControls(Vmcb* v, VmcbClean clean)
    {
        VmcbControlArea* from = &v->Control, to = &shadow->Control;
        if ((clean & VmcbClean.Intercepts) == 0)
        {
            for (int i = 0; i < 6; i++)
                to->Intercepts[i] = from->Intercepts[i];
            to->PauseFilterCount = from->PauseFilterCount;
            to->PauseFilterThreshold = from->PauseFilterThreshold;
            to->TscOffset = from->TscOffset;
        }
        if ((clean & VmcbClean.PermissionMaps) == 0)
        {
            to->IopmBasePa = from->IopmBasePa;
            to->MsrpmBasePa = from->MsrpmBasePa;
        }
        if ((clean & VmcbClean.Asid) == 0)
            to->Asid = from->Asid;
        if ((clean & VmcbClean.Interrupt) == 0)
        {
            to->IntControl = from->IntControl;
            to->IntVector = from->IntVector;
        }
        if ((clean & VmcbClean.NestedPaging) == 0)
        {
            to->NestedControl = from->NestedControl;
            to->NestedCr3 = from->NestedCr3;
            shadow->Save.GPat = v->Save.GPat;
        }
    }

    private void CopyState(Vmcb* v, VmcbClean clean)
    {
        VmcbSaveArea* from = &v->Save, to = &shadow->Save;
        if ((clean & VmcbClean.ControlRegisters) == 0)
            (to->Cr0, to->Cr3, to->Cr4, to->Efer) = (from->Cr0, from->Cr3, from->Cr4, from->Efer);
        if ((clean & VmcbClean.DebugRegisters) == 0)
            (to->Dr6, to->Dr7) = (from->Dr6, from->Dr7);
        if ((clean & VmcbClean.DescriptorTables) == 0)
            (to->Gdtr, to->Idtr) = (from->Gdtr, from->Idtr);
        if ((clean & VmcbClean.Segments) == 0)
            (to->Es, to->Cs, to->Ss, to->Ds, to->Cpl) = (from->Es, from->Cs, from->Ss, from->Ds, from->Cpl);
        if ((clean & VmcbClean.Cr2) == 0)
            to->Cr2 = from->Cr2;
        if ((clean & VmcbClean.Lbr) == 0)
            (to->DebugCtl, to->BrFrom, to->BrTo, to->LastExcpFrom, to->LastExcpTo) = (from->DebugCtl, from->BrFrom, from->BrTo, from->LastExcpFrom, from->LastExcpTo);
    }

    /// <summary>After #VMEXIT the cache holds the state that was just stored; what software may have changed in the controls meanwhile stays unseen.</summary>
    private void KeepClean(Vmcb* v)
    {
        shadow->Save = v->Save;
        shadow->Control.IntControl = v->Control.IntControl;
    }
}
