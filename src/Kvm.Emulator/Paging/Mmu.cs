namespace Kvm.Emulator;

public sealed unsafe partial class Mmu : IDisposable
{
    private readonly Processor cpu;
    internal Mmu(Processor cpu) => this.cpu = cpu;
    public bool Read(Seg segment, ulong offset, int size, out ulong value) => throw new NotSupportedException();
    public bool Write(Seg segment, ulong offset, int size, ulong value) => throw new NotSupportedException();
    public bool ReadLinear(ulong linear, int size, out ulong value, bool supervisor) => throw new NotSupportedException();
    public bool WriteLinear(ulong linear, int size, ulong value, bool supervisor) => throw new NotSupportedException();
    public byte* TranslateForRmw(Seg segment, ulong offset, int size, out RmwFailure failure) => throw new NotSupportedException();
    public bool CheckedLinear(Seg segment, ulong offset, int size, AccessKind kind, out ulong linear) => throw new NotSupportedException();
    /// <summary>Host pointer of the page holding <paramref name="linearIp"/> (page start) for execution, and its physical address; null: fault pending.</summary>
    public byte* FetchPage(ulong linearIp, out ulong physicalPage) => throw new NotSupportedException();
    /// <summary>Code of the physical page has been decoded: removes its write tags from every table of this processor.</summary>
    public void RevokeWrites(ulong physicalPage) => throw new NotSupportedException();
    /// <summary>Loads the PDPTE registers from PAE page-directory-pointer table at <paramref name="cr3"/>; false: reserved bits set (or memory exit pending).</summary>
    public bool LoadPdptes(ulong cr3) => throw new NotSupportedException();
    public void FlushAll() { }
    public void FlushTag(ushort tag, bool keepGlobal) { }
    public void FlushLinear(ushort tag, ulong linear) { }
    public void FlushNested(ulong root) { }
    /// <summary>CR0, CR3, CR4, EFER, CPL, AC, the TLB tag or nested root may have changed: selects the TLB table.</summary>
    public void OnContextChange() { }
    public void Dispose() { }
}
