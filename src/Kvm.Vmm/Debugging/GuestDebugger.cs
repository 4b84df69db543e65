using Kvm.Abi;
using Kvm.Client;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm.Debugging;

/// <summary>Holds the vCPUs of a guest still, lets them run or step, and tells why they stopped. The guest starts held.</summary>
/// <remarks>
/// One thread debugs; each vCPU has its own. A vCPU stands still in <see cref="Park"/>, outside KVM_RUN and after a KVM_RUN that completed what its last exit began,
/// so its registers are those of an instruction boundary.
/// </remarks>
public sealed class GuestDebugger
{
    private const uint Bp = 3, Db = 1;
    private const ulong Dr6SingleStep = 1 << 14;

    private readonly VcpuLoop[] _loops;
    private readonly StopSignal _stop;
    private readonly uint _stepFlags;
    private readonly object _sync = new();

    // Under _sync.
    private readonly bool[] _mayRun;
    private readonly DebugStop?[] _late; // of vCPUs that were stopped by a trap while another's stop was being told
    private int _parked;
    private int _stepping = -1;
    private volatile bool _holding = true; // written under _sync; read without it where a vCPU only asks whether to look closer
    private DebugStop? _reason = new(0, DebugCause.Asked);

    /// <param name="vm">The VM.</param>
    /// <param name="loops">All its vCPUs, in order; none has run.</param>
    /// <param name="memory">Its memory.</param>
    /// <param name="stop">What ends it.</param>
    public GuestDebugger(Vm vm, IReadOnlyList<VcpuLoop> loops, GuestPhysicalMemory memory, StopSignal stop)
    {
        ArgumentNullException.ThrowIfNull(vm);
        ArgumentNullException.ThrowIfNull(stop);
        _loops = [.. loops];
        _mayRun = new bool[_loops.Length];
        _late = new DebugStop?[_loops.Length];
        _stop = stop;
        Memory = new LinearMemory(memory) { Vcpu = _loops[0].Vcpu };
        _stepFlags = KVM_GUESTDBG_SINGLESTEP | ((uint)vm.CheckExtension(KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ);
        foreach (VcpuLoop loop in _loops) loop.Debugger = this;
        stop.Requested += OnEnded;
    }

    /// <summary>Called by a vCPU's thread when the guest stopped, or ended: <see cref="TryTakeStop"/> tells.</summary>
    public event Action? Stopped;

    /// <summary>How many vCPUs there are.</summary>
    public int VcpuCount => _loops.Length;

    /// <summary>What ended the guest; null while it can run.</summary>
    public GuestStop? Ended => _stop.Stop;

    internal bool Holding => _holding;

    internal Breakpoints Breakpoints { get; } = new();

    internal LinearMemory Memory { get; }

    /// <summary>A vCPU, to look at and change while the guest stands still.</summary>
    public Vcpu Vcpu(int index) => _loops[index].Vcpu;

    /// <summary>Asks all vCPUs to stand still; <see cref="Stopped"/> follows, unless they do already.</summary>
    public void RequestStop() => Hold(new DebugStop(0, DebugCause.Asked));

    /// <summary>Why the guest stands still, once all its vCPUs do. False: it runs, or has ended.</summary>
    public bool TryTakeStop(out DebugStop stop)
    {
        lock (_sync)
        {
            stop = _reason!;
            if (!_holding || stop is null) return false;
            while (_parked < _loops.Length && _stop.Stop is null) Monitor.Wait(_sync);
            return _stop.Stop is null;
        }
    }

    /// <summary>Lets the guest run.</summary>
    /// <param name="step">The vCPU that executes one instruction only; -1: none.</param>
    /// <param name="others">Whether the other vCPUs run meanwhile.</param>
    public void Resume(int step = -1, bool others = true)
    {
        DebugStop? late;
        for (int i = 0; i < _loops.Length; i++) SetGuestDebug(i, i == step, 0);
        lock (_sync)
        {
            late = Array.Find(_late, l => l is not null && (others || l.Vcpu == step));
            if (late is not null)
            {
                _late[late.Vcpu] = null;
                _reason = late;
            }
            else
            {
                for (int i = 0; i < _loops.Length; i++) _mayRun[i] = others || i == step;
                _stepping = step;
                _reason = null;
                _holding = false;
                Monitor.PulseAll(_sync);
            }
        }

        if (late is not null) Stopped?.Invoke();
    }

    /// <summary>Takes all breakpoints away and lets the guest run undisturbed.</summary>
    public void Release()
    {
        Breakpoints.Clear(Memory);
        lock (_sync) Array.Clear(_late);
        Resume();
    }

    /// <summary>Ends the guest.</summary>
    public void Kill() => _stop.Request(GuestStopReason.Interrupted, 0, "ended by the debugger");

    /// <summary>The vCPU's thread stays here while it is to stand still.</summary>
    internal void Park(VcpuLoop loop)
    {
        int index = Array.IndexOf(_loops, loop);
        lock (_sync)
        {
            if (MayRun(index)) return;
            _parked++;
            Monitor.PulseAll(_sync);
            while (!MayRun(index)) Monitor.Wait(_sync);
            _parked--;
        }
    }

    /// <summary>KVM_EXIT_DEBUG: ours, and the guest stops, or the guest's own, which it gets.</summary>
    internal void OnDebugExit(VcpuLoop loop, in kvm_debug_exit_arch exit)
    {
        int index = Array.IndexOf(_loops, loop);
        if (exit.exception == Bp)
        {
            if (Breakpoints.HasSoftware(exit.pc)) Stop(loop, new DebugStop(index, DebugCause.SoftwareBreakpoint, exit.pc), trap: false);
            else SetGuestDebug(index, index == _stepping, KVM_GUESTDBG_INJECT_BP);
            return;
        }

        if (Breakpoints.Hit(index, exit.dr6) is { } hit) Stop(loop, hit, trap: hit.Cause != DebugCause.HardwareBreakpoint);
        else if (index == _stepping && (exit.dr6 & Dr6SingleStep) != 0) Stop(loop, new DebugStop(index, DebugCause.Step), trap: false);
        else if (exit.exception == Db && !_holding) SetGuestDebug(index, index == _stepping, KVM_GUESTDBG_INJECT_DB);
    }

    /// <summary>The guest is about to end for a reason that its author will want to look into: it stands still once more before.</summary>
    internal void OnEnd(VcpuLoop loop, GuestStop stop)
    {
        if (stop.Reason is GuestStopReason.Shutdown or GuestStopReason.FailEntry or GuestStopReason.InternalError or GuestStopReason.UnhandledExit)
            Stop(loop, new DebugStop(Array.IndexOf(_loops, loop), DebugCause.Fatal, End: stop), trap: true);
    }

    private bool MayRun(int index) => _stop.Stop is not null || (!_holding && _mayRun[index]);

    private void Stop(VcpuLoop loop, DebugStop stop, bool trap)
    {
        if (!Hold(stop) && trap)
        {
            // What can be had again by executing the instruction again is not kept.
            lock (_sync) _late[stop.Vcpu] = stop;
        }

        Park(loop);
    }

    /// <returns>False: the guest stood still already, for another reason.</returns>
    private bool Hold(DebugStop stop)
    {
        lock (_sync)
        {
            if (_holding) return false;
            _holding = true;
            _stepping = -1;
            _reason = stop;
        }

        foreach (VcpuLoop loop in _loops) loop.CallToDebugger();
        Stopped?.Invoke();
        return true;
    }

    private void OnEnded()
    {
        lock (_sync) Monitor.PulseAll(_sync);
        Stopped?.Invoke();
    }

    private void SetGuestDebug(int index, bool step, uint inject)
    {
        kvm_guest_debug debug = Breakpoints.Control(step ? _stepFlags : 0);
        if (inject != 0) debug.control |= KVM_GUESTDBG_ENABLE | inject;
        _loops[index].Vcpu.SetGuestDebug(debug);
    }
}
