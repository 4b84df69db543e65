namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>One thing a kernel did to a processor (or, VMEXIT, a processor to a kernel).</summary>
/// <param name="Cpu">The processor.</param>
/// <param name="Mnemonic">RDMSR, WRMSR, VMREAD, VMWRITE, VMXON, VMRUN, MOVCR4…</param>
/// <param name="Operand">MSR index, field encoding, INVEPT/INVVPID type, exit reason or code; 0 where the operand is an address.</param>
/// <param name="Value">Data read or written, address, exit qualification or EXITINFO1, new CR4.VMXE.</param>
/// <param name="Faulted">The access raised #GP.</param>
internal sealed record HardwareOp(int Cpu, string Mnemonic, ulong Operand, ulong Value, bool Faulted = false)
{
    /// <summary>The function that did it and, in the model, those that called it, innermost first. Empty when not known.</summary>
    public string[] Functions { get; init; } = [];

    /// <summary>What else an exit tells: guest RIP, interruption information and instruction length (VMX); guest RIP, EXITINFO2 and next RIP (SVM).</summary>
    public ulong[] Exit { get; set; } = [];

    /// <summary>Same instruction on the same operand.</summary>
    public bool SameInstruction(HardwareOp other) => Mnemonic == other.Mnemonic && Operand == other.Operand && Faulted == other.Faulted;

    public override string ToString() =>
        $"cpu{Cpu} {Mnemonic} {Operand:x} = {Value:x}{string.Concat(Exit.Select(static e => $" {e:x}"))}{(Faulted ? " #GP" : "")}{(Functions.Length == 0 ? "" : $" ({Functions[0]})")}";
}
