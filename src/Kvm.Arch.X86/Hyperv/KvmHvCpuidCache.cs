namespace Kvm.Arch.X86;

/// <summary>The registers of the Hyper-V CPUID leaves that decide what a guest may use.</summary>
/// <remarks>asm/kvm_host.h:struct kvm_vcpu_hv, cpuid_cache.</remarks>
public struct KvmHvCpuidCache
{
    /// <summary>HYPERV_CPUID_FEATURES.</summary>
    public uint FeaturesEax, FeaturesEbx, FeaturesEdx;

    /// <summary>HYPERV_CPUID_ENLIGHTMENT_INFO.</summary>
    public uint EnlightenmentsEax, EnlightenmentsEbx;

    /// <summary>HYPERV_CPUID_SYNDBG_PLATFORM_CAPABILITIES.</summary>
    public uint SyndbgCapEax;

    /// <summary>HYPERV_CPUID_NESTED_FEATURES.</summary>
    public uint NestedEax, NestedEbx;
}
