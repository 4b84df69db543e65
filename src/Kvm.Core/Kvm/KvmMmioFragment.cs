namespace Kvm.Core;

/// <summary>struct kvm_mmio_fragment: a piece of at most 8 bytes (per exit) of an MMIO access that user space serves.</summary>
public unsafe struct KvmMmioFragment
{
    public ulong Gpa;

    /// <summary>The bytes to send or fill; null when they are in <see cref="Val"/>.</summary>
    public byte* Data;

    public ulong Val;
    public uint Len;
}
