using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>Reset, the base MSR, identity and what userspace gets and sets.</remarks>
public sealed unsafe partial class KvmLapic
{
    // ---- registers that the map of all APICs depends on ----

    private void SetSpiv(uint value)
    {
        bool enabled = (value & APIC_SPIV_APIC_ENABLED) != 0;
        SetReg(APIC_SPIV, value);
        if (enabled != SwEnabled)
        {
            SwEnabled = enabled;
            Vcpu.Vm.ApicMapIsDirty();
        }

        if (enabled)
            Vcpu.MakeRequest(KVM_REQ_APF_READY);
    }

    private void SetXapicId(byte id)
    {
        SetReg(APIC_ID, (uint)id << 24);
        Vcpu.Vm.ApicMapIsDirty();
    }

    private void SetLdr(uint value)
    {
        SetReg(APIC_LDR, value);
        Vcpu.Vm.ApicMapIsDirty();
    }

    private void SetDfr(uint value)
    {
        SetReg(APIC_DFR, value);
        Vcpu.Vm.ApicMapIsDirty();
    }

    private static uint X2apicLdr(uint id) => (id >> 4 << 16) | (1u << (int)(id & 0xf));

    private void SetX2apicId(uint id)
    {
        SetReg(APIC_ID, id);
        SetReg(APIC_LDR, X2apicLdr(id));
        Vcpu.Vm.ApicMapIsDirty();
    }

    /// <summary>kvm_lapic_xapic_id_updated: an id of the guest's own choice is not what the processor would use.</summary>
    private void XapicIdUpdated()
    {
        if (HwEnabled && !X2apicMode && XapicId != (byte)Vcpu.VcpuId)
            Vcpu.Vm.SetOrClearApicvInhibit(ApicvInhibit.APICV_INHIBIT_REASON_APIC_ID_MODIFIED, true);
    }

    /// <summary>kvm_apic_set_version: directed EOI only where KVM has no IOAPIC, whose model lacks the EOI register.</summary>
    [KernelFunction("kvm_apic_set_version", File = "arch/x86/kvm/lapic.c")]
    public void SetVersion()
    {
        using var _ = FunctionTrace.Enter("kvm_apic_set_version");
        uint version = APIC_VERSION | ((uint)(NrLvtEntries - 1) << 16);
        if (Vcpu.GuestCpuidHas(X86Feature.X2APIC) && !Vcpu.Vm.IoapicInKernel)
            version |= APIC_LVR_DIRECTED_EOI;
        SetReg(APIC_LVR, version);
    }

    /// <summary>kvm_apic_after_set_mcg_cap: CMCI has an entry of its own.</summary>
    public void AfterSetMcgCap()
    {
        int entries = CalcNrLvtEntries(Vcpu);
        if (entries == NrLvtEntries)
            return;
        for (int i = NrLvtEntries; i < entries; i++)
            SetReg(LvtRegister(i), APIC_LVT_MASKED);
        NrLvtEntries = entries;
        SetVersion();
    }

    [KernelFunction("apic_manage_nmi_watchdog", File = "arch/x86/kvm/lapic.c")]
    private void ManageNmiWatchdog(uint lvt0)
    {
        FunctionTrace.Leaf("apic_manage_nmi_watchdog");
        bool nmi = (lvt0 & (APIC_MODE_MASK | APIC_LVT_MASKED)) == APIC_DM_NMI;
        if (nmi == _lvt0InNmiMode)
            return;
        _lvt0InNmiMode = nmi;
        Interlocked.Add(ref Vcpu.Vm.VapicsInNmiMode, nmi ? 1 : -1);
    }

    /// <summary>kvm_apic_nmi_wd_deliver: a tick of the PIT, in virtual wire mode.</summary>
    public void NmiWatchdogDeliver() => LocalDeliver(APIC_LVT0);

    // ---- base and reset ----

    /// <summary>kvm_lapic_set_base: the MSR's value; CPUID.1:EDX.APIC follows the enable bit. Also for a vCPU without an APIC.</summary>
    [KernelFunction("kvm_lapic_set_base", File = "arch/x86/kvm/lapic.c")]
    internal static void SetBase(X86Vcpu vcpu, ulong value)
    {
        using var _ = FunctionTrace.Enter("kvm_lapic_set_base");
        ulong changed = vcpu.ApicBase ^ value;
        vcpu.ApicBase = value;
        if ((changed & MSR_IA32_APICBASE_ENABLE) != 0)
            vcpu.UpdateCpuidRuntime();
        vcpu.Apic?.BaseChanged(changed, value);
    }

    private void BaseChanged(ulong changed, ulong value)
    {
        if ((changed & MSR_IA32_APICBASE_ENABLE) != 0)
        {
            if ((value & MSR_IA32_APICBASE_ENABLE) != 0)
            {
                SetXapicId((byte)Vcpu.VcpuId);
                Vcpu.MakeRequest(KVM_REQ_APF_READY);
            }
            else
            {
                Vcpu.Vm.ApicMapIsDirty();
            }
        }

        if ((changed & value & X2APIC_ENABLE) != 0)
            SetX2apicId((uint)Vcpu.VcpuId);
        if ((changed & (MSR_IA32_APICBASE_ENABLE | X2APIC_ENABLE)) != 0)
        {
            Vcpu.UpdateApicv();
            Vcpu.Ops.SetVirtualApicMode(Vcpu);
        }

        BaseAddress = value & MSR_IA32_APICBASE_BASE;
        if ((value & MSR_IA32_APICBASE_ENABLE) != 0 && BaseAddress != APIC_DEFAULT_PHYS_BASE)
            Vcpu.Vm.SetOrClearApicvInhibit(ApicvInhibit.APICV_INHIBIT_REASON_APIC_BASE_MODIFIED, true);
    }

    /// <summary>kvm_lapic_reset: RESET or INIT. A vCPU without an APIC only gets its base MSR.</summary>
    [KernelFunction("kvm_lapic_reset", File = "arch/x86/kvm/lapic.c")]
    internal static void Reset(X86Vcpu vcpu, bool initEvent)
    {
        using var _ = FunctionTrace.Enter("kvm_lapic_reset");
        vcpu.Ops.ApicvPreStateRestore(vcpu);
        if (!initEvent)
        {
            ulong value = APIC_DEFAULT_PHYS_BASE | MSR_IA32_APICBASE_ENABLE;
            if (vcpu.IsResetBsp)
                value |= MSR_IA32_APICBASE_BSP;
            SetBase(vcpu, value);
        }

        vcpu.Apic?.ResetRegisters(initEvent);
    }

    private void ResetRegisters(bool initEvent)
    {
        _timer.Cancel();

        // RESET gives the id back also to an APIC that was on already.
        if (!initEvent)
            SetXapicId((byte)Vcpu.VcpuId);
        SetVersion();
        for (int i = 0; i < NrLvtEntries; i++)
            SetReg(LvtRegister(i), APIC_LVT_MASKED);
        UpdateLvtt();
        if (Vcpu.IsResetBsp && Vcpu.Vm.CheckHasQuirk(KVM_X86_QUIRK_LINT0_REENABLED))
            SetReg(APIC_LVT0, APIC_DM_EXTINT);
        ManageNmiWatchdog(GetReg(APIC_LVT0));

        SetDfr(0xffffffff);
        SetSpiv(0xff);
        SetReg(APIC_TASKPRI, 0);
        if (!X2apicMode)
            SetLdr(0);
        SetReg(APIC_ESR, 0);
        if (X2apicMode)
        {
            SetReg64(APIC_ICR, 0);
        }
        else
        {
            SetReg(APIC_ICR, 0);
            SetReg(APIC_ICR2, 0);
        }

        SetReg(APIC_TDCR, 0);
        SetReg(APIC_TMICT, 0);
        for (int i = 0; i < 8; i++)
        {
            SetReg(APIC_IRR + (0x10 * i), 0);
            SetReg(APIC_ISR + (0x10 * i), 0);
            SetReg(APIC_TMR + (0x10 * i), 0);
        }

        UpdateApicv();
        UpdateDivideCount();
        Volatile.Write(ref _timerPending, 0);
        Vcpu.PvEoiMsrVal = 0;
        UpdatePpr();
        if (ApicvActive)
        {
            Vcpu.Ops.ApicvPostStateRestore(Vcpu);
            Vcpu.Ops.HwapicIrrUpdate(Vcpu, -1);
            Vcpu.Ops.HwapicIsrUpdate(Vcpu, -1);
        }

        Vcpu.ApicArbPrio = 0;
        Vcpu.ApicAttention = 0;
        Vcpu.Vm.RecalculateApicMap();
    }

    // ---- userspace ----

    /// <summary>kvm_apic_state_fixup: in x2APIC mode userspace sees an 8-bit id in bits 31:24, unless it asked for 32-bit ids; LDR follows the id.</summary>
    [KernelFunction("kvm_apic_state_fixup", File = "arch/x86/kvm/lapic.c")]
    private int StateFixup(byte* state, bool set)
    {
        FunctionTrace.Leaf("kvm_apic_state_fixup");
        if (!X2apicMode)
            return 0;
        uint* id = (uint*)(state + APIC_ID);
        if (Vcpu.Vm.X2apicFormat)
        {
            if (*id != (uint)Vcpu.VcpuId)
                return -EINVAL;
        }
        else
        {
            *id = set ? *id >> 24 : *id << 24;
        }

        if (set)
            *(uint*)(state + APIC_LDR) = X2apicLdr(*id);
        if (Vcpu.Ops.X2apicIcrIsSplit)
            return 0;
        if (set)
            *(ulong*)(state + APIC_ICR) = *(uint*)(state + APIC_ICR) | ((ulong)*(uint*)(state + APIC_ICR2) << 32);
        else
            *(uint*)(state + APIC_ICR2) = (uint)(*(ulong*)(state + APIC_ICR) >> 32);
        return 0;
    }

    /// <summary>KVM_GET_LAPIC: the current count as it is now. -EINVAL as <see cref="SetState"/>.</summary>
    [KernelFunction("kvm_apic_get_state", File = "arch/x86/kvm/lapic.c")]
    internal int GetState(ref kvm_lapic_state state)
    {
        using var _ = FunctionTrace.Enter("kvm_apic_get_state");
        fixed (kvm_lapic_state* to = &state)
        {
            Buffer.MemoryCopy(Regs, to, sizeof(kvm_lapic_state), sizeof(kvm_lapic_state));
            *(uint*)((byte*)to + APIC_TMCCT) = ReadValue(APIC_TMCCT);
            return StateFixup((byte*)to, false);
        }
    }

    /// <summary>KVM_SET_LAPIC: -EINVAL for an x2APIC id that is not the vCPU's, with 32-bit ids.</summary>
    [KernelFunction("kvm_apic_set_state", File = "arch/x86/kvm/lapic.c")]
    internal int SetState(kvm_lapic_state state)
    {
        using var _ = FunctionTrace.Enter("kvm_apic_set_state");
        byte* from = (byte*)&state;
        Vcpu.Ops.ApicvPreStateRestore(Vcpu);
        SetBase(Vcpu, Vcpu.ApicBase);
        SetSpiv(*(uint*)(from + APIC_SPIV));
        int r = StateFixup(from, true);
        if (r != 0)
        {
            Vcpu.Vm.RecalculateApicMap();
            return r;
        }

        Buffer.MemoryCopy(from, Regs, sizeof(kvm_lapic_state), sizeof(kvm_lapic_state));
        if (!X2apicMode)
            XapicIdUpdated();
        Vcpu.Vm.ApicMapIsDirty();
        Vcpu.Vm.RecalculateApicMap();
        SetVersion();
        UpdatePpr();
        CancelTimer();
        _expiredTscDeadline = 0;
        UpdateLvtt();
        ManageNmiWatchdog(GetReg(APIC_LVT0));
        UpdateDivideCount();
        StartTimer(APIC_TMCCT);
        SetReg(APIC_TMCCT, 0);
        UpdateApicv();
        if (ApicvActive)
        {
            Vcpu.Ops.ApicvPostStateRestore(Vcpu);
            Vcpu.Ops.HwapicIrrUpdate(Vcpu, FindHighestIrr());
            Vcpu.Ops.HwapicIsrUpdate(Vcpu, FindHighestIsr());
        }

        Vcpu.MakeRequest(KVM_REQ_EVENT);
        Vcpu.Vm.Ioapic?.RtcEoiTrackingRestoreOne(Vcpu);
        Vcpu.ApicArbPrio = 0;
        return 0;
    }

    // ---- INIT and SIPI ----

    /// <summary>kvm_apic_has_pending_init_or_sipi.</summary>
    public bool HasPendingInitOrSipi => Volatile.Read(ref PendingEvents) != 0;

    /// <summary>kvm_lapic_latched_init.</summary>
    public bool LatchedInit
    {
        get => (Volatile.Read(ref PendingEvents) & (1L << KVM_APIC_INIT)) != 0;
        set
        {
            if (value)
                Interlocked.Or(ref PendingEvents, 1L << KVM_APIC_INIT);
            else
                Interlocked.And(ref PendingEvents, ~(1L << KVM_APIC_INIT));
        }
    }

    /// <summary>test_and_clear_bit of an INIT or SIPI that waits.</summary>
    internal bool TakeEvent(int bit) => (Interlocked.And(ref PendingEvents, ~(1L << bit)) >> bit & 1) != 0;
}
