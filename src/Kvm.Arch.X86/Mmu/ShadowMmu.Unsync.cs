using System.Runtime.CompilerServices;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Last-level pages whose guest table the guest writes without being watched, until it flushes its translations.</remarks>
public sealed unsafe partial class ShadowMmu
{
    /// <summary>KVM_PAGE_ARRAY_NR.</summary>
    private const int WalkLength = 16;

    [InlineArray(WalkLength)]
    private struct WalkedPages
    {
        private (ShadowPage Page, int Index) first;
    }

    /// <summary>struct kvm_mmu_pages: pages between a root and what is out of sync below it, each with its index in the page above.</summary>
    private struct UnsyncWalk
    {
        public WalkedPages Pages;
        public int Count;

        /// <summary>mmu_pages_add: true when there is no more room.</summary>
        public bool Add(ShadowPage sp, int index)
        {
            if (sp.Unsync)
            {
                for (int i = 0; i < Count; i++)
                {
                    if (Pages[i].Page == sp)
                        return false;
                }
            }

            Pages[Count++] = (sp, index);
            return Count == WalkLength;
        }
    }

    [InlineArray(PT64_ROOT_5LEVEL)]
    private struct PathPages
    {
        private ShadowPage? first;
    }

    [InlineArray(PT64_ROOT_5LEVEL)]
    private struct PathIndexes
    {
        private int first;
    }

    /// <summary>struct mmu_page_path.</summary>
    private struct UnsyncPath
    {
        public PathPages Parent;
        public PathIndexes Index;
    }

    /// <summary>mark_unsync: up to the roots, every page knows which of its entries lead to something out of sync.</summary>
    private void MarkUnsync(ulong* sptep)
    {
        ShadowPage sp = SpOf(sptep);
        int index = IndexOf(sptep);
        ref ulong word = ref sp.UnsyncChildBitmap[index >> 6];
        ulong bit = 1ul << (index & 63);
        if ((word & bit) != 0)
            return;
        word |= bit;
        if (sp.UnsyncChildren++ == 0)
            MarkParentsUnsync(sp);
    }

    /// <summary>kvm_mmu_mark_parents_unsync.</summary>
    private void MarkParentsUnsync(ShadowPage sp)
    {
        for (ulong* parent = PteLists.First(sp.ParentPtes, out PteLists.Position at); parent != null; parent = PteLists.Next(ref at))
            MarkUnsync(parent);
    }

    private static void ClearUnsyncChildBit(ShadowPage sp, int index)
    {
        sp.UnsyncChildren--;
        sp.UnsyncChildBitmap[index >> 6] &= ~(1ul << (index & 63));
    }

    /// <summary>kvm_unsync_page.</summary>
    private void UnsyncPage(ShadowPage sp)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_unsync_page", sp.ToString());
        vm.Stat.MmuUnsync++;
        Volatile.Write(ref sp.Unsync, true);
        MarkParentsUnsync(sp);
    }

    /// <summary>kvm_unlink_unsync_page.</summary>
    private void UnlinkUnsyncPage(ShadowPage sp)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_sync_page", sp.ToString());
        sp.Unsync = false;
        vm.Stat.MmuUnsync--;
    }

    /// <summary>
    /// mmu_try_to_unsync_pages: a writable mapping of the frame is wanted. 0 when that is all right: pages that shadow the frame are out of sync from now on.
    /// -EPERM when it must stay write-protected: an upper-level table, or not while a flush of the guest is being done (<paramref name="canUnsync"/>).
    /// </summary>
    [KernelFunction("mmu_try_to_unsync_pages", File = "arch/x86/kvm/mmu/mmu.c")]
    private int TryToUnsyncPages(KvmMemorySlot slot, ulong gfn, bool canUnsync, bool prefetch)
    {
        using var _ = FunctionTrace.Enter("mmu_try_to_unsync_pages");
        if (IsWriteTracked(slot, gfn))
            return -Errnos.EPERM;
        if (hash.Length == 0)
            return 0;
        for (ShadowPage? sp = hash[HashOf(gfn)]; sp is not null; sp = sp.HashNext)
        {
            if (sp.Gfn != gfn || IsObsolete(sp) || !sp.HasGptes)
                continue;
            if (!canUnsync)
                return -Errnos.EPERM;
            if (sp.Unsync)
                continue;
            if (prefetch)
                return -Errnos.EEXIST;
            UnsyncPage(sp);
        }

        // The marks are seen before the entry is writable: a vCPU that flushes after the guest's write finds them without the lock.
        Interlocked.MemoryBarrier();
        return 0;
    }

    /// <summary>mmu_unsync_walk: what is out of sync below a page, as far as there is room; 0 when nothing.</summary>
    private int WalkUnsync(ShadowPage sp, ref UnsyncWalk walk)
    {
        walk.Count = 0;
        if (sp.UnsyncChildren == 0)
            return 0;
        walk.Add(sp, -1);
        return WalkUnsyncChildren(sp, ref walk);
    }

    private int WalkUnsyncChildren(ShadowPage sp, ref UnsyncWalk walk)
    {
        int leaves = 0;
        for (int i = 0; i < 512; i++)
        {
            ulong word = sp.UnsyncChildBitmap[i >> 6] >> (i & 63);
            if (word == 0)
            {
                i |= 63;
                continue;
            }

            i += System.Numerics.BitOperations.TrailingZeroCount(word);
            ulong entry = sp.Spt[i];
            if (!IsShadowPresent(entry) || IsLarge(entry))
            {
                ClearUnsyncChildBit(sp, i);
                continue;
            }

            ShadowPage child = ChildOf(entry);
            if (child.UnsyncChildren != 0)
            {
                if (walk.Add(child, i))
                    return -Errnos.ENOSPC;
                int r = WalkUnsyncChildren(child, ref walk);
                if (r < 0)
                    return r;
                if (r == 0)
                    ClearUnsyncChildBit(sp, i);
                leaves += r;
            }
            else if (child.Unsync)
            {
                leaves++;
                if (walk.Add(child, i))
                    return -Errnos.ENOSPC;
            }
            else
            {
                ClearUnsyncChildBit(sp, i);
            }
        }

        return leaves;
    }

    /// <summary>mmu_pages_first, mmu_pages_next: the next last-level page of the walk, with the way to it; Count at the end.</summary>
    private static int NextUnsync(ref UnsyncWalk walk, ref UnsyncPath path, int from)
    {
        if (from < 0)
        {
            if (walk.Count == 0)
                return 0;
            ShadowPage root = walk.Pages[0].Page;
            int top = root.Role.Level;
            path.Parent[top - 2] = root;
            path.Parent[top - 1] = null; // the end of the way up
            from = 0;
        }

        int n = from + 1;
        for (; n < walk.Count; n++)
        {
            (ShadowPage sp, int index) = walk.Pages[n];
            int level = sp.Role.Level;
            path.Index[level - 1] = index;
            if (level == PG_LEVEL_4K)
                break;
            path.Parent[level - 2] = sp;
        }

        return n;
    }

    /// <summary>mmu_pages_clear_parents: the way to a page that is in sync again loses its marks, as far as nothing else hangs on it.</summary>
    private static void ClearParents(ref UnsyncPath path)
    {
        for (int level = 0; level < PT64_ROOT_5LEVEL; level++)
        {
            if (path.Parent[level] is not { } sp)
                return;
            ClearUnsyncChildBit(sp, path.Index[level]);
            if (sp.UnsyncChildren != 0)
                return;
        }
    }

    /// <summary>mmu_sync_children: everything below the page is made to say what the guest's tables say, and watched again.</summary>
    [KernelFunction("mmu_sync_children", File = "arch/x86/kvm/mmu/mmu.c")]
    private void SyncChildren(X86Vcpu vcpu, ShadowPage parent)
    {
        using var _ = FunctionTrace.Enter("mmu_sync_children");
        ShadowPage? invalid = null;
        UnsyncWalk walk = default;
        UnsyncPath path = default;
        bool flush = false;
        while (WalkUnsync(parent, ref walk) != 0)
        {
            bool isProtected = false;
            for (int i = NextUnsync(ref walk, ref path, -1); i < walk.Count; i = NextUnsync(ref walk, ref path, i))
                isProtected |= WriteProtectGfn(vcpu, walk.Pages[i].Page.Gfn);
            if (isProtected)
            {
                RemoteFlushOrZap(ref invalid, true);
                flush = false;
            }

            for (int i = NextUnsync(ref walk, ref path, -1); i < walk.Count; i = NextUnsync(ref walk, ref path, i))
            {
                ShadowPage sp = walk.Pages[i].Page;
                UnlinkUnsyncPage(sp);
                flush |= SyncPage(vcpu, sp, ref invalid) > 0;
                ClearParents(ref path);
            }
        }

        RemoteFlushOrZap(ref invalid, flush);
    }

    /// <summary>mmu_zap_unsync_children.</summary>
    private int ZapUnsyncChildren(ShadowPage parent, ref ShadowPage? invalid)
    {
        if (parent.Role.Level == PG_LEVEL_4K)
            return 0;
        int zapped = 0;
        UnsyncWalk walk = default;
        UnsyncPath path = default;
        while (WalkUnsync(parent, ref walk) != 0)
        {
            for (int i = NextUnsync(ref walk, ref path, -1); i < walk.Count; i = NextUnsync(ref walk, ref path, i))
            {
                PrepareZapPage(walk.Pages[i].Page, ref invalid);
                ClearParents(ref path);
                zapped++;
            }
        }

        return zapped;
    }

    // ---- bringing a page up to date ----

    /// <summary>kvm_sync_page: -1 when the page can't be kept (it is zapped then); 1 when translations must be flushed.</summary>
    private int SyncPage(X86Vcpu vcpu, ShadowPage sp, ref ShadowPage? invalid)
    {
        int r = SyncEntries(vcpu, sp);
        if (r < 0)
            PrepareZapPage(sp, ref invalid);
        return r;
    }

    /// <summary>get_level1_sp_gpa: the first guest entry behind a last-level page.</summary>
    private static ulong Level1Gpa(ShadowPage sp) => (sp.Gfn << 12) + (sp.Role.Has4ByteGpte ? (ulong)sp.Role.Quadrant << 11 : 0);

    /// <summary>paging64_sync_page, paging32_sync_page.</summary>
    [KernelFunction("paging64_sync_page", File = "arch/x86/kvm/mmu/paging_tmpl.h")]
    private int SyncEntries(X86Vcpu vcpu, ShadowPage sp)
    {
        using var _ = FunctionTrace.Enter(sp.Role.Has4ByteGpte ? "paging32_sync_page" : "paging64_sync_page");

        // Another mode would read the guest's entries wrongly.
        if (sp.Role.Direct || ((sp.Role.Word ^ vcpu.Mmu.RootRole.Word) & ~KvmMmuPageRole.SyncIgnored) != 0)
            return -1;
        int size = sp.Role.Has4ByteGpte ? 4 : 8;
        ulong gpa = Level1Gpa(sp);
        bool flush = false;
        for (int i = 0; i < 512; i++)
        {
            ulong* sptep = sp.Spt + i;
            if (*sptep == 0)
                continue;
            if (!ReadGpte(vcpu, gpa + (ulong)(i * size), size, out ulong gpte))
                return -1;
            if (PrefetchInvalidGpte(vcpu, sptep, gpte))
            {
                flush = true;
                continue;
            }

            ulong gfn = GpteToGfn(gpte, size);
            uint access = X86Vcpu.ProtectCleanGpte(sp.Role.Access & X86Vcpu.GpteAccess(gpte), gpte);
            if (SyncMmioSpte(vcpu, sptep, gfn, access))
                continue;
            if ((access == 0 && Masks.Present == 0) || gfn != sp.GfnOf(i) || vcpu.GfnToMemslot(gfn) is not { } slot)
            {
                DropSpte(sptep);
                flush = true;
                continue;
            }

            sp.SetTranslation(i, gfn, access);
            ulong spte = *sptep;
            MakeSpte(vcpu, sp, slot, access, gfn, PfnOf(spte), spte, prefetch: true, canUnsync: false, hostWritable: (spte & Masks.HostWritable) != 0, out ulong made);
            flush |= UpdateSpte(sptep, made);
        }

        return flush ? 1 : 0;
    }

    private static ulong GpteToGfn(ulong gpte, int size) => (gpte & (size == 8 ? SPTE_BASE_ADDR_MASK : 0xfffff000ul)) >> 12;

    /// <summary>kvm_vcpu_read_guest_atomic of one entry.</summary>
    private bool ReadGpte(X86Vcpu vcpu, ulong gpa, int size, out ulong gpte)
    {
        gpte = 0;
        ulong hva = vcpu.GfnToHvaProt(gpa >> 12, out bool _);
        return !KvmLimits.IsErrorHva(hva) && vm.Mm.ReadAtomic(hva + (gpa & 0xfff), size, out gpte);
    }

    /// <summary>prefetch_invalid_gpte: the entry is not one to map before it is used: not present, never accessed, or with reserved bits. What was mapped goes.</summary>
    private bool PrefetchInvalidGpte(X86Vcpu vcpu, ulong* sptep, ulong gpte)
    {
        if ((gpte & PT_PRESENT_MASK) != 0 && (gpte & PT_ACCESSED_MASK) != 0 && !vcpu.Mmu.IsRsvdBitsSet(gpte, PG_LEVEL_4K))
            return false;
        DropSpte(sptep);
        return true;
    }

    /// <summary>sync_mmio_spte: true for an MMIO entry, which is renewed, or goes when it was for another frame.</summary>
    private bool SyncMmioSpte(X86Vcpu vcpu, ulong* sptep, ulong gfn, uint access)
    {
        if (!Masks.IsMmio(*sptep))
            return false;
        if (gfn != Masks.MmioGfn(*sptep))
            Volatile.Write(ref *sptep, 0);
        else
            MarkMmioSpte(vcpu, sptep, gfn, access);
        return true;
    }

    /// <summary>is_unsync_root: asked without the lock.</summary>
    internal static bool IsUnsyncRoot(in KvmMmuRootInfo root) =>
        root.IsValid && root.Page is { } sp && (Volatile.Read(ref sp.Unsync) || Volatile.Read(ref sp.UnsyncChildren) != 0);

    /// <summary>kvm_mmu_sync_roots: what the guest sees after a flush of its translations.</summary>
    [KernelFunction("kvm_mmu_sync_roots", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void SyncRoots(X86Vcpu vcpu)
    {
        KvmMmu mmu = vcpu.Mmu;
        if (mmu.GuestLevel >= PT64_ROOT_4LEVEL)
        {
            if (!IsUnsyncRoot(mmu.Root))
                return;
            vm.MmuLock.WriteLock();
            SyncChildren(vcpu, mmu.Root.Page!);
            vm.MmuLock.WriteUnlock();
            return;
        }

        vm.MmuLock.WriteLock();
        for (int i = 0; i < 4; i++)
        {
            if (mmu.PaeRoot[i] != 0)
                SyncChildren(vcpu, PageOf(mmu.PaeRoot[i] & SPTE_BASE_ADDR_MASK));
        }

        vm.MmuLock.WriteUnlock();
    }
}
