using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The x86 calls on a VM (x86.c:kvm_arch_vm_ioctl), in number order. Xen is not there: unknown calls.</remarks>
public sealed unsafe partial class X86Arch
{
    public IoctlTable<KvmVm> VmIoctls { get; }

    [KernelFunction("kvm_arch_vm_ioctl", File = "arch/x86/kvm/x86.c")]
    public KvmResult VmIoctl(KvmVm vm, uint request, ulong arg)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vm_ioctl");
        return VmIoctls.Dispatch(vm, request, arg, Errno.ENOTTY);
    }

    private IoctlTable<KvmVm> BuildVmIoctls() => new()
    {
        { KVM_SET_NR_MMU_PAGES, nameof(KVM_SET_NR_MMU_PAGES), (vm, arg) => SetNrMmuPages((X86Vm)vm, arg) },
        { KVM_GET_NR_MMU_PAGES, nameof(KVM_GET_NR_MMU_PAGES), vm => (long)((X86Vm)vm).NMaxMmuPages },
        { KVM_SET_TSS_ADDR, nameof(KVM_SET_TSS_ADDR), (vm, arg) => arg > 0xffffd000 ? -EINVAL : Ops.SetTssAddr((X86Vm)vm, (uint)arg) },
        { KVM_SET_IDENTITY_MAP_ADDR, nameof(KVM_SET_IDENTITY_MAP_ADDR), (vm, arg) => SetIdentityMapAddr((X86Vm)vm, arg) },
        { KVM_CREATE_IRQCHIP, nameof(KVM_CREATE_IRQCHIP), static (KvmVm vm) => CreateIrqchip((X86Vm)vm) },
        { KVM_GET_IRQCHIP, nameof(KVM_GET_IRQCHIP), (vm, arg) => GetIrqchip((X86Vm)vm, arg) },
        { KVM_SET_IRQCHIP, nameof(KVM_SET_IRQCHIP), (vm, arg) => SetIrqchip((X86Vm)vm, arg) },
        { KVM_CREATE_PIT, nameof(KVM_CREATE_PIT), static (KvmVm vm) => CreatePit((X86Vm)vm, KVM_PIT_SPEAKER_DUMMY) },
        { KVM_GET_PIT, nameof(KVM_GET_PIT), static (vm, arg) => GetPit((X86Vm)vm, arg) },
        { KVM_SET_PIT, nameof(KVM_SET_PIT), static (vm, arg) => SetPit((X86Vm)vm, arg) },
        { KVM_REINJECT_CONTROL, nameof(KVM_REINJECT_CONTROL), static (vm, arg) => ReinjectControl((X86Vm)vm, arg) },
        {
            KVM_CREATE_PIT2, nameof(KVM_CREATE_PIT2),
            static (vm, arg) => new UserPtr<kvm_pit_config>(arg).Read(out kvm_pit_config config) ? CreatePit((X86Vm)vm, config.flags) : -EFAULT
        },
        { KVM_SET_BOOT_CPU_ID, nameof(KVM_SET_BOOT_CPU_ID), (vm, arg) => SetBootCpuId((X86Vm)vm, arg) },
        { KVM_SET_CLOCK, nameof(KVM_SET_CLOCK), (vm, arg) => new UserPtr<kvm_clock_data>(arg).Read(out kvm_clock_data d) ? ((X86Vm)vm).SetClock(in d) : -EFAULT },
        { KVM_GET_CLOCK, nameof(KVM_GET_CLOCK), (vm, arg) => Put(arg, ((X86Vm)vm).GetKvmclock()) },
        { KVM_GET_PIT2, nameof(KVM_GET_PIT2), static (vm, arg) => ((X86Vm)vm).Pit is { } pit ? Put(arg, pit.GetState2()) : -ENXIO },
        { KVM_SET_PIT2, nameof(KVM_SET_PIT2), static (vm, arg) => SetPit2((X86Vm)vm, arg) },
        { KVM_SET_TSC_KHZ, nameof(KVM_SET_TSC_KHZ), (vm, arg) => SetDefaultTscKhz((X86Vm)vm, (uint)arg) },
        { KVM_GET_TSC_KHZ, nameof(KVM_GET_TSC_KHZ), vm => ((X86Vm)vm).DefaultTscKhz },
        { KVM_SET_PMU_EVENT_FILTER, nameof(KVM_SET_PMU_EVENT_FILTER), (vm, arg) => SetPmuEventFilter((X86Vm)vm, arg) },
        { KVM_MEMORY_ENCRYPT_OP, nameof(KVM_MEMORY_ENCRYPT_OP), (vm, arg) => Ops.MemEncIoctl((X86Vm)vm, arg) },
        {
            KVM_MEMORY_ENCRYPT_REG_REGION, nameof(KVM_MEMORY_ENCRYPT_REG_REGION),
            (vm, arg) => new UserPtr<kvm_enc_region>(arg).Read(out kvm_enc_region r) ? Ops.MemEncRegisterRegion((X86Vm)vm, in r) : -EFAULT
        },
        {
            KVM_MEMORY_ENCRYPT_UNREG_REGION, nameof(KVM_MEMORY_ENCRYPT_UNREG_REGION),
            (vm, arg) => new UserPtr<kvm_enc_region>(arg).Read(out kvm_enc_region r) ? Ops.MemEncUnregisterRegion((X86Vm)vm, in r) : -EFAULT
        },
        {
            KVM_HYPERV_EVENTFD, nameof(KVM_HYPERV_EVENTFD),
            static (vm, arg) => new UserPtr<kvm_hyperv_eventfd>(arg).Read(out kvm_hyperv_eventfd e) ? ((X86Vm)vm).Hyperv.IoctlEventfd(in e) : -EFAULT
        },
        { KVM_X86_SET_MSR_FILTER, nameof(KVM_X86_SET_MSR_FILTER), (vm, arg) => SetMsrFilter((X86Vm)vm, arg) },
    };

    private static KvmResult SetNrMmuPages(X86Vm vm, ulong pages)
    {
        if (pages < KVM_MIN_ALLOC_MMU_PAGES)
            return -EINVAL;
        using (vm.SlotsLock.Enter())
        {
            vm.ChangeMmuPages(pages);
            vm.NRequestedMmuPages = pages;
        }

        return 0;
    }

    private KvmResult SetIdentityMapAddr(X86Vm vm, ulong arg)
    {
        using (vm.Lock.Enter())
        {
            if (vm.CreatedVcpus != 0)
                return -EINVAL;
            return new UserPtr<ulong>(arg).Read(out ulong address) ? Ops.SetIdentityMapAddr(vm, address) : -EFAULT;
        }
    }

    private static KvmResult SetBootCpuId(X86Vm vm, ulong id)
    {
        using (vm.Lock.Enter())
        {
            if (vm.CreatedVcpus != 0)
                return -EBUSY;
            vm.BspVcpuId = (uint)id;
            return 0;
        }
    }

    private KvmResult SetDefaultTscKhz(X86Vm vm, uint khz)
    {
        if (KvmCaps.HasTscControl && khz >= KvmCaps.MaxGuestTscKhz)
            return -EINVAL;
        vm.DefaultTscKhz = khz == 0 ? HostX86.TscKhz : khz;
        return 0;
    }

    /// <summary>Counters look at it when they are programmed next: -EINVAL for an unknown action or flag, -E2BIG beyond 300 events.</summary>
    private KvmResult SetPmuEventFilter(X86Vm vm, ulong arg)
    {
        var argp = new UserPtr<kvm_pmu_event_filter>(arg);
        if (!argp.Read(out kvm_pmu_event_filter header))
            return -EFAULT;
        if (header.action is not (KVM_PMU_EVENT_ALLOW or KVM_PMU_EVENT_DENY))
            return -EINVAL;
        if (header.flags != 0)
            return -EINVAL;
        if (header.nevents > 300)
            return -E2BIG;
        if (Host.Faults.ShouldFail("kmalloc", "pmu_event_filter"))
            return -ENOMEM;
        var events = new ulong[header.nevents];
        if (!argp.Offset<ulong>(sizeof(kvm_pmu_event_filter)).Read(events))
            return -EFAULT;
        Array.Sort(events);
        using (vm.Lock.Enter())
            vm.PmuEventFilter = new KvmPmuEventFilter(header.action == KVM_PMU_EVENT_ALLOW, header.fixed_counter_bitmap, events);
        return 0;
    }

    private KvmResult SetMsrFilter(X86Vm vm, ulong arg)
    {
        if (!new UserPtr<kvm_msr_filter>(arg).Read(out kvm_msr_filter user))
            return -EFAULT;
        if ((user.flags & ~(uint)KVM_MSR_FILTER_DEFAULT_DENY) != 0)
            return -EINVAL;
        bool defaultAllow = (user.flags & KVM_MSR_FILTER_DEFAULT_DENY) == 0;
        bool empty = true;
        for (int i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++)
            empty &= user.ranges[i].nmsrs == 0;
        if (empty && !defaultAllow)
            return -EINVAL;
        if (Host.Faults.ShouldFail("kzalloc", "kvm_x86_msr_filter"))
            return -ENOMEM;

        var filter = new KvmX86MsrFilter { DefaultAllow = defaultAllow };
        for (int i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++)
        {
            kvm_msr_filter_range range = user.ranges[i];
            if (range.nmsrs == 0)
                continue;
            if (range.flags == 0 || (range.flags & ~3u) != 0)
                return -EINVAL;
            ulong bytes = (range.nmsrs + 63ul) / 64 * 8;
            if (bytes > KVM_MSR_FILTER_MAX_BITMAP_SIZE)
                return -EINVAL;
            var bitmap = new byte[bytes];
            if (!new UserPtr<byte>(range.bitmap).Read(bitmap))
                return -EFAULT;
            filter.Ranges.Add(new KvmX86MsrFilter.Range(range.flags, range.@base, range.nmsrs, bitmap));
        }

        using (vm.Lock.Enter())
        {
            vm.MsrFilter = filter;
            vm.Srcu.Synchronize();
            vm.MakeAllCpusRequest(KVM_REQ_MSR_FILTER_CHANGED);
        }

        return 0;
    }
}
