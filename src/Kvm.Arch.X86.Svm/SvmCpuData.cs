using Kvm.Emulator.Svm;

namespace Kvm.Arch.X86.Svm;

/// <summary>What kvm_amd keeps per physical CPU (<c>struct svm_cpu_data</c>).</summary>
internal unsafe struct SvmCpuData
{
    public ulong AsidGeneration;
    public uint MaxAsid;
    public uint NextAsid;
    public uint MinAsid;
    /// <summary>Linear address of the TSS descriptor in this CPU's GDT.</summary>
    public ulong TssDesc;
    /// <summary>The host save area: a page; VMRUN keeps host state in it, VMSAVE of the same page the rest.</summary>
    public ulong SaveAreaPa;
    /// <summary>The VMCB that ran here last, for the branch-predictor barrier.</summary>
    public Vmcb* CurrentVmcb;
}
