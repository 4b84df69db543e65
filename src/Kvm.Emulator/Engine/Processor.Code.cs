using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    private CodeCache? code;

    /// <summary>Decoded code of this processor.</summary>
    internal CodeCache Code => code ??= new CodeCache(this);
}
