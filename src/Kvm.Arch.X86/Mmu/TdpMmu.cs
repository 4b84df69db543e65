using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.SpteMasks;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>
/// The tables that the processor walks from guest-physical to host-physical addresses, for one VM: roots, table pages, and the walks over them.
/// Everything is under the VM's mmu_lock, held for writing, unless it says otherwise.
/// </summary>
/// <remarks>mmu/tdp_mmu.c, mmu/tdp_iter.c.</remarks>
public sealed unsafe partial class TdpMmu
{
    private readonly X86Vm vm;
    private readonly List<KvmMmuPage> roots = [];
    private readonly Dictionary<ulong, KvmMmuPage> pages = [];
    private readonly Stack<KvmMmuPage> spareHeaders = new();

    /// <summary>Tables unlinked but not given back: other processors may still walk them until their translations are flushed.</summary>
    private readonly List<KvmMmuPage> condemned = [];

    internal TdpMmu(X86Vm vm) => this.vm = vm;

    private X86Arch Arch => vm.Arch;

    private SpteMasks Masks => vm.Arch.Spte;

    private bool AdDisabled => !Masks.AdEnabled;

    /// <summary>Table pages in use, roots included.</summary>
    public int PageCount => pages.Count + condemned.Count;

    // ---- pages ----

    private KvmMmuPage AllocSp(X86Vcpu vcpu)
    {
        ulong spt = vcpu.AllocMmuPage();
        KvmMmuPage sp = spareHeaders.Count > 0 ? spareHeaders.Pop() : new KvmMmuPage();
        sp.Spt = (ulong*)spt;
        return sp;
    }

    private void InitSp(KvmMmuPage sp, ulong* ptep, KvmMmuPage? parent, ulong gfn, int level, bool smm)
    {
        FunctionTrace.Leaf("tdp_mmu_init_sp");
        sp.Ptep = ptep;
        sp.Parent = parent;
        sp.Gfn = gfn;
        sp.Level = level;
        sp.Smm = smm;
        sp.Invalid = false;
        sp.RootCount = 0;
        sp.NxHugePageDisallowed = false;
        pages[sp.Address] = sp;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_get_page", $"{MmuTrace.Page(sp, AdDisabled)} new");
    }

    private void FreeSp(KvmMmuPage sp)
    {
        vm.Host.Pages.FreePage(sp.Address);
        sp.Spt = null;
        sp.Parent = null;
        sp.Ptep = null;
        spareHeaders.Push(sp);
    }

    /// <summary>Gives unlinked tables back, once no processor can still be in them.</summary>
    private void FreeCondemned()
    {
        if (condemned.Count == 0)
            return;
        foreach (KvmMmuPage sp in condemned)
            FreeSp(sp);
        condemned.Clear();
    }

    // ---- roots ----

    /// <summary>The root for this vCPU's role: a shared one, or a new one from its cache.</summary>
    [KernelFunction("kvm_tdp_mmu_get_vcpu_root_hpa", File = "arch/x86/kvm/mmu/tdp_mmu.c")]
    internal ulong GetVcpuRootHpa(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("kvm_tdp_mmu_get_vcpu_root_hpa");
        int level = vcpu.Mmu.RootLevel;
        bool smm = vcpu.IsSmm;
        foreach (KvmMmuPage root in roots)
        {
            if (!root.Invalid && root.Level == level && root.Smm == smm)
            {
                root.RootCount++;
                return root.Address;
            }
        }

        KvmMmuPage sp = AllocSp(vcpu);
        InitSp(sp, null, null, 0, level, smm);
        sp.RootCount = 1;
        roots.Add(sp);
        return sp.Address;
    }

    /// <summary>True when a vCPU's loaded root may not be used any more.</summary>
    internal bool IsObsoleteRoot(ulong rootHpa) => !pages.TryGetValue(rootHpa, out KvmMmuPage? sp) || sp.Invalid;

    /// <summary>The last user's root goes with everything below it.</summary>
    [KernelFunction("kvm_tdp_mmu_put_root", File = "arch/x86/kvm/mmu/tdp_mmu.c")]
    internal void PutRoot(ulong rootHpa)
    {
        using var _ = FunctionTrace.Enter("kvm_tdp_mmu_put_root");
        KvmMmuPage root = pages[rootHpa];
        if (--root.RootCount > 0)
            return;
        root.Invalid = true;
        roots.Remove(root);
        ZapTable(root);
        pages.Remove(root.Address);
        condemned.Add(root);

        // Nobody runs on it: its last user was outside guest mode, and its translations are flushed before the page is reused for another root.
        vm.FlushRemoteTlbs();
        FreeCondemned();
    }

    /// <summary>
    /// kvm_mmu_zap_all_fast: no vCPU may use the present roots any more; each drops its own before it enters the guest again.
    /// </summary>
    [KernelFunction("kvm_mmu_zap_all_fast", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void ZapAllFast()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_zap_all_fast");
        vm.MmuLock.WriteLock();
        using (FunctionTrace.Enter("kvm_tdp_mmu_invalidate_all_roots"))
        {
            foreach (KvmMmuPage root in roots)
                root.Invalid = true;
        }

        // vCPUs that run leave the guest here; the request makes them load new roots.
        vm.MakeAllCpusRequest(X86Request.KVM_REQ_MMU_FREE_OBSOLETE_ROOTS);
        vm.MmuLock.WriteUnlock();

        vm.MmuLock.WriteLock();
        ZapInvalidatedRoots();
        vm.MmuLock.WriteUnlock();
    }

    /// <summary>Empties the roots that nobody may enter any more, so that their memory is not reachable through them.</summary>
    [KernelFunction("kvm_tdp_mmu_zap_invalidated_roots", File = "arch/x86/kvm/mmu/tdp_mmu.c")]
    private void ZapInvalidatedRoots()
    {
        using var _ = FunctionTrace.Enter("kvm_tdp_mmu_zap_invalidated_roots");
        FunctionTrace.Leaf("tdp_mmu_next_root");
        bool flush = false;
        foreach (KvmMmuPage root in roots)
        {
            if (!root.Invalid)
                continue;
            ZapTable(root);
            flush = true;
        }

        if (!flush)
            return;
        vm.FlushRemoteTlbs();
        FreeCondemned();
    }

    /// <summary>kvm_mmu_zap_all: the address space dies.</summary>
    [KernelFunction("kvm_mmu_zap_all", File = "arch/x86/kvm/mmu/mmu.c")]
    internal void ZapAll()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_zap_all");
        vm.MmuLock.WriteLock();
        using (FunctionTrace.Enter("kvm_tdp_mmu_zap_all"))
        {
            foreach (KvmMmuPage root in roots)
            {
                NextRoot(root == roots[0] ? null : root);

                // First what is below entries of 1 GiB, then the rest: no step of it is long.
                ZapRoot(root, PG_LEVEL_1G);
                ZapRoot(root, root.Level);
            }

            NextRoot(roots.Count == 0 ? null : roots[^1]);
        }

        if (condemned.Count > 0)
        {
            vm.FlushRemoteTlbs();
            FreeCondemned();
        }

        vm.MmuLock.WriteUnlock();
    }

    /// <summary>kvm_mmu_uninit_vm: the VM is going; no vCPU has a root any more.</summary>
    internal void Uninit()
    {
        using var _ = FunctionTrace.Enter("kvm_mmu_uninit_tdp_mmu");
        vm.MmuLock.WriteLock();
        ZapInvalidatedRoots();
        while (roots.Count > 0)
        {
            KvmMmuPage root = roots[^1];
            roots.RemoveAt(roots.Count - 1);
            ZapTable(root);
            pages.Remove(root.Address);
            condemned.Add(root);
        }

        FreeCondemned();
        vm.MmuLock.WriteUnlock();
    }

    // ---- the kernel's iterators, for those who follow the path ----

    /// <summary>tdp_mmu_next_root: the reference to the root before is dropped.</summary>
    [KernelFunction("tdp_mmu_next_root", File = "arch/x86/kvm/mmu/tdp_mmu.c")]
    private static void NextRoot(KvmMmuPage? before)
    {
        using var _ = FunctionTrace.Enter("tdp_mmu_next_root");
        if (before is not null)
            FunctionTrace.Leaf("kvm_tdp_mmu_put_root");
    }

    [KernelFunction("tdp_iter_start", File = "arch/x86/kvm/mmu/tdp_iter.c")]
    private static void IterStart()
    {
        using var _ = FunctionTrace.Enter("tdp_iter_start");
        FunctionTrace.Leaf("tdp_iter_restart");
    }

    // ---- zapping ----

    /// <summary>Clears every entry of the root's tables of a level.</summary>
    [KernelFunction("__tdp_mmu_zap_root", File = "arch/x86/kvm/mmu/tdp_mmu.c")]
    private void ZapRoot(KvmMmuPage root, int level)
    {
        using var _ = FunctionTrace.Enter("__tdp_mmu_zap_root");
        IterStart();
        FunctionTrace.Leaf("tdp_iter_next");
        ZapTables(root, level);
    }

    private void ZapTables(KvmMmuPage sp, int level)
    {
        if (sp.Level <= level)
        {
            ZapTable(sp);
            return;
        }

        for (int i = 0; i < 512; i++)
        {
            if (IsShadowPresent(sp.Spt[i]) && !IsLast(sp.Spt[i], sp.Level))
                ZapTables(pages[sp.Spt[i] & SPTE_BASE_ADDR_MASK], level);
        }
    }

    /// <summary>What followers of the path see an entry of an unlinked table become (REMOVED_SPTE).</summary>
    private const ulong RemovedSpte = 0x5a0;

    /// <summary>Clears every entry of a table and of those below; the lower tables are condemned. <paramref name="unlinked"/>: nothing points to the table any more.</summary>
    private void ZapTable(KvmMmuPage sp, bool unlinked = false)
    {
        for (int i = 0; i < 512; i++)
        {
            ulong spte = sp.Spt[i];
            if (spte == 0)
                continue;
            sp.Spt[i] = 0;
            if (Tracepoints.Enabled && IsShadowPresent(spte))
                MmuTrace.Changed(sp, sp.Spt + i, spte, unlinked ? RemovedSpte : 0);
            Removed(spte, sp.Level);
        }
    }

    /// <summary>handle_changed_spte for an entry that has just been cleared.</summary>
    private void Removed(ulong spte, int level)
    {
        FunctionTrace.Leaf("__handle_changed_spte");
        if (!IsShadowPresent(spte))
            return;
        if (IsLast(spte, level))
        {
            vm.UpdatePageStats(level, -1);
            return;
        }

        if (!pages.Remove(spte & SPTE_BASE_ADDR_MASK, out KvmMmuPage? child))
            return;
        if (child.NxHugePageDisallowed)
            vm.Stat.NxLpageSplits--;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmu_prepare_zap_page", MmuTrace.Page(child, AdDisabled));
        ZapTable(child, unlinked: true);
        condemned.Add(child);
    }

    /// <summary>kvm_tdp_mmu_unmap_gfn_range / tdp_mmu_zap_leafs: clears the leaves in [start, end); true when translations must be flushed.</summary>
    internal bool ZapLeafs(ulong start, ulong end)
    {
        bool flush = false;
        foreach (KvmMmuPage root in roots)
            flush |= ZapLeafs(root, start, end);
        return flush;
    }

    private bool ZapLeafs(KvmMmuPage sp, ulong start, ulong end)
    {
        ulong perEntry = 1ul << (9 * (sp.Level - 1));
        bool flush = false;
        (int first, int last) = EntryRange(sp, start, end, perEntry);
        for (int i = first; i <= last; i++)
        {
            ulong spte = sp.Spt[i];
            if (spte == 0)
                continue;
            if (IsShadowPresent(spte) && !IsLast(spte, sp.Level))
            {
                flush |= ZapLeafs(pages[spte & SPTE_BASE_ADDR_MASK], start, end);
                continue;
            }

            sp.Spt[i] = 0;
            if (Tracepoints.Enabled)
                MmuTrace.Changed(sp, sp.Spt + i, spte, 0);
            Removed(spte, sp.Level);
            flush |= IsShadowPresent(spte);
        }

        return flush;
    }

    /// <summary>Entries of the table that intersect [start, end); last &lt; first when none does.</summary>
    private static (int First, int Last) EntryRange(KvmMmuPage sp, ulong start, ulong end, ulong perEntry)
    {
        ulong tableEnd = sp.Gfn + (perEntry << 9);
        if (start >= tableEnd || end <= sp.Gfn || start >= end)
            return (0, -1);
        int first = start <= sp.Gfn ? 0 : (int)((start - sp.Gfn) / perEntry);
        int last = end >= tableEnd ? 511 : (int)((end - 1 - sp.Gfn) / perEntry);
        return (first, last);
    }
}
