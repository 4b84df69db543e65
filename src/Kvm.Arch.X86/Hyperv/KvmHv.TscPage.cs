using Kvm.Core.Tracing;
using static Kvm.Arch.X86.HvTscPageStatus;
using static Kvm.Arch.X86.HypervConst;

namespace Kvm.Arch.X86;

/// <remarks>
/// Time in units of 100 ns since the VM's boot: the counter MSR, and the reference TSC page, from which guests compute it: <c>TSC × scale / 2^64 + offset</c>.
/// The page (struct ms_hyperv_tsc_page): sequence at 0 (32 bits; 0 means: use the MSR), scale at 8, offset at 16.
/// </remarks>
public sealed unsafe partial class KvmHv
{
    private const int TscPageBytes = 24;

    private uint _tscSequence;
    private ulong _tscScale, _tscOffset;

    /// <summary>hv_tsc_page: the MSR.</summary>
    public ulong TscPage { get; private set; }

    public HvTscPageStatus TscPageStatus { get; private set; }

    /// <summary>get_time_ref_counter: what the page says, or kvmclock while there is none.</summary>
    [KernelFunction("get_time_ref_counter", File = "arch/x86/kvm/hyperv.c")]
    internal ulong TimeRefCounter
    {
        get
        {
            if (TscPageStatus != HV_TSC_PAGE_SET)
                return vm.GetKvmclock().clock / 100;
            ulong tsc = ((X86Vcpu)vm.GetVcpu(0)!).ReadL1Tsc(vm.Arch.HostX86.Rdtsc());
            return TscMath.MulShift(tsc, _tscScale, 64) + _tscOffset;
        }
    }

    /// <summary>
    /// tsc_page_update_unsafe: a guest that asked for TSC emulation after a migration relies on the page's values until it has turned the emulation off.
    /// </summary>
    private bool TscPageUpdateUnsafe => TscPageStatus != HV_TSC_PAGE_GUEST_CHANGED && _tscEmulationControl != 0;

    /// <summary>kvm_hv_request_tsc_page_update: the master clock is about to change; the next clock update writes the page anew.</summary>
    [KernelFunction("kvm_hv_request_tsc_page_update", File = "arch/x86/kvm/hyperv.c")]
    internal void RequestTscPageUpdate()
    {
        FunctionTrace.Leaf("kvm_hv_request_tsc_page_update");
        using var held = Lock.Enter();
        if (TscPageStatus == HV_TSC_PAGE_SET && !TscPageUpdateUnsafe)
            TscPageStatus = HV_TSC_PAGE_HOST_CHANGED;
    }

    /// <summary>kvm_hv_setup_tsc_page: writes the page, if a change is due, from a vCPU's new kvmclock parameters.</summary>
    [KernelFunction("kvm_hv_setup_tsc_page", File = "arch/x86/kvm/hyperv.c")]
    internal void SetupTscPage(in PvclockVcpuTimeInfo clock)
    {
        FunctionTrace.Leaf("kvm_hv_setup_tsc_page");
        using var held = Lock.Enter();
        if (TscPageStatus is HV_TSC_PAGE_BROKEN or HV_TSC_PAGE_SET or HV_TSC_PAGE_UNSET || (TscPage & HV_X64_MSR_PAGE_ENABLE) == 0)
            return;
        TscPageStatus = WriteTscPage(TscPage & ~0xffful, in clock) ? HV_TSC_PAGE_SET : HV_TSC_PAGE_BROKEN;
    }

    private bool WriteTscPage(ulong gpa, in PvclockVcpuTimeInfo clock)
    {
        byte* page = stackalloc byte[TscPageBytes];
        uint sequence;
        if (vm.ReadGuest(gpa, &sequence, sizeof(uint)).IsError)
            return false;
        if (sequence != 0 && TscPageUpdateUnsafe)
        {
            if (vm.ReadGuest(gpa, page, TscPageBytes).IsError)
                return false;
            _tscSequence = sequence;
            _tscScale = *(ulong*)(page + 8);
            _tscOffset = *(ulong*)(page + 16);
            return true;
        }

        // While the parameters change the guest must use the MSR: sequence 0 goes before them, the new sequence after them.
        _tscSequence = 0;
        fixed (uint* s = &_tscSequence)
        {
            if (vm.WriteGuest(gpa, s, sizeof(uint)).IsError || !ComputeTscPageParameters(in clock))
                return false;
            *(ulong*)page = 0;
            *(ulong*)(page + 8) = _tscScale;
            *(ulong*)(page + 16) = _tscOffset;
            Interlocked.MemoryBarrier();
            if (vm.WriteGuest(gpa, page, TscPageBytes).IsError)
                return false;
            Interlocked.MemoryBarrier();
            sequence++;
            _tscSequence = sequence is uint.MaxValue or 0 ? 1 : sequence;
            return vm.WriteGuest(gpa, s, sizeof(uint)).IsOk;
        }
    }

    /// <summary>
    /// compute_tsc_page_parameters. kvmclock is <c>(TSC − tsc_timestamp) × mul × 2^(shift−32) + system_time</c> in ns: the scale is mul × 2^(shift+32) / 100, and the
    /// offset what is left of system_time / 100 after tsc_timestamp at that scale. False without a master clock, or when the scale has more than 64 bits.
    /// </summary>
    [KernelFunction("compute_tsc_page_parameters", File = "arch/x86/kvm/hyperv.c")]
    private bool ComputeTscPageParameters(in PvclockVcpuTimeInfo clock)
    {
        if (!clock.TscStable || clock.TscToSystemMul >= 100ul << (32 - clock.TscShift))
            return false;
        _tscScale = (ulong)((UInt128)(1ul << (32 + clock.TscShift)) * clock.TscToSystemMul / 100);
        _tscOffset = (clock.SystemTime / 100) - TscMath.MulShift(clock.TscTimestamp, _tscScale, 64);
        return true;
    }
}
