namespace Kvm.Arch.X86;

/// <summary>The guest's memory type range registers: stored, not applied (the model has one memory type).</summary>
/// <remarks>struct kvm_mtrr, asm/kvm_host.h.</remarks>
public sealed class KvmMtrr
{
    public const int KVM_NR_VAR_MTRR = 8;
    public const int KVM_NR_FIXED_MTRR_REGION = 88;

    /// <summary>Base and mask of each variable range.</summary>
    public readonly ulong[] VarRanges = new ulong[KVM_NR_VAR_MTRR * 2];

    /// <summary>The 11 fixed-range registers: 64K, 16K 80000, 16K A0000, 4K C0000…F8000.</summary>
    public readonly ulong[] FixedRanges = new ulong[KVM_NR_FIXED_MTRR_REGION / 8];
    public ulong DefType;
}
