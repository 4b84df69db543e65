using Kvm.Client.Backends;

namespace Kvm.Client;

/// <summary>Which kernel answers: the model inside this process, or the host's own /dev/kvm.</summary>
public static class KvmBackend
{
    /// <summary>The Linux kernel that this process runs on, through /dev/kvm.</summary>
    public static IKvmBackend Native { get; } = new NativeBackend();
}
