using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Arch.X86;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Vmx;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Failures;

/// <summary>
/// From insmod to rmmod: everything that allocates on the way. Steps that fail may be tried again; every step works on what the ones before left.
/// </summary>
internal sealed unsafe partial class WholeSession : IDisposable
{
    private const ulong RamSize = 0x8000, Start = 0x1000;

    /// <summary>out 0x10, al; mov [0x3000], al; mov [0xf000], al (no memory there); hlt</summary>
    private static readonly byte[] code = [0xe6, 0x10, 0xa2, 0x00, 0x30, 0xa2, 0x00, 0xf0, 0xf4];

    private readonly string _vendor, _parameters;
    private readonly List<(string Name, Func<KvmResult> Call)> _steps = [];
    private readonly ulong _scratch;
    private HostModule? _module;
    private readonly ulong _ram;
    private readonly ulong _moreRam;
    private ulong _page;
    private ulong _ring;
    private int _kvm, _vm, _vcpu, _ap, _ringVm, _ringVcpu, _event, _device, _stats, _vcpuStats;

    public WholeSession(string model, string parameters)
    {
        CpuModel processor = CpuModel.Load(model);
        _vendor = processor.Vendor == CpuVendor.Intel ? "intel" : "amd";
        _parameters = parameters;
        Kernel = KernelHost.Create(MachineOptions.Uniform(processor, 2));
        _scratch = Process.MapAnonymous(0x10000);
        _ram = Process.MapAnonymous(RamSize);
        _moreRam = Process.MapAnonymous(RamSize);
        Modules();
        CreateVm();
        SetUp();
        Run();
        RunLongMode();
        Slots();
        DirtyRing();
        Interrupts();
        Close();
    }

    public KernelHost Kernel { get; }

    public HostProcess Process => Kernel.Host.Process;

    /// <summary>"intel" or "amd".</summary>
    public string Vendor => _vendor;

    /// <summary>Names of the steps, in order.</summary>
    public IReadOnlyList<string> Steps => [.. _steps.Select(static s => s.Name)];

    public KvmResult Step(int i) => _steps[i].Call();

    public void Dispose() => Kernel.Dispose();

    private void Add(string name, Func<KvmResult> call) => _steps.Add((name, call));

    /// <summary>A step that gives a descriptor.</summary>
    private void AddFd(string name, Func<KvmResult> call, Action<int> keep) => Add(name, () =>
    {
        KvmResult r = call();
        if (!r.IsError)
            keep((int)r.Raw);
        return r;
    });

    private void Modules()
    {
        Add("insmod kvm", () => Kernel.LoadKvm());
        Add("insmod vendor", () =>
        {
            _module = _vendor == "intel" ? new KvmIntel(Kernel.Arch) : new KvmAmd(Kernel.Arch);
            return Kernel.LoadVendor(_module, _parameters);
        });
        AddFd("open /dev/kvm", () => Process.Open("/dev/kvm"), fd => _kvm = fd);
        Add("KVM_GET_SUPPORTED_CPUID", () =>
        {
            ((kvm_cpuid2*)_scratch)->nent = 256;
            return Process.Ioctl(_kvm, KVM_GET_SUPPORTED_CPUID, _scratch);
        });
    }

    private void CreateVm()
    {
        AddFd("KVM_CREATE_VM", () => Process.Ioctl(_kvm, KVM_CREATE_VM), fd => _vm = fd);
        if (_vendor == "intel")
            Add("KVM_SET_TSS_ADDR", () => Process.Ioctl(_vm, KVM_SET_TSS_ADDR, 0xfffbd000));
        Add("KVM_SET_USER_MEMORY_REGION create", () =>
        {
            code.CopyTo(new Span<byte>((void*)(_ram + Start), code.Length));
            return Region(0, 0, RamSize, _ram);
        });
        AddFd("KVM_CREATE_VCPU 0", () => Process.Ioctl(_vm, KVM_CREATE_VCPU, 0), fd => _vcpu = fd);
        AddFd("KVM_CREATE_VCPU 1", () => Process.Ioctl(_vm, KVM_CREATE_VCPU, 1), fd => _ap = fd);
        Add("mmap vcpu", () =>
        {
            KvmResult r = Process.Mmap(0x3000, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, _vcpu);
            if (!r.IsError)
                _page = (ulong)r.Raw;
            return r.IsError ? r : 0;
        });
    }

    private KvmResult Region(uint slot, ulong gpa, ulong size, ulong hva, uint flags = 0)
    {
        var region = new kvm_userspace_memory_region { slot = slot, flags = flags, guest_phys_addr = gpa, memory_size = size, userspace_addr = hva };
        return Process.Ioctl(_vm, KVM_SET_USER_MEMORY_REGION, ref region);
    }

    private void SetUp()
    {
        Add("KVM_SET_CPUID2", () =>
        {
            ((kvm_cpuid2*)_scratch)->nent = 256;
            KvmResult r = Process.Ioctl(_kvm, KVM_GET_SUPPORTED_CPUID, _scratch);
            return r.IsError ? r : Process.Ioctl(_vcpu, KVM_SET_CPUID2, _scratch);
        });
        Add("KVM_SET_SREGS", () =>
        {
            kvm_sregs sregs = default;
            KvmResult r = Process.Ioctl(_vcpu, KVM_GET_SREGS, ref sregs);
            sregs.cs.selector = 0;
            sregs.cs.@base = 0;
            return r.IsError ? r : Process.Ioctl(_vcpu, KVM_SET_SREGS, ref sregs);
        });
        Add("KVM_SET_REGS", () =>
        {
            var regs = new kvm_regs { rip = Start, rflags = 2, rax = 0x5a };
            return Process.Ioctl(_vcpu, KVM_SET_REGS, ref regs);
        });
        Add("KVM_GET_REGS", () =>
        {
            kvm_regs regs = default;
            return Process.Ioctl(_vcpu, KVM_GET_REGS, ref regs);
        });
        Add("KVM_GET_FPU, KVM_SET_FPU", () =>
        {
            kvm_fpu fpu = default;
            KvmResult r = Process.Ioctl(_vcpu, KVM_GET_FPU, ref fpu);
            return r.IsError ? r : Process.Ioctl(_vcpu, KVM_SET_FPU, ref fpu);
        });
        Add("KVM_GET_XSAVE, KVM_SET_XSAVE", () =>
        {
            KvmResult r = Process.Ioctl(_vcpu, KVM_GET_XSAVE, _scratch + 0x8000);
            return r.IsError ? r : Process.Ioctl(_vcpu, KVM_SET_XSAVE, _scratch + 0x8000);
        });
        Add("KVM_GET_MSRS, KVM_SET_MSRS", () =>
        {
            var msrs = (kvm_msrs*)(_scratch + 0x8000);
            *msrs = new kvm_msrs { nmsrs = 1 };
            *kvm_msrs.entries(msrs) = new kvm_msr_entry { index = 0x174 };
            KvmResult r = Process.Ioctl(_vcpu, KVM_GET_MSRS, (ulong)msrs);
            return r.IsError ? r : Process.Ioctl(_vcpu, KVM_SET_MSRS, (ulong)msrs);
        });
        VmFeatures();
    }

    private void VmFeatures()
    {
        AddFd("eventfd", () => Process.Eventfd(), fd => _event = fd);
        const uint pio = (uint)KVM_IOEVENTFD_FLAG_PIO, deassign = (uint)KVM_IOEVENTFD_FLAG_DEASSIGN;
        Add("KVM_IOEVENTFD assign", () => Ioeventfd(0x77, 1, pio));
        // Without a length: on the bus of MMIO and on that of fast MMIO.
        Add("KVM_IOEVENTFD assign fast", () => Ioeventfd(0x30000, 0, 0));
        Add("KVM_REGISTER_COALESCED_MMIO", () => Coalesced(KVM_REGISTER_COALESCED_MMIO));
        Add("KVM_IOEVENTFD deassign", () => Ioeventfd(0x77, 1, pio | deassign));
        Add("KVM_IOEVENTFD deassign fast", () => Ioeventfd(0x30000, 0, deassign));
        Add("KVM_UNREGISTER_COALESCED_MMIO", () => Coalesced(KVM_UNREGISTER_COALESCED_MMIO));
        Add("KVM_CREATE_DEVICE", () =>
        {
            var create = new kvm_create_device { type = (uint)kvm_device_type.KVM_DEV_TYPE_VFIO };
            KvmResult r = Process.Ioctl(_vm, KVM_CREATE_DEVICE, ref create);
            _device = (int)create.fd;
            return r;
        });
        AddFd("KVM_GET_STATS_FD vm", () => Process.Ioctl(_vm, KVM_GET_STATS_FD), fd => _stats = fd);
        AddFd("KVM_GET_STATS_FD vcpu", () => Process.Ioctl(_vcpu, KVM_GET_STATS_FD), fd => _vcpuStats = fd);
        Add("KVM_X86_SET_MSR_FILTER", () =>
        {
            var filter = (kvm_msr_filter*)(_scratch + 0x8000);
            *filter = default;
            return Process.Ioctl(_vm, KVM_X86_SET_MSR_FILTER, (ulong)filter);
        });
        Add("KVM_SET_PMU_EVENT_FILTER", () =>
        {
            var filter = (kvm_pmu_event_filter*)(_scratch + 0x8000);
            *filter = new kvm_pmu_event_filter { action = (uint)KVM_PMU_EVENT_ALLOW };
            return Process.Ioctl(_vm, KVM_SET_PMU_EVENT_FILTER, (ulong)filter);
        });
    }

    private KvmResult Ioeventfd(ulong address, uint length, uint flags)
    {
        var args = new kvm_ioeventfd { addr = address, len = length, fd = _event, flags = flags };
        return Process.Ioctl(_vm, KVM_IOEVENTFD, ref args);
    }

    private KvmResult Coalesced(uint request)
    {
        var zone = new kvm_coalesced_mmio_zone { addr = 0x20000, size = 0x1000 };
        return Process.Ioctl(_vm, request, ref zone);
    }

    private void Run()
    {
        foreach (uint reason in (uint[])[KVM_EXIT_IO, KVM_EXIT_MMIO, KVM_EXIT_HLT])
        {
            Add("KVM_RUN to exit " + reason, () =>
            {
                KvmResult r = Process.Ioctl(_vcpu, KVM_RUN);
                if (!r.IsError)
                    ((kvm_run*)_page)->exit_reason.Should().Be(reason);
                return r;
            });
        }
    }

    /// <summary>The same vCPU in long mode: tables of the guest's own, which are shadowed without nested paging.</summary>
    private void RunLongMode()
    {
        Add("KVM_SET_SREGS long mode", () =>
        {
            // mov [0x3000], al; hlt
            new byte[] { 0x88, 0x04, 0x25, 0x00, 0x30, 0x00, 0x00, 0xf4 }.CopyTo(new Span<byte>((void*)(_ram + 0x2000), 8));
            for (ulong table = 0x4000; table < 0x7000; table += 0x1000)
                *(ulong*)(_ram + table) = (table + 0x1000) | 7;
            for (ulong page = 0; page < 8; page++)
                *(ulong*)(_ram + 0x7000 + (page * 8)) = (page << 12) | 7;
            kvm_sregs sregs = default;
            KvmResult r = Process.Ioctl(_vcpu, KVM_GET_SREGS, ref sregs);
            sregs.cr0 = 0x80000011;
            sregs.cr3 = 0x4000;
            sregs.cr4 = 0x20;
            sregs.efer = 0x500;
            sregs.cs = new kvm_segment { limit = ~0u, selector = 8, type = 11, present = 1, s = 1, l = 1, g = 1 };
            sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = new kvm_segment { limit = ~0u, selector = 16, type = 3, present = 1, s = 1, g = 1, db = 1 };
            return r.IsError ? r : Process.Ioctl(_vcpu, KVM_SET_SREGS, ref sregs);
        });
        Add("KVM_SET_REGS long mode", () =>
        {
            var regs = new kvm_regs { rip = 0x2000, rflags = 2, rax = 0x5a };
            return Process.Ioctl(_vcpu, KVM_SET_REGS, ref regs);
        });
        Add("KVM_RUN in long mode", () =>
        {
            KvmResult r = Process.Ioctl(_vcpu, KVM_RUN);
            if (!r.IsError)
                ((kvm_run*)_page)->exit_reason.Should().Be((uint)KVM_EXIT_HLT);
            return r;
        });
    }

    private void Slots()
    {
        Add("KVM_SET_USER_MEMORY_REGION log", () => Region(0, 0, RamSize, _ram, (uint)KVM_MEM_LOG_DIRTY_PAGES));
        Add("KVM_GET_DIRTY_LOG", () =>
        {
            ulong bitmap = 0;
            var log = new kvm_dirty_log { dirty_bitmap = (ulong)&bitmap };
            return Process.Ioctl(_vm, KVM_GET_DIRTY_LOG, ref log);
        });
        Add("KVM_SET_USER_MEMORY_REGION move", () => Region(0, 0x100000, RamSize, _ram, (uint)KVM_MEM_LOG_DIRTY_PAGES));
        Add("KVM_SET_USER_MEMORY_REGION second", () => Region(1, 0x200000, RamSize, _moreRam));
        Add("KVM_SET_USER_MEMORY_REGION delete", () => Region(1, 0, 0, 0));
    }

    private void DirtyRing()
    {
        AddFd("KVM_CREATE_VM second", () => Process.Ioctl(_kvm, KVM_CREATE_VM), fd => _ringVm = fd);
        Add("KVM_ENABLE_CAP dirty ring", () =>
        {
            var cap = new kvm_enable_cap { cap = KVM_CAP_DIRTY_LOG_RING };
            cap.args[0] = 0x4000; // more than what one exit of a processor with a page-modification log can fill
            return Process.Ioctl(_ringVm, KVM_ENABLE_CAP, ref cap);
        });
        AddFd("KVM_CREATE_VCPU with a ring", () => Process.Ioctl(_ringVm, KVM_CREATE_VCPU, 0), fd => _ringVcpu = fd);
        Add("mmap ring", () =>
        {
            KvmResult r = Process.Mmap(0x4000, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, _ringVcpu, 64 << 12);
            if (!r.IsError)
                _ring = (ulong)r.Raw;
            return r.IsError ? r : 0;
        });
    }

    private void Close()
    {
        Add("munmap", () =>
        {
            Process.Munmap(_ring, 0x4000);
            return Process.Munmap(_page, 0x3000);
        });
        Add("close", () =>
        {
            foreach (int fd in (int[])[_irqAp, _irqVcpu, _irqVm, _resample, _ringVcpu, _ringVm, _vcpuStats, _stats, _device, _event, _ap, _vcpu, _vm, _kvm])
                Process.Close(fd).Should().Be((KvmResult)0);
            return 0;
        });
        Add("rmmod vendor", () => Kernel.Host.Modules.Remove(_module!.Name));
        Add("rmmod kvm", () => Kernel.Host.Modules.Remove("kvm"));
    }
}
