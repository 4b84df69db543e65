using System.Runtime.CompilerServices;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Vmx;

/// <summary>What kvm_intel uses of the running kernel.</summary>
public sealed unsafe partial class KvmIntel
{
    private Processor ThisCpu
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => arch.HostX86.ThisCpu.Processor;
    }

    /// <summary>kvm.ko, which this module depends on.</summary>
    private KvmModule Kvm => (KvmModule)Host.Modules.Find("kvm")!;

    private int SmpProcessorId => Host.CurrentCpu.Id;

    private ulong Rdmsrl(uint msr) => arch.HostX86.ThisCpu.Rdmsr(msr);
    private bool RdmsrlSafe(uint msr, out ulong value) => arch.HostX86.ThisCpu.RdmsrSafe(msr, out value);
    private bool BootCpuHas(X86Feature feature) => arch.HostX86.BootCpuHas(feature);
    private bool ThisCpuHas(X86Feature feature) => arch.HostX86.ThisCpu.CpuData.Has(feature);
    private int BootCpuFamily => arch.HostX86.BootCpuData.Family;
    private int BootCpuModel => arch.HostX86.BootCpuData.Model;
    private int BootCpuPhysBits => arch.HostX86.BootCpuData.PhysBits;
    private ulong TscKhz => arch.HostX86.TscKhz;
    private long KtimeGet() => Host.KtimeNs;

    /// <summary>enable_apicv lives in kvm.ko and outlives this module.</summary>
    private bool EnableApicv
    {
        get => arch.EnableApicv;
        set => arch.EnableApicv = value;
    }

    private bool AllowSmallerMaxphyaddr
    {
        get => arch.AllowSmallerMaxphyaddr;
        set => arch.AllowSmallerMaxphyaddr = value;
    }

    /// <summary>kvm_mpx_supported: no processor model offers MPX to guests.</summary>
    private bool KvmMpxSupported => (arch.KvmCaps.SupportedXcr0 & 3ul << 3) == 3ul << 3 && CpuHasVmxMpx;

    private ulong AllocPage(string tag, bool zero = false) => Host.Pages.AllocPage(tag, zero);
    private void FreePage(ulong address) => Host.Pages.FreePage(address);

    private void PrErr(string text) => Host.Log.Err(text);
    private void PrWarn(string text) => Host.Log.Warn(text);
    private void PrWarnOnce(string text) => Host.Log.Once(LogLevel.Warning, text);
    private void WarnOnce(string place, string text) => Host.Log.WarnOnce(true, place, text);

    /// <summary>WARN_ON_ONCE by caller.</summary>
    private void WarnOnOnce(bool condition, [CallerMemberName] string place = "") => Host.Log.WarnOnce(condition, place, $"WARNING: at {place}");

    /// <summary>pr_warn_ratelimited by the function <paramref name="place"/>.</summary>
    private void PrWarnRatelimited(string place, string text) => Host.Log.Ratelimited(LogLevel.Warning, place, text);

    [KernelFunction("vcpu_unimpl", File = "include/linux/kvm_host.h")]
    private void VcpuUnimpl(VcpuVmx vmx, string text) =>
        Host.Log.Ratelimited(LogLevel.Err, "vcpu_unimpl", $"kvm [{HostTask.Current.Pid}]: vcpu{vmx.VcpuId}, guest rIP: 0x{vmx.Rip:x} {text}");

    /// <summary>A VMX instruction raised an exception: a bug, unless virtualization was switched off for a reboot.</summary>
    [KernelFunction("kvm_spurious_fault", File = "arch/x86/kvm/x86.c")]
    internal void KvmSpuriousFault()
    {
        if (!Kvm.Rebooting)
            Host.Log.WarnOnce(true, "kvm_spurious_fault", "kernel BUG at arch/x86/kvm/x86.c: kvm_spurious_fault");
    }

    /// <summary>What the host's interrupt table does with a vector that a VM exit acknowledged.</summary>
    [KernelFunction("handle_interrupt_nmi_irqoff", File = "arch/x86/kvm/vmx/vmx.c")]
    private void HostInterrupt(VcpuVmx vmx, byte vector) => Host.CurrentCpu.HandleInterrupt(vector);

    /// <summary>The exit left it pending in the processor.</summary>
    private static void HostNmi(VcpuVmx vmx) => vmx.LoadedCpu.HandleNmi();

    private void HostMachineCheck() => PrErr("mce: [Hardware Error]: Machine check events logged");

    /// <summary>Processors with IA32_SPEC_CTRL; the host itself runs with 0 in it.</summary>
    private bool CpuHasSpecCtrl => BootCpuHas(X86Feature.MSR_SPEC_CTRL);

    private const ulong HostSpecCtrl = 0;

    private static bool GuestHasSpecCtrlMsr(VcpuVmx vmx) =>
        vmx.GuestCpuidHas(X86Feature.SPEC_CTRL) || vmx.GuestCpuidHas(X86Feature.AMD_STIBP) || vmx.GuestCpuidHas(X86Feature.AMD_IBRS)
        || vmx.GuestCpuidHas(X86Feature.AMD_SSBD);

    private static bool GuestHasPredCmdMsr(VcpuVmx vmx) =>
        vmx.GuestCpuidHas(X86Feature.SPEC_CTRL) || vmx.GuestCpuidHas(X86Feature.AMD_IBPB) || vmx.GuestCpuidHas(X86Feature.SBPB);

    private static bool SpecCtrlTestValue(ulong value) => (value & ~7ul) != 0;

    // ---- tracepoints ----

    private static void TraceEntry(X86Vcpu vcpu, bool forceImmediateExit)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_entry", $"vcpu {vcpu.VcpuId}, rip 0x{vcpu.Rip:x}{(forceImmediateExit ? "[immediate exit]" : "")}");
    }

    private void TraceExit(VcpuVmx vmx)
    {
        if (!Tracepoints.Enabled)
            return;
        GetExitInfo(vmx, out uint reason, out ulong info1, out ulong info2, out uint intrInfo, out uint errorCode);
        Tracepoints.Emit("kvm_exit", $"vcpu {vmx.VcpuId} reason {ExitReasonName(reason)} rip 0x{vmx.Rip:x} info1 0x{info1:x16} info2 0x{info2:x16} intr_info 0x{intrInfo:x8} error_code 0x{errorCode:x8}");
    }

    private static void TraceInjVirq(X86Vcpu vcpu, byte vector, bool soft, bool reinjected)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_inj_virq", $"{(soft ? "Soft/INTn" : "IRQ")} 0x{vector:x}{(reinjected ? " [reinjected]" : "")}");
    }

    private static void TraceCr(VcpuVmx vmx, bool write, int cr, ulong value)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_cr", $"cr_{(write ? "write" : "read")} {cr:x} = 0x{value:x}");
    }

    private static void TracePageFault(VcpuVmx vmx, ulong gpa, ulong errorCode)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_page_fault", $"vcpu {vmx.VcpuId} rip 0x{vmx.Rip:x} address 0x{gpa:x16} error_code 0x{errorCode:x}");
    }

    private static void TraceFastMmio(VcpuVmx vmx, ulong gpa)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_fast_mmio", $"fast mmio at gpa 0x{gpa:x}");
    }

    private static string ExitReasonName(uint reason)
    {
        var basic = (Emulator.Vmx.VmxExitReason)(reason & 0xffff);
        string name = Enum.IsDefined(basic) ? basic.ToString() : $"0x{reason & 0xffff:x}";
        return (reason & VMX_EXIT_REASONS_FAILED_VMENTRY) != 0 ? name + " FAILED_VMENTRY" : name;
    }
}
