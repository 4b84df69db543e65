using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>What ended a KVM_RUN: a view of the shared page. Its spans are the page: writing them answers the guest.</summary>
public readonly unsafe ref struct VcpuExit
{
    private readonly kvm_run* _run;

    internal VcpuExit(kvm_run* run, long result)
    {
        _run = run;
        Result = result;
    }

    /// <summary>What KVM_RUN returned: 0, or <c>-EINTR</c>/<c>-EAGAIN</c>.</summary>
    public long Result { get; }

    /// <summary>The guest did not exit by itself: a kick or a signal (EINTR), or an application processor that just got its SIPI (EAGAIN).</summary>
    public bool Interrupted => Result < 0;

    /// <summary><c>KVM_EXIT_…</c>; <c>KVM_EXIT_INTR</c> when <see cref="Interrupted"/>.</summary>
    public int Reason => Interrupted ? KVM_EXIT_INTR : (int)_run->exit_reason;

    /// <summary><see cref="Reason"/> under the ABI's name.</summary>
    public string ReasonName => ExitNames.Of(Reason);

    /// <summary>The page itself.</summary>
    public ref kvm_run Page => ref *_run;

    /// <summary>For <c>KVM_EXIT_IO</c>.</summary>
    public IoExit Io => new(_run);

    /// <summary>For <c>KVM_EXIT_MMIO</c>.</summary>
    public MmioExit Mmio => new(_run);
}
