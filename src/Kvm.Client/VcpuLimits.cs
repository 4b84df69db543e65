using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>How many vCPUs a VM may have, with the defaults of the API document for kernels that do not say.</summary>
/// <param name="Recommended">KVM_CAP_NR_VCPUS: the recommended most; 4 when the capability is absent.</param>
/// <param name="Maximum">KVM_CAP_MAX_VCPUS: the most; the recommended number when absent.</param>
/// <param name="Ids">KVM_CAP_MAX_VCPU_ID: ids are 0 … Ids - 1; the maximum when absent.</param>
/// <remarks>Documentation/virt/kvm/api.rst, KVM_CREATE_VCPU.</remarks>
public readonly record struct VcpuLimits(int Recommended, int Maximum, int Ids)
{
    private const int RecommendedWhenSilent = 4;

    /// <summary>The limits that follow from three answers of KVM_CHECK_EXTENSION (0 = absent).</summary>
    public static VcpuLimits From(int nrVcpus, int maxVcpus, int maxVcpuId)
    {
        int recommended = nrVcpus != 0 ? nrVcpus : RecommendedWhenSilent;
        int maximum = maxVcpus != 0 ? maxVcpus : recommended;
        return new VcpuLimits(recommended, maximum, maxVcpuId != 0 ? maxVcpuId : maximum);
    }

    internal static VcpuLimits Of(KvmSystem kvm) =>
        From(kvm.CheckExtension(KVM_CAP_NR_VCPUS), kvm.CheckExtension(KVM_CAP_MAX_VCPUS), kvm.CheckExtension(KVM_CAP_MAX_VCPU_ID));
}
