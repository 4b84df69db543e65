using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>RDPKRU and WRPKRU.</summary>
/// <remarks>SDM vol 2B, RDPKRU, WRPKRU: any privilege level, #UD without CR4.PKE.</remarks>
public sealed unsafe partial class Processor
{
    /// <summary>PKRU, as RDPKRU of kernel code reads it.</summary>
    public uint ReadPkru() => State->Pkru;

    /// <summary>WRPKRU of kernel code.</summary>
    public void WritePkru(uint value)
    {
        State->Pkru = value;
        Mmu.OnContextChange();
    }

    internal static ExecStatus Rdpkru(Processor cpu, Op* op)
    {
        if ((cpu.State->Cr4 & Cr4.PKE) == 0)
            return cpu.RaiseUd();
        return (uint)cpu.State->Gpr[1] != 0 ? cpu.RaiseGp() : cpu.SetEdxEax(cpu.State->Pkru);
    }

    internal static ExecStatus Wrpkru(Processor cpu, Op* op)
    {
        if ((cpu.State->Cr4 & Cr4.PKE) == 0)
            return cpu.RaiseUd();
        if ((uint)cpu.State->Gpr[1] != 0 || (uint)cpu.State->Gpr[2] != 0)
            return cpu.RaiseGp();
        cpu.WritePkru((uint)cpu.State->Gpr[0]);
        return ExecStatus.NextEndBlock;
    }
}
