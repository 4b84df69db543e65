namespace Kvm.Emulator.Svm;

/// <summary>#VMEXIT: guest state and exit information into the VMCB, host state back.</summary>
/// <remarks>APM vol 2, "#VMEXIT".</remarks>
internal sealed unsafe partial class SvmUnit
{
    /// <summary>Leaves the guest. RIP is the guest's as it is to be saved; the processor is back in host mode afterwards.</summary>
    internal void Exit(SvmExitCode code, ulong info1, ulong info2, ulong nextRip, bool instructionBytes = false)
    {
        Vmcb* v = vmcb;
        VmcbControlArea* c = &v->Control;
        if (instructionBytes && Has(SvmFeatures.DecodeAssists))
            StoreInstructionBytes(c);
        else
            c->InstructionLength = 0;
        StoreGuest(&v->Save);
        RememberContext();
        c->IntState = state->InterruptShadow != 0 ? SvmIntState.InterruptShadow : SvmIntState.None;
        c->IntControl = guest.StoreInterruptControls(c->IntControl);
        c->ExitIntInfo = guest.EventInFlight(out uint error);
        c->ExitIntInfoError = error;
        c->EventInj = 0;
        c->ExitCode = (ulong)code;
        c->ExitInfo1 = info1;
        c->ExitInfo2 = info2;
        c->NextRip = nextRip;
        RestoreSwapped(&v->Save);
        if (StrictCleanBits)
            KeepClean(v);
        Leave();
        cpu.Observer?.VmExit(cpu, (ulong)code, info1);
    }

    /// <summary>A consistency check failed: no guest state was loaded and none is stored.</summary>
    private void ExitInvalid(Vmcb* v)
    {
        VmcbControlArea* c = &v->Control;
        c->ExitCode = (ulong)SvmExitCode.Invalid;
        c->ExitInfo1 = 0;
        c->ExitInfo2 = 0;
        c->ExitIntInfo = 0;
        c->ExitIntInfoError = 0;
        c->NextRip = 0;
        c->InstructionLength = 0;
        shadowPa = ulong.MaxValue;
        Leave();
        cpu.Observer?.VmExit(cpu, (ulong)SvmExitCode.Invalid, 0);
    }

    private void Leave()
    {
        cpu.NonRoot = null;
        guest.EventDelivery(false, default);
        Gif = false;
        LoadHost(&HostSave->Save);
        cpu.CancelDelivery();
        // Kernel code neither executes nor translates anything in root mode before the next VMRUN or Run.
        if (cpu.GuestEnteredFromKernel)
            cpu.HostContextPending = true;
        else
            cpu.UpdateMode();
        // A host that paged with PAE reloads its pointers; no host state means shutdown.
        if (PaePaging() && !cpu.Mmu.LoadPdptes(state->Cr3))
            state->Activity = ActivityState.Shutdown;
    }

    private void StoreGuest(VmcbSaveArea* s)
    {
        StoreDataSegments(s, guestData);
        Store(in state->Gdtr, &s->Gdtr);
        Store(in state->Idtr, &s->Idtr);
        s->Cpl = state->Cpl;
        s->Efer = state->Efer;
        s->Cr0 = state->Cr0;
        s->Cr2 = state->Cr2;
        s->Cr3 = state->Cr3;
        s->Cr4 = state->Cr4;
        s->Dr6 = state->Dr[6];
        s->Dr7 = state->Dr[7];
        s->Rflags = cpu.Rflags;
        s->Rip = state->Rip;
        s->Rsp = state->Gpr[4];
        s->Rax = state->Gpr[0];
    }

    private void RestoreSwapped(VmcbSaveArea* s)
    {
        if (swapPat)
        {
            if (s != null)
                s->GPat = state->Pat;
            state->Pat = hostPat;
        }
        if (!swapLbr)
            return;
        VmcbSaveArea* h = &HostSave->Save;
        if (s != null)
        {
            s->DebugCtl = state->DebugCtl;
            ReadLbr(s);
        }
        state->DebugCtl = h->DebugCtl;
        WriteLbr(h);
    }

    private void LoadHost(VmcbSaveArea* h)
    {
        LoadDataSegments(h, hostData);
        Load(&h->Gdtr, ref state->Gdtr);
        Load(&h->Idtr, ref state->Idtr);
        state->Efer = h->Efer;
        state->Cr0 = h->Cr0 | Cr0.PE;
        state->Cr4 = h->Cr4;
        state->Cr3 = h->Cr3;
        cpu.Rflags = h->Rflags & ~Flags.VM;
        state->Rip = h->Rip;
        state->Gpr[4] = h->Rsp;
        state->Gpr[0] = h->Rax;
        LoadDr7(0x400);
        state->Cpl = 0;
        state->InterruptShadow = 0;
        state->PendingDebug = 0;
        state->Activity = ActivityState.Active;
    }

    /// <summary>Up to 15 bytes at CS:RIP, as far as they can be fetched without a fault.</summary>
    private void StoreInstructionBytes(VmcbControlArea* c)
    {
        ulong rip = state->Rip;
        ulong linear = rip;
        if (!cpu.Code64)
            linear = (uint)(cpu.Segment(Seg.CS).Base + rip);
        int count = 0;
        while (count < 15)
        {
            byte* p = FetchPointer(linear + (uint)count);
            if (p == null)
                break;
            int chunk = Math.Min(15 - count, 0x1000 - (int)((linear + (uint)count) & 0xfff));
            new ReadOnlySpan<byte>(p, chunk).CopyTo(new Span<byte>(c->InstructionBytes + count, chunk));
            count += chunk;
        }
        c->InstructionLength = (byte)count;
    }

    /// <summary>Host pointer of a code byte by an execute translation, which leaves no fault behind when there is none.</summary>
    private byte* FetchPointer(ulong linear)
    {
        TlbEntry* entry = state->Tlb + ((linear >> 12) & (TlbEntry.Entries - 1));
        if (entry->ExecTag == (linear & ~0xfffUL))
            return (byte*)(linear + entry->Addend);
        Fault fault = cpu.PendingFault;
        byte* page = cpu.Mmu.FetchPage(linear, out _);
        if (page != null)
            return page + (linear & 0xfff);
        cpu.PendingFault = fault;
        cpu.PendingMemoryExit = false;
        return null;
    }
}
