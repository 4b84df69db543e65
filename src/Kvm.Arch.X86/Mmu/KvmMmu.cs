using Kvm.Core.Tracing;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>One paging context of a vCPU: the root that the processor walks for it, and how the guest's own page tables are read.</summary>
/// <remarks>struct kvm_mmu, asm/kvm_host.h.</remarks>
public sealed unsafe class KvmMmu
{
    /// <summary>KVM_MMU_NUM_PREV_ROOTS.</summary>
    internal const int PreviousRoots = 3;

    // cpu_role.ext
    private const uint ExtValid = 1;
    private const uint ExtPse = 2;
    private const uint ExtPke = 4;
    private const uint ExtSmap = 8;
    private const uint ExtSmep = 16;
    private const uint ExtLa57 = 32;
    private const uint ExtLma = 64;

    private readonly X86Vcpu vcpu;
    private readonly ulong[] guestRsvd = new ulong[10];
    private readonly byte[] permissions = new byte[16];
    private KvmMmuPageRole cpuRole;
    private uint cpuRoleExt;
    private uint pkruMask;

    internal KvmMmu(X86Vcpu vcpu) => this.vcpu = vcpu;

    internal KvmMmuRootInfo Root = KvmMmuRootInfo.Invalid;

    /// <summary>prev_roots: roots that were left by a change of CR3, the last first.</summary>
    internal readonly KvmMmuRootInfo[] PrevRoots = [KvmMmuRootInfo.Invalid, KvmMmuRootInfo.Invalid, KvmMmuRootInfo.Invalid];

    /// <summary>pae_root: the page of four entries that the processor's CR3 points at while it runs with PAE paging; below 4 GiB. Null with nested paging.</summary>
    internal ulong* PaeRoot;

    /// <summary>root.hpa: INVALID_PAGE while no root is loaded.</summary>
    public ulong RootHpa => Root.Hpa;

    /// <summary>Addresses of the remembered roots, the last first; INVALID_PAGE where there is none.</summary>
    public IReadOnlyList<ulong> PreviousRootHpas => [.. PrevRoots.Select(static r => r.Hpa)];

    /// <summary>root_role: what the tables that the processor walks are like.</summary>
    public KvmMmuPageRole RootRole { get; private set; }

    /// <summary>root_role.level: 3 to 5.</summary>
    public int RootLevel => RootRole.Level;

    /// <summary>The PAE page-directory-pointer entries.</summary>
    public ulong[] Pdptrs { get; } = new ulong[4];

    // ---- cpu_role: how the guest's tables are walked ----

    /// <summary>cpu_role.base.level: levels of the guest's tables: 0 without paging, 2, 3, 4 or 5.</summary>
    public int GuestLevel => cpuRole.Level;

    public bool Cr0Wp => cpuRole.Cr0Wp;
    public bool EferNx => cpuRole.EferNx;
    public bool Cr4Pse => (cpuRoleExt & ExtPse) != 0;
    public bool Cr4Smep => (cpuRoleExt & ExtSmep) != 0;
    public bool Cr4Smap => (cpuRoleExt & ExtSmap) != 0;
    public bool Cr4Pke => (cpuRoleExt & ExtPke) != 0;

    /// <summary>kvm_calc_cpu_role and the root's role: true when one of them changed.</summary>
    internal bool Init(bool tdp, int tdpLevel)
    {
        (KvmMmuPageRole role, uint ext) = CalcCpuRole();
        KvmMmuPageRole rootRole;
        if (tdp)
        {
            rootRole = new KvmMmuPageRole
            {
                Access = ACC_ALL,
                Cr0Wp = true,
                EferNx = true,
                Smm = role.Smm,
                GuestMode = role.GuestMode,
                AdDisabled = !vcpu.Arch.Spte.AdEnabled,
                Level = tdpLevel,
                Direct = true,
            };
        }
        else
        {
            // The processor runs with PAE paging unless the guest is in long mode, and with NX in any case.
            rootRole = role with { Level = Math.Max(role.Level, PT32E_ROOT_LEVEL), EferNx = true };
        }

        if (role == cpuRole && ext == cpuRoleExt && rootRole == RootRole)
            return false;
        cpuRole = role;
        cpuRoleExt = ext;
        RootRole = rootRole;
        ResetGuestPagingMetadata();
        return true;
    }

    /// <summary>The next <see cref="Init"/> takes everything over anew: the guest's CPUID changed.</summary>
    internal void Forget()
    {
        RootRole = default;
        cpuRoleExt = 0;
    }

    private (KvmMmuPageRole Role, uint Ext) CalcCpuRole()
    {
        var role = new KvmMmuPageRole { Access = ACC_ALL, Smm = vcpu.IsSmm, GuestMode = vcpu.IsGuestMode };
        if (!vcpu.IsPaging)
            return (role with { Direct = true }, ExtValid);
        bool wp = vcpu.ReadCr0Bits(X86_CR0_WP) != 0;
        bool smep = vcpu.ReadCr4Bits(X86_CR4_SMEP) != 0;
        bool smap = vcpu.ReadCr4Bits(X86_CR4_SMAP) != 0;
        bool lma = vcpu.IsLongMode;
        bool la57 = lma && vcpu.ReadCr4Bits(X86_CR4_LA57) != 0;
        role = role with
        {
            EferNx = (vcpu.Efer & EFER_NX) != 0,
            Cr0Wp = wp,
            SmepAndnotWp = smep && !wp,
            SmapAndnotWp = smap && !wp,
            Has4ByteGpte = !vcpu.IsPae,
            Level = lma ? (la57 ? PT64_ROOT_5LEVEL : PT64_ROOT_4LEVEL) : vcpu.IsPae ? PT32E_ROOT_LEVEL : PT32_ROOT_LEVEL,
        };
        uint ext = ExtValid | (smep ? ExtSmep : 0) | (smap ? ExtSmap : 0) | (vcpu.IsPse ? ExtPse : 0) | (la57 ? ExtLa57 : 0) | (lma ? ExtLma : 0);
        if (lma && vcpu.ReadCr4Bits(X86_CR4_PKE) != 0)
            ext |= ExtPke;
        return (role, ext);
    }

    /// <summary>kvm_mmu_refresh_passthrough_bits: CR0.WP may belong to a guest with nested paging, which changes it without an exit.</summary>
    internal void RefreshPassthroughBits()
    {
        if (!vcpu.Arch.TdpEnabled)
            return;
        bool wp = vcpu.ReadCr0Bits(X86_CR0_WP) != 0;
        if (wp == Cr0Wp)
            return;
        cpuRole = cpuRole with { Cr0Wp = wp };
        ResetGuestPagingMetadata();
    }

    private void ResetGuestPagingMetadata()
    {
        if (GuestLevel == 0)
            return;
        using var _ = FunctionTrace.Enter("reset_guest_paging_metadata.part.0");
        FunctionTrace.Leaf("__reset_rsvds_bits_mask");
        ResetGuestRsvdBitsMask();
        FunctionTrace.Leaf("update_permission_bitmask");
        UpdatePermissionBitmask();
        UpdatePkruBitmask();
    }

    // ---- reserved bits ----

    /// <summary>__is_rsvd_bits_set: the entry has a bit that must be 0 at its level.</summary>
    internal bool IsRsvdBitsSet(ulong gpte, int level) => (gpte & guestRsvd[((gpte >> 7) & 1) == 0 ? level - 1 : level + 4]) != 0;

    /// <summary>reset_guest_rsvds_bits_mask: [0..4] by level for entries without bit 7, [5..9] with it.</summary>
    private void ResetGuestRsvdBitsMask()
    {
        Array.Clear(guestRsvd);
        if (GuestLevel == PT32_ROOT_LEVEL)
        {
            // A 4 MiB entry has address bits 35:32 at 16:13.
            guestRsvd[6] = Cr4Pse ? X86Bits.RsvdBits(17, 21) : 0;
            return;
        }

        bool pae = GuestLevel == PT32E_ROOT_LEVEL;
        ulong high = vcpu.ReservedGpaBits & X86Bits.RsvdBits(0, pae ? 62 : 51);
        if (!EferNx)
            high |= 1ul << 63;
        bool gbpages = vcpu.Arch.TdpEnabled ? vcpu.Arch.HostX86.BootCpuHas(X86Feature.GBPAGES) : vcpu.GuestCpuidHas(X86Feature.GBPAGES);
        ulong noGbpages = gbpages ? 0 : 1ul << 7;
        ulong upperBit8 = vcpu.IsAmdCompatible ? 1ul << 8 : 0;

        guestRsvd[0] = guestRsvd[1] = guestRsvd[5] = high;
        guestRsvd[6] = high | X86Bits.RsvdBits(13, 20);
        if (pae)
        {
            guestRsvd[2] = (1ul << 63) | high | X86Bits.RsvdBits(5, 8) | X86Bits.RsvdBits(1, 2);
            return;
        }

        guestRsvd[2] = high | noGbpages;
        guestRsvd[7] = high | noGbpages | X86Bits.RsvdBits(13, 29);
        guestRsvd[3] = guestRsvd[8] = guestRsvd[4] = guestRsvd[9] = high | upperBit8 | (1ul << 7);
    }

    // ---- permissions ----

    /// <summary>
    /// permission_fault: 0, or the error code of the page fault. <paramref name="pteAccess"/>: ACC_*; <paramref name="access"/>: PFERR_WRITE, USER, FETCH,
    /// PFERR_IMPLICIT_ACCESS.
    /// </summary>
    internal uint PermissionFault(uint pteAccess, uint pteKey, ulong access)
    {
        // The bit of reserved-bit faults stands for "SMAP does not apply": an explicit access with RFLAGS.AC set.
        bool notSmap = (access & PFERR_IMPLICIT_ACCESS) == 0 && (vcpu.Ops.GetRflags(vcpu) & X86_EFLAGS_AC) != 0;
        RefreshPassthroughBits();
        uint pfec = (uint)access & (PFERR_WRITE_MASK | PFERR_USER_MASK | PFERR_FETCH_MASK);
        uint index = (pfec | (notSmap ? PFERR_RSVD_MASK : 0)) >> 1;
        bool fault = ((permissions[index] >> (int)pteAccess) & 1) != 0;
        uint error = PFERR_PRESENT_MASK;
        if (pkruMask != 0)
        {
            uint bits = (vcpu.Pkru >> (int)(pteKey * 2)) & 3;
            bits &= pkruMask >> (int)(pfec | ((pteAccess & ACC_USER_MASK) != 0 ? PFERR_RSVD_MASK : 0));
            if (bits != 0)
            {
                fault = true;
                error |= PFERR_PK_MASK;
            }
        }

        return fault ? error : 0;
    }

    /// <summary>update_permission_bitmask: for each kind of access, which rights make it fault.</summary>
    private void UpdatePermissionBitmask()
    {
        for (uint i = 0; i < permissions.Length; i++)
        {
            uint pfec = i << 1;
            byte faults = 0;
            for (int access = 0; access < 8; access++)
            {
                if (Faults(pfec, (uint)access))
                    faults |= (byte)(1 << access);
            }

            permissions[i] = faults;
        }
    }

    private bool Faults(uint pfec, uint access)
    {
        bool write = (pfec & PFERR_WRITE_MASK) != 0;
        bool user = (pfec & PFERR_USER_MASK) != 0;
        bool fetch = (pfec & PFERR_FETCH_MASK) != 0;
        bool userPage = (access & ACC_USER_MASK) != 0;
        if (fetch && EferNx && (access & ACC_EXEC_MASK) == 0)
            return true;
        if (user && !userPage)
            return true;
        if (write && (access & ACC_WRITE_MASK) == 0 && (user || Cr0Wp))
            return true;
        if (user || !userPage)
            return false;
        return fetch ? Cr4Smep : Cr4Smap && (pfec & PFERR_RSVD_MASK) == 0;
    }

    /// <summary>update_pkru_bitmask: for each kind of access the bits of a protection key (access, write) that count. The bit of reserved-bit faults stands for a user page.</summary>
    private void UpdatePkruBitmask()
    {
        pkruMask = 0;
        if (!Cr4Pke)
            return;
        for (int pfec = 0; pfec < 32; pfec += 2)
        {
            if ((pfec & PFERR_FETCH_MASK) != 0 || (pfec & PFERR_RSVD_MASK) == 0)
                continue;
            bool write = (pfec & PFERR_WRITE_MASK) != 0 && ((pfec & PFERR_USER_MASK) != 0 || Cr0Wp);
            pkruMask |= (write ? 3u : 1u) << pfec;
        }
    }
}
