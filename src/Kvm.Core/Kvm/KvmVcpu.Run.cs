using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>KVM_RUN's generic part, the signal mask, sleeping.</remarks>
public abstract unsafe partial class KvmVcpu
{
    /// <summary>KVM_RUN: -EINVAL with an argument; otherwise what the architecture's loop returns.</summary>
    internal KvmResult IoctlRun(ulong arg)
    {
        if (arg != 0) return Errno.EINVAL;
        HostTask current = HostTask.Current;
        if (Pid != current)
        {
            KvmResult change = Arch.VcpuRunPidChange(this);
            if (change.IsError) return change;
            Volatile.Write(ref Pid, current);
        }

        WantsToRun = Volatile.Read(ref Run->immediate_exit) == 0;
        KvmResult r = Arch.VcpuIoctlRun(this);
        WantsToRun = false;
        if (Tracepoints.Enabled) EmitUserspaceExit(r);
        return r;
    }

    /// <summary>KVM_SET_SIGNAL_MASK: -EINVAL unless the set has 8 bytes; null switches it off.</summary>
    internal KvmResult IoctlSetSignalMask(UserPtr<kvm_signal_mask> argp)
    {
        if (argp.IsNull)
        {
            SigsetActive = false;
            return 0;
        }

        if (!argp.Read(out kvm_signal_mask mask)) return Errno.EFAULT;
        if (mask.len != sizeof(ulong)) return Errno.EINVAL;
        if (!argp.Offset<ulong>(sizeof(kvm_signal_mask)).Read(out ulong sigset)) return Errno.EFAULT;
        Sigset = sigset & ~(HostTask.SignalBit(HostTask.SIGKILL) | HostTask.SignalBit(HostTask.SIGSTOP));
        SigsetActive = true;
        return 0;
    }

    /// <summary>kvm_sigset_activate: the vCPU's mask replaces the thread's during KVM_RUN.</summary>
    [KernelFunction("kvm_sigset_activate", File = "virt/kvm/kvm_main.c")]
    public void SigsetActivate()
    {
        using var _ = FunctionTrace.Enter("kvm_sigset_activate");
        if (!SigsetActive) return;
        HostTask task = HostTask.Current;
        task.RealBlocked = task.BlockedSignals;
        task.BlockedSignals = Sigset;
    }

    /// <summary>kvm_sigset_deactivate.</summary>
    [KernelFunction("kvm_sigset_deactivate", File = "virt/kvm/kvm_main.c")]
    public void SigsetDeactivate()
    {
        using var _ = FunctionTrace.Enter("kvm_sigset_deactivate");
        if (!SigsetActive) return;
        HostTask task = HostTask.Current;
        task.BlockedSignals = task.RealBlocked;
        task.RealBlocked = 0;
    }

    /// <summary>A kzalloc of an ioctl's buffer: -ENOMEM when it is told to fail.</summary>
    internal KvmResult? Nomem(string what) => Host.Faults.ShouldFail("kzalloc", what) ? Errno.ENOMEM : null;

    private void EmitUserspaceExit(KvmResult r)
    {
        long ret = r.Raw;
        uint reason = Run->exit_reason;
        string what = ret < 0 ? ret == -(long)Errno.EINTR ? "restart" : "error" : ExitReasonName(reason);
        Tracepoints.Emit("kvm_userspace_exit", $"reason {what} ({(ret < 0 ? -ret : reason)})");
    }

    private static string ExitReasonName(uint reason) => reason switch
    {
        0 => "KVM_EXIT_UNKNOWN",
        1 => "KVM_EXIT_EXCEPTION",
        2 => "KVM_EXIT_IO",
        3 => "KVM_EXIT_HYPERCALL",
        4 => "KVM_EXIT_DEBUG",
        5 => "KVM_EXIT_HLT",
        6 => "KVM_EXIT_MMIO",
        7 => "KVM_EXIT_IRQ_WINDOW_OPEN",
        8 => "KVM_EXIT_SHUTDOWN",
        9 => "KVM_EXIT_FAIL_ENTRY",
        10 => "KVM_EXIT_INTR",
        11 => "KVM_EXIT_SET_TPR",
        12 => "KVM_EXIT_TPR_ACCESS",
        13 => "KVM_EXIT_S390_SIEIC",
        14 => "KVM_EXIT_S390_RESET",
        15 => "KVM_EXIT_DCR",
        16 => "KVM_EXIT_NMI",
        17 => "KVM_EXIT_INTERNAL_ERROR",
        18 => "KVM_EXIT_OSI",
        19 => "KVM_EXIT_PAPR_HCALL",
        20 => "KVM_EXIT_S390_UCONTROL",
        21 => "KVM_EXIT_WATCHDOG",
        22 => "KVM_EXIT_S390_TSCH",
        23 => "KVM_EXIT_EPR",
        24 => "KVM_EXIT_SYSTEM_EVENT",
        25 => "KVM_EXIT_S390_STSI",
        26 => "KVM_EXIT_IOAPIC_EOI",
        27 => "KVM_EXIT_HYPERV",
        28 => "KVM_EXIT_ARM_NISV",
        29 => "KVM_EXIT_X86_RDMSR",
        30 => "KVM_EXIT_X86_WRMSR",
        _ => "unknown",
    };
}
