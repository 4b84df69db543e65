namespace Kvm.Vmm.Virtio.Vsock;

/// <summary>A packet for the guest, which may take it in several pieces.</summary>
internal sealed class VsockPacket(uint hostPort, uint guestPort, VsockOp op, uint flags = 0, ReadOnlyMemory<byte> data = default, VsockConnection? connection = null)
{
    public uint HostPort => hostPort;

    public uint GuestPort => guestPort;

    public VsockOp Op => op;

    public uint Flags => flags;

    public VsockConnection? Connection => connection;

    /// <summary>What the guest has not got yet.</summary>
    public ReadOnlyMemory<byte> Data { get; set; } = data;
}
