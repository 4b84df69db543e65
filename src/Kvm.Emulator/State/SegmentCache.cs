using System.Runtime.InteropServices;

namespace Kvm.Emulator;

/// <summary>Register number of a segment register, in the order of instruction encodings; LDTR and TR follow.</summary>
public enum Seg : byte { ES, CS, SS, DS, FS, GS, LDTR, TR, None = 0xff }

/// <summary>
/// A segment register with its hidden part. <see cref="AccessRights"/> uses the VMX format
/// (SDM vol 3C, "Guest Register State"): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16.
/// <see cref="Limit"/> is in bytes, granularity already applied.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public struct SegmentCache
{
    public ulong Base;
    public uint Limit;
    public uint AccessRights;
    public ushort Selector;

    public readonly int Type => (int)(AccessRights & 0xf);
    public readonly bool S => (AccessRights & 0x10) != 0;
    public readonly int Dpl => (int)(AccessRights >> 5) & 3;
    public readonly bool Present => (AccessRights & 0x80) != 0;
    public readonly bool L => (AccessRights & 0x2000) != 0;
    public readonly bool Db => (AccessRights & 0x4000) != 0;
    public readonly bool G => (AccessRights & 0x8000) != 0;
    public readonly bool Unusable => (AccessRights & 0x10000) != 0;
}

/// <summary>GDTR or IDTR: linear base and limit in bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct DescriptorTableRegister
{
    public ulong Base;
    public uint Limit;
}
