using Kvm.Emulator.Svm;

namespace Kvm.Emulator;

/// <summary>The SVM instructions of a processor, as executed by kernel-mode code. The instruction stream's handlers end in the same code.</summary>
public sealed unsafe partial class Processor
{
    private SvmUnit? svm;

    /// <summary>SVM state of this processor: GIF, the SVM MSRs, the guest being run.</summary>
    internal SvmUnit Svm => svm ??= new SvmUnit(this);

    /// <summary>The global interrupt flag: while clear, physical interrupts, NMI, INIT and debug traps are held pending. Set unless SVM software cleared it.</summary>
    public bool Gif => svm is null || svm.Gif;

    /// <summary>VMRUN rAX. Success = the guest ran (or failed its consistency checks) and came back through #VMEXIT: host state loaded, GIF = 0, exit information in the VMCB.</summary>
    public InstructionResult Vmrun(ulong vmcbPa) => Svm.Vmrun(vmcbPa);
    /// <summary>VMLOAD rAX: FS, GS, TR, LDTR with hidden parts, KernelGsBase, STAR…SFMASK, SYSENTER MSRs from the VMCB.</summary>
    public InstructionResult Vmload(ulong vmcbPa) => Svm.Vmload(vmcbPa);
    /// <summary>VMSAVE rAX: the state that <see cref="Vmload"/> loads, into the VMCB.</summary>
    public InstructionResult Vmsave(ulong vmcbPa) => Svm.Vmsave(vmcbPa);
    /// <summary>STGI: GIF = 1.</summary>
    public InstructionResult Stgi() => Svm.SetGif(true);
    /// <summary>CLGI: GIF = 0.</summary>
    public InstructionResult Clgi() => Svm.SetGif(false);
    /// <summary>INVLPGA rAX, ECX: invalidates one page's translation of an address space.</summary>
    public InstructionResult Invlpga(ulong linear, uint asid) => Svm.Invlpga(linear, asid);
    /// <summary>SKINIT EAX: #UD, no processor model here has a secure loader.</summary>
    public InstructionResult Skinit(uint slb) => Svm.Skinit(slb);
}
