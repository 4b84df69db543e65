using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Client.Backends;

/// <summary>A machine, the kernel on it, and its KVM modules.</summary>
internal sealed class ModelHost : IDisposable
{
    private readonly Machine _machine;

    private ModelHost(Machine machine, Host host)
    {
        _machine = machine;
        Host = host;
    }

    public Host Host { get; }

    /// <summary>Builds the machine, boots the kernel, loads kvm and the vendor's module.</summary>
    /// <exception cref="KvmException">The module refused to load.</exception>
    public static ModelHost Boot(ModelOptions options) => throw new KvmException("modprobe kvm", Errno.ENODEV, "the architecture is not linked in");

    public void Dispose()
    {
        Host.Dispose();
        _machine.Dispose();
    }
}
