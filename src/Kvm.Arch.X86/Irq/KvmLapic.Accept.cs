using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>Messages: does one concern this APIC, what becomes of it, and sending them; EOI.</remarks>
public sealed unsafe partial class KvmLapic
{
    /// <summary>kvm_apic_set_irq: 1 when it was accepted.</summary>
    public int SetIrq(in KvmLapicIrq irq, KvmDestMap? destMap) => AcceptIrq(irq.DeliveryMode, irq.Vector, irq.Level, irq.TrigMode, destMap);

    /// <summary>__apic_accept_irq: 1 when it was accepted, 0 when it was dropped. Any thread.</summary>
    [KernelFunction("__apic_accept_irq", File = "arch/x86/kvm/lapic.c")]
    private int AcceptIrq(int deliveryMode, int vector, bool level, uint trigMode, KvmDestMap? destMap)
    {
        using var _ = FunctionTrace.Enter("__apic_accept_irq");
        X86Vcpu vcpu = Vcpu;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_apic_accept_irq", $"apicid {vcpu.VcpuId:x} vec {vector} ({ModeName(deliveryMode)}|{(trigMode != 0 ? "level" : "edge")})");
        switch (deliveryMode)
        {
            case APIC_DM_LOWEST:
            case APIC_DM_FIXED:
                if (deliveryMode == APIC_DM_LOWEST)
                    Interlocked.Increment(ref vcpu.ApicArbPrio);
                if ((trigMode != 0 && !level) || !Enabled)
                    return 0;
                destMap?.Set(vcpu.VcpuId, (byte)vector);
                if (TestVector(vector, APIC_TMR) != (trigMode != 0))
                {
                    if (trigMode != 0)
                        SetVector(vector, APIC_TMR);
                    else
                        ClearVector(vector, APIC_TMR);
                }

                vcpu.Ops.DeliverInterrupt(vcpu, deliveryMode, trigMode, vector);
                return 1;
            case APIC_DM_REMRD:
                vcpu.PvUnhalted = true;
                vcpu.MakeRequest(KVM_REQ_EVENT);
                vcpu.Kick();
                return 1;
            case APIC_DM_SMI:
                vcpu.MakeRequest(KVM_REQ_SMI);
                vcpu.Kick();
                return 1;
            case APIC_DM_NMI:
                vcpu.InjectNmi();
                vcpu.Kick();
                return 1;
            case APIC_DM_INIT:
                if (trigMode != 0 && !level)
                    return 0;

                // A SIPI that waited belongs to an earlier INIT.
                Volatile.Write(ref PendingEvents, 1L << KVM_APIC_INIT);
                vcpu.MakeRequest(KVM_REQ_EVENT);
                vcpu.Kick();
                return 1;
            case APIC_DM_STARTUP:
                // The vector before the bit: whoever sees the bit finds the vector.
                Volatile.Write(ref SipiVector, (uint)vector);
                Interlocked.Or(ref PendingEvents, 1L << KVM_APIC_SIPI);
                vcpu.MakeRequest(KVM_REQ_EVENT);
                vcpu.Kick();
                return 1;
            default:
                // ExtINT: the 8259 has it, see AcceptPicIntr.
                return 0;
        }
    }

    internal static string ModeName(int deliveryMode) => (deliveryMode >> 8) switch
    {
        0 => "Fixed",
        1 => "LowPrio",
        2 => "SMI",
        3 => "Res3",
        4 => "NMI",
        5 => "INIT",
        6 => "SIPI",
        _ => "ExtINT",
    };

    /// <summary>kvm_apic_local_deliver: an event of a local vector table entry.</summary>
    [KernelFunction("kvm_apic_local_deliver", File = "arch/x86/kvm/lapic.c")]
    public int LocalDeliver(int lvt)
    {
        using var _ = FunctionTrace.Enter("kvm_apic_local_deliver");
        uint reg = GetReg(lvt);
        if (!HwEnabled || (reg & APIC_LVT_MASKED) != 0)
            return 0;
        int r = AcceptIrq((int)(reg & APIC_MODE_MASK), (int)(reg & APIC_VECTOR_MASK), true, reg & APIC_LVT_LEVEL_TRIGGER, null);

        // Intel masks the entry with the overflow interrupt; the handler unmasks it.
        if (r != 0 && lvt == APIC_LVTPC && !Vcpu.IsAmdCompatible)
            SetReg(APIC_LVTPC, reg | APIC_LVT_MASKED);
        return r;
    }

    // ---- destinations ----

    private bool MatchPhysicalAddr(uint mda)
    {
        if (mda == (X2apicMode ? X2APIC_BROADCAST : APIC_BROADCAST))
            return true;

        // An id that an xAPIC can't have reaches a vCPU that has not switched to x2APIC yet.
        return X2apicMode || mda > 0xff ? mda == X2apicId : mda == XapicId;
    }

    private bool MatchLogicalAddr(uint mda)
    {
        if (mda == (X2apicMode ? X2APIC_BROADCAST : APIC_BROADCAST))
            return true;
        uint id = GetReg(APIC_LDR);
        if (X2apicMode)
            return id >> 16 == mda >> 16 && (id & mda & 0xffff) != 0;
        id >>= 24;
        return GetReg(APIC_DFR) switch
        {
            APIC_DFR_FLAT => (id & mda) != 0,
            APIC_DFR_CLUSTER => id >> 4 == mda >> 4 && (id & mda & 0xf) != 0,
            _ => false,
        };
    }

    /// <summary>kvm_apic_match_dest. <paramref name="source"/> is null for a message that no APIC sent.</summary>
    [KernelFunction("kvm_apic_match_dest", File = "arch/x86/kvm/lapic.c")]
    public bool MatchDest(KvmLapic? source, uint shorthand, uint dest, uint destMode)
    {
        FunctionTrace.Leaf("kvm_apic_match_dest");

        // Devices have 8 bits only: their broadcast reaches x2APICs too.
        uint mda = !Vcpu.Vm.X2apicBroadcastQuirkDisabled && source is null && dest == APIC_BROADCAST && X2apicMode ? X2APIC_BROADCAST : dest;
        return shorthand switch
        {
            APIC_DEST_NOSHORT => destMode == APIC_DEST_PHYSICAL ? MatchPhysicalAddr(mda) : MatchLogicalAddr(mda),
            APIC_DEST_SELF => this == source,
            APIC_DEST_ALLINC => true,
            _ => this != source,
        };
    }

    /// <summary>kvm_apic_send_ipi: what a write of ICR sends.</summary>
    [KernelFunction("kvm_apic_send_ipi", File = "arch/x86/kvm/lapic.c")]
    public void SendIpi(uint icrLow, uint icrHigh)
    {
        using var _ = FunctionTrace.Enter("kvm_apic_send_ipi");
        var irq = new KvmLapicIrq
        {
            Vector = (byte)icrLow,
            DeliveryMode = (int)(icrLow & APIC_MODE_MASK),
            DestMode = icrLow & APIC_DEST_MASK,
            Level = (icrLow & APIC_INT_ASSERT) != 0,
            TrigMode = icrLow & APIC_INT_LEVELTRIG,
            Shorthand = icrLow & APIC_SHORT_MASK,
            DestId = X2apicMode ? icrHigh : icrHigh >> 24,
        };
        if (Tracepoints.Enabled)
            TraceIpi(icrLow, irq.DestId);
        Vcpu.Vm.IrqDeliveryToApic(this, ref irq, null);
    }

    private static void TraceIpi(uint icr, uint dest)
    {
        string shorthand = (icr >> 18 & 3) switch { 0 => "dst", 1 => "self", 2 => "all", _ => "all-but-self" };
        Tracepoints.Emit("kvm_apic_ipi", $"dst {dest:x} vec {(byte)icr} ({ModeName((int)(icr & APIC_MODE_MASK))}|{((icr & APIC_DEST_MASK) != 0 ? "logical" : "physical")}"
            + $"|{((icr & APIC_INT_ASSERT) != 0 ? "assert" : "de-assert")}|{((icr & APIC_INT_LEVELTRIG) != 0 ? "level" : "edge")}|{shorthand})");
    }

    // ---- end of interrupt ----

    [KernelFunction("kvm_ioapic_send_eoi", File = "arch/x86/kvm/lapic.c")]
    private void IoapicSendEoi(int vector)
    {
        using var _ = FunctionTrace.Enter("kvm_ioapic_send_eoi");
        if (!Vcpu.IoapicHandles(vector))
            return;
        X86Vm vm = Vcpu.Vm;
        if (vm.IrqchipSplit)
        {
            Vcpu.PendingIoapicEoi = vector;
            Vcpu.MakeRequest(KVM_REQ_IOAPIC_EOI_EXIT);
            return;
        }

        vm.Ioapic!.UpdateEoi(Vcpu, vector, TestVector(vector, APIC_TMR));
    }

    /// <summary>apic_set_eoi: the vector that ended, or -1 when none was in service.</summary>
    [KernelFunction("apic_set_eoi", File = "arch/x86/kvm/lapic.c")]
    private int SetEoi()
    {
        using var _ = FunctionTrace.Enter("apic_set_eoi");
        int vector = FindHighestIsr();
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_eoi", $"apicid {Vcpu.VcpuId:x} vector {vector}");
        if (vector == -1)
            return -1;
        ClearIsr(vector);
        UpdatePpr();
        if (Vcpu.Hv is { } hv && hv.Synic.HasVector(vector))
            hv.Synic.SendEoi(vector);
        IoapicSendEoi(vector);
        Vcpu.MakeRequest(KVM_REQ_EVENT);
        return vector;
    }

    /// <summary>kvm_lapic_set_eoi.</summary>
    public void LapicSetEoi() => RegWrite(APIC_EOI, 0);

    /// <summary>kvm_apic_set_eoi_accelerated: the processor has ended the interrupt; the IOAPIC is to know.</summary>
    [KernelFunction("kvm_apic_set_eoi_accelerated", File = "arch/x86/kvm/lapic.c")]
    public void SetEoiAccelerated(int vector)
    {
        using var _ = FunctionTrace.Enter("kvm_apic_set_eoi_accelerated");
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_eoi", $"apicid {Vcpu.VcpuId:x} vector {vector}");
        IoapicSendEoi(vector);
        Vcpu.MakeRequest(KVM_REQ_EVENT);
    }
}
