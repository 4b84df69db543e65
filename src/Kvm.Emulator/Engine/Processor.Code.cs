using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    private CodeCache? code;

    /// <summary>Decoded code of this processor.</summary>
    internal CodeCache Code => code ??= new CodeCache(this);

    /// <summary>
    /// Memory may have been written by something that no processor saw (a device model, through its own pointer): before decoded code is executed again
    /// it is compared with memory. Costs nothing by itself and a few nanoseconds per block entered. DIVERGES: D-ENGINE-8
    /// </summary>
    public void CodeMayHaveChanged() => code?.BeginEpoch();

    /// <summary>Exchanges the cache for one of another size.</summary>
    internal void UseCodeCache(CodeCache cache)
    {
        code?.Dispose();
        code = cache;
    }

    private void DisposeCode()
    {
        code?.Dispose();
        code = null;
    }
}
