using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.Errnos;
using Redirect = Kvm.Abi.kvm_ioapic_state.redirtbl_union;

namespace Kvm.Arch.X86;

/// <summary>The IOAPIC of a VM (struct kvm_ioapic): 24 pins, at 0xfec00000. Everything is under its lock, which is dropped around acknowledgement notifiers.</summary>
/// <remarks>arch/x86/kvm/ioapic.c; Intel 82093AA data sheet.</remarks>
public sealed unsafe partial class KvmIoapic
{
    public const int IOAPIC_NUM_PINS = 24;
    public const ulong IOAPIC_DEFAULT_BASE_ADDRESS = 0xfec00000;
    public const int IOAPIC_MEM_LENGTH = 0x100;

    /// <summary>The pin of the real-time clock: whoever raises it wants to know whether the guest has seen the last one.</summary>
    private const int RTC_GSI = 8;
    private const int IOAPIC_SUCCESSIVE_IRQ_MAX_COUNT = 10000;
    private const long EoiInjectDelayNs = 10_000_000;

    private readonly X86Vm _vm;
    private readonly RawSpinLock _lock = new();
    private readonly Redirect[] _redirtbl = new Redirect[IOAPIC_NUM_PINS];
    private readonly ulong[] _irqStates = new ulong[IOAPIC_NUM_PINS];
    private readonly uint[] _irqEoi = new uint[IOAPIC_NUM_PINS];
    private readonly HrTimer _eoiInjectTimer;
    private readonly HostWork _eoiInject;
    private readonly MmioDevice _device;
    private ulong _baseAddress = IOAPIC_DEFAULT_BASE_ADDRESS;
    private uint _ioregsel;
    private uint _id;
    private uint _irr;

    /// <summary>Edge interrupts of IRR that were delivered: userspace does not see them.</summary>
    private uint _irrDelivered;

    private KvmIoapic(X86Vm vm)
    {
        _vm = vm;
        _device = new MmioDevice(this);
        _eoiInject = new HostWork(EoiInjectWork);
        _eoiInjectTimer = new HrTimer(vm.Host, () =>
        {
            vm.Host.ScheduleWork(_eoiInject);
            return false;
        });
        for (int i = 0; i < IOAPIC_NUM_PINS; i++)
            _redirtbl[i].fields.mask = 1;
    }

    /// <summary>-ENOMEM, -ENOSPC.</summary>
    [KernelFunction("kvm_ioapic_init", File = "arch/x86/kvm/ioapic.c")]
    internal static KvmResult Init(X86Vm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_ioapic_init");
        if (vm.Host.Faults.ShouldFail("kzalloc", "kvm_ioapic"))
            return -ENOMEM;
        var ioapic = new KvmIoapic(vm);
        vm.Ioapic = ioapic;
        KvmResult r;
        using (vm.SlotsLock.Enter())
            r = vm.IoBusRegisterDev(KvmBus.Mmio, ioapic._baseAddress, IOAPIC_MEM_LENGTH, ioapic._device);
        if (r.IsError)
            vm.Ioapic = null;
        return r;
    }

    [KernelFunction("kvm_ioapic_destroy", File = "arch/x86/kvm/ioapic.c")]
    internal static void Destroy(X86Vm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_ioapic_destroy");
        if (vm.Ioapic is not { } ioapic)
            return;
        ioapic._eoiInjectTimer.Cancel();
        vm.Host.SystemWorkqueue.Flush(ioapic._eoiInject);
        using (vm.SlotsLock.Enter())
            vm.IoBusUnregisterDev(KvmBus.Mmio, ioapic._device);
        vm.Ioapic = null;
    }

    // ---- lines ----

    /// <summary>kvm_ioapic_set_irq: a source raises or lowers a pin.</summary>
    [KernelFunction("kvm_ioapic_set_irq", File = "arch/x86/kvm/ioapic.c")]
    public int SetIrq(int pin, int sourceId, bool level, bool lineStatus)
    {
        using var _ = FunctionTrace.Enter("kvm_ioapic_set_irq");
        using var held = _lock.Enter();
        return SetIrqLocked(pin, X86Vm.IrqLineState(ref _irqStates[pin], sourceId, level), lineStatus);
    }

    [KernelFunction("ioapic_set_irq", File = "arch/x86/kvm/ioapic.c")]
    private int SetIrqLocked(int pin, bool level, bool lineStatus)
    {
        using var _ = FunctionTrace.Enter("ioapic_set_irq");
        Redirect entry = _redirtbl[pin];
        int ret = SetLevel(pin, level, lineStatus, edge: entry.fields.trig_mode == 0);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_ioapic_set_irq", $"pin {pin} {Describe(entry)}{(ret == 0 ? " (coalesced)" : "")}");
        return ret;
    }

    private int SetLevel(int pin, bool level, bool lineStatus, bool edge)
    {
        uint mask = 1u << pin;
        if (!level)
        {
            _irr &= ~mask;
            return 1;
        }

        // With APICv the EOI of an edge interrupt is not seen: make up for it now.
        if (edge && _vm.ApicvActivated)
            LazyUpdateEoi(pin);
        if (pin == RTC_GSI && lineStatus && _rtcPendingEoi > 0)
            return 0;

        uint old = _irr;
        _irr |= mask;
        if (edge)
        {
            _irrDelivered &= ~mask;
            if (old == _irr)
                return 0;
        }

        return Service(pin, lineStatus);
    }

    /// <summary>ioapic_service: sends the pin's message; -1 when it is masked or waits for its EOI.</summary>
    [KernelFunction("ioapic_service", File = "arch/x86/kvm/ioapic.c")]
    private int Service(int pin, bool lineStatus)
    {
        using var _ = FunctionTrace.Enter("ioapic_service");
        ref Redirect entry = ref _redirtbl[pin];
        bool levelTriggered = entry.fields.trig_mode != 0;
        if (entry.fields.mask != 0 || (levelTriggered && entry.fields.remote_irr != 0))
            return -1;
        var irq = new KvmLapicIrq
        {
            DestId = entry.fields.dest_id,
            Vector = entry.fields.vector,
            DestMode = DestMode(entry.fields.dest_mode != 0),
            TrigMode = entry.fields.trig_mode,
            DeliveryMode = entry.fields.delivery_mode << 8,
            Level = true,
        };
        if (!levelTriggered)
            _irrDelivered |= 1u << pin;

        int ret;
        if (pin == RTC_GSI && lineStatus)
        {
            ret = _vm.IrqDeliveryToApic(null, ref irq, _rtcDestMap);
            _rtcPendingEoi = Math.Max(0, ret);
        }
        else
        {
            ret = _vm.IrqDeliveryToApic(null, ref irq, null);
        }

        if (ret != 0 && levelTriggered)
            entry.fields.remote_irr = 1;
        return ret;
    }

    /// <summary>kvm_ioapic_clear_all: a source lets go of all lines; their requests stay.</summary>
    [KernelFunction("kvm_ioapic_clear_all", File = "arch/x86/kvm/ioapic.c")]
    internal void ClearAll(int sourceId)
    {
        using var _ = FunctionTrace.Enter("kvm_ioapic_clear_all");
        using var held = _lock.Enter();
        for (int i = 0; i < IOAPIC_NUM_PINS; i++)
            _irqStates[i] &= ~(1ul << sourceId);
    }

    // ---- end of interrupt ----

    /// <summary>kvm_ioapic_update_eoi: a local APIC ended an interrupt with this vector.</summary>
    [KernelFunction("kvm_ioapic_update_eoi", File = "arch/x86/kvm/ioapic.c")]
    public void UpdateEoi(X86Vcpu vcpu, int vector, bool levelTriggered)
    {
        using var _ = FunctionTrace.Enter("kvm_ioapic_update_eoi");
        _lock.Lock();
        RtcIrqEoi(vcpu, vector);
        for (int pin = 0; pin < IOAPIC_NUM_PINS; pin++)
        {
            if (_redirtbl[pin].fields.vector == vector)
                UpdateEoiOne(vcpu, pin, levelTriggered);
        }

        _lock.Unlock();
    }

    private void UpdateEoiOne(X86Vcpu vcpu, int pin, bool levelTriggered)
    {
        // Notifiers come back to this IOAPIC. Remote IRR is cleared after them: what they raise meanwhile stays in IRR and is sent below.
        _lock.Unlock();
        _vm.NotifyAckedIrq(KVM_IRQCHIP_IOAPIC, (uint)pin);
        _lock.Lock();

        if (!levelTriggered || (vcpu.Apic!.GetReg(APIC_SPIV) & APIC_SPIV_DIRECTED_EOI) != 0)
            return;
        ref Redirect entry = ref _redirtbl[pin];
        entry.fields.remote_irr = 0;
        if (entry.fields.mask != 0 || (_irr & (1u << pin)) == 0)
        {
            _irqEoi[pin] = 0;
            return;
        }

        if (++_irqEoi[pin] != IOAPIC_SUCCESSIVE_IRQ_MAX_COUNT)
        {
            Service(pin, false);
            return;
        }

        // A guest that never lowers the line gets a pause, so that it makes some progress.
        _irqEoi[pin] = 0;
        if (!_eoiInjectTimer.Active)
            _eoiInjectTimer.Start(_vm.Host.KtimeNs + EoiInjectDelayNs);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_ioapic_delayed_eoi_inj", Describe(entry));
    }

    [KernelFunction("kvm_ioapic_eoi_inject_work", File = "arch/x86/kvm/ioapic.c")]
    private void EoiInjectWork()
    {
        using var held = _lock.Enter();
        for (int pin = 0; pin < IOAPIC_NUM_PINS; pin++)
        {
            ref Redirect entry = ref _redirtbl[pin];
            if (entry.fields.trig_mode != 0 && (_irr & (1u << pin)) != 0 && entry.fields.remote_irr == 0)
                Service(pin, false);
        }
    }

    /// <summary>kvm_ioapic_scan_entry: which vectors of this vCPU the IOAPIC wants to hear the end of.</summary>
    [KernelFunction("kvm_ioapic_scan_entry", File = "arch/x86/kvm/ioapic.c")]
    internal void ScanEntry(X86Vcpu vcpu, Span<ulong> handledVectors)
    {
        using var _ = FunctionTrace.Enter("kvm_ioapic_scan_entry");
        using var held = _lock.Enter();
        if (_rtcDestMap.Test(vcpu.VcpuId))
            Set(handledVectors, _rtcDestMap.Vector(vcpu.VcpuId));
        for (int pin = 0; pin < IOAPIC_NUM_PINS; pin++)
        {
            ref Redirect entry = ref _redirtbl[pin];
            if (entry.fields.trig_mode == 0 && !_vm.IrqHasNotifier(KVM_IRQCHIP_IOAPIC, (uint)pin) && pin != RTC_GSI)
                continue;
            if (vcpu.Apic!.MatchDest(null, APIC_DEST_NOSHORT, entry.fields.dest_id, DestMode(entry.fields.dest_mode != 0)) || vcpu.Apic.PendingEoi(entry.fields.vector))
                Set(handledVectors, entry.fields.vector);
        }

        static void Set(Span<ulong> bitmap, int vector) => bitmap[vector >> 6] |= 1ul << (vector & 63);
    }

    // ---- userspace ----

    /// <summary>kvm_get_ioapic.</summary>
    internal kvm_ioapic_state Get()
    {
        using var held = _lock.Enter();
        var state = new kvm_ioapic_state { base_address = _baseAddress, ioregsel = _ioregsel, id = _id, irr = _irr & ~_irrDelivered };
        for (int i = 0; i < IOAPIC_NUM_PINS; i++)
            state.redirtbl[i] = _redirtbl[i];
        return state;
    }

    /// <summary>kvm_set_ioapic: requests of the state are delivered anew.</summary>
    internal void Set(in kvm_ioapic_state state)
    {
        using var held = _lock.Enter();
        _baseAddress = state.base_address;
        _ioregsel = state.ioregsel;
        _id = state.id;
        for (int i = 0; i < IOAPIC_NUM_PINS; i++)
            _redirtbl[i] = state.redirtbl[i];
        _irr = 0;
        _irrDelivered = 0;
        _vm.MakeScanIoapicRequest();

        RtcEoiTrackingReset();
        for (int pin = 0; pin < IOAPIC_NUM_PINS; pin++)
        {
            if ((state.irr >> pin & 1) != 0)
                SetIrqLocked(pin, true, true);
        }

        RtcEoiTrackingRestoreAll();
    }

    private static string Describe(Redirect e) =>
        $"dst {e.fields.dest_id:x} vec {e.fields.vector} ({KvmLapic.ModeName(e.fields.delivery_mode << 8)}|{(e.fields.dest_mode != 0 ? "logical" : "physical")}"
        + $"|{(e.fields.trig_mode != 0 ? "level" : "edge")}{(e.fields.mask != 0 ? "|masked" : "")})";
}
