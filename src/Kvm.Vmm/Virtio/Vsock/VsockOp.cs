namespace Kvm.Vmm.Virtio.Vsock;

/// <summary>What a packet is for.</summary>
/// <remarks>Virtio specification 1.2, "Socket Device", struct virtio_vsock_hdr: op.</remarks>
internal enum VsockOp : ushort
{
    Invalid = 0,
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}
