namespace Kvm.Arch.X86;

/// <summary>What became of a guest-physical fault; negative values are -errno.</summary>
/// <remarks>RET_PF_*, mmu/mmu_internal.h.</remarks>
public static class RetPf
{
    public const int RET_PF_CONTINUE = 0;

    /// <summary>Let the processor fault again.</summary>
    public const int RET_PF_RETRY = 1;

    /// <summary>MMIO, or a write that must not reach memory: emulate the instruction.</summary>
    public const int RET_PF_EMULATE = 2;

    /// <summary>A cached MMIO entry is out of date.</summary>
    public const int RET_PF_INVALID = 3;
    public const int RET_PF_FIXED = 4;
    public const int RET_PF_SPURIOUS = 5;
}
