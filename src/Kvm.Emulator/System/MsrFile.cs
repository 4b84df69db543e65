namespace Kvm.Emulator;

internal sealed class MsrFile(Processor cpu)
{
    internal readonly Processor Cpu = cpu;
}
