using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    private CodeCache? code;

    /// <summary>Decoded code of this processor.</summary>
    internal CodeCache Code => code ??= new CodeCache(this);

    /// <summary>
    /// Memory may have been written by something that no processor saw (a device model, through its own pointer): before code of a page is executed again
    /// it is compared with what it was decoded from.
    /// </summary>
    public void CodeMayHaveChanged() => Mmu.RevokeExecutes();

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
