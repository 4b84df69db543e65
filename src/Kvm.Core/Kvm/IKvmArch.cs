using Kvm.Abi;

namespace Kvm.Core;

/// <summary>
/// The kvm_arch_* functions: what the architecture-independent part asks of the architecture. Members without a body must be implemented; the others have the
/// kernel's weak defaults.
/// </summary>
/// <remarks>include/linux/kvm_host.h. Each member is named after its function without the <c>kvm_arch_</c> prefix.</remarks>
public interface IKvmArch
{
    // --- the kvm module itself and vendor modules -------------------------------------------------------------------------------------------

    /// <summary>kvm.ko is inserted (kvm_x86_init). Defines parameters of <paramref name="module"/> in its constructor, not here.</summary>
    KvmResult ModuleInit(KvmModule module) => 0;

    /// <summary>kvm.ko is removed (kvm_x86_exit).</summary>
    void ModuleExit(KvmModule module)
    {
    }

    /// <summary>Defines kvm.ko's architecture parameters; called once, when the module object is made.</summary>
    void DefineParameters(ModuleParameters parameters)
    {
    }

    KvmResult Init(object? opaque);
    void Exit();
    KvmResult HardwareSetup(object? opaque);
    void HardwareUnsetup();

    /// <summary>Runs on each online CPU, interrupts off.</summary>
    KvmResult CheckProcessorCompat(object? opaque);

    /// <summary>Runs on the CPU that is enabled, interrupts off.</summary>
    KvmResult HardwareEnable();

    /// <summary>Runs on the CPU that is disabled, interrupts off.</summary>
    void HardwareDisable();

    // --- ioctl tables -----------------------------------------------------------------------------------------------------------------------

    /// <summary>The architecture's rows for /dev/kvm, for listings; <see cref="DevIoctl"/> dispatches them.</summary>
    IoctlTable<KvmDevice> DevIoctls { get; }

    /// <summary>The architecture's rows for VM files.</summary>
    IoctlTable<KvmVm> VmIoctls { get; }

    /// <summary>The architecture's rows for vCPU files.</summary>
    IoctlTable<KvmVcpu> VcpuIoctls { get; }

    /// <summary>kvm_arch_dev_ioctl; unknown: -EINVAL.</summary>
    KvmResult DevIoctl(KvmDevice device, uint request, ulong arg) => DevIoctls.Dispatch(device, request, arg, Errno.EINVAL);

    /// <summary>kvm_arch_vm_ioctl; unknown: -ENOTTY.</summary>
    KvmResult VmIoctl(KvmVm vm, uint request, ulong arg) => VmIoctls.Dispatch(vm, request, arg, Errno.ENOTTY);

    /// <summary>kvm_arch_vcpu_ioctl: loads the vCPU, dispatches, puts it; unknown: -EINVAL.</summary>
    KvmResult VcpuIoctl(KvmVcpu vcpu, uint request, ulong arg);

    /// <summary>kvm_arch_vcpu_async_ioctl: -ENOIOCTLCMD when the request is not asynchronous.</summary>
    KvmResult VcpuAsyncIoctl(KvmVcpu vcpu, uint request, ulong arg) => Errno.ENOIOCTLCMD;

    /// <summary>kvm_vm_ioctl_check_extension; <paramref name="vm"/> is null on /dev/kvm.</summary>
    KvmResult CheckExtension(KvmVm? vm, ulong extension);

    /// <summary>kvm_vm_ioctl_enable_cap.</summary>
    KvmResult VmIoctlEnableCap(KvmVm vm, in kvm_enable_cap cap) => Errno.EINVAL;

    // --- VM ---------------------------------------------------------------------------------------------------------------------------------

    /// <summary>kvm_arch_alloc_vm: a new VM object of the vendor's type (its allocation size in the kernel), or null = -ENOMEM.</summary>
    KvmVm? AllocVm(KvmModule module);

    /// <summary>kvm_arch_free_vm: native memory that belongs to the VM object itself.</summary>
    void FreeVm(KvmVm vm)
    {
    }

    KvmResult InitVm(KvmVm vm, ulong type);
    KvmResult PostInitVm(KvmVm vm) => 0;
    void PreDestroyVm(KvmVm vm)
    {
    }

    void SyncEvents(KvmVm vm)
    {
    }

    /// <summary>kvm_arch_destroy_vm: must call <see cref="KvmVm.DestroyVcpus"/>.</summary>
    void DestroyVm(KvmVm vm);

    KvmResult CreateVmDebugfs(KvmVm vm, string directory) => 0;
    void CreateVcpuDebugfs(KvmVcpu vcpu, string directory)
    {
    }

    KvmResult PmNotifier(KvmVm vm, PmEvent state) => 0;

    // --- interrupts of VMs with an in-kernel interrupt controller; the defaults answer as a VM without one ---------------------------------

    /// <summary>kvm_arch_irqfd_allowed.</summary>
    bool IrqfdAllowed(KvmVm vm, in kvm_irqfd args) => false;

    /// <summary>kvm_arch_can_set_irq_routing.</summary>
    bool CanSetIrqRouting(KvmVm vm) => false;

    /// <summary>kvm_set_routing_entry: fills the entry in; -EINVAL for a chip, pin or type that there is not.</summary>
    KvmResult SetRoutingEntry(KvmVm vm, KvmKernelIrqRoutingEntry entry, in kvm_irq_routing_entry user) => Errno.EINVAL;

    /// <summary>kvm_arch_irq_routing_update: the new table is visible, irq_lock is held.</summary>
    void IrqRoutingUpdate(KvmVm vm)
    {
    }

    /// <summary>kvm_arch_post_irq_routing_update.</summary>
    void PostIrqRoutingUpdate(KvmVm vm)
    {
    }

    /// <summary>kvm_arch_post_irq_ack_notifier_list_update.</summary>
    void PostIrqAckNotifierListUpdate(KvmVm vm)
    {
    }

    /// <summary>kvm_arch_set_irq_inatomic: -EWOULDBLOCK (EAGAIN) when the interrupt can't be delivered without sleeping.</summary>
    int SetIrqInatomic(KvmVm vm, KvmKernelIrqRoutingEntry entry, int sourceId, int level, bool lineStatus) => -(int)Errno.EAGAIN;

    /// <summary>kvm_vm_ioctl_irq_line.</summary>
    KvmResult VmIoctlIrqLine(KvmVm vm, ref kvm_irq_level level, bool lineStatus) => Errno.ENXIO;

    /// <summary>kvm_send_userspace_msi.</summary>
    KvmResult SendUserspaceMsi(KvmVm vm, in kvm_msi msi) => Errno.EINVAL;

    // --- memory -----------------------------------------------------------------------------------------------------------------------------

    void FreeMemslot(KvmVm vm, KvmMemorySlot slot);
    void MemslotsUpdated(KvmVm vm, ulong generation);
    KvmResult PrepareMemoryRegion(KvmVm vm, KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change);
    void CommitMemoryRegion(KvmVm vm, KvmMemorySlot? old, KvmMemorySlot? @new, KvmMrChange change);
    void FlushShadowAll(KvmVm vm);
    void FlushShadowMemslot(KvmVm vm, KvmMemorySlot slot);

    /// <summary>kvm_arch_flush_remote_tlb: an error (-EOPNOTSUPP) makes the caller send requests to all vCPUs.</summary>
    KvmResult FlushRemoteTlb(KvmVm vm) => Errno.EOPNOTSUPP;

    void FlushRemoteTlbsMemslot(KvmVm vm, KvmMemorySlot slot) => vm.FlushRemoteTlbs();

    /// <summary>kvm_arch_mmu_enable_log_dirty_pt_masked: write-protects (or re-arms) the frames of <paramref name="mask"/> from <paramref name="gfnOffset"/>.</summary>
    void MmuEnableLogDirtyPtMasked(KvmVm vm, KvmMemorySlot slot, ulong gfnOffset, ulong mask);

    void SyncDirtyLog(KvmVm vm, KvmMemorySlot slot)
    {
    }

    /// <summary>kvm_unmap_gfn_range, mmu_lock held for write: true when TLBs must be flushed.</summary>
    bool UnmapGfnRange(KvmVm vm, in KvmGfnRange range);

    bool AgeGfn(KvmVm vm, in KvmGfnRange range) => false;
    bool TestAgeGfn(KvmVm vm, in KvmGfnRange range) => false;
    void GuestMemoryReclaimed(KvmVm vm)
    {
    }

    /// <summary>kvm_arch_mmu_notifier_invalidate_range.</summary>
    void MmuNotifierInvalidateRange(KvmVm vm, ulong start, ulong end)
    {
    }

    // --- vCPU -------------------------------------------------------------------------------------------------------------------------------

    KvmResult VcpuPrecreate(KvmVm vm, uint id);

    /// <summary>kmem_cache_zalloc(kvm_vcpu_cache): a new vCPU object of the vendor's type.</summary>
    KvmVcpu AllocVcpu(KvmVm vm);

    KvmResult VcpuCreate(KvmVcpu vcpu);
    void VcpuPostcreate(KvmVcpu vcpu);
    void VcpuDestroy(KvmVcpu vcpu);
    void VcpuLoad(KvmVcpu vcpu, HostCpu cpu);
    void VcpuPut(KvmVcpu vcpu);
    void SchedIn(KvmVcpu vcpu, HostCpu cpu)
    {
    }

    KvmResult VcpuRunPidChange(KvmVcpu vcpu) => 0;
    KvmResult VcpuIoctlRun(KvmVcpu vcpu);
    KvmResult VcpuIoctlGetRegs(KvmVcpu vcpu, ref kvm_regs regs);
    KvmResult VcpuIoctlSetRegs(KvmVcpu vcpu, in kvm_regs regs);
    KvmResult VcpuIoctlGetSregs(KvmVcpu vcpu, ref kvm_sregs sregs);
    KvmResult VcpuIoctlSetSregs(KvmVcpu vcpu, in kvm_sregs sregs);
    KvmResult VcpuIoctlGetFpu(KvmVcpu vcpu, ref kvm_fpu fpu);
    KvmResult VcpuIoctlSetFpu(KvmVcpu vcpu, in kvm_fpu fpu);
    KvmResult VcpuIoctlTranslate(KvmVcpu vcpu, ref kvm_translation translation);
    KvmResult VcpuIoctlGetMpState(KvmVcpu vcpu, ref kvm_mp_state state);
    KvmResult VcpuIoctlSetMpState(KvmVcpu vcpu, in kvm_mp_state state);
    KvmResult VcpuIoctlSetGuestDebug(KvmVcpu vcpu, in kvm_guest_debug debug);

    /// <summary>kvm_arch_vcpu_runnable.</summary>
    bool VcpuRunnable(KvmVcpu vcpu);

    bool VcpuInKernel(KvmVcpu vcpu) => false;
    bool VcpuShouldKick(KvmVcpu vcpu) => vcpu.ExitingGuestMode() == VcpuMode.IN_GUEST_MODE;
    bool DyRunnable(KvmVcpu vcpu) => VcpuRunnable(vcpu);
    bool DyHasPendingInterrupt(KvmVcpu vcpu) => false;
    bool CpuHasPendingTimer(KvmVcpu vcpu) => false;
    bool NoPoll(KvmVcpu vcpu) => false;
    void VcpuBlocking(KvmVcpu vcpu)
    {
    }

    void VcpuUnblocking(KvmVcpu vcpu)
    {
    }

    /// <summary>kvm_arch_vcpu_memslots_id: 1 while in SMM.</summary>
    int VcpuMemslotsId(KvmVcpu vcpu) => 0;

    /// <summary>vcpu->arch.pio_data: the page behind page offset 1 of the vCPU's mapping; 0 when there is none.</summary>
    ulong PioDataPage(KvmVcpu vcpu);

    /// <summary>kvm_arch_vcpu_fault: a page beyond the generic ones; 0 = SIGBUS.</summary>
    ulong VcpuFault(KvmVcpu vcpu, ulong pageOffset) => 0;

    /// <summary>kvm_cpu_dirty_log_size: entries of the hardware's own dirty log (PML), which the dirty ring must leave room for.</summary>
    int CpuDirtyLogSize => 0;
}
