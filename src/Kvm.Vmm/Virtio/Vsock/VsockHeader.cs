using System.Runtime.InteropServices;

namespace Kvm.Vmm.Virtio.Vsock;

/// <summary>struct virtio_vsock_hdr, lowest byte first as every host that this runs on.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 4)]
internal struct VsockHeader
{
    public const int Size = 44;
    public const ushort Stream = 1;

    /// <summary>Flags of <see cref="VsockOp.Shutdown"/>: the sender receives no more, sends no more.</summary>
    public const uint NoReceive = 1, NoSend = 2;

    public ulong SourceCid;
    public ulong TargetCid;
    public uint SourcePort;
    public uint TargetPort;
    public uint Length;
    public ushort Type;
    public VsockOp Op;
    public uint Flags;
    public uint Room;
    public uint Forwarded;
}
