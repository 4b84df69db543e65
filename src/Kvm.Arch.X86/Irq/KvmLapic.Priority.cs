using System.Numerics;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>IRR, ISR and the priorities: which interrupt may be delivered now.</remarks>
public sealed unsafe partial class KvmLapic
{
    /// <summary>kvm_lapic_set_irr.</summary>
    public void SetIrr(int vector)
    {
        SetVector(vector, APIC_IRR);

        // After IRR: whoever clears a vector and finds IRR empty must not overwrite this.
        _irrPending = true;
    }

    /// <summary>apic_find_highest_irr.</summary>
    private int FindHighestIrr() => _irrPending ? FindHighestVector(APIC_IRR) : -1;

    [KernelFunction("kvm_lapic_find_highest_irr", File = "arch/x86/kvm/lapic.c")]
    public int LapicFindHighestIrr()
    {
        FunctionTrace.Leaf("kvm_lapic_find_highest_irr");
        return FindHighestIrr();
    }

    private void ClearIrr(int vector)
    {
        if (ApicvActive)
        {
            ClearVector(vector, APIC_IRR);
            Vcpu.Ops.HwapicIrrUpdate(Vcpu, FindHighestIrr());
            return;
        }

        _irrPending = false;
        ClearVector(vector, APIC_IRR);
        if (FindHighestVector(APIC_IRR) != -1)
            _irrPending = true;
    }

    private void SetIsr(int vector)
    {
        if (TestVector(vector, APIC_ISR))
            return;
        Word(APIC_ISR, vector) |= 1u << (vector & 31); // nobody else writes what is in service
        if (ApicvActive)
        {
            // The processor changes ISR by itself: nothing is cached, only SVI follows.
            Vcpu.Ops.HwapicIsrUpdate(Vcpu, vector);
            return;
        }

        // The highest vector is the one that is injected, so the bit set last is the highest.
        _isrCount++;
        _highestIsrCache = vector;
    }

    private int FindHighestIsr()
    {
        if (_isrCount == 0)
            return -1;
        return _highestIsrCache != -1 ? _highestIsrCache : FindHighestVector(APIC_ISR);
    }

    private void ClearIsr(int vector)
    {
        if (!TestVector(vector, APIC_ISR))
            return;

        // Nobody else writes what is in service.
        Word(APIC_ISR, vector) &= ~(1u << (vector & 31));
        if (ApicvActive)
        {
            Vcpu.Ops.HwapicIsrUpdate(Vcpu, FindHighestIsr());
            return;
        }

        _isrCount--;
        _highestIsrCache = -1;
    }

    /// <summary>kvm_apic_update_irr: takes the posted requests into IRR. True when the highest pending vector is one of them.</summary>
    [KernelFunction("kvm_apic_update_irr", File = "arch/x86/kvm/lapic.c")]
    [KernelFunction("__kvm_apic_update_irr", File = "arch/x86/kvm/lapic.c")]
    public bool UpdateIrr(uint* pir, out int maxIrr)
    {
        using var _ = FunctionTrace.Enter("kvm_apic_update_irr");
        FunctionTrace.Leaf("__kvm_apic_update_irr");
        int updated = -1;
        maxIrr = -1;
        for (int i = 0; i < 8; i++)
        {
            ref uint irr = ref Word(APIC_IRR, i * 32);
            uint value = Volatile.Read(ref irr);
            if (Volatile.Read(ref pir[i]) != 0)
            {
                uint posted = Interlocked.Exchange(ref pir[i], 0);
                uint before = Interlocked.Or(ref irr, posted);
                value = before | posted;
                if (value != before)
                    updated = BitOperations.Log2(value ^ before) + (i * 32);
            }

            if (value != 0)
                maxIrr = BitOperations.Log2(value) + (i * 32);
        }

        return updated != -1 && updated == maxIrr;
    }

    // ---- priorities ----

    [KernelFunction("apic_has_interrupt_for_ppr", File = "arch/x86/kvm/lapic.c")]
    private int HasInterruptForPpr(uint ppr)
    {
        using var _ = FunctionTrace.Enter("apic_has_interrupt_for_ppr");
        int highest = Vcpu.Ops.HasSyncPirToIrr ? Vcpu.Ops.SyncPirToIrr(Vcpu) : FindHighestIrr();
        return highest == -1 || (uint)(highest & 0xf0) <= ppr ? -1 : highest;
    }

    /// <summary>__apic_update_ppr: true when the processor priority fell.</summary>
    [KernelFunction("__apic_update_ppr", File = "arch/x86/kvm/lapic.c")]
    private bool UpdatePpr(out uint ppr)
    {
        FunctionTrace.Leaf("__apic_update_ppr");
        return ComputePpr(out ppr);
    }

    private bool ComputePpr(out uint ppr)
    {
        uint old = GetReg(APIC_PROCPRI);
        uint tpr = GetReg(APIC_TASKPRI);
        int isr = FindHighestIsr();
        uint inService = isr == -1 ? 0 : (uint)isr;
        ppr = (tpr & 0xf0) >= (inService & 0xf0) ? tpr & 0xff : inService & 0xf0;
        if (old != ppr)
            SetReg(APIC_PROCPRI, ppr);
        return ppr < old;
    }

    /// <summary>apic_update_ppr, kvm_apic_update_ppr: a lower priority may let an interrupt through.</summary>
    [KernelFunction("apic_update_ppr", File = "arch/x86/kvm/lapic.c")]
    public void UpdatePpr()
    {
        using var _ = FunctionTrace.Enter("apic_update_ppr");
        if (UpdatePpr(out uint ppr) && HasInterruptForPpr(ppr) != -1)
            Vcpu.MakeRequest(KVM_REQ_EVENT);
    }

    private void SetTprRegister(uint tpr)
    {
        SetReg(APIC_TASKPRI, tpr);
        UpdatePpr();
    }

    /// <summary>kvm_lapic_set_tpr.</summary>
    [KernelFunction("kvm_lapic_set_tpr", File = "arch/x86/kvm/lapic.c")]
    public void SetTpr(ulong cr8)
    {
        using var _ = FunctionTrace.Enter("kvm_lapic_set_tpr");
        SetTprRegister((uint)(cr8 & 0xf) << 4);
    }

    [KernelFunction("kvm_lapic_get_cr8", File = "arch/x86/kvm/lapic.c")]
    public ulong GetCr8()
    {
        FunctionTrace.Leaf("kvm_lapic_get_cr8");
        return (GetReg(APIC_TASKPRI) & 0xf0) >> 4;
    }

    /// <summary>kvm_apic_has_interrupt: the vector that may be delivered now, or -1.</summary>
    [KernelFunction("kvm_apic_has_interrupt", File = "arch/x86/kvm/lapic.c")]
    public int HasInterrupt()
    {
        using var _ = FunctionTrace.Enter("kvm_apic_has_interrupt");
        if (!HwEnabled)
            return -1;
        UpdatePpr(out uint ppr);
        return HasInterruptForPpr(ppr);
    }

    /// <summary>kvm_get_apic_interrupt: acknowledges it: from IRR to ISR.</summary>
    [KernelFunction("kvm_get_apic_interrupt", File = "arch/x86/kvm/lapic.c")]
    public int GetInterrupt()
    {
        using var _ = FunctionTrace.Enter("kvm_get_apic_interrupt");
        int vector = HasInterrupt();
        if (vector == -1)
            return -1;
        ClearIrr(vector);
        if (Vcpu.Hv is { } hv && hv.Synic.HasAutoEoiVector(vector))
        {
            // Over at once: the next interrupt may be let through as well.
            UpdatePpr();
            return vector;
        }

        SetIsr(vector);
        UpdatePpr(out uint _);
        return vector;
    }

    /// <summary>kvm_apic_accept_pic_intr: the 8259's INTR comes through, by LINT0 or because the APIC is off.</summary>
    [KernelFunction("kvm_apic_accept_pic_intr", File = "arch/x86/kvm/lapic.c")]
    public bool AcceptPicIntr()
    {
        FunctionTrace.Leaf("kvm_apic_accept_pic_intr");
        if (!HwEnabled)
            return true;
        uint lvt0 = GetReg(APIC_LVT0);
        return (lvt0 & APIC_LVT_MASKED) == 0 && (lvt0 & APIC_MODE_MASK) == APIC_DM_EXTINT;
    }

    /// <summary>kvm_apic_update_apicv: caches that APICv makes worthless, or whose values it left behind.</summary>
    public void UpdateApicv()
    {
        // Other vCPUs and devices may be posting still: always search.
        _irrPending = true;
        if (ApicvActive)
        {
            _isrCount = 1;
        }
        else
        {
            FunctionTrace.Leaf("count_vectors");
            _isrCount = 0;
            for (int vector = 0; vector < 256; vector += 32)
                _isrCount += BitOperations.PopCount(Word(APIC_ISR, vector));
        }

        _highestIsrCache = -1;
    }
}
