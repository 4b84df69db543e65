namespace Kvm.Emulator;

/// <summary>A range of physical addresses backed by RAM. <see cref="Host"/> equals <see cref="Start"/> except for windows made with <see cref="PhysicalMemory.Map"/>.</summary>
internal sealed unsafe class MemoryRange(ulong start, ulong size, byte* host, bool owned, ulong key = 0)
{
    public readonly ulong Start = start;
    public readonly ulong Size = size;
    public readonly ulong End = start + size;
    public readonly byte* Host = host;
    /// <summary>Mapped by <see cref="PhysicalMemory.Allocate"/>: unmapped with the machine.</summary>
    public readonly bool Owned = owned;
    /// <summary>Tells registrations of the same start apart.</summary>
    public readonly ulong Key = key;
}
