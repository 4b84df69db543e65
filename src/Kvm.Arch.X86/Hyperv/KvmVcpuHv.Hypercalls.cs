using System.Numerics;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.HypervConst;

namespace Kvm.Arch.X86;

/// <remarks>Hypercalls: in 64-bit mode input value RCX, parameters RDX and R8, result RAX; else EDX:EAX, EBX:ECX, EDI:ESI, result EDX:EAX.</remarks>
public sealed unsafe partial class KvmVcpuHv
{
    private const ulong InvalidInput = HV_STATUS_INVALID_HYPERCALL_INPUT;

    /// <summary>kvm_hv_hypercall: 1 to go on, 0 when userspace has to see it. #UD outside ring 0 and in real mode.</summary>
    [KernelFunction("kvm_hv_hypercall", File = "arch/x86/kvm/hyperv.c")]
    internal int Hypercall()
    {
        X86Vcpu vcpu = Vcpu;
        if (vcpu.Ops.GetCpl(vcpu) != 0 || !vcpu.IsProtmode)
        {
            vcpu.QueueException(UD_VECTOR);
            return 1;
        }

        var hc = default(HvHypercall);
        ReadRegisters(ref hc);
        if (Tracepoints.Enabled)
            TraceHypercall(in hc);
        if (!CheckHypercallAccess(hc.Code))
            return Complete(vcpu, HV_STATUS_ACCESS_DENIED);
        if ((hc.Param & HV_HYPERCALL_RSVD_MASK) != 0)
            return Complete(vcpu, InvalidInput);
        if (hc.Fast && hc.TakesXmm)
        {
            if (EnforceCpuid && (_cpuid.FeaturesEdx & HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE) == 0)
            {
                vcpu.QueueException(UD_VECTOR);
                return 1;
            }

            for (int i = 0; i < HV_HYPERCALL_MAX_XMM_REGISTERS; i++)
                vcpu.ReadXmm(i, out hc.Xmm[2 * i], out hc.Xmm[(2 * i) + 1]);
        }

        return Dispatch(ref hc, out ulong status) ? Complete(vcpu, status) : ExitToUserspace(in hc);
    }

    private void ReadRegisters(ref HvHypercall hc)
    {
        X86Vcpu vcpu = Vcpu;
        if (vcpu.Is64BitHypercall)
        {
            hc.Param = vcpu.Rcx;
            hc.Ingpa = vcpu.Rdx;
            hc.Outgpa = vcpu.Regs[(int)KvmReg.VCPU_REGS_R8];
            return;
        }

        hc.Param = (vcpu.Rdx << 32) | (uint)vcpu.Rax;
        hc.Ingpa = (vcpu.Rbx << 32) | (uint)vcpu.Rcx;
        hc.Outgpa = (vcpu.Rdi << 32) | (uint)vcpu.Rsi;
    }

    private static void TraceHypercall(in HvHypercall hc) =>
        Tracepoints.Emit("kvm_hv_hypercall", $"code 0x{hc.Code:x} {(hc.Fast ? "fast" : "slow")} var_cnt 0x{hc.VarCnt:x} rep_cnt 0x{hc.RepCnt:x} idx 0x{hc.RepIdx:x} in 0x{hc.Ingpa:x} out 0x{hc.Outgpa:x}");

    /// <summary>False when userspace has to answer.</summary>
    private bool Dispatch(ref HvHypercall hc, out ulong status)
    {
        status = HV_STATUS_SUCCESS;
        switch (hc.Code)
        {
            case HVCALL_NOTIFY_LONG_SPIN_WAIT:
                if (hc.Rep || hc.VarCnt != 0)
                    status = InvalidInput;
                else
                    Vcpu.OnSpin(true);
                return true;
            case HVCALL_SIGNAL_EVENT:
                status = hc.Rep || hc.VarCnt != 0 ? InvalidInput : SignalEvent(ref hc);

                // Userspace may know the connection.
                return status != HV_STATUS_INVALID_PORT_ID || !MayPost(in hc, out status);
            case HVCALL_POST_MESSAGE:
                return !MayPost(in hc, out status);
            case HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST or HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX:
                bool list = (hc.Code == HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX || hc.VarCnt == 0) && hc.RepCnt != 0 && hc.RepIdx == 0;
                status = list ? FlushTlb(in hc) : InvalidInput;
                return true;
            case HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE or HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX:
                status = (hc.Code == HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX || hc.VarCnt == 0) && !hc.Rep ? FlushTlb(in hc) : InvalidInput;
                return true;
            case HVCALL_SEND_IPI or HVCALL_SEND_IPI_EX:
                status = (hc.Code == HVCALL_SEND_IPI_EX || hc.VarCnt == 0) && !hc.Rep ? SendIpi(in hc) : InvalidInput;
                return true;
            case HVCALL_POST_DEBUG_DATA or HVCALL_RETRIEVE_DEBUG_DATA or HVCALL_RESET_DEBUG_SESSION:
                status = DebugStatus(in hc);
                return status != HV_STATUS_SUCCESS;
            default:
                status = HV_STATUS_INVALID_HYPERCALL_CODE;
                return true;
        }
    }

    /// <summary>Userspace is asked only if it has enabled the SynIC: then it knows messages.</summary>
    private bool MayPost(in HvHypercall hc, out ulong status)
    {
        bool may = !hc.Rep && hc.VarCnt == 0 && Synic.Active;
        status = may ? HV_STATUS_SUCCESS : InvalidInput;
        return may;
    }

    private ulong DebugStatus(in HvHypercall hc)
    {
        if (hc.Fast && hc.Code != HVCALL_RESET_DEBUG_SESSION)
            return HV_STATUS_INVALID_PARAMETER;
        if (!SyndbgEnabled)
            return HV_STATUS_INVALID_HYPERCALL_CODE;
        return (Partition.Syndbg.Options & HV_X64_SYNDBG_OPTION_USE_HCALLS) == 0 ? HV_STATUS_OPERATION_DENIED : HV_STATUS_SUCCESS;
    }

    private int ExitToUserspace(in HvHypercall hc)
    {
        X86Vcpu vcpu = Vcpu;
        vcpu.Run->exit_reason = KVM_EXIT_HYPERV;
        vcpu.Run->hyperv.type = KVM_EXIT_HYPERV_HCALL;
        vcpu.Run->hyperv.u.hcall.input = hc.Param;
        vcpu.Run->hyperv.u.hcall.@params[0] = hc.Ingpa;
        vcpu.Run->hyperv.u.hcall.@params[1] = hc.Outgpa;
        vcpu.CompleteUserspaceIo = &CompleteUserspace;
        return 0;
    }

    [KernelFunction("kvm_hv_hypercall_complete_userspace", File = "arch/x86/kvm/hyperv.c")]
    private static int CompleteUserspace(X86Vcpu vcpu) => Complete(vcpu, vcpu.Run->hyperv.u.hcall.result);

    [KernelFunction("kvm_hv_hypercall_complete", File = "arch/x86/kvm/hyperv.c")]
    private static int Complete(X86Vcpu vcpu, ulong result)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_hypercall_done", $"result 0x{result:x}");
        if (vcpu.Is64BitHypercall)
        {
            vcpu.Rax = result;
        }
        else
        {
            vcpu.Rdx = result >> 32;
            vcpu.Rax = (uint)result;
        }

        vcpu.Stat.Hypercalls++;
        return vcpu.SkipEmulatedInstruction();
    }

    /// <summary>hv_check_hypercall_access.</summary>
    [KernelFunction("hv_check_hypercall_access", File = "arch/x86/kvm/hyperv.c")]
    private bool CheckHypercallAccess(ushort code)
    {
        if (!EnforceCpuid)
            return true;
        bool exMasks = (_cpuid.EnlightenmentsEax & HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED) != 0;
        return code switch
        {
            HVCALL_NOTIFY_LONG_SPIN_WAIT => _cpuid.EnlightenmentsEbx is not (0 or uint.MaxValue),
            HVCALL_POST_MESSAGE => (_cpuid.FeaturesEbx & HV_POST_MESSAGES) != 0,
            HVCALL_SIGNAL_EVENT => (_cpuid.FeaturesEbx & HV_SIGNAL_EVENTS) != 0,

            // Without a debugger the call is allowed here, so that its code turns out invalid.
            HVCALL_POST_DEBUG_DATA or HVCALL_RETRIEVE_DEBUG_DATA or HVCALL_RESET_DEBUG_SESSION => !SyndbgEnabled || (_cpuid.FeaturesEbx & HV_DEBUGGING) != 0,
            HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX or HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX => exMasks && Recommended(HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED),
            HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST or HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE => Recommended(HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED),
            HVCALL_SEND_IPI_EX => exMasks && Recommended(HV_X64_CLUSTER_IPI_RECOMMENDED),
            HVCALL_SEND_IPI => Recommended(HV_X64_CLUSTER_IPI_RECOMMENDED),
            _ => true,
        };
    }

    private bool Recommended(uint bit) => (_cpuid.EnlightenmentsEax & bit) != 0;

    /// <summary>kvm_hvcall_signal_event: connection in bits 23:0, flag number in 47:32.</summary>
    [KernelFunction("kvm_hvcall_signal_event", File = "arch/x86/kvm/hyperv.c")]
    private ulong SignalEvent(ref HvHypercall hc)
    {
        if (!hc.Fast)
        {
            ulong gpa = hc.Ingpa;
            if ((gpa & 7) != 0)
                return HV_STATUS_INVALID_ALIGNMENT;
            ulong parameter;
            if (Vcpu.ReadGuest(gpa, &parameter, sizeof(ulong)).IsError)
                return HV_STATUS_INVALID_ALIGNMENT;
            hc.Ingpa = parameter;
        }

        // Flag numbers other than 0 have no eventfd.
        if ((hc.Ingpa & 0xffff_0000_0000) != 0)
            return HV_STATUS_INVALID_PORT_ID;
        if ((hc.Ingpa & ~(ulong)KVM_HYPERV_CONN_ID_MASK) != 0)
            return InvalidInput;
        return Partition.SignalConnection((uint)hc.Ingpa) ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PORT_ID;
    }

    // ---- sets of virtual processors ----

    /// <summary>kvm_get_sparse_vp_set: the banks of a set, from memory or from the XMM halves that the fixed parameters have left. False when they are not there.</summary>
    [KernelFunction("kvm_get_sparse_vp_set", File = "arch/x86/kvm/hyperv.c")]
    private bool GetSparseVpSet(in HvHypercall hc, int consumedHalves, Span<ulong> banks, ulong offset)
    {
        if (hc.VarCnt > 64)
            return false;

        // Further banks have no VP that KVM could have.
        int count = Math.Min(hc.VarCnt, (ushort)KvmHv.MaxSparseBanks);
        if (hc.Fast)
        {
            if (hc.VarCnt > (2 * HV_HYPERCALL_MAX_XMM_REGISTERS) - consumedHalves)
                return false;
            for (int i = 0; i < count; i++)
                banks[i] = hc.Xmm[consumedHalves + i];
            return true;
        }

        fixed (ulong* p = banks)
            return Vcpu.Vm.ReadGuest(hc.Ingpa + offset, p, (ulong)count * sizeof(ulong)).IsOk;
    }

    private static bool CountsAgree(in HvHypercall hc, ulong validBanks) => hc.VarCnt == BitOperations.PopCount(validBanks);

    /// <summary>kvm_hv_flush_tlb: always everything of the processors; the addresses and the address space are not looked at.</summary>
    [KernelFunction("kvm_hv_flush_tlb", File = "arch/x86/kvm/hyperv.c")]
    private ulong FlushTlb(in HvHypercall hc)
    {
        ulong done = (ulong)hc.RepCnt << HV_HYPERCALL_REP_COMP_OFFSET;
        Span<ulong> banks = stackalloc ulong[KvmHv.MaxSparseBanks];
        banks.Clear();
        ulong* p = stackalloc ulong[4];
        ulong validBanks = 1;
        bool all;
        if (hc.Code is HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST or HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE)
        {
            // address_space, flags, processor_mask
            if (hc.Fast)
                (p[0], p[1], p[2]) = (hc.Ingpa, hc.Outgpa, hc.Xmm[0]);
            else if (Vcpu.Vm.ReadGuest(hc.Ingpa, p, 24).IsError)
                return InvalidInput;
            if (Tracepoints.Enabled)
                Tracepoints.Emit("kvm_hv_flush_tlb", $"processor_mask 0x{p[2]:x} address_space 0x{p[0]:x} flags 0x{p[1]:x}");
            banks[0] = p[2];

            // Windows Server 2012 sends an empty mask and means all.
            all = (p[1] & HV_FLUSH_ALL_PROCESSORS) != 0 || p[2] == 0;
        }
        else
        {
            // address_space, flags, format, valid_bank_mask
            if (hc.Fast)
                (p[0], p[1], p[2], p[3]) = (hc.Ingpa, hc.Outgpa, hc.Xmm[0], hc.Xmm[1]);
            else if (Vcpu.Vm.ReadGuest(hc.Ingpa, p, 32).IsError)
                return InvalidInput;
            if (Tracepoints.Enabled)
                Tracepoints.Emit("kvm_hv_flush_tlb_ex", $"valid_bank_mask 0x{p[3]:x} format 0x{p[2]:x} address_space 0x{p[0]:x} flags 0x{p[1]:x}");
            validBanks = p[3];
            all = p[2] != HV_GENERIC_SET_SPARSE_4K;
            if (!CountsAgree(in hc, validBanks))
                return InvalidInput;
            if (!all && hc.VarCnt == 0)
                return HV_STATUS_SUCCESS | done;
            if (!all && !GetSparseVpSet(in hc, 2, banks, 32))
                return InvalidInput;
        }

        RequestFlush(all, banks, validBanks);
        return HV_STATUS_SUCCESS | done;
    }

    private void RequestFlush(bool all, ReadOnlySpan<ulong> banks, ulong validBanks)
    {
        if (all)
        {
            Vcpu.Vm.MakeAllCpusRequest(X86Request.KVM_REQ_TLB_FLUSH_GUEST);
            return;
        }

        Span<ulong> vcpus = stackalloc ulong[KvmHv.MaxSparseBanks];
        Partition.SparseSetToVcpuMask(banks, validBanks, vcpus);
        Vcpu.Vm.MakeVcpusRequestMask(X86Request.KVM_REQ_TLB_FLUSH_GUEST, vcpus);
    }

    /// <summary>kvm_hv_send_ipi: a fixed interrupt to each processor of a set.</summary>
    [KernelFunction("kvm_hv_send_ipi", File = "arch/x86/kvm/hyperv.c")]
    private ulong SendIpi(in HvHypercall hc)
    {
        if (!Vcpu.LapicInKernel)
            return InvalidInput;
        Span<ulong> banks = stackalloc ulong[KvmHv.MaxSparseBanks];
        banks.Clear();
        ulong* p = stackalloc ulong[3];
        ulong validBanks = 1;
        bool all = false;
        if (hc.Code == HVCALL_SEND_IPI)
        {
            // vector and reserved, cpu_mask
            if (hc.Fast)
                (p[0], p[1]) = (hc.Ingpa, hc.Outgpa);
            else if (Vcpu.Vm.ReadGuest(hc.Ingpa, p, 16).IsError)
                return InvalidInput;
            if (hc.Fast && hc.Ingpa >> 32 != 0)
                return InvalidInput;
            banks[0] = p[1];
            if (Tracepoints.Enabled)
                Tracepoints.Emit("kvm_hv_send_ipi", $"vector {(uint)p[0]:x} processor_mask 0x{p[1]:x}");
        }
        else
        {
            // vector and reserved, format, valid_bank_mask
            if (hc.Fast)
                (p[0], p[1], p[2]) = (hc.Ingpa, hc.Outgpa, hc.Xmm[0]);
            else if (Vcpu.Vm.ReadGuest(hc.Ingpa, p, 24).IsError)
                return InvalidInput;
            if (Tracepoints.Enabled)
                Tracepoints.Emit("kvm_hv_send_ipi_ex", $"vector {(uint)p[0]:x} format {p[1]:x} valid_bank_mask 0x{p[2]:x}");
            validBanks = p[2];
            all = p[1] == HV_GENERIC_SET_ALL;
            if (!CountsAgree(in hc, validBanks))
                return InvalidInput;
            if (!all && hc.VarCnt == 0)
                return HV_STATUS_SUCCESS;
            if (!all && !GetSparseVpSet(in hc, 1, banks, 24))
                return InvalidInput;
        }

        uint vector = (uint)p[0];
        if (vector is < HV_IPI_LOW_VECTOR or > HV_IPI_HIGH_VECTOR)
            return InvalidInput;
        SendIpiToMany((byte)vector, all, banks, validBanks);
        return HV_STATUS_SUCCESS;
    }

    /// <summary>kvm_send_ipi_to_many; it fails only where the APIC is off.</summary>
    [KernelFunction("kvm_send_ipi_to_many", File = "arch/x86/kvm/hyperv.c")]
    private void SendIpiToMany(byte vector, bool all, ReadOnlySpan<ulong> banks, ulong validBanks)
    {
        Span<ulong> vcpus = stackalloc ulong[KvmHv.MaxSparseBanks];
        if (!all)
            Partition.SparseSetToVcpuMask(banks, validBanks, vcpus);
        var irq = new KvmLapicIrq { DeliveryMode = ApicConst.APIC_DM_FIXED, Vector = vector };
        ReadOnlySpan<Core.KvmVcpu> targets = Vcpu.Vm.Vcpus;
        for (int i = 0; i < targets.Length; i++)
        {
            if (all || (vcpus[i / 64] >> (i & 63) & 1) != 0)
                ((X86Vcpu)targets[i]).Apic?.SetIrq(in irq, null);
        }
    }
}
