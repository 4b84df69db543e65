using System.Numerics;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The map of APIC ids, and messages from APICs and devices to APICs.</remarks>
public unsafe partial class X86Vm
{
    private const int MapClean = 0, MapUpdateInProgress = 1, MapDirty = 2;

    private readonly Lock _apicMapLock = new();
    private KvmApicMap? _apicMap;
    private int _apicMapDirty;
    private bool _disabledLapicFound;

    /// <summary>APICs whose LINT0 is in NMI mode: the PIT is their watchdog.</summary>
    public int VapicsInNmiMode;

    /// <summary>What the map is made of has changed; whoever changed it calls <see cref="RecalculateApicMap"/> when it is done.</summary>
    internal void ApicMapIsDirty() => Volatile.Write(ref _apicMapDirty, MapDirty);

    /// <summary>kvm_recalculate_apic_map: nothing while it is clean. Without memory there is no map: every vCPU is asked then.</summary>
    [KernelFunction("kvm_recalculate_apic_map", File = "arch/x86/kvm/lapic.c")]
    internal void RecalculateApicMap()
    {
        using var _ = FunctionTrace.Enter("kvm_recalculate_apic_map");
        if (Volatile.Read(ref _apicMapDirty) == MapClean)
            return;
        lock (_apicMapLock)
        {
            // A change that comes while the map is made turns it dirty again.
            if (Interlocked.CompareExchange(ref _apicMapDirty, MapUpdateInProgress, MapDirty) == MapClean)
                return;
            Volatile.Write(ref _apicMap, NewApicMap());
            Interlocked.CompareExchange(ref _apicMapDirty, MapClean, MapUpdateInProgress);
        }

        MakeScanIoapicRequest();
    }

    private KvmApicMap? NewApicMap()
    {
        uint max = 255;
        foreach (KvmVcpu vcpu in Vcpus)
        {
            if (vcpu is X86Vcpu { Apic: { HwEnabled: true } apic })
                max = Math.Max(max, apic.X2apicId);
        }

        if (Host.Faults.ShouldFail("kvzalloc", "kvm_apic_map"))
            return null;
        var map = new KvmApicMap(max);
        foreach (KvmVcpu vcpu in Vcpus)
        {
            if (vcpu is X86Vcpu { Apic: { HwEnabled: true } apic })
                map.Add(apic);
        }

        return map;
    }

    private bool IsBroadcastDest(KvmLapic? source, in KvmLapicIrq irq, KvmApicMap map)
    {
        if (!X2apicBroadcastQuirkDisabled)
            return irq.DestId == (source is { X2apicMode: true } ? X2APIC_BROADCAST : APIC_BROADCAST);
        return (irq.DestId == APIC_BROADCAST && map.Mode != KvmApicMap.KVM_APIC_MODE_X2APIC) || irq.DestId == X2APIC_BROADCAST;
    }

    /// <summary>
    /// kvm_apic_map_get_dest_lapic: the targets by the map, as candidates and a mask of them; perhaps none. False: every vCPU must be asked.
    /// </summary>
    private bool MapGetDest(KvmLapic? source, in KvmLapicIrq irq, KvmApicMap? map, out ReadOnlySpan<KvmLapic?> dst, out uint mask)
    {
        dst = default;
        mask = 0;
        if (irq.Shorthand != APIC_DEST_NOSHORT || map is null || IsBroadcastDest(source, in irq, map))
            return false;
        if (irq.DestMode == APIC_DEST_PHYSICAL)
        {
            dst = map.PhysSpan(irq.DestId);
            mask = dst.IsEmpty ? 0u : 1;
            return true;
        }

        if (!map.GetLogicalDest(irq.DestId, out Span<KvmLapic?> cluster, out mask))
            return false;
        dst = cluster;
        if (irq.IsLowestPrio)
            mask = LowestOf(in irq, dst, mask);
        return true;
    }

    private uint LowestOf(in KvmLapicIrq irq, ReadOnlySpan<KvmLapic?> dst, uint mask)
    {
        int lowest = -1;
        if (Arch.Params.VectorHashing)
        {
            if (mask == 0)
                return 0;
            lowest = VectorToIndex(irq.Vector, mask);
            if (lowest < dst.Length && dst[lowest] is not null)
                return 1u << lowest;
            if (!_disabledLapicFound)
            {
                _disabledLapicFound = true;
                Host.Log.Info("Disabled LAPIC found during irq injection");
            }

            return 0;
        }

        for (int i = 0; i < dst.Length; i++)
        {
            if ((mask >> i & 1) != 0 && dst[i] is { } apic && (lowest < 0 || apic.Vcpu.ApicArbPrio - dst[lowest]!.Vcpu.ApicArbPrio < 0))
                lowest = i;
        }

        return lowest >= 0 ? 1u << lowest : 0;
    }

    /// <summary>kvm_vector_to_index: the candidate that the vector's hash picks.</summary>
    private static int VectorToIndex(uint vector, uint mask)
    {
        for (uint skip = vector % (uint)BitOperations.PopCount(mask); skip > 0; skip--)
            mask &= mask - 1;
        return BitOperations.TrailingZeroCount(mask);
    }

    /// <summary>kvm_irq_delivery_to_apic_fast: true when the map knew the targets; <paramref name="r"/> is then how many took it.</summary>
    [KernelFunction("kvm_irq_delivery_to_apic_fast", File = "arch/x86/kvm/lapic.c")]
    internal bool IrqDeliveryToApicFast(KvmLapic? source, in KvmLapicIrq irq, out int r, KvmDestMap? destMap)
    {
        using var _ = FunctionTrace.Enter("kvm_irq_delivery_to_apic_fast");
        if (irq.Shorthand == APIC_DEST_SELF)
        {
            r = BugOn(source is null) ? 0 : source!.SetIrq(in irq, destMap);
            return true;
        }

        r = -1;
        if (!MapGetDest(source, in irq, Volatile.Read(ref _apicMap), out ReadOnlySpan<KvmLapic?> dst, out uint mask))
            return false;
        r = 0;
        for (; mask != 0; mask &= mask - 1)
        {
            int i = BitOperations.TrailingZeroCount(mask);
            if (i < dst.Length && dst[i] is { } apic)
                r += apic.SetIrq(in irq, destMap);
        }

        return true;
    }

    /// <summary>
    /// kvm_irq_delivery_to_apic: -1 when there is no such target, else how many took it. Any thread. <paramref name="source"/> is null for devices.
    /// </summary>
    [KernelFunction("kvm_irq_delivery_to_apic", File = "arch/x86/kvm/irq_comm.c")]
    public int IrqDeliveryToApic(KvmLapic? source, ref KvmLapicIrq irq, KvmDestMap? destMap)
    {
        using var _ = FunctionTrace.Enter("kvm_irq_delivery_to_apic");
        if (IrqDeliveryToApicFast(source, in irq, out int r, destMap))
            return r;
        if (irq.DestMode == APIC_DEST_PHYSICAL && irq.DestId == 0xff && irq.IsLowestPrio)
        {
            Host.Log.Info("kvm: apic: phys broadcast and lowest prio");
            irq.DeliveryMode = APIC_DM_FIXED;
        }

        bool lowestPrio = irq.IsLowestPrio;
        List<KvmLapic>? candidates = null;
        foreach (KvmVcpu v in Vcpus)
        {
            if (v is not X86Vcpu { Apic: { HwEnabled: true } apic } || !apic.MatchDest(source, irq.Shorthand, irq.DestId, irq.DestMode))
                continue;
            if (!lowestPrio)
                r = Math.Max(r, 0) + apic.SetIrq(in irq, destMap);
            else if (apic.SwEnabled)
                (candidates ??= []).Add(apic);
        }

        if (candidates is null)
            return r;
        KvmLapic lowest = Arch.Params.VectorHashing
            ? candidates[irq.Vector % candidates.Count]
            : candidates.Aggregate(static (a, b) => b.Vcpu.ApicArbPrio - a.Vcpu.ApicArbPrio < 0 ? b : a);
        return lowest.SetIrq(in irq, destMap);
    }

    /// <summary>kvm_bitmap_or_dest_vcpus: adds the vCPUs (by index) that the message would reach.</summary>
    internal void BitmapOrDestVcpus(in KvmLapicIrq irq, Span<ulong> vcpus)
    {
        if (MapGetDest(null, in irq, Volatile.Read(ref _apicMap), out ReadOnlySpan<KvmLapic?> dst, out uint mask))
        {
            for (; mask != 0; mask &= mask - 1)
            {
                int i = BitOperations.TrailingZeroCount(mask);
                if (i < dst.Length && dst[i] is { } apic)
                    vcpus[apic.Vcpu.VcpuIdx >> 6] |= 1ul << (apic.Vcpu.VcpuIdx & 63);
            }

            return;
        }

        foreach (KvmVcpu v in Vcpus)
        {
            if (v is X86Vcpu { Apic: { HwEnabled: true } apic } && apic.MatchDest(null, irq.Shorthand, irq.DestId, irq.DestMode))
                vcpus[v.VcpuIdx >> 6] |= 1ul << (v.VcpuIdx & 63);
        }
    }

    /// <summary>kvm_pv_send_ipi: up to 128 (64 from 32-bit code) targets from the APIC id <paramref name="min"/> on; how many took it.</summary>
    internal long PvSendIpi(ulong low, ulong high, uint min, ulong icr, bool wide)
    {
        if ((icr & (APIC_DEST_MASK | APIC_SHORT_MASK)) != 0)
            return -Abi.Uapi.KVM_EINVAL;
        if (Volatile.Read(ref _apicMap) is not { } map)
            return -Errnos.EOPNOTSUPP;
        var irq = new KvmLapicIrq
        {
            Vector = (byte)icr,
            DeliveryMode = (int)(icr & APIC_MODE_MASK),
            Level = (icr & APIC_INT_ASSERT) != 0,
            TrigMode = (uint)icr & APIC_INT_LEVELTRIG,
        };
        return PvSendIpi(low, map, in irq, min) + PvSendIpi(high, map, in irq, min + (wide ? 64u : 32));
    }

    private static int PvSendIpi(ulong bitmap, KvmApicMap map, in KvmLapicIrq irq, uint min)
    {
        int count = 0;
        for (; bitmap != 0; bitmap &= bitmap - 1)
        {
            ulong id = min + (ulong)BitOperations.TrailingZeroCount(bitmap);
            if (id <= map.MaxApicId && map.Phys((uint)id) is { } apic)
                count += apic.SetIrq(in irq, null);
        }

        return count;
    }

    /// <summary>The vCPU with an APIC id, by the map; null when there is none.</summary>
    internal X86Vcpu? VcpuByApicId(uint id) => Volatile.Read(ref _apicMap)?.Phys(id)?.Vcpu;

    // ---- which vectors concern the IOAPIC ----

    /// <summary>kvm_make_scan_ioapic_request: every vCPU works out anew which EOIs the IOAPIC wants.</summary>
    [KernelFunction("kvm_make_scan_ioapic_request", File = "arch/x86/kvm/x86.c")]
    internal void MakeScanIoapicRequest()
    {
        using var _ = FunctionTrace.Enter("kvm_make_scan_ioapic_request");
        MakeAllCpusRequest(KVM_REQ_SCAN_IOAPIC);
    }

    internal void MakeScanIoapicRequestMask(ReadOnlySpan<ulong> vcpus) => MakeVcpusRequestMask(KVM_REQ_SCAN_IOAPIC, vcpus);
}
