using System.Runtime.CompilerServices;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>
/// One processor of the host as kernel code sees it: the instructions that need privilege, the CR4 shadow, and where the kernel keeps this CPU's GDT, TSS and stacks.
/// Use it only on the CPU itself: by <see cref="HostX86.ThisCpu"/>.
/// </summary>
public sealed unsafe class HostX86Cpu : ICpuHardware
{
    // cpu_entry_area: the IDT page, then one area of 0x3b000 bytes per CPU with the GDT first and the TSS two pages up.
    private const ulong CpuEntryAreaBase = 0xfffffe0000001000;
    private const ulong CpuEntryAreaSize = 0x3b000;

    internal HostX86Cpu(HostX86 system, HostCpu cpu, Processor processor)
    {
        System = system;
        Cpu = cpu;
        Processor = processor;
        GdtAddress = CpuEntryAreaBase + ((ulong)cpu.Id * CpuEntryAreaSize);
    }

    public HostX86 System { get; }

    public HostCpu Cpu { get; }

    /// <summary>The silicon: its instructions, nothing of its insides.</summary>
    public Processor Processor { get; }

    /// <summary>cpu_data(cpu).</summary>
    public CpuInfoX86 CpuData { get; internal set; } = new();

    /// <summary>cr4_read_shadow().</summary>
    public ulong Cr4Shadow { get; private set; }

    /// <summary>Linear address of this CPU's GDT (get_current_gdt_ro).</summary>
    public ulong GdtAddress { get; }

    /// <summary>Linear address of this CPU's TSS.</summary>
    public ulong TssAddress => GdtAddress + 0x2000;

    /// <summary>Top of the entry stack: IA32_SYSENTER_ESP of the host.</summary>
    public ulong EntryStackTop => GdtAddress + 0x2000;

    /// <summary>Linear address of the IDT, shared by all CPUs.</summary>
    public ulong IdtAddress => 0xfffffe0000000000;

    /// <summary>GS base of the kernel on this CPU (its per-CPU area).</summary>
    public ulong PerCpuBase => 0xffff88802e800000 + ((ulong)Cpu.Id * 0x100000);

    /// <summary>What vmx/svm use as stack pointer around an entry; never dereferenced.</summary>
    public ulong KernelStackTop => 0xffffc90000414000 + ((ulong)Cpu.Id * 0x8000);

    /// <summary>This CPU's performance counters; null when there are none.</summary>
    internal CpuPmu? Pmu { get; private set; }

    internal void StartPmu(HostPmu pmu) => Pmu = new CpuPmu(this, pmu);

    /// <summary>The kernel's NMI handler: the interrupt of a performance counter is the only NMI that means anything to it.</summary>
    public void HandleNmi()
    {
        Processor.AcknowledgeNmi();
        Pmu?.HandleNmi();
    }

    internal readonly UserReturnValues UserReturn = new();

    // ---- MSRs ----

    /// <summary>rdmsrl_safe: false when the read faults; the value is then 0.</summary>
    public bool RdmsrSafe(uint msr, out ulong value)
    {
        if (Processor.ReadMsr(msr, out value).Ok)
            return true;
        value = 0;
        return false;
    }

    /// <summary>rdmsrl: a fault is logged and reads as 0.</summary>
    public ulong Rdmsr(uint msr)
    {
        if (!RdmsrSafe(msr, out ulong value))
            System.Host.Log.WarnOnce(true, "rdmsr", $"unchecked MSR access error: RDMSR from 0x{msr:x}");
        return value;
    }

    /// <summary>wrmsrl_safe: false when the write faults.</summary>
    public bool WrmsrSafe(uint msr, ulong value) => Processor.WriteMsr(msr, value).Ok;

    /// <summary>wrmsrl: a fault is logged and ignored.</summary>
    public void Wrmsr(uint msr, ulong value)
    {
        if (!WrmsrSafe(msr, value))
            System.Host.Log.WarnOnce(true, "wrmsr", $"unchecked MSR access error: WRMSR to 0x{msr:x} (tried to write 0x{value:x16})");
    }

    // ---- control registers ----

    public ulong ReadCr0() => Processor.ReadCr(0);

    public ulong ReadCr3() => Processor.ReadCr(3);

    public bool WriteCr0(ulong value) => Processor.WriteCr(0, value).Ok;

    /// <summary>cr4_set_bits: on this CPU and in its shadow; nothing happens when they are set already.</summary>
    public void Cr4SetBits(ulong mask) => WriteCr4(Cr4Shadow | mask);

    public void Cr4ClearBits(ulong mask) => WriteCr4(Cr4Shadow & ~mask);

    private void WriteCr4(ulong value)
    {
        if (value == Cr4Shadow)
            return;
        Cr4Shadow = value;
        Processor.WriteCr(4, value);
    }

    /// <summary>The kernel reads CR4 itself only here: when the CPU starts.</summary>
    internal void InitCr4Shadow() => Cr4Shadow = Processor.ReadCr(4);

    // ---- FPU ----

    /// <summary>init_pkru_value: no key but 0 may be used.</summary>
    private const uint InitPkruValue = 0x55555554;

    internal readonly Lock FpuGate = new();

    /// <summary>fpu_fpregs_owner_ctx: whose state the registers hold; null = nobody's. Written under <see cref="FpuGate"/>.</summary>
    internal FpuGuest? FpuOwner;

    /// <summary>fpu__init_cpu and pkru_write_default, on the CPU itself.</summary>
    internal void InitFpu(XstateLayout layout)
    {
        Processor.Fninit();
        if (layout.HasXsave)
            Xsetbv(0, layout.Features);
        if (layout.HasXsaves)
            Wrmsr(MsrIndex.MSR_IA32_XSS, 0);
        if (CpuData.Has(X86Feature.OSPKE))
            WritePkru(InitPkruValue);
    }

    /// <summary>fpu__init_system_mxcsr: the mask that FXSAVE stores.</summary>
    internal uint ReadMxcsrMask()
    {
        byte* image = stackalloc byte[512];
        Processor.Fxsave(image);
        return *(uint*)(image + 28);
    }

    // ---- the rest ----

    public void Cpuid(uint leaf, uint subleaf, out uint eax, out uint ebx, out uint ecx, out uint edx) =>
        Processor.Cpuid(leaf, subleaf, out eax, out ebx, out ecx, out edx);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong Rdtsc() => Processor.ReadTsc();

    public void Xsetbv(uint index, ulong value) => Processor.Xsetbv(index, value);

    /// <summary>xgetbv(0); 1 when the processor has no XSAVE or it is off.</summary>
    public ulong Xgetbv0() => (Cr4Shadow & X86_CR4_OSXSAVE) != 0 ? Processor.Xgetbv() : XFEATURE_MASK_FP;

    public uint ReadPkru() => Processor.ReadPkru();

    public void WritePkru(uint value) => Processor.WritePkru(value);

    public void SetDebugreg(int reg, ulong value) => Processor.WriteDr(reg, value);

    public ulong GetDebugreg(int reg) => Processor.ReadDr(reg);

    public void Wbinvd() => Processor.Wbinvd();

    // ---- ICpuHardware ----

    public void RaiseInterrupt(byte vector) => Processor.RaiseInterrupt(vector);

    public bool InterruptPending => Processor.InterruptPending;

    public int AcknowledgeInterrupt() => Processor.AcknowledgeInterrupt();

    /// <summary>The CPU comes (back) online: power-up state, then what the kernel's start-up code does to it.</summary>
    public void OnStarting()
    {
        Processor.Reset(false);
        System.StartCpu(this);
        if (System.Pmu is { } pmu)
            StartPmu(pmu);
    }

    /// <summary>The CPU is offline: what its registers hold belongs to somebody who goes on elsewhere.</summary>
    public void OnDead() => FpuGuest.Evict(this);
}
