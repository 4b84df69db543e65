using System.Collections.Frozen;

namespace Kvm.Tool;

/// <summary>The kernel's functions that a first look at the path should not miss, and what happens in them.</summary>
internal static class Milestones
{
    private static readonly FrozenDictionary<string, string> s_notes = new Dictionary<string, string>
    {
        ["kvm_dev_ioctl"] = "",
        ["kvm_arch_init_vm"] = "",
        ["vmx_vm_init"] = "",
        ["svm_vm_init"] = "",
        ["hardware_enable_nolock"] = "the first VM: on every processor",
        ["vmx_hardware_enable"] = "CR4.VMXE, VMXON",
        ["svm_hardware_enable"] = "EFER.SVME, VM_HSAVE_PA",
        ["anon_inode_getfile"] = "the VM gets its descriptor",

        ["kvm_vm_ioctl"] = "",
        ["vmx_vcpu_create"] = "",
        ["svm_vcpu_create"] = "",
        ["alloc_loaded_vmcs"] = "a VMCS page",
        ["svm_vcpu_alloc_msrpm"] = "an MSR permission map",
        ["vmx_vcpu_load_vmcs"] = "VMPTRLD, unless it is current",
        ["kvm_vcpu_reset"] = "",
        ["init_vmcs"] = "VMWRITE of controls and host state",
        ["svm_vcpu_reset"] = "intercepts and guest state into the VMCB",
        ["anon_inode_getfd"] = "the vCPU gets its descriptor",

        ["kvm_vcpu_ioctl"] = "",
        ["kvm_arch_vcpu_ioctl_run"] = "",
        ["vcpu_load"] = "",
        ["vcpu_put"] = "",
        ["kvm_mmu_load"] = "a root for EPT or NPT",
        ["vmx_vcpu_run"] = "VMLAUNCH or VMRESUME: the guest runs",
        ["svm_vcpu_run"] = "VMRUN: the guest runs",
        ["vmx_handle_exit"] = "",
        ["svm_handle_exit"] = "",
        ["handle_ept_violation"] = "memory not mapped yet",
        ["npf_interception"] = "memory not mapped yet",
        ["kvm_tdp_mmu_map"] = "now it is",
        ["kvm_emulate_cpuid"] = "CPUID: the kernel answers",
        ["handle_io"] = "OUT: userspace has to see it",
        ["io_interception"] = "OUT: userspace has to see it",
    }.ToFrozenDictionary(StringComparer.Ordinal);

    /// <summary>Null: no milestone. Empty: its name says it all.</summary>
    public static string? NoteOf(string function) => s_notes.GetValueOrDefault(function);
}
