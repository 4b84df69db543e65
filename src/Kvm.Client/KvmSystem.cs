using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>An open /dev/kvm: the system ioctls.</summary>
public sealed class KvmSystem : IDisposable
{
    private int _vcpuMmapSize; // the same for every vCPU: asked once

    private KvmSystem(KvmFd fd) => Fd = fd;

    /// <summary>The descriptor of /dev/kvm.</summary>
    public KvmFd Fd { get; }

    /// <summary>The kernel that answers.</summary>
    public IKvmBackend Backend => Fd.Backend;

    /// <summary>KVM_GET_API_VERSION: 12 on every KVM since Linux 2.6.22.</summary>
    public int ApiVersion => (int)Fd.Ioctl(KVM_GET_API_VERSION, 0);

    /// <summary>Bytes to map from a vCPU descriptor: the kvm_run page and the pages behind it.</summary>
    public int VcpuMmapSize => _vcpuMmapSize != 0 ? _vcpuMmapSize : _vcpuMmapSize = (int)Fd.Ioctl(KVM_GET_VCPU_MMAP_SIZE, 0);

    /// <summary>How many vCPUs a VM may have.</summary>
    public VcpuLimits VcpuLimits => VcpuLimits.Of(this);

    /// <summary>Opens the KVM device of <paramref name="backend"/>.</summary>
    /// <exception cref="KvmException">ENOENT or ENODEV: no KVM there (no device node, no module, no hardware support). EACCES: no permission.</exception>
    public static KvmSystem Open(IKvmBackend backend, string path = "/dev/kvm")
    {
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentException.ThrowIfNullOrEmpty(path);
        backend.AddUser();
        try
        {
            long fd = backend.Open(path, O_RDWR | O_CLOEXEC);
            if (fd < 0) throw new KvmException($"open({path})", (Errno)(-fd), Hint((Errno)(-fd), path));
            return new KvmSystem(new KvmFd(backend, (int)fd));
        }
        finally
        {
            backend.RemoveUser();
        }
    }

    /// <summary>KVM_CREATE_VM.</summary>
    /// <param name="type">0 on x86; anything else is EINVAL.</param>
    /// <exception cref="KvmException">EBUSY: virtualization could not be enabled on every CPU.</exception>
    public Vm CreateVm(ulong type = 0) => new(new KvmFd(Backend, (int)Fd.Ioctl(KVM_CREATE_VM, type)), VcpuMmapSize);

    /// <summary>KVM_CHECK_EXTENSION: 0 when absent.</summary>
    public int CheckExtension(int capability) => (int)Fd.Ioctl(KVM_CHECK_EXTENSION, (ulong)capability);

    /// <summary>KVM_GET_SUPPORTED_CPUID: what a guest could be shown.</summary>
    public kvm_cpuid_entry2[] GetSupportedCpuid() => Cpuid.Get(Fd, KVM_GET_SUPPORTED_CPUID);

    /// <summary>KVM_GET_EMULATED_CPUID: features that KVM emulates though the hardware lacks them.</summary>
    public kvm_cpuid_entry2[] GetEmulatedCpuid() => Cpuid.Get(Fd, KVM_GET_EMULATED_CPUID);

    /// <summary>KVM_GET_MSR_INDEX_LIST: the MSRs to save and restore with a vCPU.</summary>
    public uint[] GetMsrIndexList() => MsrAccess.GetList(Fd, KVM_GET_MSR_INDEX_LIST);

    /// <summary>KVM_GET_MSR_FEATURE_INDEX_LIST: the MSRs that tell what the host can do; read with <see cref="GetMsrs"/>.</summary>
    public uint[] GetMsrFeatureIndexList() => MsrAccess.GetList(Fd, KVM_GET_MSR_FEATURE_INDEX_LIST);

    /// <summary>KVM_GET_MSRS on the system descriptor: feature MSRs.</summary>
    /// <returns>How many entries were read, in order; an unknown MSR ends the reading.</returns>
    public int GetMsrs(Span<kvm_msr_entry> entries) => MsrAccess.Get(Fd, entries);

    /// <summary>Any other ioctl.</summary>
    public long Ioctl(uint request, ulong argument = 0) => Fd.Ioctl(request, argument);

    /// <summary>Closes the descriptor. VMs made from it live on.</summary>
    public void Dispose() => Fd.Dispose();

    private static string Hint(Errno errno, string path) => errno switch
    {
        Errno.ENOENT => $"{path} does not exist: the host has no KVM module loaded or no virtualization support; use the model back end",
        Errno.ENODEV => "the device has no driver: the KVM module did not load",
        Errno.EACCES or Errno.EPERM => $"no permission for {path}: join the group that owns it, or use the model back end",
        _ => "cannot open the device",
    };
}
