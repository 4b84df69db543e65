namespace Lifecycle;

/// <summary>Linux 6.1's labels on the way from insmod to a vCPU, each function's in the order in which they undo more and more.</summary>
internal static class Labels
{
    /// <summary>insmod kvm_intel or kvm_amd.</summary>
    public static readonly Label[] Insmod =
    [
        new("kvm_x86_vendor_init", "out_free_x86_emulator_cache", "alloc_percpu:kvm_user_return_msrs", 1, "the emulator's object cache goes"),
        new("kvm_x86_vendor_init", "out_free_percpu", "kmem_cache_create:pte_list_desc", 1, "the per-CPU user-return MSRs go"),
        new("kvm_init", "out_fail", "", 0, "kvm_arch_init can't fail in 6.1"),
        new("kvm_init", "out_irqfd", "alloc_workqueue:kvm-irqfd-cleanup", 1, "kvm_arch_exit"),
        new("kvm_init", "out_free_0", "zalloc_cpumask_var", 1, "the irqfd work queue goes"),
        new("kvm_init", "out_free_1", "alloc_page:alloc_vmcs_cpu", 1, "the mask of enabled CPUs goes", "intel"),
        new("kvm_init", "out_free_1", "alloc_page:svm_hardware_setup", 1, "the mask of enabled CPUs goes", "amd"),
        new("kvm_init", "out_free_2", "cpuhp_setup_state:kvm/cpu:starting", 1, "hardware_unsetup: each CPU's VMXON region or save area goes"),
        new("kvm_init", "out_free_3", "kmem_cache_create:kvm_vcpu", 1, "no more hotplug and reboot callbacks"),
        new("kvm_init", "out_free_4", "alloc_cpumask_var:cpu_kick_mask", 2, "kick masks and the vCPU object cache go"),
        new("kvm_init", "err_vfio", "kvm_vfio_ops_init", 1, "asynchronous page faults are taken down"),
        new("kvm_init", "err_register", "misc_register", 1, "the VFIO device type goes"),
    ];

    /// <summary>KVM_CREATE_VM.</summary>
    public static readonly Label[] CreateVm =
    [
        new("kvm_dev_ioctl_create_vm", "put_fd", "kvm_arch_alloc_vm", 1, "the reserved descriptor is free again"),
        new("kvm_create_vm", "out_err_no_srcu", "init_srcu_struct", 1, "the VM's memory and the reference to the module go"),
        new("kvm_create_vm", "out_err_no_irq_srcu", "init_srcu_struct", 2, "the first SRCU structure goes"),
        new("kvm_create_vm", "out_err_no_arch_destroy_vm", "kzalloc:kvm_io_bus", 4, "buses, the second SRCU structure, the reference count"),
        new("kvm_create_vm", "out_err_no_disable", null, 1, "kvm_arch_destroy_vm; CPUs that had entered left again"),
        new("kvm_create_vm", "out_err_no_mmu_notifier", "mmu_notifier_register", 1, "hardware_disable_all: this was the only VM"),
        new("kvm_create_vm", "out_no_coalesced_mmio", "alloc_page:coalesced_mmio_ring", 1, "the MMU notifier goes"),
        new("kvm_create_vm", "out_err_no_debugfs", "debugfs:debugfs_stat_data", 1, "the coalesced MMIO ring goes"),
        new("kvm_create_vm", "out_err", "kthread_create:kvm-nx-lpage-recovery", 1, "the debugfs directory goes"),
        new("kvm_dev_ioctl_create_vm", "put_kvm", "anon_inode_getfile:kvm-vm", 1, "the finished VM is destroyed as by its last close"),
    ];

    /// <summary>KVM_CREATE_VCPU.</summary>
    public static readonly Label[] CreateVcpu =
    [
        new("kvm_vm_ioctl_create_vcpu", "vcpu_decrement", "kmem_cache_zalloc:kvm_vcpu", 1, "created_vcpus counts one less"),
        new("kvm_vm_ioctl_create_vcpu", "vcpu_free", "alloc_page:kvm_run", 1, "the vCPU's memory goes"),
        new("kvm_vm_ioctl_create_vcpu", "vcpu_free_run_page", "alloc_page:pio_data", 1, "the kvm_run page goes"),
        new("kvm_arch_vcpu_create", "fail_mmu_destroy", "", 0, "only an in-kernel local APIC can fail there"),
        new("kvm_arch_vcpu_create", "fail_free_lapic", "alloc_page:pio_data", 1, "the local APIC and the MMU's caches go"),
        new("kvm_arch_vcpu_create", "fail_free_mce_banks", "kcalloc:mci_ctl2_banks", 1, "machine-check banks and the I/O page go"),
        new("kvm_arch_vcpu_create", "free_wbinvd_dirty_mask", "kmem_cache_zalloc:x86_emulator", 1, "the mask of CPUs to write back goes"),
        new("kvm_arch_vcpu_create", "free_emulate_ctxt", "vzalloc:guest_fpstate", 1, "the emulator's context goes"),
        new("kvm_arch_vcpu_create", "free_guest_fpu", "alloc_page:vmx_vcpu_create", 1, "the guest's FPU state goes", "intel"),
        new("vmx_vcpu_create", "free_vpid", "alloc_page:vmx_vcpu_create", 1, "the VPID is free again", "intel"),
        new("vmx_vcpu_create", "free_pml", "alloc_page:alloc_vmcs_cpu", 1, "the page-modification log goes", "intel"),
        new("alloc_loaded_vmcs", "out_vmcs", "alloc_page:alloc_loaded_vmcs", 1, "the VMCS goes", "intel"),
        new("vmx_vcpu_create", "free_vmcs", "", 0, "only hosts without unrestricted guest, or with APIC access pages, fail there", "intel"),
        new("kvm_arch_vcpu_create", "free_guest_fpu", "alloc_page:svm_vcpu_create", 1, "the guest's FPU state goes", "amd"),
        new("svm_vcpu_create", "out", "alloc_page:svm_vcpu_create", 1, "nothing yet", "amd"),
        new("svm_vcpu_create", "error_free_vmsa_page", "alloc_page:svm_vcpu_alloc_msrpm", 1, "the VMCB goes", "amd"),
        new("svm_vcpu_create", "error_free_vmcb_page", "", 0, "only AVIC and SEV-ES fail there", "amd"),
        new("kvm_vm_ioctl_create_vcpu", "arch_vcpu_destroy", "vmalloc:dirty_ring", 1, "kvm_arch_vcpu_destroy"),
        new("kvm_vm_ioctl_create_vcpu", "unlock_vcpu_destroy", "xa_reserve:vcpu_array", 1, "the dirty ring goes, kvm->lock is free"),
        new("kvm_vm_ioctl_create_vcpu", "kvm_put_xa_release", "anon_inode_getfile:kvm-vcpu:0", 1, "the VM's reference and the place in its array"),
    ];
}
