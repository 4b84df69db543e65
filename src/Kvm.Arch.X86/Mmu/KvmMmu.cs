using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>One paging context of a vCPU: the root that the processor walks for it, and how the guest's own page tables are read.</summary>
/// <remarks>struct kvm_mmu, asm/kvm_host.h.</remarks>
public sealed class KvmMmu
{
    private readonly X86Vcpu vcpu;

    internal KvmMmu(X86Vcpu vcpu) => this.vcpu = vcpu;

    /// <summary>root.hpa: INVALID_PAGE while no root is loaded.</summary>
    public ulong RootHpa { get; internal set; } = INVALID_PAGE;

    /// <summary>root_role.level: 4 or 5.</summary>
    public int RootLevel { get; internal set; } = PT64_ROOT_4LEVEL;

    /// <summary>The PAE page-directory-pointer entries.</summary>
    public ulong[] Pdptrs { get; } = new ulong[4];

    // ---- cpu_role: how the guest's tables are walked ----

    /// <summary>Levels of the guest's tables: 0 without paging, 2, 3, 4 or 5.</summary>
    public int GuestLevel { get; private set; }

    public bool Cr0Wp { get; private set; }
    public bool Cr4Pse { get; private set; }
    public bool Cr4Smep { get; private set; }
    public bool Cr4Smap { get; private set; }
    public bool Cr4Pke { get; private set; }
    public bool EferNx { get; private set; }

    /// <summary>reset_guest_paging_metadata: takes the paging mode from the vCPU's registers.</summary>
    internal void Reset()
    {
        Cr0Wp = vcpu.ReadCr0Bits(X86_CR0_WP) != 0;
        bool pae = vcpu.IsPae;
        Cr4Pse = vcpu.IsPse;
        Cr4Smep = vcpu.ReadCr4Bits(X86_CR4_SMEP) != 0;
        Cr4Smap = vcpu.ReadCr4Bits(X86_CR4_SMAP) != 0;
        Cr4Pke = vcpu.ReadCr4Bits(X86_CR4_PKE) != 0;
        EferNx = (vcpu.Efer & EFER_NX) != 0;
        if (!vcpu.IsPaging)
            GuestLevel = 0;
        else if (vcpu.IsLongMode)
            GuestLevel = vcpu.ReadCr4Bits(X86_CR4_LA57) != 0 ? 5 : 4;
        else
            GuestLevel = pae ? 3 : 2;
    }
}
