using Kvm.Core;

namespace Kvm.Arch.X86.Vmx;

/// <summary>A virtual machine of kvm_intel (<c>struct kvm_vmx</c>).</summary>
public sealed class KvmVmx : X86Vm
{
    internal KvmVmx(KvmModule module, X86Arch arch) : base(module, arch)
    {
    }

    /// <summary>Where KVM_SET_TSS_ADDR put the three pages of the real-mode TSS (processors without unrestricted guest).</summary>
    internal uint RmodeTssAddr;
    internal bool EptIdentityPagetableDone;
    /// <summary>Guest-physical address of the identity page table used while a guest without unrestricted mode has paging off.</summary>
    internal ulong EptIdentityMapAddr;
    /// <summary>Posted-interrupt descriptor table for IPI virtualization; 0 = none.</summary>
    internal ulong PidTable;
    /// <summary>The page at the local APIC's address is in its private memory slot.</summary>
    internal bool ApicAccessMemslotEnabled;
}
