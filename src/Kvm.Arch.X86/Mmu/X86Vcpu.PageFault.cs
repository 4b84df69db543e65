using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.RetPf;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>EPT violations and misconfigurations, nested page faults: map the frame, or emulate the instruction.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>
    /// What the vendors call with a guest-physical fault, or with the guest's page fault when its tables are shadowed. 1: go on; 0: leave KVM_RUN; -errno. <paramref name="errorCode"/> has PFERR_* bits; RSVD means an
    /// entry that was made to fault (MMIO). <paramref name="insn"/>: instruction bytes that the hardware supplied, or empty.
    /// </summary>
    [KernelFunction("kvm_mmu_page_fault", File = "arch/x86/kvm/mmu/mmu.c")]
    public int MmuPageFault(ulong gpa, ulong errorCode, ReadOnlySpan<byte> insn)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_page_fault");
        bool direct = Mmu.RootRole.Direct;
        if (Mmu.RootHpa == INVALID_PAGE)
            return RET_PF_RETRY;
        EmulType emulType = EmulType.EMULTYPE_PF;
        int r = RET_PF_INVALID;
        if ((errorCode & PFERR_RSVD_MASK) != 0)
        {
            r = HandleMmioPageFault(gpa, direct);
            if (r == RET_PF_EMULATE)
                return EmulateInstruction(gpa, emulType, insn);
        }

        if (r == RET_PF_INVALID)
        {
            r = DoPageFault(gpa, (uint)errorCode, ref emulType);
            if (Vm.BugOn(r == RET_PF_INVALID))
                return -EIO;
        }

        if (r < 0)
            return r;
        if (r != RET_PF_EMULATE)
            return 1;

        // A write to a guest page table that may not be written, by the processor's own walk: nothing to emulate.
        if (direct && (errorCode & PFERR_NESTED_GUEST_PAGE) == PFERR_NESTED_GUEST_PAGE)
            return 1;
        if (!MmioInfoInCache(gpa, direct) && !IsGuestMode)
            emulType |= EmulType.EMULTYPE_ALLOW_RETRY_PF;
        return EmulateInstruction(gpa, emulType, insn);
    }

    /// <summary>kvm_handle_page_fault: an intercepted #PF of the guest.</summary>
    [KernelFunction("kvm_handle_page_fault", File = "arch/x86/kvm/mmu/mmu.c")]
    public int HandlePageFault(ulong errorCode, ulong faultAddress, ReadOnlySpan<byte> insn)
    {
        using var _ = FunctionTrace.Enter("kvm_handle_page_fault");
        L1tfFlushL1d = true;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_page_fault", $"vcpu {VcpuId} rip 0x{Rip:x} address 0x{faultAddress:x16} error_code 0x{errorCode:x}");

        // An event was being delivered: emulation would lose it, so a table that is in the way stops being watched.
        if (EventNeedsReinjection && !Mmu.RootRole.Direct)
        {
            ulong gpa = GvaToGpaRead(faultAddress, out X86Exception _);
            if (gpa != INVALID_GPA)
                Vm.Shadow.UnprotectPage(gpa >> 12);
        }

        return MmuPageFault(faultAddress, errorCode, insn);
    }

    /// <summary>kvm_mmu_do_page_fault.</summary>
    private int DoPageFault(ulong addr, uint errorCode, ref EmulType emulType)
    {
        var fault = KvmPageFault.Of(addr, errorCode, Vm.NxHugePageEnabled, Arch.TdpEnabled ? Arch.MaxHugePageLevel : PG_LEVEL_1G);
        fault.IsTdp = Arch.TdpEnabled;
        Stat.PfTaken++;
        int r;
        if (fault.IsTdp)
            r = TdpPageFault(ref fault);
        else if (Mmu.RootRole.Direct)
            r = NonpagingPageFault(ref fault);
        else
            r = PagingPageFault(ref fault);

        if (fault.WriteFaultToShadowPgtable)
            emulType |= EmulType.EMULTYPE_WRITE_PF_TO_SP;
        switch (r)
        {
            case RET_PF_FIXED: Stat.PfFixed++; break;
            case RET_PF_EMULATE: Stat.PfEmulate++; break;
            case RET_PF_SPURIOUS: Stat.PfSpurious++; break;
        }

        return r;
    }

    [KernelFunction("kvm_tdp_page_fault", File = "arch/x86/kvm/mmu/mmu.c")]
    private int TdpPageFault(ref KvmPageFault fault)
    {
        using var _ = FunctionTrace.Enter("kvm_tdp_page_fault");
        if (Arch.Spte.Memtype != 0)
            FunctionTrace.Leaf("kvm_arch_has_noncoherent_dma");
        return DirectPageFault(ref fault);
    }

    [KernelFunction("direct_page_fault", File = "arch/x86/kvm/mmu/mmu.c")]
    private int DirectPageFault(ref KvmPageFault fault)
    {
        using var _ = FunctionTrace.Enter("direct_page_fault");
        fault.Slot = GfnToMemslot(fault.Gfn);
        if (PageFaultHandlePageTrack(in fault))
            return RET_PF_EMULATE;
        int r = FastPageFault(ref fault);
        if (r != RET_PF_INVALID)
            return r;
        r = TopupMemoryCaches(false);
        if (r != 0)
            return r;

        // The sequence before the page is looked up: a change of process memory in between is seen below.
        ulong sequence = Volatile.Read(ref Vm.MmuInvalidateSeq);
        Interlocked.MemoryBarrier();
        r = FaultinPfn(ref fault);
        if (r != RET_PF_CONTINUE)
            return r;
        r = HandleAbnormalPfn(ref fault, ACC_ALL);
        if (r != RET_PF_CONTINUE)
            return r;

        Vm.MmuLock.WriteLock();
        if (!Vm.TdpMmuEnabled)
        {
            r = Vm.MakeMmuPagesAvailable();
            if (r == 0)
                r = IsPageFaultStale(ref fault, sequence) ? RET_PF_RETRY : Vm.Shadow.DirectMap(this, ref fault);
        }
        else
        {
            r = IsPageFaultStale(ref fault, sequence) ? RET_PF_RETRY : Vm.Mmu.Map(this, ref fault);
        }

        Vm.MmuLock.WriteUnlock();
        ReleasePfn(in fault);
        return r;
    }

    /// <summary>kvm_release_pfn_clean.</summary>
    private static void ReleasePfn(in KvmPageFault fault)
    {
        using (FunctionTrace.Enter("kvm_release_pfn_clean"))
        {
            if (!KvmPfn.IsErrorOrNoslot(fault.Pfn))
            {
                FunctionTrace.Leaf("kvm_pfn_to_refcounted_page");
                FunctionTrace.Leaf("kvm_release_page_clean");
            }
        }
    }

    /// <summary>page_fault_handle_page_track: a write to a table of the guest that stays write-protected.</summary>
    private bool PageFaultHandlePageTrack(in KvmPageFault fault)
    {
        if (fault.Rsvd || !fault.Present || !fault.Write || Arch.TdpEnabled)
            return false;
        return Vm.Shadow.IsWriteTracked(fault.Slot, fault.Gfn);
    }

    [KernelFunction("kvm_faultin_pfn", File = "arch/x86/kvm/mmu/mmu.c")]
    private int FaultinPfn(ref KvmPageFault fault)
    {
        using var _ = FunctionTrace.Enter("kvm_faultin_pfn");
        KvmMemorySlot? slot = fault.Slot;
        if (slot is { IsInvalid: true })
            return RET_PF_RETRY;
        if (!KvmVm.IsVisibleMemslot(slot))
        {
            if (IsGuestMode)
            {
                fault.Slot = null;
                fault.Pfn = KvmPfn.Noslot;
                fault.MapWritable = false;
                return RET_PF_CONTINUE;
            }

            // The APIC's page while the processor does not use it: emulated at once and not remembered, so that nothing is stale when it does.
            if (slot is { Id: X86Arch.APIC_ACCESS_PAGE_PRIVATE_MEMSLOT } && !Vm.ApicvActivated)
                return RET_PF_EMULATE;
        }

        fault.Pfn = Vm.GfnToPfn(slot, fault.Gfn, fault.Write, out fault.MapWritable, out fault.Hva);
        return RET_PF_CONTINUE;
    }

    [KernelFunction("handle_abnormal_pfn", File = "arch/x86/kvm/mmu/mmu.c")]
    private int HandleAbnormalPfn(ref KvmPageFault fault, uint access)
    {
        FunctionTrace.Leaf("handle_abnormal_pfn");
        if (KvmPfn.IsError(fault.Pfn) && !KvmPfn.IsNoslot(fault.Pfn))
        {
            // A write to a read-only slot is emulated and ends as MMIO; process memory that is gone ends KVM_RUN.
            return fault.Pfn == KvmPfn.ErrRoFault ? RET_PF_EMULATE : -EFAULT;
        }

        if (fault.Slot is not null)
            return RET_PF_CONTINUE;
        CacheMmioInfo(fault.IsTdp ? 0 : fault.Addr, fault.Gfn, access & Arch.Spte.MmioAccessMask);
        return !Arch.Spte.MmioCaching || fault.Gfn > X86Arch.MaxGfn ? RET_PF_EMULATE : RET_PF_CONTINUE;
    }

    [KernelFunction("is_page_fault_stale", File = "arch/x86/kvm/mmu/mmu.c")]
    private bool IsPageFaultStale(ref KvmPageFault fault, ulong sequence)
    {
        FunctionTrace.Leaf("is_page_fault_stale");
        if (Vm.TdpMmuEnabled ? Vm.Mmu.IsObsoleteRoot(Mmu.RootHpa) : Vm.Shadow.IsStale(this))
            return true;
        return fault.Slot is not null && Vm.MmuInvalidateRetryHva(sequence, fault.Hva);
    }

    /// <summary>
    /// fast_page_fault: a write to a page that is only write-protected for dirty logging is fixed without the lock. RET_PF_INVALID: not such a fault.
    /// </summary>
    private int FastPageFault(ref KvmPageFault fault)
    {
        if (fault.Rsvd || (!fault.Present ? Arch.Spte.AdEnabled : !fault.Write))
            return RET_PF_INVALID;
        using var _ = FunctionTrace.Enter("fast_page_fault");
        HostTask task = HostTask.Current;
        task.LocalIrqDisable();
        Volatile.Write(ref Mode, VcpuMode.READING_SHADOW_PAGE_TABLES);
        Interlocked.MemoryBarrier();
        int ret = RET_PF_INVALID;
        for (int retry = 0; retry < 4; retry++)
        {
            ulong* sptep = LastSptep(fault.Addr, out ulong spte, out int level);
            if (!IsShadowPresent(spte) || !IsLast(spte, level))
                break;
            bool allowed = fault.Write ? IsWritable(spte) : !fault.Exec || IsExecutable(spte);
            if (allowed)
            {
                ret = RET_PF_SPURIOUS;
                break;
            }

            ulong fixedSpte = spte;
            if (fault.Write && (spte & Arch.Spte.HostWritable) != 0 && (spte & Arch.Spte.MmuWritable) != 0)
            {
                fixedSpte |= PT_WRITABLE_MASK;

                // A large page must not become writable as a whole while its slot is logged.
                if (level > PG_LEVEL_4K && fault.Slot is { DirtyTrackEnabled: true })
                    break;
            }

            if (fixedSpte == spte)
                break;
            if (Interlocked.CompareExchange(ref *sptep, fixedSpte, spte) == spte)
            {
                Vm.MarkPageDirtyInSlot(fault.Slot, fault.Gfn);
                ret = RET_PF_FIXED;
                break;
            }
        }

        Volatile.Write(ref Mode, VcpuMode.OUTSIDE_GUEST_MODE);
        task.LocalIrqEnable();
        if (ret != RET_PF_INVALID)
            Stat.PfFast++;
        return ret;
    }

    /// <summary>The entry where the walk for a fault's address ends; inside a lockless section.</summary>
    private ulong* LastSptep(ulong addr, out ulong spte, out int level) =>
        Vm.TdpMmuEnabled ? Vm.Mmu.LastSptep(Mmu.RootHpa, Mmu.RootLevel, addr >> 12, out spte, out level) : ShadowMmu.LastSptep(Mmu, addr, out spte, out level);

    private bool IsExecutable(ulong spte) => Arch.Spte.X != 0 ? (spte & Arch.Spte.X) != 0 : (spte & Arch.Spte.Nx) == 0;

    /// <summary>A fault on an entry that was made to fault: emulate while its generation is the memslots', else map anew.</summary>
    [KernelFunction("handle_mmio_page_fault", File = "arch/x86/kvm/mmu/mmu.c")]
    private int HandleMmioPageFault(ulong addr, bool direct)
    {
        if (MmioInfoInCache(addr, direct))
            return RET_PF_EMULATE;
        HostTask task = HostTask.Current;
        task.LocalIrqDisable();
        Volatile.Write(ref Mode, VcpuMode.READING_SHADOW_PAGE_TABLES);
        Interlocked.MemoryBarrier();
        LastSptep(addr, out ulong spte, out int _);
        Volatile.Write(ref Mode, VcpuMode.OUTSIDE_GUEST_MODE);
        task.LocalIrqEnable();

        if (!Arch.Spte.IsMmio(spte))
            return RET_PF_RETRY;
        ulong generation = Volatile.Read(ref Memslots.Generation);
        if ((generation & KvmLimits.KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS) != 0 || (generation & MMIO_SPTE_GEN_MASK) != MmioGeneration(spte))
            return RET_PF_INVALID;
        ulong gfn = Arch.Spte.MmioGfn(spte);
        uint access = Arch.Spte.MmioAccess(spte);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("handle_mmio_page_fault", $"addr:{(direct ? 0 : addr):x} gfn {gfn:x} access {access:x}");
        CacheMmioInfo(direct ? 0 : addr, gfn, access);
        return RET_PF_EMULATE;
    }
}
