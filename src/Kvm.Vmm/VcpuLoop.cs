using Kvm.Abi;
using Kvm.Client;
using Kvm.Vmm.Bus;
using Kvm.Vmm.Debugging;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm;

/// <summary>Runs one vCPU and serves its exits from the buses, until something ends the guest. Allocates nothing per exit.</summary>
public sealed class VcpuLoop
{
    private readonly Vcpu _vcpu;
    private readonly PortBus _ports;
    private readonly MmioBus _mmio;
    private readonly StopSignal _stop;
    private readonly object _wake = new();
    private readonly long[] _byReason = new long[64];
    private IInterruptSource? _interrupts;
    private int _thread;

    /// <summary>Serves exits of <paramref name="vcpu"/> from the buses until <paramref name="stop"/> is requested.</summary>
    public VcpuLoop(Vcpu vcpu, PortBus ports, MmioBus mmio, StopSignal stop)
    {
        _vcpu = vcpu;
        _ports = ports;
        _mmio = mmio;
        _stop = stop;
        stop.Requested += OnRaised;
    }

    /// <summary>Exits so far: returns of KVM_RUN, those that ended the run and those that a kick caused included.</summary>
    public long Exits { get; private set; }

    /// <summary>Exits by <c>KVM_EXIT_…</c>, kicks as <c>KVM_EXIT_INTR</c>; reasons that did not occur are left out.</summary>
    public IReadOnlyDictionary<int, long> ExitsByReason
    {
        get
        {
            var counts = new SortedDictionary<int, long>();
            for (int reason = 0; reason < _byReason.Length; reason++)
            {
                if (_byReason[reason] > 0) counts[reason] = _byReason[reason];
            }

            return counts;
        }
    }

    /// <summary>Sees every exit before it is served.</summary>
    public ExitObserver? Observer { get; set; }

    /// <summary>The vCPU that it runs.</summary>
    public Vcpu Vcpu => _vcpu;

    /// <summary>Holds the guest still for a debugger; set before <see cref="Run"/>.</summary>
    internal GuestDebugger? Debugger { get; set; }

    /// <summary>The interrupt controller, when it is the VMM's; null: the kernel's, or none.</summary>
    public IInterruptSource? Interrupts
    {
        get => _interrupts;
        set
        {
            if (_interrupts is not null) _interrupts.Raised -= OnRaised;
            _interrupts = value;
            if (value is not null) value.Raised += OnRaised;
        }
    }

    /// <summary>Runs until the guest ends. The calling thread becomes the vCPU.</summary>
    public GuestStop Run()
    {
        _thread = Environment.CurrentManagedThreadId;
        Debugger?.Park(this);
        while (_stop.Stop is null)
        {
            if (_interrupts is not null) OfferInterrupt(_interrupts);
            long result = _vcpu.TryRun();
            Exits++;
            if (result is -(long)Errno.EINTR or -(long)Errno.EAGAIN)
            {
                _byReason[KVM_EXIT_INTR]++;
                Debugger?.Park(this); // what the last exit left to be done is done now
                continue; // kicked: the loop's condition says why
            }

            if (result < 0) _stop.Request(RunFailed(result));
            else Serve(_vcpu.LastExit);
        }

        return _stop.Stop;
    }

    /// <summary>Completes what the last exit left to be done, so that the vCPU's state is whole; not while <see cref="Run"/> is running.</summary>
    internal void Settle() => Migration.VmState.Settle(_vcpu, vcpu => Serve(vcpu.LastExit));

    private void Serve(VcpuExit exit)
    {
        Observer?.Invoke(exit);
        if ((uint)exit.Reason < (uint)_byReason.Length) _byReason[exit.Reason]++;
        switch (exit.Reason)
        {
            case KVM_EXIT_IO:
                ServeIo(exit.Io);
                break;
            case KVM_EXIT_MMIO:
                MmioExit mmio = exit.Mmio;
                if (mmio.IsWrite) _mmio.Write(mmio.Address, mmio.Data);
                else _mmio.Read(mmio.Address, mmio.Data);
                break;
            case KVM_EXIT_HYPERV:
                ServeHyperv(ref exit.Page.hyperv);
                break;
            case KVM_EXIT_DEBUG when Debugger is not null:
                Debugger.OnDebugExit(this, exit.Page.debug.arch);
                break;
            case KVM_EXIT_HLT when WaitForInterrupt(exit):
            case KVM_EXIT_INTR:
            case KVM_EXIT_IRQ_WINDOW_OPEN:
                break;
            default:
                GuestStop stop = Describe(exit);
                Debugger?.OnEnd(this, stop);
                _stop.Request(stop);
                break;
        }
    }

    /// <summary>This machine has no devices behind Hyper-V's messages: where the guest has their pages does not matter, and nobody listens.</summary>
    private static void ServeHyperv(ref kvm_hyperv_exit exit)
    {
        const ulong invalidConnection = 18; // HV_STATUS_INVALID_CONNECTION_ID
        if (exit.type == KVM_EXIT_HYPERV_HCALL) exit.u.hcall.result = invalidConnection;
    }

    /// <summary>Injects a pending interrupt if the guest can take it, or else asks to hear when it can.</summary>
    private void OfferInterrupt(IInterruptSource interrupts)
    {
        ref kvm_run page = ref _vcpu.RunPage;
        if (interrupts.Pending && page.ready_for_interrupt_injection != 0 && page.if_flag != 0)
        {
            _vcpu.Interrupt(interrupts.Acknowledge());
            page.ready_for_interrupt_injection = 0; // one at a time: the kernel says when the next can come
        }

        page.request_interrupt_window = interrupts.Pending ? (byte)1 : (byte)0;
    }

    /// <summary>HLT with a controller of the VMM: the thread sleeps until INTR. False: nothing can wake this guest.</summary>
    private bool WaitForInterrupt(VcpuExit exit)
    {
        if (_interrupts is null || exit.Page.if_flag == 0) return false;
        while (true)
        {
            lock (_wake)
            {
                while (!_interrupts.Pending && _stop.Stop is null && Debugger is not { Holding: true }) Monitor.Wait(_wake);
                if (_interrupts.Pending || _stop.Stop is not null) return true;
            }

            Debugger!.Park(this);
        }
    }

    /// <summary>Makes the thread come to <see cref="GuestDebugger.Park"/> soon.</summary>
    internal void CallToDebugger()
    {
        lock (_wake) Monitor.PulseAll(_wake);
        _vcpu.Kick();
    }

    /// <summary>A device of this thread's own exit needs no kick: the loop looks before it enters.</summary>
    private void OnRaised()
    {
        if (Environment.CurrentManagedThreadId == _thread) return;
        lock (_wake) Monitor.PulseAll(_wake);
        _vcpu.Kick();
    }

    private void ServeIo(IoExit io)
    {
        Span<byte> data = io.Data;
        ushort port = io.Port;
        int size = io.Size;
        bool isOut = io.IsOut;
        for (; !data.IsEmpty; data = data[size..])
        {
            if (isOut) _ports.Write(port, data[..size]);
            else _ports.Read(port, data[..size]);
        }
    }

    private GuestStop Describe(VcpuExit exit)
    {
        ref kvm_run run = ref exit.Page;
        switch (exit.Reason)
        {
            case KVM_EXIT_HLT:
                return new GuestStop(GuestStopReason.Halted, 0, $"guest halted at rip 0x{_vcpu.Regs.rip:x}");
            case KVM_EXIT_SHUTDOWN:
                return new GuestStop(GuestStopReason.Shutdown, 0, "guest shut down: triple fault");
            case KVM_EXIT_FAIL_ENTRY:
                ulong reason = run.fail_entry.hardware_entry_failure_reason;
                return new GuestStop(GuestStopReason.FailEntry, (long)reason, $"VM entry failed: hardware reason 0x{reason:x}");
            case KVM_EXIT_INTERNAL_ERROR:
                return new GuestStop(GuestStopReason.InternalError, run.@internal.suberror, InternalError(ref run));
            case KVM_EXIT_SYSTEM_EVENT when run.system_event.type == KVM_SYSTEM_EVENT_RESET:
                return new GuestStop(GuestStopReason.Reset, 0, "guest reset through its hypervisor");
            case KVM_EXIT_SYSTEM_EVENT:
                return new GuestStop(GuestStopReason.PowerOff, run.system_event.type, $"guest system event {run.system_event.type}");
            default:
                return new GuestStop(GuestStopReason.UnhandledExit, exit.Reason, $"unexpected exit: {exit.ReasonName}");
        }
    }

    private string InternalError(ref kvm_run run)
    {
        string bytes = "";
        if (run.@internal.suberror == KVM_INTERNAL_ERROR_EMULATION && (run.emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0)
        {
            ReadOnlySpan<byte> instruction = run.emulation_failure.insn_bytes;
            bytes = $", instruction bytes {Convert.ToHexString(instruction[..Math.Min(run.emulation_failure.insn_size, (byte)15)])}";
        }

        string name = run.@internal.suberror switch
        {
            KVM_INTERNAL_ERROR_EMULATION => "an instruction could not be emulated",
            KVM_INTERNAL_ERROR_SIMUL_EX => "an exception came during event delivery",
            KVM_INTERNAL_ERROR_DELIVERY_EV => "an exit came during event delivery",
            KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "the hardware gave an unexpected exit reason",
            _ => "unknown suberror",
        };
        return $"KVM internal error {run.@internal.suberror}: {name}, at rip 0x{_vcpu.Regs.rip:x}{bytes}";
    }

    private static GuestStop RunFailed(long result)
    {
        var errno = (Errno)(-result);
        string what = errno == Errno.EFAULT ? "KVM_RUN: EFAULT (guest memory without host memory behind it)" : $"KVM_RUN: {errno}";
        return new GuestStop(GuestStopReason.RunFailed, (long)errno, what);
    }
}
