using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;

namespace Kvm.Arch.X86;

/// <remarks>VM life: kvm_arch_init_vm to kvm_arch_destroy_vm.</remarks>
public sealed partial class X86Arch
{
    /// <summary>Private slots of KVM itself, behind those of userspace.</summary>
    public const int TSS_PRIVATE_MEMSLOT = KvmLimits.KVM_USER_MEM_SLOTS + 0;
    public const int APIC_ACCESS_PAGE_PRIVATE_MEMSLOT = KvmLimits.KVM_USER_MEM_SLOTS + 1;
    public const int IDENTITY_PAGETABLE_PRIVATE_MEMSLOT = KvmLimits.KVM_USER_MEM_SLOTS + 2;

    private KvmModule? module;

    /// <summary>kvm.ko.</summary>
    public KvmModule Module => module ?? throw new InvalidOperationException("kvm.ko is not loaded.");

    public KvmVm? AllocVm(KvmModule kvm) => Host.Faults.ShouldFail("vmalloc", "kvm_vm") ? null : Ops.AllocVm(kvm);

    [KernelFunction("kvm_arch_free_vm", File = "arch/x86/kvm/x86.c")]
    public void FreeVm(KvmVm vm) => FunctionTrace.Leaf("kvm_arch_free_vm");

    [KernelFunction("kvm_arch_init_vm", File = "arch/x86/kvm/x86.c")]
    public KvmResult InitVm(KvmVm kvm, ulong type)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_init_vm");
        if (type != 0)
            return -EINVAL;
        var vm = (X86Vm)kvm;
        using (FunctionTrace.Enter("kvm_page_track_init"))
        using (FunctionTrace.Enter("init_srcu_struct"))
        {
            if (Host.Faults.ShouldFail("init_srcu_struct", "track_srcu"))
                return -ENOMEM;
        }

        vm.MmuInitVm();
        int r = Ops.VmInit(vm);
        if (r != 0)
        {
            vm.MmuUninitVm();
            PageTrackCleanup();
            return r;
        }

        vm.KvmclockOffset = -KvmclockBaseNs();
        lock (vm.TscWriteLock)
            vm.PvclockUpdateVmGtodCopy();
        vm.DefaultTscKhz = HostX86.TscKhz;
        vm.GuestCanReadMsrPlatformInfo = true;
        vm.EnablePmu = Params.EnablePmu;

        InhibitApicv(vm, ApicvInhibit.APICV_INHIBIT_REASON_ABSENT);
        if (!EnableApicv)
            InhibitApicv(vm, ApicvInhibit.APICV_INHIBIT_REASON_DISABLE);

        vm.Hyperv.InitVm();
        return 0;
    }

    [KernelFunction("set_or_clear_apicv_inhibit", File = "arch/x86/kvm/x86.c")]
    private static void InhibitApicv(X86Vm vm, ApicvInhibit reason)
    {
        FunctionTrace.Leaf("set_or_clear_apicv_inhibit");
        vm.ApicvInhibitReasons |= 1ul << (int)reason;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_apicv_inhibit_changed", $"set reason={(int)reason}, inhibits=0x{vm.ApicvInhibitReasons:x}");
    }

    [KernelFunction("kvm_page_track_cleanup", File = "arch/x86/kvm/mmu/page_track.c")]
    private static void PageTrackCleanup()
    {
        using var _ = FunctionTrace.Enter("kvm_page_track_cleanup");
        FunctionTrace.Leaf("cleanup_srcu_struct");
    }

    [KernelFunction("kvm_arch_post_init_vm", File = "arch/x86/kvm/x86.c")]
    public KvmResult PostInitVm(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_post_init_vm");
        using (FunctionTrace.Enter("kvm_mmu_post_init_vm"))
        using (FunctionTrace.Enter("kvm_vm_create_worker_thread"))
        {
            // The thread that gives split huge pages back has nothing to do in this model; only its creation can fail.
            FunctionTrace.Leaf("kthread_create_on_node");
            return Host.Faults.ShouldFail("kthread_create", "kvm-nx-lpage-recovery") ? -ENOMEM : 0;
        }
    }

    [KernelFunction("kvm_arch_sync_events", File = "arch/x86/kvm/x86.c")]
    public void SyncEvents(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_sync_events");
        KvmPit.Free((X86Vm)vm);
    }

    [KernelFunction("kvm_arch_pre_destroy_vm", File = "arch/x86/kvm/x86.c")]
    public void PreDestroyVm(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_pre_destroy_vm");
        using (FunctionTrace.Enter("kvm_mmu_pre_destroy_vm"))
            FunctionTrace.Leaf("kthread_stop");
    }

    [KernelFunction("kvm_arch_destroy_vm", File = "arch/x86/kvm/x86.c")]
    public void DestroyVm(KvmVm kvm)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_destroy_vm");
        var vm = (X86Vm)kvm;
        if (HostTask.Current.Process is { } process && process.Mm == vm.Mm)
        {
            using (vm.SlotsLock.Enter())
            {
                SetMemoryRegion(vm, APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, 0, 0, out ulong _);
                SetMemoryRegion(vm, IDENTITY_PAGETABLE_PRIVATE_MEMSLOT, 0, 0, out ulong _);
                SetMemoryRegion(vm, TSS_PRIVATE_MEMSLOT, 0, 0, out ulong _);
            }
        }

        foreach (KvmVcpu vcpu in vm.Vcpus)
        {
            FunctionTrace.Leaf("kvm_clear_async_pf_completion_queue");
            vcpu.Load();
            ((X86Vcpu)vcpu).MmuUnload();
            vcpu.Put();
        }

        ops?.VmDestroy(vm);
        vm.MsrFilter = null;
        KvmPic.Destroy(vm);
        KvmIoapic.Destroy(vm);
        vm.DestroyVcpus();
        vm.PmuEventFilter = null;
        vm.MmuUninitVm();
        PageTrackCleanup();
        vm.Hyperv.DestroyVm();
    }

    /// <summary>
    /// __x86_set_memory_region: a slot of KVM's own in each address space, backed by memory mapped into the process. Size 0 removes it. -EEXIST when it is there
    /// already. The caller holds slots_lock.
    /// </summary>
    [KernelFunction("__x86_set_memory_region", File = "arch/x86/kvm/x86.c")]
    public int SetMemoryRegion(X86Vm vm, int id, ulong gpa, uint size, out ulong hva)
    {
        using var _ = FunctionTrace.Enter("__x86_set_memory_region");
        hva = 0;
        KvmMemorySlot? slot = vm.Memslots().ById(id);
        HostProcess process = HostTask.Current.Process;
        if (size != 0)
        {
            if (slot is { Npages: > 0 })
                return -EEXIST;
            FunctionTrace.Leaf("do_mmap");
            KvmResult mapped = process.Mmap(size, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED | Fcntl.MAP_ANONYMOUS);
            if (mapped.IsError)
                return (int)mapped.Raw;
            hva = (ulong)mapped.Raw;
        }
        else
        {
            if (slot is not { Npages: > 0 })
                return 0;
            hva = slot.UserspaceAddr;
        }

        ulong oldBytes = (slot?.Npages ?? 0) << 12;
        for (int space = 0; space < KvmLimits.KVM_ADDRESS_SPACE_NUM; space++)
        {
            var region = new Abi.kvm_userspace_memory_region
            {
                slot = (uint)id | ((uint)space << 16),
                guest_phys_addr = gpa,
                userspace_addr = hva,
                memory_size = size,
            };
            KvmResult r = vm.SetMemoryRegionLocked(in region);
            if (!r.IsError)
                continue;
            if (size != 0)
            {
                // DIVERGES: D-X86-1
                var first = new Abi.kvm_userspace_memory_region { slot = (uint)id };
                if (space != 0)
                    vm.SetMemoryRegionLocked(in first);
                process.Munmap(hva, size);
            }

            return (int)r.Raw;
        }

        if (size == 0)
            process.Munmap(hva, oldBytes);
        return 0;
    }

    [KernelFunction("kvm_arch_create_vm_debugfs", File = "arch/x86/kvm/debugfs.c")]
    public KvmResult CreateVmDebugfs(KvmVm vm, string directory)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_create_vm_debugfs");
        FunctionTrace.Leaf("debugfs_create_file");
        return 0;
    }

    [KernelFunction("kvm_arch_create_vcpu_debugfs", File = "arch/x86/kvm/debugfs.c")]
    public void CreateVcpuDebugfs(KvmVcpu vcpu, string directory)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_create_vcpu_debugfs");
        int files = KvmCaps.HasTscControl ? 4 : 2;
        if (((X86Vcpu)vcpu).LapicInKernel)
            files++;
        for (int i = 0; i < files; i++)
            FunctionTrace.Leaf("debugfs_create_file");
    }

    /// <summary>kvm_arch_pm_notifier: guests with kvmclock learn that they were stopped.</summary>
    public KvmResult PmNotifier(KvmVm vm, PmEvent state)
    {
        if (state is not (PmEvent.SuspendPrepare or PmEvent.HibernationPrepare))
            return 0;
        using (vm.Lock.Enter())
        {
            foreach (KvmVcpu v in vm.Vcpus)
            {
                if (v is X86Vcpu { PvTimeActive: true } vcpu)
                    vcpu.SetGuestPaused();
            }
        }

        return 0;
    }
}
