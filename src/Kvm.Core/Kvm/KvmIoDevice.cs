using Kvm.Abi;

namespace Kvm.Core;

/// <summary>struct kvm_io_device: a device in the kernel model that a bus reaches.</summary>
public abstract unsafe class KvmIoDevice
{
    /// <summary>0 when the device took the access, -EOPNOTSUPP to pass it on.</summary>
    public virtual KvmResult Read(KvmVcpu? vcpu, ulong address, int length, void* value) => Errno.EOPNOTSUPP;

    /// <summary>0 when the device took the access, -EOPNOTSUPP to pass it on.</summary>
    public virtual KvmResult Write(KvmVcpu? vcpu, ulong address, int length, void* value) => Errno.EOPNOTSUPP;

    /// <summary>The bus lets go of it.</summary>
    public virtual void Destructor()
    {
    }
}
