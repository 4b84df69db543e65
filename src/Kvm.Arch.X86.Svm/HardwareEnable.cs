using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>SVM on and off, per processor.</summary>
public sealed unsafe partial class KvmAmd
{
    private const int GDT_ENTRY_TSS = 8;
    private const ulong DC_CFG_ERRATUM_383 = 1ul << 47;

    // Higher when revision guides define more status bits.
    private ulong osvwLen = 4, osvwStatus;
    private readonly ulong[] currentTscRatio;
    private bool erratum383Found;

    /// <summary>A copy of a CPU's svm_data.</summary>
    internal SvmCpuData CpuData(int cpu) => svmData[cpu];

    /// <summary>
    /// Turns SVM on for the current CPU: EFER.SVME, then the host save area. -EBUSY when SVME is set already (someone else uses SVM), -EINVAL without SVM.
    /// </summary>
    [KernelFunction("svm_hardware_enable", File = "arch/x86/kvm/svm/svm.c")]
    public int HardwareEnable()
    {
        using var _ = FunctionTrace.Enter("svm_hardware_enable");
        HostX86Cpu cpu = ThisCpu;
        ulong efer = cpu.Rdmsr(MSR_EFER);
        if ((efer & EFER_SVME) != 0)
            return -EBUSY;
        if (!CpuHasKvmSupport())
        {
            PrErr($"svm_hardware_enable: err EOPNOTSUPP on {SmpProcessorId}");
            return -EINVAL;
        }

        ref SvmCpuData sd = ref svmData[SmpProcessorId];
        // A vCPU that ran here before must see a stale generation and take a new ASID.
        sd.AsidGeneration++;
        cpu.Cpuid(SVM_CPUID_FUNC, 0, out uint _, out uint asids, out uint _, out uint _);
        sd.MaxAsid = asids - 1;
        sd.NextAsid = sd.MaxAsid + 1;
        sd.MinAsid = 1;
        sd.TssDesc = cpu.GdtAddress + (GDT_ENTRY_TSS * 8);

        cpu.Wrmsr(MSR_EFER, efer | EFER_SVME);
        cpu.Wrmsr(MSR_VM_HSAVE_PA, sd.SaveAreaPa);
        // The default ratio even when KVM does not scale: the MSR may hold anything.
        if (BootCpuHas(X86Feature.TSCRATEMSR))
            WriteTscRatio(SVM_TSC_RATIO_DEFAULT);
        ReadOsvw(cpu);
        InitErratum383(cpu);
        return 0;
    }

    /// <summary>OS-visible workarounds: the shortest list and the union of errata over all CPUs.</summary>
    private void ReadOsvw(HostX86Cpu cpu)
    {
        if (!BootCpuHas(X86Feature.OSVW))
        {
            osvwStatus = osvwLen = 0;
            return;
        }

        ulong status = 0;
        bool ok = cpu.RdmsrSafe(MSR_AMD64_OSVW_ID_LENGTH, out ulong length) && cpu.RdmsrSafe(MSR_AMD64_OSVW_STATUS, out status);
        if (!ok)
        {
            osvwStatus = osvwLen = 0;
            return;
        }

        if (length < osvwLen)
            osvwLen = length;
        osvwStatus |= status;
        osvwStatus &= (1ul << (int)osvwLen) - 1;
    }

    [KernelFunction("svm_init_erratum_383", File = "arch/x86/kvm/svm/svm.c")]
    private void InitErratum383(HostX86Cpu cpu)
    {
        if (!system.BootCpuHasBug(X86Bug.AMD_TLB_MMATCH) || !cpu.RdmsrSafe(MSR_AMD64_DC_CFG, out ulong value))
            return;
        cpu.WrmsrSafe(MSR_AMD64_DC_CFG, value | DC_CFG_ERRATUM_383);
        erratum383Found = true;
    }

    [KernelFunction("svm_hardware_disable", File = "arch/x86/kvm/svm/svm.c")]
    public void HardwareDisable()
    {
        using var _ = FunctionTrace.Enter("svm_hardware_disable");
        if (Params.TscScaling != 0)
            WriteTscRatio(SVM_TSC_RATIO_DEFAULT);
        CpuSvmDisable();
    }

    /// <summary>GIF is set before SVM goes: with GIF clear INIT and NMI would stay blocked for good.</summary>
    [KernelFunction("cpu_svm_disable", File = "arch/x86/include/asm/virtext.h")]
    private void CpuSvmDisable()
    {
        HostX86Cpu cpu = ThisCpu;
        cpu.Wrmsr(MSR_VM_HSAVE_PA, 0);
        ulong efer = cpu.Rdmsr(MSR_EFER);
        if ((efer & EFER_SVME) == 0)
            return;
        // A fault here means that SVM, and with it GIF = 0, is gone already.
        cpu.Processor.Stgi();
        cpu.Wrmsr(MSR_EFER, efer & ~EFER_SVME);
    }

    /// <summary>Before a crash kernel or reboot takes over.</summary>
    [KernelFunction("cpu_emergency_svm_disable", File = "arch/x86/include/asm/virtext.h")]
    internal void EmergencyDisable()
    {
        if (CpuHasSvm() is null)
            CpuSvmDisable();
    }

    /// <summary>The MSR is written only when this CPU holds another ratio.</summary>
    [KernelFunction("__svm_write_tsc_multiplier", File = "arch/x86/kvm/svm/svm.c")]
    private void WriteTscRatio(ulong multiplier)
    {
        ref ulong current = ref currentTscRatio[SmpProcessorId];
        if (multiplier == current)
            return;
        ThisCpu.Wrmsr(MSR_AMD64_TSC_RATIO, multiplier);
        current = multiplier;
    }
}
