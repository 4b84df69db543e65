namespace Kvm.Arch.X86;

/// <summary>The userspace filter of MSR accesses; replaced as a whole.</summary>
/// <remarks>struct kvm_x86_msr_filter, asm/kvm_host.h.</remarks>
public sealed class KvmX86MsrFilter
{
    /// <summary>One range: KVM_MSR_FILTER_* flags, first MSR, number, and a bit per MSR (1: allowed).</summary>
    public sealed record Range(uint Flags, uint Base, uint Nmsrs, byte[] Bitmap);

    public bool DefaultAllow { get; init; }

    public List<Range> Ranges { get; } = [];
}
