namespace Kvm.Arch.X86;

/// <summary>struct dest_map: the vCPUs (by id) that an interrupt was sent to, with the vector.</summary>
public sealed class KvmDestMap
{
    private readonly ulong[] _map = new ulong[X86Const.KVM_MAX_VCPU_IDS / 64];
    private readonly byte[] _vectors = new byte[X86Const.KVM_MAX_VCPU_IDS];

    public bool Test(int vcpuId) => (_map[vcpuId >> 6] >> (vcpuId & 63) & 1) != 0;

    /// <summary>The vector; only for a vCPU whose bit is set.</summary>
    public byte Vector(int vcpuId) => _vectors[vcpuId];

    public void Set(int vcpuId, byte vector)
    {
        _map[vcpuId >> 6] |= 1ul << (vcpuId & 63);
        _vectors[vcpuId] = vector;
    }

    public void Clear(int vcpuId) => _map[vcpuId >> 6] &= ~(1ul << (vcpuId & 63));

    public void Clear() => Array.Clear(_map);
}
