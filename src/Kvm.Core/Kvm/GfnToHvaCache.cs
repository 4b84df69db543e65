namespace Kvm.Core;

/// <summary>struct gfn_to_hva_cache: a guest address whose process address is remembered until the slots change.</summary>
public sealed class GfnToHvaCache
{
    public ulong Generation;
    public ulong Gpa;
    public ulong Hva;
    public ulong Len;
    public KvmMemorySlot? Memslot;
}
