namespace Kvm.Arch.X86.Svm;

/// <summary>A virtual machine of kvm_amd (<c>struct kvm_svm</c>). AVIC tables and SEV state are absent: the modelled processors have neither.</summary>
public sealed class KvmSvm : X86Vm
{
    internal KvmSvm(X86Arch arch)
        : base(arch)
    {
    }
}
