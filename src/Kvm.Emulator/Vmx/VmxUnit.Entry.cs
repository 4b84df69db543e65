using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vmx;

/// <summary>VM entries (SDM vol 3C, chapter "VM Entries"): basic checks, controls, host state, guest state, loading, MSR list, event injection.</summary>
internal sealed unsafe partial class VmxUnit
{
    private const ulong Cr0Unmodified = Cr0.ET | Cr0.NW | Cr0.CD;

    /// <summary>VMLAUNCH or VMRESUME by kernel-mode C# code: runs the guest until it exits.</summary>
    internal InstructionResult EnterFromKernel(bool launch)
    {
        string mnemonic = launch ? "VMLAUNCH" : "VMRESUME";
        if (!cpu.TakeInstructionFault(mnemonic, out InstructionResult result))
        {
            cpu.GuestEnteredFromKernel = true;
            result = Enter(launch, mnemonic);
            if (cpu.NonRoot is not null)
                RunGuest();
            cpu.GuestEnteredFromKernel = false;
            if (aborted)
                result = InstructionResult.FailInvalid;
            return result;
        }
        cpu.Observer?.Virtualization(cpu, mnemonic, CurrentPointer, 0, result);
        return result;
    }

    /// <summary>VMLAUNCH or VMRESUME of the instruction stream. Success: the state is the guest's, or already the host's again.</summary>
    internal InstructionResult EnterFromStream(bool launch)
    {
        string mnemonic = launch ? "VMLAUNCH" : "VMRESUME";
        if (!cpu.TakeInstructionFault(mnemonic, out InstructionResult result))
            return Enter(launch, mnemonic);
        cpu.Observer?.Virtualization(cpu, mnemonic, CurrentPointer, 0, result);
        return result;
    }

    /// <summary>Runs the entered guest until a VM exit: nothing else leads back to the kernel, a stop request included.</summary>
    private void RunGuest()
    {
        while (cpu.NonRoot is not null)
            cpu.Run();
    }

    /// <summary>
    /// The entry itself. Success: the processor is in non-root operation, or a VM exit has already happened (entry failure, or an exit before the first instruction).
    /// </summary>
    internal InstructionResult Enter(bool launch, string mnemonic)
    {
        InstructionResult result = CheckAndEnter(launch, out uint failure, out ulong qualification);
        cpu.Observer?.Virtualization(cpu, mnemonic, CurrentPointer, 0, result);
        if (!result.Ok)
            return result;
        if (failure != 0)
            FailEntry((VmxExitReason)failure, qualification);
        else
            Guest.Entered(entryDirty);
        return result;
    }

    /// <summary>Groups of the VMCS that were checked again at this entry.</summary>
    private VmcsDirty entryDirty;

    private InstructionResult CheckAndEnter(bool launch, out uint failure, out ulong qualification)
    {
        failure = 0;
        qualification = 0;
        if (!On)
            return UndefinedOpcode;
        ActiveVmcs* block = current;
        if (block == null || block->Data.RevisionId >> 31 != 0)
            return InstructionResult.FailInvalid;
        Vmcs* v = &block->Data;
        if ((cpu.State->InterruptShadow & Interruptibility.MovSs) != 0)
            return Fail(VmxInstructionError.EntryEventsBlockedByMovSs);
        if (launch && v->LaunchState != 0)
            return Fail(VmxInstructionError.VmlaunchNonclearVmcs);
        if (!launch && v->LaunchState == 0)
            return Fail(VmxInstructionError.VmresumeNonlaunchedVmcs);

        FailedRule = null;
        VmcsDirty dirty = Guest.UseVmcs(block);
        if (((dirty & VmcsDirty.Controls) != 0 && !ControlsPass(v)) || !TprThresholdPasses(v) || !InjectionPasses(v))
            return Fail(VmxInstructionError.EntryInvalidControlField);
        if (((dirty & VmcsDirty.Host) != 0 && !(HostRegistersPass(v) && HostSegmentsPass(v))) || !HostAddressSpacePasses(v))
            return Fail(VmxInstructionError.EntryInvalidHostStateField);

        ulong* pdptes = stackalloc ulong[4];
        if (!GuestStatePasses(v, dirty) || !PdptesPass(v, pdptes))
        {
            failure = (uint)VmxExitReason.INVALID_STATE;
            qualification = failureQualification;
            return InstructionResult.Success;
        }
        if ((dirty & VmcsDirty.Host) != 0)
            PrepareHostSegments(block);
        entryDirty = dirty;
        block->Dirty = VmcsDirty.None;
        block->CheckedVirtual8086 = (v->GuestRflags & Flags.VM) != 0;

        LoadGuest(v, pdptes);
        if (v->VmEntryMsrLoadCount > Capabilities.MaxMsrListCount)
        {
            failure = (uint)VmxExitReason.MCE_DURING_VMENTRY;
            return InstructionResult.Success;
        }
        uint failed = LoadMsrs(v->VmEntryMsrLoadAddr, v->VmEntryMsrLoadCount);
        if (failed != 0)
        {
            failure = (uint)VmxExitReason.MSR_LOAD_FAIL;
            qualification = failed;
            return InstructionResult.Success;
        }
        v->LaunchState = 1;
        return InstructionResult.Success;
    }

    /// <summary>"Loading Guest State".</summary>
    private void LoadGuest(Vmcs* v, ulong* pdptes)
    {
        CpuState* s = cpu.State;
        s->Cr0 = (v->GuestCr0 & ~Cr0Unmodified) | (s->Cr0 & Cr0Unmodified);
        s->Cr3 = v->GuestCr3;
        s->Cr4 = v->GuestCr4;
        if (Has(VmEntryControls.LoadDebugControls))
        {
            LoadDr7(s, (v->GuestDr7 & ~0xd000UL) | 0x400);
            s->DebugCtl = v->GuestIa32Debugctl;
        }
        s->SysenterCs = v->GuestSysenterCs;
        s->SysenterEsp = v->GuestSysenterEsp;
        s->SysenterEip = v->GuestSysenterEip;
        LoadGuestMsrs(v, s);
        s->Segs = v->GuestSegments;
        s->Gdtr = v->GuestGdtr;
        s->Idtr = v->GuestIdtr;
        s->Cpl = (byte)s->Segs[(int)Seg.SS].Dpl;
        s->Gpr[4] = v->GuestRsp;
        s->Rip = v->GuestRip;
        cpu.Rflags = v->GuestRflags;
        s->InterruptShadow = (byte)(v->GuestInterruptibilityInfo & (Interruptibility.Sti | Interruptibility.MovSs));
        s->NmiBlocked = (byte)((v->GuestInterruptibilityInfo & Interruptibility.Nmi) >> 3);
        s->Activity = (ActivityState)v->GuestActivityState;
        if ((s->Cr4 & Cr4.PAE) != 0 && (s->Cr0 & Cr0.PG) != 0 && (s->Efer & Efer.LMA) == 0)
            for (int i = 0; i < 4; i++)
                s->Pdpte[i] = pdptes[i];
        LoadPendingDebug(v, s);
    }

    private void LoadDr7(CpuState* s, ulong value)
    {
        bool breakpoints = ((s->Dr[7] | value) & 0xff) != 0;
        s->Dr[7] = value;
        if (breakpoints)
            cpu.OnDebugRegisters();
    }

    private void LoadGuestMsrs(Vmcs* v, CpuState* s)
    {
        ulong longBits = Has(VmEntryControls.Ia32eModeGuest) ? Efer.LMA | Efer.LME : 0;
        if (Has(VmEntryControls.LoadEfer))
            s->Efer = v->GuestIa32Efer;
        else
            s->Efer = (s->Efer & ~(Efer.LMA | ((v->GuestCr0 & Cr0.PG) != 0 ? Efer.LME : 0))) | longBits;
        if (Has(VmEntryControls.LoadPat))
            s->Pat = v->GuestIa32Pat;
        if (Has(VmEntryControls.LoadPerfGlobalCtrl))
            cpu.TryWriteMsr(Msr.IA32_PERF_GLOBAL_CTRL, v->GuestIa32PerfGlobalCtrl);
        if (Has(VmEntryControls.LoadBndcfgs))
            cpu.TryWriteMsr(Msr.IA32_BNDCFGS, v->GuestBndcfgs);
    }

    /// <summary>Pending debug exceptions are lost when an external interrupt, NMI, hardware exception or software interrupt is injected.</summary>
    private static void LoadPendingDebug(Vmcs* v, CpuState* s)
    {
        ulong pending = v->GuestPendingDbgExceptions;
        s->PendingDebug = 0;
        if (pending == 0)
            return;
        uint info = v->VmEntryIntrInfoField;
        bool dropped = (info & InterruptionInfo.Valid) != 0 && InterruptionInfo.Type(info) is
            InterruptionInfo.ExternalInterrupt or InterruptionInfo.Nmi or InterruptionInfo.HardwareException or InterruptionInfo.SoftwareInterrupt;
        if (!dropped && (pending & (PendingDebug.EnabledBreakpoint | PendingDebug.SingleStep)) != 0)
            s->PendingDebug = pending & (0xf | PendingDebug.SingleStep);
    }

    /// <summary>"Loading MSRs": 0, or the 1-based number of the entry that failed.</summary>
    private uint LoadMsrs(ulong address, uint count)
    {
        for (uint i = 0; i < count; i++)
        {
            byte* entry = Physical(address + (i * 16UL));
            if (entry == null || *(uint*)(entry + 4) != 0 || !MayLoadMsr(*(uint*)entry) || !cpu.TryWriteMsr(*(uint*)entry, *(ulong*)(entry + 8)))
                return i + 1;
        }
        return 0;
    }

    /// <summary>MSRs that no MSR-load area may name: FS and GS base, the x2APIC range, and the ones that only SMM or firmware writes.</summary>
    private static bool MayLoadMsr(uint index) =>
        index is not (Msr.IA32_FS_BASE or Msr.IA32_GS_BASE or Msr.IA32_SMM_MONITOR_CTL or Msr.IA32_BIOS_UPDT_TRIG) && index >> 8 != 8;

    /// <summary>"VM-Entry Failures During or After Loading Guest State": reason with bit 31, host state loaded, no other information changed.</summary>
    private void FailEntry(VmxExitReason reason, ulong qualification)
    {
        Vmcs* v = &current->Data;
        v->VmExitReason = (uint)reason | 1u << 31;
        v->ExitQualification = qualification;
        cpu.Observer?.VmExit(cpu, v->VmExitReason, qualification);
        if (current->Dirty != VmcsDirty.None)
            PrepareHostSegments(current);
        LoadHost(current);
    }

    /// <summary>Segment registers after a VM exit ("Loading Host Segment and Descriptor-Table Registers"), computed when host fields have changed.</summary>
    private void PrepareHostSegments(ActiveVmcs* block)
    {
        const uint codeRights = SegmentRights.G | SegmentRights.P | SegmentRights.S | SegmentRights.Code | SegmentRights.Readable | SegmentRights.Accessed;
        const uint dataRights = SegmentRights.G | SegmentRights.DB | SegmentRights.P | SegmentRights.S | SegmentRights.Writable | SegmentRights.Accessed;
        Vmcs* v = &block->Data;
        ref CpuState.SegmentArray segments = ref block->HostSegments;
        bool longHost = ((VmExitControls)v->VmExitControls & VmExitControls.HostAddressSpaceSize) != 0;
        segments[(int)Seg.CS] = Flat(v->HostCsSelector, 0, codeRights | (longHost ? SegmentRights.L : SegmentRights.DB));
        segments[(int)Seg.SS] = Flat(v->HostSsSelector, 0, dataRights);
        segments[(int)Seg.DS] = Flat(v->HostDsSelector, 0, dataRights);
        segments[(int)Seg.ES] = Flat(v->HostEsSelector, 0, dataRights);
        segments[(int)Seg.FS] = Flat(v->HostFsSelector, v->HostFsBase, dataRights);
        segments[(int)Seg.GS] = Flat(v->HostGsSelector, v->HostGsBase, dataRights);
        segments[(int)Seg.TR] = new SegmentCache { Selector = v->HostTrSelector, Base = v->HostTrBase, Limit = 0x67, AccessRights = SegmentRights.P | SegmentRights.TssBusy32 };
        segments[(int)Seg.LDTR] = new SegmentCache { AccessRights = SegmentRights.Unusable };
    }

    private static SegmentCache Flat(ushort selector, ulong linearBase, uint rights) => new()
    {
        Selector = selector,
        Base = linearBase,
        Limit = uint.MaxValue,
        AccessRights = selector == 0 ? rights | SegmentRights.Unusable : rights,
    };
}
