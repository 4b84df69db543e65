namespace Kvm.Arch.X86.Tests.Mmu;

/// <summary>How the guest translates its addresses.</summary>
public enum Paging
{
    None,
    Bits32,
    Pae,
    Long,
}
