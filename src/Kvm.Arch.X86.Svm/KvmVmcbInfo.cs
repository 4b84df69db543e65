using Kvm.Emulator.Svm;

namespace Kvm.Arch.X86.Svm;

/// <summary>A VMCB and where it last ran (<c>struct kvm_vmcb_info</c>).</summary>
internal sealed unsafe class KvmVmcbInfo
{
    public Vmcb* Ptr;
    public ulong Pa;
    /// <summary>The CPU of the last VMRUN: clean bits and ASIDs are per processor.</summary>
    public int Cpu;
    public ulong AsidGeneration;
}
