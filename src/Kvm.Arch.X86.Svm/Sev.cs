using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;

namespace Kvm.Arch.X86.Svm;

/// <summary>Encrypted guests: there are none, so all that is left are the answers.</summary>
public sealed unsafe partial class KvmAmd
{
    /// <summary>Only guests with encrypted memory have anything in caches that must go.</summary>
    [KernelFunction("sev_guest_memory_reclaimed", File = "arch/x86/kvm/svm/sev.c")]
    public void GuestMemoryReclaimed(X86Vm vm) => FunctionTrace.Leaf("sev_guest_memory_reclaimed");

    /// <summary>-EBADF unless the descriptor is a VM, then -EINVAL: it is not an encrypted one.</summary>
    [KernelFunction("sev_vm_copy_enc_context_from", File = "arch/x86/kvm/svm/sev.c", Formerly = "svm_vm_copy_asid_from")]
    public int VmCopyEncContextFrom(X86Vm vm, uint sourceFd) => NoEncryptedSource(sourceFd);

    /// <inheritdoc cref="VmCopyEncContextFrom"/>
    [KernelFunction("sev_vm_move_enc_context_from", File = "arch/x86/kvm/svm/sev.c")]
    public int VmMoveEncContextFrom(X86Vm vm, uint sourceFd) => NoEncryptedSource(sourceFd);

    private static int NoEncryptedSource(uint sourceFd)
    {
        KvmFile? source = HostTask.Current.Process.Files.Get((int)sourceFd);
        bool isVm = KvmModule.FileIsKvm(source);
        source?.Put();
        return isVm ? -EINVAL : -EBADF;
    }
}
