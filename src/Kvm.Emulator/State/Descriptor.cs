namespace Kvm.Emulator;

/// <summary>A raw 8-byte descriptor; system descriptors of IA-32e mode carry base 63:32 in <see cref="High"/>.</summary>
/// <remarks>SDM vol 3A, "Segment Descriptors", "Gate descriptors".</remarks>
public struct Descriptor
{
    /// <summary>Bits of <see cref="Low"/> that the processor sets: the accessed bit of a segment, the busy bit of a TSS.</summary>
    public const ulong Accessed = 1UL << 40, Busy = 1UL << 41;

    public ulong Low;
    public ulong High;

    public readonly int Type => (int)(Low >> 40) & 0xf;
    public readonly bool S => (Low >> 44 & 1) != 0;
    public readonly int Dpl => (int)(Low >> 45) & 3;
    public readonly bool Present => (Low >> 47 & 1) != 0;
    public readonly bool Avl => (Low >> 52 & 1) != 0;
    public readonly bool L => (Low >> 53 & 1) != 0;
    public readonly bool Db => (Low >> 54 & 1) != 0;
    public readonly bool Granular => (Low >> 55 & 1) != 0;
    public readonly bool IsCode => S && (Type & 8) != 0;
    public readonly bool IsConforming => IsCode && (Type & 4) != 0;
    public readonly bool IsData => S && (Type & 8) == 0;
    public readonly bool IsWritableData => S && (Type & 0xa) == 2;
    public readonly bool IsReadable => S && ((Type & 8) == 0 || (Type & 2) != 0);

    public readonly ulong Base => (Low >> 16 & 0xff_ffff) | (Low >> 32 & 0xff00_0000) | High << 32;

    /// <summary>In bytes, whatever the granularity.</summary>
    public readonly uint Limit
    {
        get
        {
            uint limit = (uint)(Low & 0xffff) | (uint)(Low >> 32 & 0xf_0000);
            return Granular ? limit << 12 | 0xfff : limit;
        }
    }

    public readonly uint Rights => (uint)(Low >> 40) & 0xf0ff;

    // Gates.
    public readonly ushort GateSelector => (ushort)(Low >> 16);
    public readonly ulong GateOffset32 => (Low & 0xffff) | (Low >> 32 & 0xffff_0000);
    public readonly ulong GateOffset16 => Low & 0xffff;
    public readonly int GateIst => (int)(Low >> 32) & 7;
    public readonly int GateParameters => (int)(Low >> 32) & 0x1f;

    internal readonly SegmentCache ToCache(ushort selector) => new() { Selector = selector, Base = Base, Limit = Limit, AccessRights = Rights };
}
