using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <content>The state of the processor.</content>
public sealed unsafe partial class Vcpu
{
    /// <summary>General registers, RIP, RFLAGS.</summary>
    public kvm_regs Regs
    {
        get => Fd.Get<kvm_regs>(KVM_GET_REGS);
        set => Fd.Set(KVM_SET_REGS, value);
    }

    /// <summary>Segments, descriptor tables, control registers, EFER, APIC base.</summary>
    public kvm_sregs SRegs
    {
        get => Fd.Get<kvm_sregs>(KVM_GET_SREGS);
        set => Fd.Set(KVM_SET_SREGS, value);
    }

    /// <summary>As <see cref="SRegs"/>, with the PAE page-directory pointers instead of the pending interrupt. KVM_CAP_SREGS2.</summary>
    public kvm_sregs2 SRegs2
    {
        get => Fd.Get<kvm_sregs2>(KVM_GET_SREGS2);
        set => Fd.Set(KVM_SET_SREGS2, value);
    }

    /// <summary>x87 and SSE state in the FXSAVE sense: 8 registers of 80 bits, 16 of 128.</summary>
    public kvm_fpu Fpu
    {
        get => Fd.Get<kvm_fpu>(KVM_GET_FPU);
        set => Fd.Set(KVM_SET_FPU, value);
    }

    /// <summary>The XSAVE area of 4096 bytes, in the processor's standard format.</summary>
    public kvm_xsave Xsave
    {
        get => Fd.Get<kvm_xsave>(KVM_GET_XSAVE);
        set => Fd.Set(KVM_SET_XSAVE, value);
    }

    /// <summary>Extended control registers: XCR0.</summary>
    public kvm_xcrs Xcrs
    {
        get => Fd.Get<kvm_xcrs>(KVM_GET_XCRS);
        set => Fd.Set(KVM_SET_XCRS, value);
    }

    /// <summary>DR0 to DR3, DR6, DR7.</summary>
    public kvm_debugregs DebugRegs
    {
        get => Fd.Get<kvm_debugregs>(KVM_GET_DEBUGREGS);
        set => Fd.Set(KVM_SET_DEBUGREGS, value);
    }

    /// <summary>Pending and injected exceptions, interrupts, NMIs.</summary>
    public kvm_vcpu_events VcpuEvents
    {
        get => Fd.Get<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS);
        set => Fd.Set(KVM_SET_VCPU_EVENTS, value);
    }

    /// <summary><c>KVM_MP_STATE_RUNNABLE</c> and the like.</summary>
    public uint MpState
    {
        get => Fd.Get<kvm_mp_state>(KVM_GET_MP_STATE).mp_state;
        set => Fd.Set(KVM_SET_MP_STATE, new kvm_mp_state { mp_state = value });
    }

    /// <summary>The in-kernel local APIC's registers.</summary>
    public kvm_lapic_state Lapic
    {
        get => Fd.Get<kvm_lapic_state>(KVM_GET_LAPIC);
        set => Fd.Set(KVM_SET_LAPIC, value);
    }

    /// <summary>KVM_TPR_ACCESS_REPORTING: accesses to the task priority exit as <c>KVM_EXIT_TPR_ACCESS</c>.</summary>
    public void SetTprAccessReporting(bool enabled)
    {
        var control = new kvm_tpr_access_ctl { enabled = enabled ? 1u : 0u };
        Fd.Exchange(KVM_TPR_ACCESS_REPORTING, ref control);
    }

    /// <summary>KVM_SET_VAPIC_ADDR: where the guest keeps a copy of its task priority; 0 for nowhere.</summary>
    public void SetVapicAddr(ulong address) => Fd.Set(KVM_SET_VAPIC_ADDR, new kvm_vapic_addr { vapic_addr = address });

    /// <summary>The guest's time-stamp counter in kHz. Setting it to what the host can't scale to is EINVAL.</summary>
    public int TscKhz
    {
        get => (int)Fd.Ioctl(KVM_GET_TSC_KHZ, 0);
        set => Fd.Ioctl(KVM_SET_TSC_KHZ, (ulong)value);
    }

    /// <summary>KVM_SET_CPUID2: what the guest's CPUID answers.</summary>
    public void SetCpuid(ReadOnlySpan<kvm_cpuid_entry2> entries) => Cpuid.Set(Fd, entries);

    /// <summary>KVM_GET_CPUID2.</summary>
    public kvm_cpuid_entry2[] GetCpuid() => Cpuid.Get(Fd, KVM_GET_CPUID2);

    /// <summary>KVM_GET_MSRS: fills <c>data</c> for each <c>index</c>.</summary>
    /// <returns>How many entries were read, in order; an unknown MSR ends the reading.</returns>
    public int GetMsrs(Span<kvm_msr_entry> entries) => MsrAccess.Get(Fd, entries);

    /// <summary>KVM_SET_MSRS.</summary>
    /// <returns>How many entries were written, in order; a refused one ends the writing.</returns>
    public int SetMsrs(ReadOnlySpan<kvm_msr_entry> entries) => MsrAccess.Set(Fd, entries);

    /// <summary>One MSR.</summary>
    /// <exception cref="KvmException">EINVAL: KVM does not know the MSR.</exception>
    public ulong GetMsr(uint index)
    {
        Span<kvm_msr_entry> entry = [new kvm_msr_entry { index = index }];
        return GetMsrs(entry) == 1 ? entry[0].data : throw new KvmException($"KVM_GET_MSRS of 0x{index:x}", Errno.EINVAL);
    }

    /// <summary>One MSR.</summary>
    /// <exception cref="KvmException">EINVAL: KVM does not know the MSR, or refuses the value.</exception>
    public void SetMsr(uint index, ulong value)
    {
        ReadOnlySpan<kvm_msr_entry> entry = [new kvm_msr_entry { index = index, data = value }];
        if (SetMsrs(entry) != 1) throw new KvmException($"KVM_SET_MSRS of 0x{index:x}", Errno.EINVAL);
    }
}
