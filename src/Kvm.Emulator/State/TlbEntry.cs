using System.Runtime.InteropServices;

namespace Kvm.Emulator;

/// <summary>
/// One entry of the software TLB (ARCHITECTURE D5). A tag is the linear page address (low 12 bits zero) when that kind of access may go
/// straight to memory, and <see cref="NoMatch"/> when it must take the slow path (not present, not permitted, not dirty yet, MMIO, code page, watch).
/// Host pointer of linear address <c>a</c> = <c>(byte*)(a + Addend)</c>.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public struct TlbEntry
{
    /// <summary>Never equal to a page address: low bits set.</summary>
    public const ulong NoMatch = ulong.MaxValue;
    /// <summary>Entries in one table; index = (linear >> 12) &amp; (Entries - 1).</summary>
    public const int Entries = 1024;

    public ulong ReadTag;
    public ulong WriteTag;
    public ulong ExecTag;
    public ulong Addend;
}
