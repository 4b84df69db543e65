using Kvm.Core;

namespace Kvm.Arch.X86;

/// <remarks>The second half of loading a vendor module.</remarks>
public sealed partial class X86Arch
{
    /// <summary>kvm_init: hardware setup, the compatibility check on each CPU, /dev/kvm. The caller undoes <see cref="VendorInit"/> when it fails.</summary>
    public KvmResult KvmModuleInit(IKvmX86InitOps init, HostModule vendor) => Module.KvmInit(init, vendor);

    /// <summary>kvm_exit: /dev/kvm disappears, virtualization goes off everywhere.</summary>
    public void KvmModuleExit() => Module.KvmExit();
}
