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
    /// What the vendors call with a guest-physical fault. 1: go on; 0: leave KVM_RUN; -errno. <paramref name="errorCode"/> has PFERR_* bits; RSVD means an
    /// entry that was made to fault (MMIO). <paramref name="insn"/>: instruction bytes that the hardware supplied, or empty.
    /// </summary>
    [KernelFunction("kvm_mmu_page_fault", File = "arch/x86/kvm/mmu/mmu.c")]
    public int MmuPageFault(ulong gpa, ulong errorCode, ReadOnlySpan<byte> insn)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_page_fault");
        if (Mmu.RootHpa == INVALID_PAGE)
            return RET_PF_RETRY;
        EmulType emulType = EmulType.EMULTYPE_PF;
        int r = RET_PF_INVALID;
        if ((errorCode & PFERR_RSVD_MASK) != 0)
        {
            r = HandleMmioPageFault(gpa);
            if (r == RET_PF_EMULATE)
                return EmulateInstruction(gpa, emulType, insn);
        }

        if (r == RET_PF_INVALID)
        {
            r = DoPageFault(gpa, (uint)errorCode);
            if (Vm.BugOn(r == RET_PF_INVALID))
                return -EIO;
        }

        if (r < 0)
            return r;
        if (r != RET_PF_EMULATE)
            return 1;

        // A write to a guest page table that may not be written, by the processor's own walk: nothing to emulate.
        if ((errorCode & PFERR_NESTED_GUEST_PAGE) == PFERR_NESTED_GUEST_PAGE)
            return 1;
        if (!MmioInfoInCache(gpa) && !IsGuestMode)
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
        return MmuPageFault(faultAddress, errorCode, insn);
    }

    /// <summary>kvm_mmu_do_page_fault.</summary>
    private int DoPageFault(ulong gpa, uint errorCode)
    {
        var fault = KvmPageFault.Of(gpa, errorCode, Vm.NxHugePageEnabled, Arch.MaxHugePageLevel);
        Stat.PfTaken++;
        int r;
        using (FunctionTrace.Enter("kvm_tdp_page_fault"))
        {
            if (Arch.Spte.Memtype != 0)
                FunctionTrace.Leaf("kvm_arch_has_noncoherent_dma");
            r = DirectPageFault(ref fault);
        }

        switch (r)
        {
            case RET_PF_FIXED: Stat.PfFixed++; break;
            case RET_PF_EMULATE: Stat.PfEmulate++; break;
            case RET_PF_SPURIOUS: Stat.PfSpurious++; break;
        }

        return r;
    }

    [KernelFunction("direct_page_fault", File = "arch/x86/kvm/mmu/mmu.c")]
    private int DirectPageFault(ref KvmPageFault fault)
    {
        using var _ = FunctionTrace.Enter("direct_page_fault");
        fault.Slot = GfnToMemslot(fault.Gfn);
        int r = FastPageFault(ref fault);
        if (r != RET_PF_INVALID)
            return r;
        r = TopupMemoryCaches();
        if (r != 0)
            return r;

        // The sequence before the page is looked up: a change of process memory in between is seen below.
        ulong sequence = Volatile.Read(ref Vm.MmuInvalidateSeq);
        Interlocked.MemoryBarrier();
        r = FaultinPfn(ref fault);
        if (r != RET_PF_CONTINUE)
            return r;
        r = HandleAbnormalPfn(ref fault);
        if (r != RET_PF_CONTINUE)
            return r;

        r = RET_PF_RETRY;
        Vm.MmuLock.WriteLock();
        if (!IsPageFaultStale(ref fault, sequence))
            r = Vm.Mmu.Map(this, ref fault);
        Vm.MmuLock.WriteUnlock();
        using (FunctionTrace.Enter("kvm_release_pfn_clean"))
        {
            if (!KvmPfn.IsErrorOrNoslot(fault.Pfn))
            {
                FunctionTrace.Leaf("kvm_pfn_to_refcounted_page");
                FunctionTrace.Leaf("kvm_release_page_clean");
            }
        }

        return r;
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
    private int HandleAbnormalPfn(ref KvmPageFault fault)
    {
        FunctionTrace.Leaf("handle_abnormal_pfn");
        if (KvmPfn.IsError(fault.Pfn) && !KvmPfn.IsNoslot(fault.Pfn))
        {
            // A write to a read-only slot is emulated and ends as MMIO; process memory that is gone ends KVM_RUN.
            return fault.Pfn == KvmPfn.ErrRoFault ? RET_PF_EMULATE : -EFAULT;
        }

        if (fault.Slot is not null)
            return RET_PF_CONTINUE;
        CacheMmioInfo(0, fault.Gfn, ACC_ALL & Arch.Spte.MmioAccessMask);
        return !Arch.Spte.MmioCaching || fault.Gfn > X86Arch.MaxGfn ? RET_PF_EMULATE : RET_PF_CONTINUE;
    }

    [KernelFunction("is_page_fault_stale", File = "arch/x86/kvm/mmu/mmu.c")]
    private bool IsPageFaultStale(ref KvmPageFault fault, ulong sequence)
    {
        FunctionTrace.Leaf("is_page_fault_stale");
        if (Vm.Mmu.IsObsoleteRoot(Mmu.RootHpa))
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
            ulong* sptep = Vm.Mmu.LastSptep(Mmu.RootHpa, Mmu.RootLevel, fault.Gfn, out ulong spte, out int level);
            if (!IsShadowPresent(spte))
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

    private bool IsExecutable(ulong spte) => Arch.Spte.X != 0 ? (spte & Arch.Spte.X) != 0 : (spte & Arch.Spte.Nx) == 0;

    /// <summary>A fault on an entry that was made to fault: emulate while its generation is the memslots', else map anew.</summary>
    [KernelFunction("handle_mmio_page_fault", File = "arch/x86/kvm/mmu/mmu.c")]
    private int HandleMmioPageFault(ulong gpa)
    {
        if (MmioInfoInCache(gpa))
            return RET_PF_EMULATE;
        HostTask task = HostTask.Current;
        task.LocalIrqDisable();
        Volatile.Write(ref Mode, VcpuMode.READING_SHADOW_PAGE_TABLES);
        Interlocked.MemoryBarrier();
        Vm.Mmu.LastSptep(Mmu.RootHpa, Mmu.RootLevel, gpa >> 12, out ulong spte, out int _);
        Volatile.Write(ref Mode, VcpuMode.OUTSIDE_GUEST_MODE);
        task.LocalIrqEnable();

        if (!Arch.Spte.IsMmio(spte))
            return RET_PF_RETRY;
        ulong generation = Volatile.Read(ref Memslots.Generation);
        if ((generation & KvmLimits.KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS) != 0 || (generation & MMIO_SPTE_GEN_MASK) != MmioGeneration(spte))
            return RET_PF_INVALID;
        CacheMmioInfo(0, Arch.Spte.MmioGfn(spte), Arch.Spte.MmioAccess(spte));
        return RET_PF_EMULATE;
    }
}
