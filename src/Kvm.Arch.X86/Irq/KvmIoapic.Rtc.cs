using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using Redirect = Kvm.Abi.kvm_ioapic_state.redirtbl_union;

namespace Kvm.Arch.X86;

/// <remarks>
/// The RTC's pin: edge-triggered, but userspace learns (KVM_IRQ_LINE_STATUS) whether the last interrupt was ended everywhere, because guests that miss ticks lose time.
/// </remarks>
public sealed unsafe partial class KvmIoapic
{
    /// <summary>rtc_status.dest_map: who got the last interrupt and has not ended it.</summary>
    private readonly KvmDestMap _rtcDestMap = new();

    private int _rtcPendingEoi;

    private void RtcEoiTrackingReset()
    {
        _rtcPendingEoi = 0;
        _rtcDestMap.Clear();
    }

    /// <summary>kvm_rtc_eoi_tracking_restore_one: a vCPU's APIC state was set.</summary>
    internal void RtcEoiTrackingRestoreOne(X86Vcpu vcpu)
    {
        using var held = _lock.Enter();
        RestoreOne(vcpu);
    }

    private void RestoreOne(X86Vcpu vcpu)
    {
        ref Redirect e = ref _redirtbl[RTC_GSI];
        if (vcpu.Apic is not { } apic || !apic.MatchDest(null, APIC_DEST_NOSHORT, e.fields.dest_id, DestMode(e.fields.dest_mode != 0)))
            return;
        bool pending = apic.PendingEoi(e.fields.vector);
        if (pending == _rtcDestMap.Test(vcpu.VcpuId))
            return;
        if (pending)
        {
            _rtcDestMap.Set(vcpu.VcpuId, e.fields.vector);
            _rtcPendingEoi++;
        }
        else
        {
            _rtcDestMap.Clear(vcpu.VcpuId);
            _rtcPendingEoi--;
            CheckPendingEoi();
        }
    }

    private void RtcEoiTrackingRestoreAll()
    {
        RtcEoiTrackingReset();
        foreach (KvmVcpu vcpu in _vm.Vcpus)
            RestoreOne((X86Vcpu)vcpu);
    }

    private void CheckPendingEoi()
    {
        if (_rtcPendingEoi < 0)
            RtcEoiTrackingRestoreAll();
    }

    [KernelFunction("rtc_irq_eoi", File = "arch/x86/kvm/ioapic.c")]
    private void RtcIrqEoi(X86Vcpu vcpu, int vector)
    {
        FunctionTrace.Leaf("rtc_irq_eoi");
        if (!_rtcDestMap.Test(vcpu.VcpuId) || vector != _rtcDestMap.Vector(vcpu.VcpuId))
            return;
        _rtcDestMap.Clear(vcpu.VcpuId);
        _rtcPendingEoi--;
        CheckPendingEoi();
    }

    /// <summary>ioapic_lazy_update_eoi: one target of the pin has ended its interrupt without being seen.</summary>
    private void LazyUpdateEoi(int pin)
    {
        ref Redirect e = ref _redirtbl[pin];
        foreach (KvmVcpu v in _vm.Vcpus)
        {
            if (v is not X86Vcpu { Apic: { } apic } vcpu)
                continue;

            // The entry's bit as it is: 1 is not APIC_DEST_LOGICAL, but it is not physical either.
            if (!apic.MatchDest(null, APIC_DEST_NOSHORT, e.fields.dest_id, e.fields.dest_mode) || apic.PendingEoi(e.fields.vector))
                continue;
            RtcIrqEoi(vcpu, e.fields.vector);
            break;
        }
    }
}
