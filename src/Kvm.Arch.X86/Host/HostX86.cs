using System.Runtime.CompilerServices;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>The x86 side of a running host kernel: its processors in kernel mode, what it knows about them, time stamp counter, user-return notifiers.</summary>
/// <remarks>The boot is in <see cref="HostX86(Host, Machine)"/>: smp_init, identify_cpu on each CPU, FEAT_CTL, CR4 shadow.</remarks>
public sealed class HostX86
{
    // Entry points of the recorded kernel; nothing is fetched from there, hardware only stores the values.
    private const ulong EntrySyscall64 = 0xffffffff81c00080;
    private const ulong EntrySysenterCompat = 0xffffffff81c017b0;
    private const ulong EntrySyscallCompat = 0xffffffff81c01870;

    private readonly HostX86Cpu[] cpus;

    /// <summary>Boots the kernel on the machine: binds each <see cref="HostCpu"/> to a <see cref="Processor"/> and starts it.</summary>
    public HostX86(Host host, Machine machine)
    {
        Host = host;
        Machine = machine;
        UserReturn = new UserReturnMsrs(this);
        cpus = new HostX86Cpu[host.Cpus.Count];
        for (int i = 0; i < cpus.Length; i++)
        {
            cpus[i] = new HostX86Cpu(this, host.Cpus[i], machine.Processors[i]);
            host.Cpus[i].Hardware = cpus[i];
        }

        host.AttachRam(new HostRam(machine));
        foreach (HostX86Cpu cpu in cpus)
            StartCpu(cpu);
        BootCpuData = cpus[0].CpuData.Clone();
        for (int i = 1; i < cpus.Length; i++)
            BootCpuData.IntersectWith(cpus[i].CpuData);
        BootCpuData.Set(X86Feature.ALWAYS);
        BootCpuData.Set(X86Feature.CPUID);
        TscKhz = ComputeTscKhz();
        SmtPossible = cpus[0].CpuData.ThreadsPerCore > 1;
        Pmu = HostPmu.Probe(cpus[0]);
        if (Pmu is not null)
        {
            foreach (HostX86Cpu cpu in cpus)
                cpu.StartPmu(Pmu);
        }

        HasPku = BootCpuHas(X86Feature.OSPKE);
        MxcsrFeatureMask = cpus[0].ReadMxcsrMask();
    }

    public Host Host { get; }

    public Machine Machine { get; }

    public IReadOnlyList<HostX86Cpu> Cpus => cpus;

    /// <summary>boot_cpu_data: what all processors have.</summary>
    public CpuInfoX86 BootCpuData { get; }

    /// <summary>x86_pmu: null when the processors' counters do not count.</summary>
    public HostPmu? Pmu { get; }

    public UserReturnMsrs UserReturn { get; }

    /// <summary>The xstate components the kernel manages.</summary>
    public XstateLayout Xstate { get; private set; } = null!;

    /// <summary>mxcsr_feature_mask.</summary>
    public uint MxcsrFeatureMask { get; }

    /// <summary>cpu_feature_enabled(X86_FEATURE_OSPKE).</summary>
    public bool HasPku { get; }

    /// <summary>tsc_khz.</summary>
    public uint TscKhz { get; }

    /// <summary>cpu_smt_possible: a core has more than one thread.</summary>
    public bool SmtPossible { get; }

    /// <summary>The calling thread's CPU.</summary>
    public HostX86Cpu ThisCpu
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => Unsafe.As<HostX86Cpu>(Host.CurrentCpu.Hardware)!;
    }

    /// <summary>boot_cpu_has.</summary>
    public bool BootCpuHas(X86Feature feature) => BootCpuData.Has(feature);

    /// <summary>boot_cpu_has_bug.</summary>
    public bool BootCpuHasBug(X86Bug bug) => BootCpuData.HasBug(bug);

    /// <summary>rdtsc on the current CPU.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong Rdtsc() => ThisCpu.Rdtsc();

    /// <summary>check_tsc_unstable: the machine has one time source (D9).</summary>
    public bool TscUnstable { get; set; }

    /// <summary>cpu_init of a CPU that comes up, boot or hotplug: kernel tables, control registers, identification.</summary>
    internal void StartCpu(HostX86Cpu cpu)
    {
        cpu.Processor.EnterKernelMode(new KernelContext
        {
            Cr3 = 0x2810000,
            GdtBase = cpu.GdtAddress,
            GdtLimit = 0x7f,
            IdtBase = cpu.IdtAddress,
            IdtLimit = 0xfff,
            TssBase = cpu.TssAddress,
            TssLimit = 0x4087,
            GsBase = cpu.PerCpuBase,
            StackTop = cpu.KernelStackTop,
            SyscallEntry = EntrySyscall64,
            // Intel's processors have no SYSCALL outside 64-bit mode: the kernel leaves IA32_CSTAR alone.
            CompatSyscallEntry = cpu.Processor.Model.Vendor == CpuVendor.Intel ? 0 : EntrySyscallCompat,
            SysenterEntry = EntrySysenterCompat,
            SysenterStack = cpu.EntryStackTop,
            TscAux = (ulong)cpu.Cpu.Id,
            ExtraCr4 = X86_CR4_UMIP | X86_CR4_FSGSBASE | X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PCIDE | X86_CR4_PKE,
        });
        // Page size extensions are left on where the kernel was decompressed; they mean nothing to its own page tables.
        if (cpu.Cpu.Id != 0)
            cpu.Processor.WriteCr(4, cpu.Processor.ReadCr(4) & ~X86_CR4_PSE);
        cpu.InitCr4Shadow();
        var info = new CpuInfoX86();
        info.Identify(cpu, Host.Log);
        cpu.CpuData = info;
        Xstate ??= new XstateLayout(cpu);
        cpu.InitFpu(Xstate);
    }

    private uint ComputeTscKhz()
    {
        HostX86Cpu cpu = cpus[0];
        if (cpu.CpuData.CpuidLevel >= 0x15)
        {
            cpu.Cpuid(0x15, 0, out uint denominator, out uint numerator, out uint crystal, out _);
            if (denominator != 0 && numerator != 0 && crystal != 0)
                return (uint)((ulong)crystal * numerator / denominator / 1000);
        }

        return (uint)(cpu.Processor.Model.TscHz / 1000);
    }

    internal void RegisterUserReturnNotifier(HostX86Cpu cpu) => cpu.Cpu.UserReturnNotifier = FireUserReturn;

    private void FireUserReturn(HostCpu cpu)
    {
        cpu.UserReturnNotifier = null;
        if (cpu.Hardware is HostX86Cpu x86 && x86.UserReturn.Registered)
            UserReturn.OnUserReturn(x86);
    }
}
