using System.Numerics;
using static Kvm.Arch.X86.ApicConst;

namespace Kvm.Arch.X86;

/// <summary>
/// struct kvm_apic_map: who has which APIC id, so that a message finds its targets without asking every vCPU. Immutable once published; made anew when an APIC
/// changes its id, mode or logical destination.
/// </summary>
internal sealed class KvmApicMap
{
    // Bits: several kinds at once mean that logical destinations can't be looked up here.
    public const int KVM_APIC_MODE_XAPIC_CLUSTER = 4;
    public const int KVM_APIC_MODE_XAPIC_FLAT = 8;
    public const int KVM_APIC_MODE_X2APIC = 16;

    private readonly KvmLapic?[] _phys;
    private readonly KvmLapic?[] _flat = new KvmLapic?[8];
    private readonly KvmLapic?[] _cluster = new KvmLapic?[16 * 4];

    public KvmApicMap(uint maxApicId)
    {
        MaxApicId = maxApicId;
        _phys = new KvmLapic?[maxApicId + 1];
    }

    public uint MaxApicId { get; }

    public int Mode { get; private set; }

    /// <summary>The APIC with this id, or null.</summary>
    public KvmLapic? Phys(uint id) => id <= MaxApicId ? _phys[id] : null;

    /// <summary>The slot of an id, as a span of one; empty beyond the highest.</summary>
    public ReadOnlySpan<KvmLapic?> PhysSpan(uint id) => id <= MaxApicId ? new ReadOnlySpan<KvmLapic?>(_phys, (int)id, 1) : default;

    /// <summary>kvm_apic_map_get_logical_dest: the APICs of the cluster and which of them are meant. False: not to be decided by the map.</summary>
    public bool GetLogicalDest(uint destId, out Span<KvmLapic?> cluster, out uint mask)
    {
        switch (Mode)
        {
            case KVM_APIC_MODE_X2APIC:
                uint offset = (destId >> 16) * 16;
                cluster = default;
                mask = 0;
                if (offset <= MaxApicId)
                {
                    int size = (int)Math.Min(MaxApicId - offset + 1, 16);
                    cluster = new Span<KvmLapic?>(_phys, (int)offset, size);
                    mask = destId & (0xffffu >> (16 - size));
                }

                return true;
            case KVM_APIC_MODE_XAPIC_FLAT:
                cluster = _flat;
                mask = destId & 0xff;
                return true;
            case KVM_APIC_MODE_XAPIC_CLUSTER:
                cluster = new Span<KvmLapic?>(_cluster, (int)(destId >> 4 & 0xf) * 4, 4);
                mask = destId & 0xf;
                return true;
            default:
                cluster = default;
                mask = 0;
                return false;
        }
    }

    /// <summary>Enters an APIC that is switched on in its base MSR.</summary>
    public void Add(KvmLapic apic)
    {
        uint x2apicId = apic.X2apicId;
        bool x2apic = apic.X2apicMode;

        // A vCPU whose id does not fit an xAPIC is reachable by it before it has switched; those that fit are not hidden by its truncated id.
        if ((x2apic || x2apicId > 0xff) && x2apicId <= MaxApicId)
            _phys[x2apicId] = apic;
        if (!x2apic && _phys[apic.XapicId] is null)
            _phys[apic.XapicId] = apic;
        if (!apic.SwEnabled)
            return;

        uint ldr = apic.GetReg(APIC_LDR);
        if (x2apic)
        {
            Mode |= KVM_APIC_MODE_X2APIC;
        }
        else if (ldr != 0)
        {
            ldr >>= 24;
            Mode |= apic.GetReg(APIC_DFR) == APIC_DFR_FLAT ? KVM_APIC_MODE_XAPIC_FLAT : KVM_APIC_MODE_XAPIC_CLUSTER;
        }

        if (GetLogicalDest(ldr, out Span<KvmLapic?> cluster, out uint mask) && mask != 0)
            cluster[BitOperations.TrailingZeroCount(mask)] = apic;
    }
}
