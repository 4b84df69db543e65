using System.Runtime.InteropServices;

namespace Kvm.Emulator.Svm;

/// <summary>
/// A segment register as the VMCB and the host save area hold it. <see cref="Attributes"/> is the compressed 12-bit form:
/// type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11 (APM vol 2, "Segment State in the VMCB").
/// </summary>
[StructLayout(LayoutKind.Sequential, Pack = 2)]
public struct VmcbSegment
{
    public ushort Selector;
    public ushort Attributes;
    public uint Limit;
    public ulong Base;

    /// <summary>VMX-format access rights (what <see cref="SegmentCache"/> holds) from the compressed form; P = 0 makes the register unusable.</summary>
    public static uint ToAccessRights(ushort attributes)
        => (attributes & 0xffu) | ((attributes & 0xf00u) << 4) | ((~(uint)attributes & 0x80) << 9);

    /// <summary>Compressed attributes from VMX-format access rights; an unusable register reads as not present.</summary>
    public static ushort ToAttributes(uint accessRights)
        => (ushort)((accessRights & 0xff & ~((accessRights >> 9) & 0x80)) | ((accessRights >> 4) & 0xf00));
}
