using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>Whether the processor's interrupt virtualization may be used for this VM.</remarks>
public partial class X86Vm
{
    internal readonly KernelRwLock ApicvUpdateLock = new();

    /// <summary>kvm_apicv_activated: no reason against it.</summary>
    [KernelFunction("kvm_apicv_activated", File = "arch/x86/kvm/x86.c")]
    public bool ApicvActivated
    {
        get
        {
            FunctionTrace.Leaf("kvm_apicv_activated");
            return Volatile.Read(ref ApicvInhibitReasons) == 0;
        }
    }

    /// <summary>kvm_set_or_clear_apicv_inhibit.</summary>
    [KernelFunction("kvm_set_or_clear_apicv_inhibit", File = "arch/x86/kvm/x86.c")]
    internal void SetOrClearApicvInhibit(ApicvInhibit reason, bool set)
    {
        using var _ = FunctionTrace.Enter("kvm_set_or_clear_apicv_inhibit");
        if (!Arch.EnableApicv)
            return;
        ApicvUpdateLock.WriteLock();
        SetOrClearApicvInhibitLocked(reason, set);
        ApicvUpdateLock.WriteUnlock();
    }

    /// <summary>
    /// __kvm_set_or_clear_apicv_inhibit. When the first reason comes or the last goes every vCPU leaves the guest before the reasons change, and waits for the lock
    /// before it enters again.
    /// </summary>
    [KernelFunction("__kvm_set_or_clear_apicv_inhibit", File = "arch/x86/kvm/x86.c")]
    internal void SetOrClearApicvInhibitLocked(ApicvInhibit reason, bool set)
    {
        using var _ = FunctionTrace.Enter("__kvm_set_or_clear_apicv_inhibit");
        if (!Arch.Ops.CheckApicvInhibitReasons(reason))
            return;
        ulong old = ApicvInhibitReasons;
        ulong next = old;
        FunctionTrace.Leaf("set_or_clear_apicv_inhibit");
        if (set)
            next |= 1ul << (int)reason;
        else
            next &= ~(1ul << (int)reason);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_apicv_inhibit_changed", $"{(set ? "set" : "cleared")} reason={(int)reason}, inhibits=0x{next:x}");
        bool toggles = (old == 0) != (next == 0);
        if (toggles)
            MakeAllCpusRequest(KVM_REQ_APICV_UPDATE);
        Volatile.Write(ref ApicvInhibitReasons, next);

        // The APIC's page must be looked at again: it is a device now.
        if (toggles && next != 0)
        {
            const ulong gfn = APIC_DEFAULT_PHYS_BASE >> 12;
            MmuLock.WriteLock();
            if (Mmu.ZapLeafs(gfn, gfn + 1))
                FlushRemoteTlbs();
            MmuLock.WriteUnlock();
        }
    }

    /// <summary>kvm_arch_vcpu_guestdbg_update_apicv_inhibit: a debugger that blocks interrupts must see them first.</summary>
    internal void UpdateBlockIrqInhibit()
    {
        if (!Arch.EnableApicv)
            return;
        ApicvUpdateLock.WriteLock();
        bool block = false;
        foreach (KvmVcpu vcpu in Vcpus)
            block |= (vcpu.GuestDebug & Abi.Uapi.KVM_GUESTDBG_BLOCKIRQ) != 0;
        SetOrClearApicvInhibitLocked(ApicvInhibit.APICV_INHIBIT_REASON_BLOCKIRQ, block);
        ApicvUpdateLock.WriteUnlock();
    }
}
