using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Roots of vCPUs.</remarks>
public sealed unsafe partial class ShadowMmu
{
    /// <summary>mmu_alloc_root: a page that is in use as root until <see cref="FreeRootPage"/>.</summary>
    private ShadowPage AllocRoot(X86Vcpu vcpu, ulong gfn, int quadrant, int level)
    {
        ShadowPage sp = GetShadowPage(vcpu, gfn, vcpu.Mmu.RootRole with { Level = level, Quadrant = quadrant });
        sp.RootCount++;
        return sp;
    }

    /// <summary>mmu_free_root_page: the last user's root goes when it was zapped meanwhile; a valid one stays for the next user.</summary>
    private void FreeRootPage(ShadowPage sp, ref ShadowPage? invalid)
    {
        FunctionTrace.Leaf("mmu_free_root_page");
        if (--sp.RootCount == 0 && sp.Role.Invalid)
            PrepareZapPage(sp, ref invalid);
    }

    /// <summary>mmu_alloc_direct_roots: 0 or -ENOSPC. Takes the lock.</summary>
    [KernelFunction("mmu_alloc_direct_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    internal int AllocDirectRoots(X86Vcpu vcpu)
    {
        KvmMmu mmu = vcpu.Mmu;
        vm.MmuLock.WriteLock();
        int r = vm.MakeMmuPagesAvailable();
        if (r == 0 && mmu.RootLevel >= PT64_ROOT_4LEVEL)
        {
            ShadowPage sp = AllocRoot(vcpu, 0, 0, mmu.RootLevel);
            mmu.Root = new KvmMmuRootInfo { Hpa = sp.Address, Page = sp };
        }
        else if (r == 0)
        {
            for (int i = 0; i < 4; i++)
                mmu.PaeRoot[i] = AllocRoot(vcpu, (ulong)i << (30 - 12), 0, PT32_ROOT_LEVEL).Address | PT_PRESENT_MASK | Masks.MeValue;
            mmu.Root = new KvmMmuRootInfo { Hpa = (ulong)mmu.PaeRoot };
        }

        vm.MmuLock.WriteUnlock();
        return r;
    }

    /// <summary>mmu_alloc_shadow_roots: 0; 1 after asking for a triple fault, when the guest's root is nowhere; -ENOSPC. Takes the lock.</summary>
    [KernelFunction("mmu_alloc_shadow_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    internal int AllocShadowRoots(X86Vcpu vcpu)
    {
        KvmMmu mmu = vcpu.Mmu;
        ulong rootPgd = vcpu.ReadCr3();
        ulong rootGfn = rootPgd >> 12;
        if (CheckRoot(vcpu, rootGfn))
            return 1;

        // Before the lock: reading them may need guest memory.
        Span<ulong> pdptrs = stackalloc ulong[4];
        if (mmu.GuestLevel == PT32E_ROOT_LEVEL)
        {
            for (int i = 0; i < 4; i++)
            {
                pdptrs[i] = vcpu.PdptrRead(i);
                if ((pdptrs[i] & PT_PRESENT_MASK) != 0 && CheckRoot(vcpu, pdptrs[i] >> 12))
                    return 1;
            }
        }

        vm.MmuLock.WriteLock();
        int r = vm.MakeMmuPagesAvailable();
        if (r == 0)
            AllocShadowRoots(vcpu, mmu, rootPgd, rootGfn, pdptrs);
        vm.MmuLock.WriteUnlock();
        return r;
    }

    private void AllocShadowRoots(X86Vcpu vcpu, KvmMmu mmu, ulong rootPgd, ulong rootGfn, ReadOnlySpan<ulong> pdptrs)
    {
        if (mmu.GuestLevel >= PT64_ROOT_4LEVEL)
        {
            ShadowPage sp = AllocRoot(vcpu, rootGfn, 0, mmu.RootLevel);
            mmu.Root = new KvmMmuRootInfo { Hpa = sp.Address, Pgd = rootPgd, Page = sp };
            return;
        }

        for (int i = 0; i < 4; i++)
        {
            int quadrant = i;
            if (mmu.GuestLevel == PT32E_ROOT_LEVEL)
            {
                quadrant = 0;
                if ((pdptrs[i] & PT_PRESENT_MASK) == 0)
                {
                    mmu.PaeRoot[i] = 0;
                    continue;
                }

                rootGfn = (pdptrs[i] & SPTE_BASE_ADDR_MASK) >> 12;
            }

            mmu.PaeRoot[i] = AllocRoot(vcpu, rootGfn, quadrant, PT32_ROOT_LEVEL).Address | PT_PRESENT_MASK | Masks.MeValue;
        }

        mmu.Root = new KvmMmuRootInfo { Hpa = (ulong)mmu.PaeRoot, Pgd = rootPgd };
    }

    /// <summary>mmu_check_root.</summary>
    private static bool CheckRoot(X86Vcpu vcpu, ulong gfn)
    {
        if (vcpu.IsVisibleGfn(gfn))
            return false;
        vcpu.MakeRequest(X86Request.KVM_REQ_TRIPLE_FAULT);
        return true;
    }

    /// <summary>
    /// kvm_mmu_free_roots: gives the current root (bit 0) and previous ones (bit 1 + index) back. Takes the lock, when there is something to do.
    /// </summary>
    [KernelFunction("kvm_mmu_free_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void FreeRoots(KvmMmu mmu, uint roots)
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_free_roots");
        bool current = (roots & RootCurrent) != 0 && mmu.Root.IsValid;
        bool work = current;
        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
            work |= (roots & RootPrevious(i)) != 0 && mmu.PrevRoots[i].IsValid;
        if (!work)
            return;

        vm.MmuLock.WriteLock();
        ShadowPage? invalid = null;
        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
        {
            if ((roots & RootPrevious(i)) == 0)
                continue;
            if (mmu.PrevRoots[i].Page is { } sp)
                FreeRootPage(sp, ref invalid);
            mmu.PrevRoots[i] = KvmMmuRootInfo.Invalid;
        }

        if (current)
        {
            if (mmu.Root.Page is { } sp)
                FreeRootPage(sp, ref invalid);
            else
                FreePaeRoots(mmu, ref invalid);
            mmu.Root = KvmMmuRootInfo.Invalid;
        }

        CommitZapPage(ref invalid);
        vm.MmuLock.WriteUnlock();
    }

    private void FreePaeRoots(KvmMmu mmu, ref ShadowPage? invalid)
    {
        for (int i = 0; i < 4; i++)
        {
            if (mmu.PaeRoot[i] == 0)
                continue;
            FreeRootPage(PageOf(mmu.PaeRoot[i] & SPTE_BASE_ADDR_MASK), ref invalid);
            mmu.PaeRoot[i] = 0;
        }
    }

    /// <summary>KVM_MMU_ROOT_CURRENT.</summary>
    internal const uint RootCurrent = 1;

    /// <summary>KVM_MMU_ROOTS_ALL.</summary>
    internal const uint RootsAll = ~0u;

    /// <summary>KVM_MMU_ROOT_PREVIOUS.</summary>
    internal static uint RootPrevious(int i) => 2u << i;

    /// <summary>kvm_mmu_free_obsolete_roots: of the four roots of PAE paging it is not known, they go in any case.</summary>
    internal void FreeObsoleteRoots(KvmMmu mmu)
    {
        uint roots = IsObsoleteRoot(in mmu.Root) ? RootCurrent : 0;
        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
            roots |= IsObsoleteRoot(in mmu.PrevRoots[i]) ? RootPrevious(i) : 0;
        if (roots != 0)
            FreeRoots(mmu, roots);
    }

    private bool IsObsoleteRoot(in KvmMmuRootInfo root) => root.IsValid && (root.Page is null || IsObsolete(root.Page));

    /// <summary>is_page_fault_stale, as far as roots go; under the lock.</summary>
    internal bool IsStale(X86Vcpu vcpu) =>
        vcpu.Mmu.Root.Page is { } sp ? IsObsolete(sp) : vcpu.TestRequest(X86Request.KVM_REQ_MMU_FREE_OBSOLETE_ROOTS);

    // ---- a change of CR3 ----

    /// <summary>fast_pgd_switch: true when a root for the new table is at hand; it is the current one then, and the one before is remembered.</summary>
    internal bool FastPgdSwitch(KvmMmu mmu, ulong pgd)
    {
        KvmMmuPageRole role = mmu.RootRole;

        // The four roots of PAE paging are not kept.
        if (mmu.Root is { IsValid: true, Page: null })
            FreeRoots(mmu, RootCurrent);
        return mmu.Root.IsValid ? FindAndKeepCurrent(mmu, pgd, role) : FindWithoutCurrent(mmu, pgd, role);
    }

    /// <summary>cached_root_find_and_keep_current: each root that does not fit moves one place down; the last falls out.</summary>
    private bool FindAndKeepCurrent(KvmMmu mmu, ulong pgd, KvmMmuPageRole role)
    {
        if (mmu.Root.Serves(pgd, role))
            return true;
        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
        {
            (mmu.Root, mmu.PrevRoots[i]) = (mmu.PrevRoots[i], mmu.Root);
            if (mmu.Root.Serves(pgd, role))
                return true;
        }

        FreeRoots(mmu, RootCurrent);
        return false;
    }

    /// <summary>cached_root_find_without_current.</summary>
    private static bool FindWithoutCurrent(KvmMmu mmu, ulong pgd, KvmMmuPageRole role)
    {
        for (int i = 0; i < KvmMmu.PreviousRoots; i++)
        {
            if (!mmu.PrevRoots[i].Serves(pgd, role))
                continue;
            mmu.Root = mmu.PrevRoots[i];
            for (; i < KvmMmu.PreviousRoots - 1; i++)
                mmu.PrevRoots[i] = mmu.PrevRoots[i + 1];
            mmu.PrevRoots[i] = KvmMmuRootInfo.Invalid;
            return true;
        }

        return false;
    }

    // ---- without the lock ----

    /// <summary>The entry where the walk for an address ends; between X86Vcpu's beginning and end of a lockless walk. Null: there is no table at all.</summary>
    internal static ulong* LastSptep(KvmMmu mmu, ulong addr, out ulong spte, out int level)
    {
        ulong* last = null;
        spte = 0;
        level = 0;
        for (bool more = WalkInit(mmu, mmu.RootHpa, addr, out ShadowWalk walk); more; more = WalkNext(ref walk, spte))
        {
            last = walk.Sptep;
            level = walk.Level;
            spte = Volatile.Read(ref *last);
        }

        return last;
    }
}
