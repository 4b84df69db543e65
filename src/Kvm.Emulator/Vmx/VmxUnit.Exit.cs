namespace Kvm.Emulator.Vmx;

/// <summary>VM exits (SDM vol 3C, chapter "VM Exits"): record information, save guest state, store MSRs, load host state, load MSRs; VMX aborts.</summary>
internal sealed unsafe partial class VmxUnit
{
    private enum Abort : uint { StoreMsrs = 1, HostPdptes = 2, LoadMsrs = 4, MachineCheck = 5 }

    /// <summary>The last VM exit ended in a VMX abort: the processor is in the shutdown state.</summary>
    private bool aborted;

    /// <summary>
    /// Leaves VMX non-root operation. The information fields other than reason and qualification (and the ones reset here) have been written by the caller.
    /// </summary>
    /// <param name="reason">Basic exit reason.</param>
    /// <param name="qualification">Exit qualification.</param>
    /// <param name="length">VM-exit instruction length; 0 when the exit is not due to an instruction.</param>
    /// <param name="interruption">VM-exit interruption information; 0 = not valid.</param>
    internal void Exit(VmxExitReason reason, ulong qualification, int length, uint interruption)
    {
        ActiveVmcs* block = current;
        Vmcs* v = &block->Data;
        v->VmExitReason = (uint)reason;
        v->ExitQualification = qualification;
        v->VmExitInstructionLen = (uint)length;
        v->VmExitIntrInfo = interruption;
        v->VmEntryIntrInfoField &= ~InterruptionInfo.Valid;
        Guest.RecordVectoring(v);
        cpu.Observer?.VmExit(cpu, v->VmExitReason, qualification);

        SaveGuest(block);
        bool tooLong = v->VmExitMsrStoreCount > Capabilities.MaxMsrListCount || v->VmExitMsrLoadCount > Capabilities.MaxMsrListCount;
        bool stored = tooLong || StoreMsrs(v->VmExitMsrStoreAddr, v->VmExitMsrStoreCount);
        Guest.Left(reason, interruption);
        LoadHost(block);
        if (!stored)
            EnterAbort(block, Abort.StoreMsrs);
        if (tooLong)
            EnterAbort(block, Abort.MachineCheck);
    }

    /// <summary>"Saving Guest State".</summary>
    private void SaveGuest(ActiveVmcs* block)
    {
        CpuState* s = cpu.State;
        Vmcs* v = &block->Data;
        v->GuestCr0 = s->Cr0;
        v->GuestCr3 = s->Cr3;
        v->GuestCr4 = s->Cr4;
        if (Has(VmExitControls.SaveDebugControls))
        {
            v->GuestDr7 = s->Dr[7];
            v->GuestIa32Debugctl = s->DebugCtl;
        }
        v->GuestSysenterCs = (uint)s->SysenterCs;
        v->GuestSysenterEsp = s->SysenterEsp;
        v->GuestSysenterEip = s->SysenterEip;
        v->GuestSegments = s->Segs;
        v->GuestGdtr = s->Gdtr;
        v->GuestIdtr = s->Idtr;
        v->GuestRsp = s->Gpr[4];
        v->GuestRip = s->Rip;
        v->GuestRflags = cpu.Rflags;
        v->GuestInterruptibilityInfo = s->InterruptShadow | (uint)(s->NmiBlocked << 3);
        v->GuestActivityState = (uint)cpu.VisibleActivity;
        ulong pending = s->PendingDebug;
        v->GuestPendingDbgExceptions = pending == 0 ? 0 : (pending & (0xf | PendingDebug.SingleStep)) | ((pending & 0xf) != 0 ? PendingDebug.EnabledBreakpoint : 0);
        if (Has(VmExitControls.SaveEfer))
            v->GuestIa32Efer = s->Efer;
        if (Has(VmExitControls.SavePat))
            v->GuestIa32Pat = s->Pat;
        if (Has(VmExitControls.SavePreemptionTimer))
            v->VmxPreemptionTimerValue = Guest.PreemptionTimerValue;
        if (Capabilities.EntryAllowed(VmEntryControls.LoadBndcfgs) && cpu.TryReadMsr(Msr.IA32_BNDCFGS, out ulong bndcfgs))
            v->GuestBndcfgs = bndcfgs;
        SavePagingMode(block, s);
    }

    /// <summary>IA32_EFER.LMA goes to the "IA-32e mode guest" control when IA32_VMX_MISC[5] says so; PDPTE registers are saved when EPT is in use.</summary>
    private void SavePagingMode(ActiveVmcs* block, CpuState* s)
    {
        Vmcs* v = &block->Data;
        bool longMode = (s->Efer & Efer.LMA) != 0;
        if ((Capabilities.Misc >> 5 & 1) != 0 && longMode != Has(VmEntryControls.Ia32eModeGuest))
        {
            v->VmEntryControls ^= (uint)VmEntryControls.Ia32eModeGuest;
            block->Dirty |= VmcsDirty.All;
        }
        if (!longMode && Has(SecondaryControls.EnableEpt) && (s->Cr4 & Cr4.PAE) != 0 && (s->Cr0 & Cr0.PG) != 0)
        {
            v->GuestPdptr0 = s->Pdpte[0];
            v->GuestPdptr1 = s->Pdpte[1];
            v->GuestPdptr2 = s->Pdpte[2];
            v->GuestPdptr3 = s->Pdpte[3];
        }
    }

    /// <summary>"Saving MSRs". False: VMX abort.</summary>
    private bool StoreMsrs(ulong address, uint count)
    {
        for (uint i = 0; i < count; i++)
        {
            byte* entry = Physical(address + (i * 16UL));
            if (entry == null || *(uint*)(entry + 4) != 0 || *(uint*)entry >> 8 == 8 || *(uint*)entry == Msr.IA32_SMM_MONITOR_CTL
                || !cpu.TryReadMsr(*(uint*)entry, out ulong value))
                return false;
            *(ulong*)(entry + 8) = value;
        }
        return true;
    }

    /// <summary>"Loading Host State": also after an entry that failed late.</summary>
    private void LoadHost(ActiveVmcs* block)
    {
        CpuState* s = cpu.State;
        Vmcs* v = &block->Data;
        aborted = false;
        cpu.NonRoot = null;
        s->Cr0 = (v->HostCr0 & ~Cr0Unmodified) | (s->Cr0 & Cr0Unmodified);
        s->Cr3 = v->HostCr3;
        s->Cr4 = v->HostCr4;
        LoadDr7(s, 0x400);
        s->DebugCtl = 0;
        s->SysenterCs = v->HostIa32SysenterCs;
        s->SysenterEsp = v->HostIa32SysenterEsp;
        s->SysenterEip = v->HostIa32SysenterEip;
        LoadHostMsrs(v, s);
        s->Segs = block->HostSegments;
        s->Gdtr = new DescriptorTableRegister { Base = v->HostGdtrBase, Limit = 0xffff };
        s->Idtr = new DescriptorTableRegister { Base = v->HostIdtrBase, Limit = 0xffff };
        s->Cpl = 0;
        s->Gpr[4] = v->HostRsp;
        s->Rip = v->HostRip;
        cpu.Rflags = Flags.Fixed1;
        s->InterruptShadow = 0;
        s->PendingDebug = 0;
        s->Activity = ActivityState.Active;
        if (!Has(SecondaryControls.EnableVpid))
            cpu.Mmu.FlushTag(0, keepGlobal: false);
        if (cpu.GuestEnteredFromKernel)
            cpu.HostContextPending = true;
        else
            cpu.UpdateMode();
        if (!Has(VmExitControls.HostAddressSpaceSize) && (s->Cr4 & Cr4.PAE) != 0 && !cpu.Mmu.LoadPdptes(s->Cr3))
            EnterAbort(block, Abort.HostPdptes);
        else if (v->VmExitMsrLoadCount != 0 && v->VmExitMsrLoadCount <= Capabilities.MaxMsrListCount && LoadMsrs(v->VmExitMsrLoadAddr, v->VmExitMsrLoadCount) != 0)
            EnterAbort(block, Abort.LoadMsrs);
    }

    private void LoadHostMsrs(Vmcs* v, CpuState* s)
    {
        if (Has(VmExitControls.LoadEfer))
            s->Efer = v->HostIa32Efer;
        else if (Has(VmExitControls.HostAddressSpaceSize))
            s->Efer |= Efer.LMA | Efer.LME;
        else
            s->Efer &= ~(Efer.LMA | Efer.LME);
        if (Has(VmExitControls.LoadPat))
            s->Pat = v->HostIa32Pat;
        if (Has(VmExitControls.LoadPerfGlobalCtrl))
            cpu.TryWriteMsr(Msr.IA32_PERF_GLOBAL_CTRL, v->HostIa32PerfGlobalCtrl);
        if (Has(VmExitControls.ClearBndcfgs))
            cpu.TryWriteMsr(Msr.IA32_BNDCFGS, 0);
    }

    /// <summary>"VMX Aborts": the indicator goes to the VMCS region in memory and the processor shuts down.</summary>
    private void EnterAbort(ActiveVmcs* block, Abort indicator)
    {
        if (aborted)
            return;
        aborted = true;
        byte* memory = Physical(block->Address);
        if (memory != null)
            *(uint*)(memory + 4) = (uint)indicator;
        cpu.State->Activity = ActivityState.Shutdown;
        cpu.Observer?.EntryCheckFailed(cpu, $"VMX abort {(uint)indicator}: {indicator}");
        cpu.Request(ExitRequests.Reevaluate);
    }
}
