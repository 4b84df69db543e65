namespace Kvm.Arch.X86;

/// <summary>How the guest's code segment makes instructions read.</summary>
/// <remarks>enum x86emul_mode, kvm_emulate.h.</remarks>
public enum EmulMode
{
    Real,
    Vm86,
    Prot16,
    Prot32,
    Prot64,
}
