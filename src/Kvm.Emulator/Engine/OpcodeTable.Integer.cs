namespace Kvm.Emulator.Engine;

internal sealed unsafe partial class OpcodeTable
{
    static partial void RegisterInteger(OpcodeTable t)
    {
        RegisterArithmetic(t);
        RegisterBits(t);
        RegisterData(t);
        RegisterControlFlow(t);
    }
}
