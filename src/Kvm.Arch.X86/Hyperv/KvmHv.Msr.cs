using Kvm.Core.Tracing;
using static Kvm.Arch.X86.HvTscPageStatus;
using static Kvm.Arch.X86.HypervConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>MSRs of the whole partition. The accesses run under <see cref="Lock"/>.</remarks>
public sealed unsafe partial class KvmHv
{
    private readonly ulong[] _crashParam = new ulong[5];
    private ulong _hypercall, _crashCtl, _reenlightenmentControl, _tscEmulationControl, _tscEmulationStatus;

    /// <summary>hv_guest_os_id: what the guest says it is; 0 turns the interface's hypercalls off.</summary>
    public ulong GuestOsId { get; private set; }

    /// <summary>Registers of the synthetic debugger.</summary>
    internal KvmHvSyndbg Syndbg;

    /// <summary>kvm_hv_msr_partition_wide.</summary>
    [KernelFunction("kvm_hv_msr_partition_wide", File = "arch/x86/kvm/hyperv.c")]
    internal static bool IsPartitionWide(uint msr) => msr is HV_X64_MSR_GUEST_OS_ID or HV_X64_MSR_HYPERCALL or HV_X64_MSR_REFERENCE_TSC or HV_X64_MSR_TIME_REF_COUNT
        or (>= HV_X64_MSR_CRASH_P0 and <= HV_X64_MSR_CRASH_CTL) or HV_X64_MSR_RESET
        or HV_X64_MSR_REENLIGHTENMENT_CONTROL or HV_X64_MSR_TSC_EMULATION_CONTROL or HV_X64_MSR_TSC_EMULATION_STATUS || IsSyndbg(msr);

    internal static bool IsSyndbg(uint msr) => msr is HV_X64_MSR_SYNDBG_OPTIONS or (>= HV_X64_MSR_SYNDBG_CONTROL and <= HV_X64_MSR_SYNDBG_PENDING_BUFFER);

    /// <summary>kvm_hv_set_msr_pw: 0, or 1 when the write fails.</summary>
    [KernelFunction("kvm_hv_set_msr_pw", File = "arch/x86/kvm/hyperv.c")]
    internal int SetMsr(X86Vcpu vcpu, uint msr, ulong data, bool host)
    {
        switch (msr)
        {
            case HV_X64_MSR_GUEST_OS_ID:
                GuestOsId = data;
                if (data == 0)
                    _hypercall &= ~HV_X64_MSR_PAGE_ENABLE;
                return 0;
            case HV_X64_MSR_HYPERCALL:
                return SetHypercallPage(vcpu, data);
            case HV_X64_MSR_REFERENCE_TSC:
                SetReferenceTsc(vcpu, data, host);
                return 0;
            case >= HV_X64_MSR_CRASH_P0 and <= HV_X64_MSR_CRASH_P4:
                _crashParam[msr - HV_X64_MSR_CRASH_P0] = data;
                return 0;
            case HV_X64_MSR_CRASH_CTL:
                // The bit that says the capability is userspace's; a guest that writes it crashes.
                if (host)
                    _crashCtl = data & HV_CRASH_CTL_CRASH_NOTIFY;
                else if ((data & HV_CRASH_CTL_CRASH_NOTIFY) != 0)
                    vcpu.MakeRequest(KVM_REQ_HV_CRASH);
                return 0;
            case HV_X64_MSR_RESET:
                if (data == 1)
                    vcpu.MakeRequest(KVM_REQ_HV_RESET);
                return 0;
            case HV_X64_MSR_REENLIGHTENMENT_CONTROL:
                _reenlightenmentControl = data;
                return 0;
            case HV_X64_MSR_TSC_EMULATION_CONTROL:
                _tscEmulationControl = data;
                return 0;
            case HV_X64_MSR_TSC_EMULATION_STATUS:
                if (data != 0 && !host)
                    return 1;
                _tscEmulationStatus = data;
                return 0;
            case HV_X64_MSR_TIME_REF_COUNT:
                // Read-only; userspace's write of a saved value is ignored.
                return host ? 0 : 1;
            default:
                return SetSyndbg(vcpu, msr, data, host);
        }
    }

    /// <summary>
    /// HV_X64_MSR_HYPERCALL: without a guest OS id it stays off. The page gets this vendor's hypercall instruction and RET; 1 when there is no memory for it.
    /// </summary>
    private int SetHypercallPage(X86Vcpu vcpu, ulong data)
    {
        if (GuestOsId == 0)
            return 0;
        if ((data & HV_X64_MSR_PAGE_ENABLE) != 0)
        {
            byte* code = stackalloc byte[4];
            vcpu.Ops.PatchHypercall(vcpu, new Span<byte>(code, 3));
            code[3] = 0xc3;
            if (vcpu.WriteGuest(data & ~0xffful, code, 4).IsError)
                return 1;
        }

        _hypercall = data;
        return 0;
    }

    private void SetReferenceTsc(X86Vcpu vcpu, ulong data, bool host)
    {
        TscPage = data;
        if ((data & HV_X64_MSR_PAGE_ENABLE) == 0)
        {
            TscPageStatus = HV_TSC_PAGE_UNSET;
            return;
        }

        TscPageStatus = host ? HV_TSC_PAGE_HOST_CHANGED : HV_TSC_PAGE_GUEST_CHANGED;
        vcpu.MakeRequest(KVM_REQ_MASTERCLOCK_UPDATE);
    }

    /// <summary>kvm_hv_get_msr_pw: 0 and the value, or 1 when the read fails.</summary>
    [KernelFunction("kvm_hv_get_msr_pw", File = "arch/x86/kvm/hyperv.c")]
    internal int GetMsr(X86Vcpu vcpu, uint msr, out ulong data, bool host)
    {
        if (IsSyndbg(msr))
            return GetSyndbg(vcpu, msr, out data, host);
        data = msr switch
        {
            HV_X64_MSR_GUEST_OS_ID => GuestOsId,
            HV_X64_MSR_HYPERCALL => _hypercall,
            HV_X64_MSR_TIME_REF_COUNT => TimeRefCounter,
            HV_X64_MSR_REFERENCE_TSC => TscPage,
            >= HV_X64_MSR_CRASH_P0 and <= HV_X64_MSR_CRASH_P4 => _crashParam[msr - HV_X64_MSR_CRASH_P0],
            HV_X64_MSR_CRASH_CTL => _crashCtl,
            HV_X64_MSR_REENLIGHTENMENT_CONTROL => _reenlightenmentControl,
            HV_X64_MSR_TSC_EMULATION_CONTROL => _tscEmulationControl,
            HV_X64_MSR_TSC_EMULATION_STATUS => _tscEmulationStatus,
            _ => 0,
        };
        return 0;
    }

    // ---- synthetic debugger ----

    [KernelFunction("syndbg_set_msr", File = "arch/x86/kvm/hyperv.c")]
    private int SetSyndbg(X86Vcpu vcpu, uint msr, ulong data, bool host)
    {
        KvmVcpuHv hv = vcpu.Hv!;
        if (!hv.SyndbgEnabled && !host)
            return 1;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_syndbg_set_msr", $"vcpu_id {vcpu.VcpuId} vp_index {hv.VpIndex} msr 0x{msr:x} data 0x{data:x}");
        switch (msr)
        {
            case HV_X64_MSR_SYNDBG_CONTROL:
                Syndbg.Control = data;
                if (!host)
                    hv.SyndbgExit(msr, in Syndbg);
                break;
            case HV_X64_MSR_SYNDBG_STATUS:
                Syndbg.Status = data;
                break;
            case HV_X64_MSR_SYNDBG_SEND_BUFFER:
                Syndbg.SendPage = data;
                break;
            case HV_X64_MSR_SYNDBG_RECV_BUFFER:
                Syndbg.RecvPage = data;
                break;
            case HV_X64_MSR_SYNDBG_PENDING_BUFFER:
                Syndbg.PendingPage = data;
                if (!host)
                    hv.SyndbgExit(msr, in Syndbg);
                break;
            case HV_X64_MSR_SYNDBG_OPTIONS:
                Syndbg.Options = data;
                break;
        }

        return 0;
    }

    [KernelFunction("syndbg_get_msr", File = "arch/x86/kvm/hyperv.c")]
    private int GetSyndbg(X86Vcpu vcpu, uint msr, out ulong data, bool host)
    {
        data = 0;
        if (!vcpu.Hv!.SyndbgEnabled && !host)
            return 1;
        data = msr switch
        {
            HV_X64_MSR_SYNDBG_CONTROL => Syndbg.Control,
            HV_X64_MSR_SYNDBG_STATUS => Syndbg.Status,
            HV_X64_MSR_SYNDBG_SEND_BUFFER => Syndbg.SendPage,
            HV_X64_MSR_SYNDBG_RECV_BUFFER => Syndbg.RecvPage,
            HV_X64_MSR_SYNDBG_PENDING_BUFFER => Syndbg.PendingPage,
            _ => Syndbg.Options,
        };
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_syndbg_get_msr", $"vcpu_id {vcpu.VcpuId} vp_index {vcpu.HvVpIndex} msr 0x{msr:x} data 0x{data:x}");
        return 0;
    }
}
