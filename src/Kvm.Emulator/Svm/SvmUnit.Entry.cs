using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Svm;

/// <summary>VMRUN: host state out, controls and guest state in, TLB control, event injection.</summary>
/// <remarks>APM vol 2, "VMRUN Instruction", "Saving Host State", "Loading Guest State", "Control Bits", "TLB Control", "Event Injection".</remarks>
internal sealed unsafe partial class SvmUnit
{
    private Vmcb* vmcb;
    private ulong vmcbPa;
    private ulong hostPat;
    private bool swapPat, swapLbr;

    /// <summary>The VMCB that VMRUN loaded last.</summary>
    internal ulong CurrentVmcb => vmcbPa;

    private Vmcb* HostSave
    {
        get
        {
            byte* page = Physical(HsavePa);
            return page != null ? (Vmcb*)page : chipSave;
        }
    }

    private void Enter(Vmcb* v, ulong pa, ulong hostRip)
    {
        vmcb = v;
        vmcbPa = pa;
        SaveHost(&HostSave->Save, hostRip);
        Vmcb* effective = StrictCleanBits ? MergeClean(v, pa) : v;
        swapPat = swapLbr = false;
        FailedRule = null;
        bool controlsLoaded = guest.ControlsAreLoaded(&effective->Control);
        if (CheckState(&effective->Save) && CheckControls(&effective->Control, effective->Save.GPat, controlsLoaded))
            EnterChecked(v, effective, controlsLoaded);
        else
            ExitInvalid(v);
    }

    private void EnterChecked(Vmcb* v, Vmcb* effective, bool controlsLoaded)
    {
        VmcbControlArea* c = &effective->Control;
        bool hostIf = (state->Rflags & Flags.IF) != 0;
        if (controlsLoaded)
            guest.ReloadControls(c, hostIf);
        else
            guest.LoadControls(c, hostIf);
        guest.LoadNestedMode(state->Cr0, state->Cr4, state->Efer);
        ApplyTlbControl(v->Control.TlbControl, (ushort)c->Asid);
        cpu.NonRoot = guest;
        LoadGuest(&effective->Save, c);
        state->InterruptShadow = (byte)((v->Control.IntState & SvmIntState.InterruptShadow) != 0 ? 1 : 0);
        state->Activity = ActivityState.Active;
        state->PendingDebug = 0;
        Gif = true;
        cpu.CancelDelivery();
        if (ContextIsLoaded())
            cpu.HostContextPending = false;
        else
            cpu.UpdateMode();
        if (guest.VirtualIrq || cpu.InterruptPending || cpu.NmiPending || cpu.InitPending)
            cpu.Reevaluate();
        // With nested paging the entries are read at each walk.
        if (!guest.Nested && PaePaging() && !cpu.Mmu.LoadPdptes(state->Cr3))
        {
            LoadPdptesFailed(v);
            return;
        }
        if ((v->Control.EventInj & SvmEvent.Valid) != 0)
            Inject(v);
    }

    private bool PaePaging() => (state->Cr0 & Cr0.PG) != 0 && (state->Cr4 & Cr4.PAE) != 0 && (state->Efer & Efer.LMA) == 0;

    /// <summary>The four page-directory-pointer entries can't be loaded: a nested fault exits as such, reserved bits make the state invalid.</summary>
    private void LoadPdptesFailed(Vmcb* v)
    {
        if (cpu.PendingMemoryExit)
        {
            cpu.PendingMemoryExit = false;
            guest.TakePendingMemoryExit();
            return;
        }
        Failed(true, "PAE page-directory-pointer entries have reserved bits");
        cpu.NonRoot = null;
        RestoreSwapped(null);
        ExitInvalid(v);
    }

    private void ApplyTlbControl(TlbControl control, ushort asid)
    {
        switch (control)
        {
            case TlbControl.DoNothing: break;
            case TlbControl.FlushAsid when Has(SvmFeatures.FlushByAsid): cpu.Mmu.FlushTag(asid, keepGlobal: false); break;
            case TlbControl.FlushAsidNonGlobal when Has(SvmFeatures.FlushByAsid): cpu.Mmu.FlushTag(asid, keepGlobal: true); break;
            default: cpu.Mmu.FlushAll(); break;
        }
    }

    private void SaveHost(VmcbSaveArea* h, ulong rip)
    {
        StoreDataSegments(h, hostData);
        Store(in state->Gdtr, &h->Gdtr);
        Store(in state->Idtr, &h->Idtr);
        h->Efer = state->Efer;
        h->Cr0 = state->Cr0;
        h->Cr4 = state->Cr4;
        h->Cr3 = state->Cr3;
        h->Rflags = cpu.Rflags;
        h->Rip = rip;
        h->Rsp = state->Gpr[4];
        h->Rax = state->Gpr[0];
    }

    private void LoadGuest(VmcbSaveArea* s, VmcbControlArea* c)
    {
        LoadDataSegments(s, guestData);
        Load(&s->Gdtr, ref state->Gdtr);
        Load(&s->Idtr, ref state->Idtr);
        // The virtualized host keeps EFER.LMA consistent itself; the processor takes what is there.
        state->Efer = s->Efer;
        state->Cr0 = s->Cr0 | Cr0.ET;
        state->Cr2 = s->Cr2;
        state->Cr3 = s->Cr3;
        state->Cr4 = s->Cr4;
        state->Dr[6] = s->Dr6;
        LoadDr7(s->Dr7);
        cpu.Rflags = s->Rflags & Flags.All;
        state->Rip = s->Rip;
        state->Gpr[4] = s->Rsp;
        state->Gpr[0] = s->Rax;
        // CPL comes from its own field; real mode is CPL 0 and virtual-8086 mode CPL 3 whatever it says.
        state->Cpl = (state->Cr0 & Cr0.PE) == 0 ? (byte)0 : (state->Rflags & Flags.VM) != 0 ? (byte)3 : (byte)(s->Cpl & 3);
        if (guest.Nested)
        {
            swapPat = true;
            hostPat = state->Pat;
            state->Pat = s->GPat;
        }
        if ((c->VirtualExtensions & SvmVirtualExtensions.LbrVirtualization) != 0 && Has(SvmFeatures.LbrVirtualization))
            SwapLbrIn(s);
    }

    private void LoadDr7(ulong value)
    {
        bool armed = ((state->Dr[7] | value) & 0xff) != 0;
        state->Dr[7] = value;
        if (armed)
            cpu.OnDebugRegisters();
    }

    private void SwapLbrIn(VmcbSaveArea* s)
    {
        VmcbSaveArea* h = &HostSave->Save;
        swapLbr = true;
        h->DebugCtl = state->DebugCtl;
        ReadLbr(h);
        state->DebugCtl = s->DebugCtl;
        WriteLbr(s);
    }

    private void ReadLbr(VmcbSaveArea* a)
    {
        cpu.TryReadMsr(Msr.AMD_LAST_BRANCH_FROM, out a->BrFrom);
        cpu.TryReadMsr(Msr.AMD_LAST_BRANCH_TO, out a->BrTo);
        cpu.TryReadMsr(Msr.AMD_LAST_INT_FROM, out a->LastExcpFrom);
        cpu.TryReadMsr(Msr.AMD_LAST_INT_TO, out a->LastExcpTo);
    }

    private void WriteLbr(VmcbSaveArea* a)
    {
        cpu.TryWriteMsr(Msr.AMD_LAST_BRANCH_FROM, a->BrFrom);
        cpu.TryWriteMsr(Msr.AMD_LAST_BRANCH_TO, a->BrTo);
        cpu.TryWriteMsr(Msr.AMD_LAST_INT_FROM, a->LastExcpFrom);
        cpu.TryWriteMsr(Msr.AMD_LAST_INT_TO, a->LastExcpTo);
    }

    /// <summary>
    /// Delivers EVENTINJ as if the event had happened at the guest's RIP. Software interrupts and INT3/INTO push the address in NRIP where the processor
    /// has it, else RIP. An exit during delivery reports the event in EXITINTINFO.
    /// </summary>
    private void Inject(Vmcb* v)
    {
        uint e = v->Control.EventInj;
        byte vector = (byte)e;
        uint type = e & SvmEvent.TypeMask;
        if (type == SvmEvent.TypeNmi)
            vector = Fault.NMI; // the vector field is ignored
        bool software = type == SvmEvent.TypeSoftware || (type == SvmEvent.TypeException && vector is Fault.BP or Fault.OF);
        int length = software && Has(SvmFeatures.NripSave) ? (int)(v->Control.NextRip - state->Rip) : 0;
        byte eventType = type == SvmEvent.TypeException && software ? (byte)6 : (byte)(type >> SvmEvent.TypeShift);
        bool hasError = (e & SvmEvent.ErrorCodeValid) != 0 && type == SvmEvent.TypeException;
        if (type == SvmEvent.TypeException && vector == Fault.DB)
            state->PendingDebug = 0;

        // An NMI is vector 2 whatever the vector field says.
        if (type == SvmEvent.TypeNmi)
            vector = 2;
        Deliver(new EventInfo(vector, eventType, hasError, v->Control.EventInjError, length));
    }

    /// <summary>Delivers an event in the guest; a fault on the way is delivered (or exits) in turn.</summary>
    internal void Deliver(in EventInfo info)
    {
        if (cpu.InjectEvent(info) == ExecStatus.Fault)
            cpu.DeliverPending();
    }
}
