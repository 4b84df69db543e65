namespace Kvm.Conformance.Tests.HardwareLog.Intel;

/// <summary>One thing a kernel did to a processor (or, VMEXIT, a processor to a kernel).</summary>
/// <param name="Cpu">The processor.</param>
/// <param name="Function">The function that did it, without module and offset; empty when not known.</param>
/// <param name="Mnemonic">RDMSR, WRMSR, VMREAD, VMWRITE, VMXON, MOVCR4…</param>
/// <param name="Operand">MSR index, field encoding, INVEPT/INVVPID type, exit reason; 0 where the operand is an address.</param>
/// <param name="Value">Data read or written, exit qualification, new CR4.VMXE.</param>
/// <param name="Faulted">The access raised #GP.</param>
internal sealed record HardwareOp(int Cpu, string Function, string Mnemonic, ulong Operand, ulong Value, bool Faulted = false)
{
    /// <summary>Same instruction on the same operand.</summary>
    public bool SameInstruction(HardwareOp other) => Mnemonic == other.Mnemonic && Operand == other.Operand && Faulted == other.Faulted;

    public override string ToString() => $"cpu{Cpu} {Mnemonic} {Operand:x} = {Value:x}{(Faulted ? " #GP" : "")}{(Function.Length == 0 ? "" : $" ({Function})")}";
}
