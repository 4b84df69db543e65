using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.HypervConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <summary>
/// One of a vCPU's four synthetic timers (struct kvm_vcpu_hv_stimer), in units of the reference time counter: one-shot at a time or periodic, by a message in a SINT's slot or
/// by an interrupt (direct mode). Its work is done by the vCPU's thread before an entry.
/// </summary>
/// <remarks>Configuration: enable 0, periodic 1, lazy 2, auto-enable 3, vector 11:4, direct mode 12, SINT 19:16.</remarks>
public sealed unsafe class KvmVcpuHvStimer
{
    private const ulong Enable = 1, Periodic = 2, AutoEnable = 8, DirectMode = 1 << 12;

    /// <summary>Header and struct hv_timer_message_payload.</summary>
    private const int MessageBytes = 16 + PayloadBytes, PayloadBytes = 24;

    private readonly KvmVcpuHv _hv;
    private readonly int _index;
    private readonly HrTimer _timer;
    private ulong _expTime;
    private bool _msgPending;

    [KernelFunction("stimer_init", File = "arch/x86/kvm/hyperv.c")]
    internal KvmVcpuHvStimer(KvmVcpuHv hv, int index)
    {
        (_hv, _index) = (hv, index);
        _timer = new HrTimer(hv.Vcpu.Vm.Host, Callback);
    }

    public ulong Config { get; private set; }

    public ulong Count { get; private set; }

    private bool Enabled => (Config & Enable) != 0;

    private bool IsPeriodic => (Config & Periodic) != 0;

    private bool IsDirect => (Config & DirectMode) != 0;

    private uint Sint => (uint)(Config >> 16) & 0xf;

    private X86Vcpu Vcpu => _hv.Vcpu;

    private ulong TimeNow => _hv.Partition.TimeRefCounter;

    /// <summary>A message of this timer waits until that slot is free.</summary>
    internal bool WaitsFor(int sint) => _msgPending && Enabled && !IsDirect && Sint == sint;

    /// <summary>stimer_mark_pending. Any thread.</summary>
    [KernelFunction("stimer_mark_pending", File = "arch/x86/kvm/hyperv.c")]
    internal void MarkPending(bool kick)
    {
        // The bit before the request: whoever serves the request finds it.
        _hv.MarkStimer(_index);
        Vcpu.MakeRequest(KVM_REQ_HV_STIMER);
        if (kick)
            Vcpu.Kick();
    }

    /// <summary>stimer_cleanup.</summary>
    [KernelFunction("stimer_cleanup", File = "arch/x86/kvm/hyperv.c")]
    internal void Cleanup()
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_stimer_cleanup", $"vcpu_id {Vcpu.VcpuId} timer {_index}");
        _timer.Cancel();
        _hv.TakeStimer(_index);
        _msgPending = false;
        _expTime = 0;
    }

    [KernelFunction("stimer_timer_callback", File = "arch/x86/kvm/hyperv.c")]
    private bool Callback()
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_stimer_callback", $"vcpu_id {Vcpu.VcpuId} timer {_index}");
        MarkPending(true);
        return false;
    }

    // ---- MSRs ----

    /// <summary>stimer_set_config: 0, or 1 when the write fails. A running timer whose message would go to SINT 0 is turned off.</summary>
    [KernelFunction("stimer_set_config", File = "arch/x86/kvm/hyperv.c")]
    internal int SetConfig(ulong config, bool host)
    {
        if (!_hv.Synic.Active && (!host || config != 0))
            return 1;
        if (!host && _hv.EnforceCpuid && (config & DirectMode) != 0 && (_hv.Cpuid.FeaturesEdx & HV_STIMER_DIRECT_MODE_AVAILABLE) == 0)
            return 1;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_stimer_set_config", $"vcpu_id {Vcpu.VcpuId} timer {_index} config 0x{config:x} host {(host ? 1 : 0)}");
        Cleanup();
        if (Enabled && (config & (DirectMode | 0xf0000)) == 0)
            config &= ~Enable;
        Config = config;
        if (Enabled)
            MarkPending(false);
        return 0;
    }

    /// <summary>stimer_set_count: for the guest 0 turns the timer off, and another count turns it on in auto-enable mode.</summary>
    [KernelFunction("stimer_set_count", File = "arch/x86/kvm/hyperv.c")]
    internal int SetCount(ulong count, bool host)
    {
        if (!_hv.Synic.Active && (!host || count != 0))
            return 1;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_stimer_set_count", $"vcpu_id {Vcpu.VcpuId} timer {_index} count {count} host {(host ? 1 : 0)}");
        Cleanup();
        Count = count;
        if (!host && count == 0)
            Config &= ~Enable;
        else if (!host && (Config & AutoEnable) != 0)
            Config |= Enable;
        if (Enabled)
            MarkPending(false);
        return 0;
    }

    // ---- running ----

    /// <summary>What kvm_hv_process_stimers does with a pending timer: expiry, and the next start.</summary>
    internal void Process()
    {
        if (!Enabled)
            return;
        if (_expTime != 0 && TimeNow >= _expTime)
            Expire();
        if (!Enabled || Count == 0)
            Cleanup();
        else if (!_msgPending)
            Start();
    }

    /// <summary>stimer_start. A periodic timer keeps its rhythm: periods that were missed are lost. A one-shot time that has passed is due at once.</summary>
    [KernelFunction("stimer_start", File = "arch/x86/kvm/hyperv.c")]
    private void Start()
    {
        ulong now = TimeNow;
        long ktime = Vcpu.Host.KtimeNs;
        if (IsPeriodic)
        {
            if (_expTime == 0)
                _expTime = now + Count;
            else if (now >= _expTime)
                _expTime = now + (Count - ((now - _expTime) % Count));
            if (Tracepoints.Enabled)
                Tracepoints.Emit("kvm_hv_stimer_start_periodic", $"vcpu_id {Vcpu.VcpuId} timer {_index} time_now {now} exp_time {_expTime}");
            _timer.Start(AddDelta(ktime, _expTime - now));
            return;
        }

        _expTime = Count;
        if (now >= Count)
        {
            MarkPending(false);
            return;
        }

        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_stimer_start_one_shot", $"vcpu_id {Vcpu.VcpuId} timer {_index} time_now {now} count {Count}");
        _timer.Start(AddDelta(ktime, Count - now));
    }

    /// <summary>stimer_add_delta: the host time that many units of 100 ns later; the end of time when that is later still.</summary>
    [KernelFunction("stimer_add_delta", File = "arch/x86/kvm/hyperv.c")]
    private static long AddDelta(long now, ulong delta) =>
        delta >= long.MaxValue / 100 || long.MaxValue - now < (long)delta * 100 ? long.MaxValue : now + ((long)delta * 100);

    /// <summary>stimer_expiration: a message that can't be delivered now stays pending until the guest has freed the slot.</summary>
    [KernelFunction("stimer_expiration", File = "arch/x86/kvm/hyperv.c")]
    private void Expire()
    {
        bool direct = IsDirect;
        _msgPending = true;
        int r = direct ? NotifyDirect() : SendMsg();
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_stimer_expiration", $"vcpu_id {Vcpu.VcpuId} timer {_index} direct {(direct ? 1 : 0)} send result {r}");
        if (r != 0)
            return;
        _msgPending = false;
        if (!IsPeriodic)
            Config &= ~Enable;
    }

    [KernelFunction("stimer_notify_direct", File = "arch/x86/kvm/hyperv.c")]
    private int NotifyDirect()
    {
        if (Vcpu.Apic is not { } apic)
            return 0;
        var irq = new KvmLapicIrq { DeliveryMode = APIC_DM_FIXED, Vector = (byte)(Config >> 4) };
        return apic.SetIrq(in irq, null) != 0 ? 0 : 1;
    }

    /// <summary>stimer_send_msg: HVMSG_TIMER_EXPIRED with the timer's number, when it was due and when it is delivered. Ticks of a periodic timer do not pile up.</summary>
    [KernelFunction("stimer_send_msg", File = "arch/x86/kvm/hyperv.c")]
    private int SendMsg()
    {
        byte* message = stackalloc byte[MessageBytes];
        new Span<byte>(message, MessageBytes).Clear();
        *(uint*)message = HVMSG_TIMER_EXPIRED;
        message[4] = PayloadBytes;
        *(uint*)(message + 16) = (uint)_index;
        *(ulong*)(message + 24) = _expTime;
        *(ulong*)(message + 32) = TimeNow;
        return _hv.Synic.DeliverMsg(Sint, message, MessageBytes, IsPeriodic);
    }
}
