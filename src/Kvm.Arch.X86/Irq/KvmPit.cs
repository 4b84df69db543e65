using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86;

/// <summary>
/// The 8254 interval timer of a VM with the speaker port (struct kvm_pit). Counters are computed from the time that has passed; only channel 0 has a timer, whose ticks
/// a thread turns into interrupts.
/// </summary>
/// <remarks>arch/x86/kvm/i8254.c; Intel 8254 data sheet. State is under <see cref="Lock"/>; reinjection's counters are atomic.</remarks>
[System.Diagnostics.CodeAnalysis.SuppressMessage("Design", "CA1001", Justification = "kvm_free_pit ends its worker, when the VM goes.")]
public sealed unsafe partial class KvmPit
{
    private const ulong KVM_PIT_FREQ = 1193181;
    private const ulong NSEC_PER_SEC = 1_000_000_000;
    private const ulong KVM_PIT_BASE_ADDRESS = 0x40, KVM_SPEAKER_BASE_ADDRESS = 0x61;
    private const int KVM_PIT_MEM_LENGTH = 4;

    private readonly X86Vm _vm;
    private readonly int _irqSourceId;
    private readonly HostWorker _worker;
    private readonly HostWork _expired;
    private readonly HrTimer _timer;
    private readonly AckNotifier _ackNotifier;
    private readonly MaskNotifier _maskNotifier;
    private readonly PitDevice _device;
    private readonly SpeakerDevice _speakerDevice;
    private kvm_pit_state _channels;
    private uint _flags;
    private long _period;
    private bool _isPeriodic;
    private int _reinject;

    /// <summary>Ticks whose interrupts wait for the acknowledgement of the one before.</summary>
    private int _pending;
    private int _irqAck;

    private KvmPit(X86Vm vm, int irqSourceId)
    {
        _vm = vm;
        _irqSourceId = irqSourceId;
        _worker = new HostWorker($"kvm-pit/{HostTask.Current.Process.Pid}");
        _expired = new HostWork(DoWork);
        _timer = new HrTimer(vm.Host, TimerFn);
        _ackNotifier = new AckNotifier(this) { Gsi = 0 };
        _maskNotifier = new MaskNotifier(this) { Irq = 0 };
        _device = new PitDevice(this);
        _speakerDevice = new SpeakerDevice(this);
    }

    public KernelMutex Lock { get; } = new();

    /// <summary>kvm_create_pit: null when there is no memory, no interrupt source left, no thread, or no room on the bus.</summary>
    [KernelFunction("kvm_create_pit", File = "arch/x86/kvm/i8254.c")]
    internal static KvmPit? Create(X86Vm vm, uint flags)
    {
        using var _ = FunctionTrace.Enter("kvm_create_pit");
        if (vm.Host.Faults.ShouldFail("kzalloc", "kvm_pit"))
            return null;
        int source = vm.RequestIrqSourceId();
        if (source < 0)
            return null;
        using (FunctionTrace.Enter("kthread_create_worker"))
        {
            if (vm.Host.Faults.ShouldFail("kthread_create", "kvm-pit"))
            {
                vm.FreeIrqSourceId(source);
                return null;
            }
        }

        var pit = new KvmPit(vm, source);
        using (pit.Lock.Enter())
            pit.Reset();
        pit.SetReinject(true);
        if (pit.Register((flags & KVM_PIT_SPEAKER_DUMMY) != 0))
            return pit;
        pit.SetReinject(false);
        pit._worker.Dispose();
        vm.FreeIrqSourceId(source);
        return null;
    }

    private bool Register(bool speaker)
    {
        using var slots = _vm.SlotsLock.Enter();
        if (_vm.IoBusRegisterDev(KvmBus.Pio, KVM_PIT_BASE_ADDRESS, KVM_PIT_MEM_LENGTH, _device).IsError)
            return false;
        if (!speaker || _vm.IoBusRegisterDev(KvmBus.Pio, KVM_SPEAKER_BASE_ADDRESS, 4, _speakerDevice).IsOk)
            return true;
        _vm.IoBusUnregisterDev(KvmBus.Pio, _device);
        return false;
    }

    /// <summary>kvm_free_pit.</summary>
    [KernelFunction("kvm_free_pit", File = "arch/x86/kvm/i8254.c")]
    internal static void Free(X86Vm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_free_pit");
        if (vm.Pit is not { } pit)
            return;
        using (vm.SlotsLock.Enter())
        {
            vm.IoBusUnregisterDev(KvmBus.Pio, pit._device);
            vm.IoBusUnregisterDev(KvmBus.Pio, pit._speakerDevice);
        }

        pit.SetReinject(false);
        pit._timer.Cancel();
        using (FunctionTrace.Enter("kthread_destroy_worker"))
        {
            pit._worker.Dispose();
            FunctionTrace.Leaf("kthread_stop");
        }

        vm.FreeIrqSourceId(pit._irqSourceId);
        vm.Pit = null;
    }

    private void Reset()
    {
        _flags = 0;
        for (int i = 0; i < 3; i++)
        {
            _channels.channels[i].mode = 0xff;
            _channels.channels[i].gate = i != 2 ? (byte)1 : (byte)0;
            LoadCount(i, 0);
        }

        ResetReinject();
    }

    // ---- ticks ----

    /// <summary>pit_timer_fn: on the timer's thread.</summary>
    [KernelFunction("pit_timer_fn", File = "arch/x86/kvm/i8254.c")]
    private bool TimerFn()
    {
        if (Volatile.Read(ref _reinject) != 0)
            Interlocked.Increment(ref _pending);
        _worker.Queue(_expired);
        if (!_isPeriodic)
            return false;
        _timer.Expires += _period;
        return true;
    }

    /// <summary>pit_do_work: a pulse on GSI 0, unless the last one waits for its acknowledgement; and the NMI watchdogs.</summary>
    [KernelFunction("pit_do_work", File = "arch/x86/kvm/i8254.c")]
    private void DoWork()
    {
        if (Volatile.Read(ref _reinject) != 0 && Interlocked.Exchange(ref _irqAck, 0) == 0)
            return;
        _vm.SetIrq(_irqSourceId, 0, 1, false);
        _vm.SetIrq(_irqSourceId, 0, 0, false);
        if (Volatile.Read(ref _vm.VapicsInNmiMode) <= 0)
            return;
        foreach (KvmVcpu vcpu in _vm.Vcpus)
            ((X86Vcpu)vcpu).Apic?.NmiWatchdogDeliver();
    }

    private sealed class AckNotifier(KvmPit pit) : KvmIrqAckNotifier
    {
        [KernelFunction("kvm_pit_ack_irq", File = "arch/x86/kvm/i8254.c")]
        public override void IrqAcked()
        {
            FunctionTrace.Leaf("kvm_pit_ack_irq");

            // The acknowledgement before the count is read; the timer counts before the worker takes the acknowledgement.
            Interlocked.Exchange(ref pit._irqAck, 1);
            int pending = Volatile.Read(ref pit._pending);
            while (pending > 0)
            {
                int seen = Interlocked.CompareExchange(ref pit._pending, pending - 1, pending);
                if (seen == pending)
                    break;
                pending = seen;
            }

            if (pending > 1)
                pit._worker.Queue(pit._expired);
        }
    }

    private sealed class MaskNotifier(KvmPit pit) : KvmIrqMaskNotifier
    {
        public override void MaskChanged(bool masked)
        {
            if (!masked)
                pit.ResetReinject();
        }
    }

    private void ResetReinject()
    {
        Volatile.Write(ref _pending, 0);
        Volatile.Write(ref _irqAck, 1);
    }

    /// <summary>kvm_pit_set_reinject: whether ticks that come while one waits are delivered later or lost. Needs EOIs to be seen.</summary>
    [KernelFunction("kvm_pit_set_reinject", File = "arch/x86/kvm/i8254.c")]
    internal void SetReinject(bool reinject)
    {
        using var _ = FunctionTrace.Enter("kvm_pit_set_reinject");
        if (Volatile.Read(ref _reinject) != 0 == reinject)
            return;
        _vm.SetOrClearApicvInhibit(ApicvInhibit.APICV_INHIBIT_REASON_PIT_REINJ, reinject);
        if (reinject)
        {
            ResetReinject();
            _vm.RegisterIrqAckNotifier(_ackNotifier);
            _vm.RegisterIrqMaskNotifier(_maskNotifier);
        }
        else
        {
            _vm.UnregisterIrqAckNotifier(_ackNotifier);
            _vm.UnregisterIrqMaskNotifier(_maskNotifier);
        }

        Volatile.Write(ref _reinject, reinject ? 1 : 0);
    }

    private void CreateTimer(uint value, bool periodic)
    {
        if (!_vm.IoapicInKernel || (_flags & KVM_PIT_FLAGS_HPET_LEGACY) != 0)
            return;
        long interval = (long)MulDiv(value, NSEC_PER_SEC, KVM_PIT_FREQ);
        _timer.Cancel();
        _worker.Flush(_expired);
        _period = interval;
        _isPeriodic = periodic;
        ResetReinject();
        long min = _vm.Arch.Params.MinTimerPeriodUs * 1000L;
        if (periodic && _period < min)
        {
            _vm.Host.Log.Ratelimited(LogLevel.Info, "create_pit_timer", $"kvm: requested {_period} ns i8254 timer period limited to {min} ns");
            _period = min;
        }

        _timer.Start(_vm.Host.KtimeNs + interval);
    }

    private void DestroyTimer()
    {
        _timer.Cancel();
        _worker.Flush(_expired);
    }

    /// <summary>__kvm_migrate_pit_timer: the timer goes where vCPU 0 runs; timers of the model have no CPU.</summary>
    [KernelFunction("__kvm_migrate_pit_timer", File = "arch/x86/kvm/i8254.c")]
    internal static void Migrate(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("__kvm_migrate_pit_timer");
        if (vcpu.VcpuId != 0 || vcpu.Vm.Pit is not { } pit)
            return;
        using var held = pit.Lock.Enter();
        if (pit._timer.Cancel())
            pit._timer.Start(pit._timer.Expires);
    }

    /// <summary>mul_u64_u32_div.</summary>
    private static ulong MulDiv(ulong a, ulong multiplier, ulong divisor) => (ulong)((UInt128)a * multiplier / divisor);

    // ---- userspace ----

    internal kvm_pit_state GetState()
    {
        using var held = Lock.Enter();
        return _channels;
    }

    /// <summary>KVM_SET_PIT: counting begins anew in every channel.</summary>
    internal void SetState(in kvm_pit_state state)
    {
        using var held = Lock.Enter();
        _channels = state;
        for (int i = 0; i < 3; i++)
            LoadCount(i, state.channels[i].count);
    }

    internal kvm_pit_state2 GetState2()
    {
        using var held = Lock.Enter();
        return new kvm_pit_state2 { channels = _channels.channels, flags = _flags };
    }

    /// <summary>KVM_SET_PIT2: entering the HPET's legacy mode stops channel 0's timer.</summary>
    internal void SetState2(in kvm_pit_state2 state)
    {
        using var held = Lock.Enter();
        bool start = (_flags & KVM_PIT_FLAGS_HPET_LEGACY) == 0 && (state.flags & KVM_PIT_FLAGS_HPET_LEGACY) != 0;
        _channels.channels = state.channels;
        _flags = state.flags;
        for (int i = 0; i < 3; i++)
        {
            byte mode = _channels.channels[i].mode;
            bool disable = start && i == 0;
            if (disable)
                _channels.channels[0].mode = 0xff;
            LoadCount(i, _channels.channels[i].count);
            if (disable)
                _channels.channels[0].mode = mode;
        }
    }
}
