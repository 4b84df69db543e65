namespace Kvm.Emulator.Engine;

internal sealed unsafe partial class OpcodeTable
{
    static partial void RegisterSystem(OpcodeTable t) => _ = t;
}
