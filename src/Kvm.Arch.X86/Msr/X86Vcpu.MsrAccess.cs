using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>MSR accesses by the guest and by userspace: filter, checks that no vendor makes differently, exits to userspace.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>__kvm_set_msr: 0, or non-zero when the write fails.</summary>
    [KernelFunction("__kvm_set_msr", File = "arch/x86/kvm/x86.c")]
    private int SetMsrChecked(uint index, ulong data, bool hostInitiated)
    {
        using var _ = FunctionTrace.Enter("__kvm_set_msr");
        switch (index)
        {
            case MSR_FS_BASE or MSR_GS_BASE or MSR_KERNEL_GS_BASE or MSR_CSTAR or MSR_LSTAR:
                if (IsNoncanonicalAddress(data))
                    return 1;
                break;
            case MSR_IA32_SYSENTER_EIP or MSR_IA32_SYSENTER_ESP:
                // Intel faults on a non-canonical value and AMD ignores the upper half: make it canonical, so that neither entry fails.
                data = X86Bits.GetCanonical(data, VcpuVirtAddrBits);
                break;
            case MSR_TSC_AUX:
                if (!Arch.UserReturn.IsSupported(MSR_TSC_AUX))
                    return 1;
                if (!hostInitiated && !GuestCpuidHas(X86Feature.RDTSCP) && !GuestCpuidHas(X86Feature.RDPID))
                    return 1;
                if (GuestCpuidIsIntel && data >> 32 != 0)
                    return 1;
                data = (uint)data;
                break;
        }

        var msr = new MsrData(index, data, hostInitiated);
        return Ops.SetMsr(this, ref msr);
    }

    /// <summary>__kvm_get_msr: 0 and the value, or non-zero when the read fails.</summary>
    [KernelFunction("__kvm_get_msr", File = "arch/x86/kvm/x86.c")]
    public int GetMsrChecked(uint index, out ulong data, bool hostInitiated)
    {
        using var _ = FunctionTrace.Enter("__kvm_get_msr");
        data = 0;
        if (index == MSR_TSC_AUX)
        {
            if (!Arch.UserReturn.IsSupported(MSR_TSC_AUX))
                return 1;
            if (!hostInitiated && !GuestCpuidHas(X86Feature.RDTSCP) && !GuestCpuidHas(X86Feature.RDPID))
                return 1;
        }

        var msr = new MsrData(index, 0, hostInitiated);
        int ret = Ops.GetMsr(this, ref msr);
        if (ret == 0)
            data = msr.Data;
        return ret;
    }

    private int SetMsrIgnoredCheck(uint index, ulong data, bool hostInitiated)
    {
        int ret = SetMsrChecked(index, data, hostInitiated);
        if (ret == KVM_MSR_RET_UNSUPPORTED && Arch.MsrIgnoredCheck(index, data, true))
            ret = 0;
        return ret;
    }

    private int GetMsrIgnoredCheck(uint index, out ulong data, bool hostInitiated)
    {
        int ret = GetMsrChecked(index, out data, hostInitiated);
        if (ret == KVM_MSR_RET_UNSUPPORTED)
        {
            data = 0;
            if (Arch.MsrIgnoredCheck(index, 0, false))
                ret = 0;
        }

        return ret;
    }

    /// <summary>kvm_get_msr: a read as the guest would make it, the filter aside.</summary>
    public int GetMsr(uint index, out ulong data) => GetMsrIgnoredCheck(index, out data, false);

    /// <summary>kvm_set_msr: a write as the guest would make it, the filter aside.</summary>
    public int SetMsr(uint index, ulong data) => SetMsrIgnoredCheck(index, data, false);

    /// <summary>do_get_msr: a read by userspace.</summary>
    [KernelFunction("do_get_msr", File = "arch/x86/kvm/x86.c")]
    internal int DoGetMsr(uint index, out ulong data)
    {
        using var _ = FunctionTrace.Enter("do_get_msr");
        return GetMsrIgnoredCheck(index, out data, true);
    }

    internal int DoSetMsr(uint index, ulong data) => SetMsrIgnoredCheck(index, data, true);

    /// <summary>Whether userspace's filter lets the guest's access through. x2APIC registers are never filtered.</summary>
    /// <param name="index">The MSR.</param>
    /// <param name="type">KVM_MSR_FILTER_READ or KVM_MSR_FILTER_WRITE.</param>
    [KernelFunction("kvm_msr_allowed", File = "arch/x86/kvm/x86.c")]
    public bool MsrAllowed(uint index, uint type)
    {
        using var _ = FunctionTrace.Enter("kvm_msr_allowed");
        if (index is >= 0x800 and <= 0x8ff)
            return true;
        KvmX86MsrFilter? filter = Vm.MsrFilter;
        if (filter is null)
            return true;
        foreach (KvmX86MsrFilter.Range range in filter.Ranges)
        {
            if (index >= range.Base && index - range.Base < range.Nmsrs && (range.Flags & type) != 0)
            {
                uint bit = index - range.Base;
                return (range.Bitmap[bit >> 3] & (1 << (int)(bit & 7))) != 0;
            }
        }

        return filter.DefaultAllow;
    }

    private int GetMsrWithFilter(uint index, out ulong data)
    {
        data = 0;
        return MsrAllowed(index, KVM_MSR_FILTER_READ) ? GetMsrIgnoredCheck(index, out data, false) : KVM_MSR_RET_FILTERED;
    }

    private int SetMsrWithFilter(uint index, ulong data) =>
        MsrAllowed(index, KVM_MSR_FILTER_WRITE) ? SetMsrIgnoredCheck(index, data, false) : KVM_MSR_RET_FILTERED;

    /// <summary>kvm_msr_user_space: true when userspace asked for this kind of failure; KVM_RUN then exits.</summary>
    private bool MsrUserSpace(uint index, uint exitReason, ulong data, delegate*<X86Vcpu, int> completion, int r)
    {
        uint reason = r switch
        {
            KVM_MSR_RET_UNSUPPORTED => KVM_MSR_EXIT_REASON_UNKNOWN,
            KVM_MSR_RET_FILTERED => KVM_MSR_EXIT_REASON_FILTER,
            _ => KVM_MSR_EXIT_REASON_INVAL,
        };
        if ((Vm.UserSpaceMsrMask & reason) == 0)
            return false;
        Run->exit_reason = exitReason;
        Run->msr.error = 0;
        Run->msr.pad = default;
        Run->msr.reason = reason;
        Run->msr.index = index;
        Run->msr.data = data;
        CompleteUserspaceIo = completion;
        return true;
    }

    private void CompleteUserspaceRdmsr()
    {
        if (Run->msr.error != 0)
            return;
        Rax = (uint)Run->msr.data;
        Rdx = Run->msr.data >> 32;
    }

    private static int CompleteFastMsrAccess(X86Vcpu vcpu) => vcpu.Ops.CompleteEmulatedMsr(vcpu, vcpu.Run->msr.error);

    private static int CompleteFastRdmsr(X86Vcpu vcpu)
    {
        vcpu.CompleteUserspaceRdmsr();
        return CompleteFastMsrAccess(vcpu);
    }

    private static int CompleteEmulatedMsrAccess(X86Vcpu vcpu)
    {
        if (vcpu.Run->msr.error != 0)
        {
            vcpu.InjectGp(0);
            return 1;
        }

        return vcpu.EmulateInstruction(EmulType.EMULTYPE_NO_DECODE | EmulType.EMULTYPE_SKIP | EmulType.EMULTYPE_COMPLETE_USER_EXIT);
    }

    private static int CompleteEmulatedRdmsr(X86Vcpu vcpu)
    {
        vcpu.CompleteUserspaceRdmsr();
        return CompleteEmulatedMsrAccess(vcpu);
    }

    /// <summary>Exit handler of RDMSR.</summary>
    [KernelFunction("kvm_emulate_rdmsr", File = "arch/x86/kvm/x86.c")]
    public int EmulateRdmsr()
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_rdmsr");
        uint ecx = (uint)Rcx;
        int r = GetMsrWithFilter(ecx, out ulong data);
        if (r == 0)
        {
            if (Tracepoints.Enabled)
                TraceMsr(false, ecx, data, false);
            Rax = (uint)data;
            Rdx = data >> 32;
        }
        else
        {
            if (MsrUserSpace(ecx, KVM_EXIT_X86_RDMSR, 0, &CompleteFastRdmsr, r))
                return 0;
            if (Tracepoints.Enabled)
                TraceMsr(false, ecx, 0, true);
        }

        return Ops.CompleteEmulatedMsr(this, r);
    }

    /// <summary>Exit handler of WRMSR.</summary>
    [KernelFunction("kvm_emulate_wrmsr", File = "arch/x86/kvm/x86.c")]
    public int EmulateWrmsr()
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_wrmsr");
        uint ecx = (uint)Rcx;
        ulong data = ReadEdxEax();
        int r = SetMsrWithFilter(ecx, data);
        if (r != 0)
        {
            if (MsrUserSpace(ecx, KVM_EXIT_X86_WRMSR, data, &CompleteFastMsrAccess, r))
                return 0;
            if (r < 0)
                return r;
        }

        if (Tracepoints.Enabled)
            TraceMsr(true, ecx, data, r != 0);
        return Ops.CompleteEmulatedMsr(this, r);
    }

    private static void TraceMsr(bool write, uint index, ulong data, bool fault) =>
        Tracepoints.Emit("kvm_msr", $"msr_{(write ? "write" : "read")} {index:x} = 0x{data:x}{(fault ? " (#GP)" : "")}");

    /// <summary>
    /// RDMSR in the instruction emulator (emulator_get_msr_with_filter): 0, 1 (fault), or 2 when KVM_RUN exits to userspace first.
    /// </summary>
    internal int EmulatorGetMsrWithFilter(uint index, out ulong data)
    {
        int r = GetMsrWithFilter(index, out data);
        if (r != 0 && MsrUserSpace(index, KVM_EXIT_X86_RDMSR, 0, &CompleteEmulatedRdmsr, r))
            return 2;
        if (Tracepoints.Enabled)
            TraceMsr(false, index, r == 0 ? data : 0, r != 0);
        return r == 0 ? 0 : 1;
    }

    internal int EmulatorSetMsrWithFilter(uint index, ulong data)
    {
        int r = SetMsrWithFilter(index, data);
        if (r != 0 && MsrUserSpace(index, KVM_EXIT_X86_WRMSR, data, &CompleteEmulatedMsrAccess, r))
            return 2;
        if (Tracepoints.Enabled)
            TraceMsr(true, index, data, r != 0);
        return r == 0 ? 0 : 1;
    }

    /// <summary>Writes that need no interrupt-enabled host: an x2APIC's IPI to one target, and the deadline of a timer that the processor keeps.</summary>
    [KernelFunction("handle_fastpath_set_msr_irqoff", File = "arch/x86/kvm/x86.c")]
    public ExitFastpathCompletion HandleFastpathSetMsrIrqoff()
    {
        using var _ = FunctionTrace.Enter("handle_fastpath_set_msr_irqoff");
        if (Apic is not { } apic)
            return ExitFastpathCompletion.EXIT_FASTPATH_NONE;
        uint msr = (uint)Rcx;
        ulong data = ReadEdxEax();
        ExitFastpathCompletion ret = ExitFastpathCompletion.EXIT_FASTPATH_NONE;
        switch (msr)
        {
            case ApicConst.APIC_BASE_MSR + (ApicConst.APIC_ICR >> 4) when IsFastIpi(apic, data) && apic.X2apicIcrWrite(data):
                SkipInstruction();
                ret = ExitFastpathCompletion.EXIT_FASTPATH_EXIT_HANDLED;
                break;
            case MSR_IA32_TSC_DEADLINE when apic.CanUseHvTimer:
                apic.SetTscDeadlineMsr(data);
                SkipInstruction();
                ret = ExitFastpathCompletion.EXIT_FASTPATH_REENTER_GUEST;
                break;
        }

        if (ret != ExitFastpathCompletion.EXIT_FASTPATH_NONE && Tracepoints.Enabled)
            Tracepoints.Emit("kvm_msr", $"msr_write {msr:x} = 0x{data:x}");
        return ret;
    }

    private static bool IsFastIpi(KvmLapic apic, ulong icr) =>
        apic.X2apicMode && (icr & (ApicConst.APIC_SHORT_MASK | ApicConst.APIC_DEST_MASK | ApicConst.APIC_MODE_MASK)) == 0
        && (uint)(icr >> 32) != ApicConst.X2APIC_BROADCAST;

    /// <summary>kvm_valid_efer: no bit that KVM or the guest's CPUID lacks.</summary>
    [KernelFunction("kvm_valid_efer", File = "arch/x86/kvm/x86.c")]
    public bool ValidEfer(ulong efer) => (efer & Arch.EferReservedBits) == 0 && ValidEferForCpuid(efer);

    private bool ValidEferForCpuid(ulong efer)
    {
        if ((efer & EFER_FFXSR) != 0 && !GuestCpuidHas(X86Feature.FXSR_OPT))
            return false;
        if ((efer & EFER_SVME) != 0 && !GuestCpuidHas(X86Feature.SVM))
            return false;
        if ((efer & (EFER_LME | EFER_LMA)) != 0 && !GuestCpuidHas(X86Feature.LM))
            return false;
        return (efer & EFER_NX) == 0 || GuestCpuidHas(X86Feature.NX);
    }

    [KernelFunction("set_efer", File = "arch/x86/kvm/x86.c")]
    private int SetEfer(in MsrData msr)
    {
        ulong old = Efer;
        ulong efer = msr.Data;
        if ((efer & Arch.EferReservedBits) != 0)
            return 1;
        if (!msr.HostInitiated)
        {
            if (!ValidEferForCpuid(efer))
                return 1;
            if (IsPaging && (Efer & EFER_LME) != (efer & EFER_LME))
                return 1;
        }

        efer = (efer & ~EFER_LMA) | (Efer & EFER_LMA);
        int r = Ops.SetEfer(this, efer);
        if (r != 0)
            return r;
        if (((efer ^ old) & EFER_NX) != 0)
            MmuResetContext();
        return 0;
    }

    /// <summary>Exit handler of RDPMC.</summary>
    [KernelFunction("kvm_emulate_rdpmc", File = "arch/x86/kvm/x86.c")]
    public int EmulateRdpmc()
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_rdpmc");
        if (PmuRdpmc((uint)Rcx, out ulong data) != 0)
        {
            InjectGp(0);
            return 1;
        }

        Rax = (uint)data;
        Rdx = data >> 32;
        return SkipEmulatedInstruction();
    }
}
