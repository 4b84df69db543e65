using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.RetPf;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Page faults of a guest without nested paging: KVM's own, or the guest's.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>A guest without paging runs on tables that map guest-physical memory.</summary>
    [KernelFunction("nonpaging_page_fault", File = "arch/x86/kvm/mmu/mmu.c")]
    private int NonpagingPageFault(ref KvmPageFault fault)
    {
        using var _ = FunctionTrace.Enter("nonpaging_page_fault");
        fault.MaxLevel = PG_LEVEL_2M; // PAE paging has no larger pages
        return DirectPageFault(ref fault);
    }

    /// <summary>
    /// paging64_page_fault, paging32_page_fault: the guest's tables are asked. What they don't allow is the guest's own fault; what they do is shadowed.
    /// </summary>
    [KernelFunction("paging64_page_fault", File = "arch/x86/kvm/mmu/paging_tmpl.h")]
    private int PagingPageFault(ref KvmPageFault fault)
    {
        using var _ = FunctionTrace.Enter(Mmu.GuestLevel == PT32_ROOT_LEVEL ? "paging32_page_fault" : "paging64_page_fault");

        // A reserved bit is one of the shadow tables: it says nothing about the guest's.
        if (!WalkAddr(out GuestWalker walker, Mmu, fault.Addr, fault.ErrorCode & ~PFERR_RSVD_MASK))
        {
            InjectEmulatedPageFault(in walker.Fault);
            return RET_PF_RETRY;
        }

        fault.Gfn = walker.Gfn;
        fault.Slot = GfnToMemslot(fault.Gfn);
        if (PageFaultHandlePageTrack(in fault))
        {
            Vm.Shadow.ClearFlood(this, fault.Addr);
            return RET_PF_EMULATE;
        }

        int r = TopupMemoryCaches(true);
        if (r != 0)
            return r;
        fault.MaxLevel = IsSelfChangeMapping(ref walker, ref fault) ? PG_LEVEL_4K : walker.Level;

        // The sequence before the page is looked up: a change of process memory in between is seen below.
        ulong sequence = Volatile.Read(ref Vm.MmuInvalidateSeq);
        Interlocked.MemoryBarrier();
        r = FaultinPfn(ref fault);
        if (r != RET_PF_CONTINUE)
            return r;
        r = HandleAbnormalPfn(ref fault, walker.PteAccess);
        if (r != RET_PF_CONTINUE)
            return r;
        AllowSupervisorWrite(ref walker, in fault);

        Vm.MmuLock.WriteLock();
        r = Vm.MakeMmuPagesAvailable();
        if (r == 0)
            r = IsPageFaultStale(ref fault, sequence) ? RET_PF_RETRY : Vm.Shadow.Fetch(this, ref fault, ref walker);
        Vm.MmuLock.WriteUnlock();
        ReleasePfn(in fault);
        return r;
    }

    /// <summary>
    /// With CR0.WP clear the guest's kernel writes read-only pages. The processor runs with WP set: such a page becomes a writable page of the kernel until user
    /// code wants it back, and with SMEP not an executable one.
    /// </summary>
    private void AllowSupervisorWrite(ref GuestWalker walker, in KvmPageFault fault)
    {
        if (!fault.Write || (walker.PteAccess & ACC_WRITE_MASK) != 0 || Mmu.Cr0Wp || fault.User || fault.Slot is null)
            return;
        walker.PteAccess |= ACC_WRITE_MASK;
        walker.PteAccess &= ~ACC_USER_MASK;
        if (Mmu.Cr4Smep)
            walker.PteAccess &= ~ACC_EXEC_MASK;
    }

    /// <summary>is_self_change_mapping: a writable mapping of a frame near one of the tables that lead to it: a large page would have to go again at once.</summary>
    private bool IsSelfChangeMapping(ref GuestWalker walker, ref KvmPageFault fault)
    {
        if ((walker.PteAccess & ACC_WRITE_MASK) == 0 && (Mmu.Cr0Wp || fault.User))
            return false;
        ulong mask = ~(KvmArchMemorySlot.PagesPer(walker.Level) - 1);
        bool self = false;
        for (int level = walker.Level; level <= walker.MaxLevel; level++)
        {
            ulong distance = walker.Gfn ^ walker.TableGfn[level - 1];
            self |= (distance & mask) == 0;
            fault.WriteFaultToShadowPgtable |= distance == 0;
        }

        return self;
    }
}
