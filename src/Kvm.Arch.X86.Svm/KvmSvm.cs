using Kvm.Core;

namespace Kvm.Arch.X86.Svm;

/// <summary>A virtual machine of kvm_amd (<c>struct kvm_svm</c>). AVIC tables and SEV state are absent: the modelled processors have neither.</summary>
public sealed class KvmSvm : X86Vm
{
    internal KvmSvm(KvmModule module, X86Arch arch)
        : base(module, arch)
    {
    }
}
