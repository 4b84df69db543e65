namespace Kvm.Arch.X86;

/// <summary>
/// What a vendor module hands to <c>kvm_x86_vendor_init</c> and <c>kvm_init</c>: the questions asked before hardware is touched, and its run-time operations.
/// </summary>
/// <remarks>struct kvm_x86_init_ops, asm/kvm_host.h.</remarks>
public interface IKvmX86InitOps
{
    /// <summary>True if the current processor has the vendor's virtualization extension.</summary>
    bool CpuHasKvmSupport();

    /// <summary>True if firmware locked the extension off.</summary>
    bool DisabledByBios();

    /// <summary>Runs on every online CPU: 0, or -EIO when this CPU differs from what <see cref="HardwareSetup"/> found.</summary>
    int CheckProcessorCompatibility();

    /// <summary>Detects capabilities, allocates per-CPU regions, sets KVM's CPU capabilities; 0 or -errno.</summary>
    int HardwareSetup();

    IKvmX86Ops RuntimeOps { get; }

    IKvmPmuOps PmuOps { get; }
}
