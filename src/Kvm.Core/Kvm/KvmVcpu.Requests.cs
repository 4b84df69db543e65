using System.Runtime.CompilerServices;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>Requests, kicks, wake-ups.</remarks>
public abstract unsafe partial class KvmVcpu
{
    /// <summary>kvm_request_pending: some request bit is set.</summary>
    public bool RequestPending
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => Volatile.Read(ref Requests) != 0;
    }

    /// <summary>kvm_make_request: sets the bit; does not wake or kick.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void MakeRequest(uint request) => Interlocked.Or(ref Requests, 1UL << (int)(request & 63));

    /// <summary>kvm_test_request.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool TestRequest(uint request) => (Volatile.Read(ref Requests) >> (int)(request & 63) & 1) != 0;

    /// <summary>kvm_clear_request. A bit that is not set costs no atomic operation: one that comes meanwhile came after.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void ClearRequest(uint request)
    {
        if (TestRequest(request)) Interlocked.And(ref Requests, ~(1UL << (int)(request & 63)));
    }

    /// <summary>kvm_check_request: tests and clears; the clearing is a full fence, so what the requester wrote before is seen after.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool CheckRequest(uint request)
    {
        if (!TestRequest(request)) return false;
        Interlocked.And(ref Requests, ~(1UL << (int)(request & 63)));
        return true;
    }

    /// <summary>kvm_vcpu_exiting_guest_mode: IN_GUEST_MODE becomes EXITING_GUEST_MODE; the mode before.</summary>
    public int ExitingGuestMode() => Interlocked.CompareExchange(ref Mode, VcpuMode.EXITING_GUEST_MODE, VcpuMode.IN_GUEST_MODE);

    /// <summary>kvm_vcpu_wake_up: true when its thread was asleep.</summary>
    [KernelFunction("kvm_vcpu_wake_up", File = "virt/kvm/kvm_main.c")]
    public bool WakeUp()
    {
        if (!Wait.WakeUp()) return false;
        Volatile.Write(ref Ready, true);
        Stat.HaltWakeup++;
        return true;
    }

    /// <summary>kvm_vcpu_kick: wakes the vCPU or makes it leave guest mode.</summary>
    [KernelFunction("kvm_vcpu_kick", File = "virt/kvm/kvm_main.c")]
    public void Kick()
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_kick");
        if (WakeUp()) return;
        HostCpu? me = Host.CurrentCpuOrNull;
        if (me is not null && me.Host == Host && Vm.Module.RunningVcpu[me.Id] == this)
        {
            // Only this thread changes the mode here, so no atomic operation is needed.
            if (Mode == VcpuMode.IN_GUEST_MODE) Volatile.Write(ref Mode, VcpuMode.EXITING_GUEST_MODE);
            return;
        }

        if (!Arch.VcpuShouldKick(this)) return;
        int cpu = Volatile.Read(ref Cpu);
        if ((me is null || me.Host != Host || cpu != me.Id) && (uint)cpu < (uint)Host.Cpus.Count && Host.Cpus[cpu].Online) Host.Cpus[cpu].SendReschedule();
    }

    /// <summary>Sends a signal to the thread that runs this vCPU, as pthread_kill would: KVM_RUN returns -EINTR. False before its first KVM_RUN.</summary>
    public bool Signal(int signal)
    {
        if (Volatile.Read(ref Pid) is not { } task) return false;
        task.Send(signal);
        return true;
    }

    /// <summary>kvm_vcpu_is_blocking.</summary>
    public bool IsBlocking => Wait.Active;
}
