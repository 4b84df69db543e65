using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>Requests to many vCPUs.</remarks>
public abstract unsafe partial class KvmVm
{
    /// <summary>kvm_make_all_cpus_request: true when some CPU was kicked.</summary>
    [KernelFunction("kvm_make_all_cpus_request", File = "virt/kvm/kvm_main.c")]
    public bool MakeAllCpusRequest(uint request)
    {
        using var _ = FunctionTrace.Enter("kvm_make_all_cpus_request");
        return MakeAllCpusRequestExcept(request, null);
    }

    /// <summary>kvm_make_all_cpus_request_except.</summary>
    [KernelFunction("kvm_make_all_cpus_request_except", File = "virt/kvm/kvm_main.c")]
    public bool MakeAllCpusRequestExcept(uint request, KvmVcpu? except)
    {
        using var _ = FunctionTrace.Enter("kvm_make_all_cpus_request_except");
        CpuMask? cpus = null;
        int me = Me();
        foreach (KvmVcpu vcpu in Vcpus)
            if (vcpu != except) MakeVcpuRequest(vcpu, request, ref cpus, me);
        return KickMany(cpus, request);
    }

    /// <summary>kvm_make_vcpus_request_mask: vCPUs by index.</summary>
    public bool MakeVcpusRequestMask(uint request, ReadOnlySpan<ulong> bitmap)
    {
        CpuMask? cpus = null;
        int me = Me();
        for (int i = 0; i < bitmap.Length * 64; i++)
            if ((bitmap[i / 64] >> (i & 63) & 1) != 0 && GetVcpu(i) is { } vcpu) MakeVcpuRequest(vcpu, request, ref cpus, me);
        return KickMany(cpus, request);
    }

    /// <summary>kvm_flush_remote_tlbs.</summary>
    [KernelFunction("kvm_flush_remote_tlbs", File = "virt/kvm/kvm_main.c")]
    public void FlushRemoteTlbs()
    {
        using var _ = FunctionTrace.Enter("kvm_flush_remote_tlbs");
        Stat.RemoteTlbFlushRequests++;
        if (Arch.FlushRemoteTlb(this).IsOk || MakeAllCpusRequestExcept(KvmRequest.KVM_REQ_TLB_FLUSH, null)) Stat.RemoteTlbFlush++;
    }

    private int Me() => Host.CurrentCpuOrNull is { } cpu && cpu.Host == Host ? cpu.Id : -1;

    [KernelFunction("kvm_make_vcpu_request", File = "virt/kvm/kvm_main.c")]
    private void MakeVcpuRequest(KvmVcpu vcpu, uint request, ref CpuMask? cpus, int me)
    {
        FunctionTrace.Leaf("kvm_make_vcpu_request");
        if ((request & KvmRequest.KVM_REQUEST_NO_ACTION) == 0) vcpu.MakeRequest(request & KvmRequest.KVM_REQUEST_MASK);
        if ((request & KvmRequest.KVM_REQUEST_NO_WAKEUP) == 0 && vcpu.WakeUp()) return;
        // The vCPU may move to another CPU after this: then it has left guest mode, which is all that is asked.
        if (!NeedsIpi(vcpu, request)) return;
        int cpu = Volatile.Read(ref vcpu.Cpu);
        if (cpu == -1 || cpu == me) return;
        cpus ??= new CpuMask(Host.Cpus.Count);
        cpus.Set(cpu);
    }

    private static bool NeedsIpi(KvmVcpu vcpu, uint request)
    {
        int mode = vcpu.ExitingGuestMode();
        // A waiting sender also waits for lockless walks of the page tables.
        return (request & KvmRequest.KVM_REQUEST_WAIT) != 0 ? mode != VcpuMode.OUTSIDE_GUEST_MODE : mode == VcpuMode.IN_GUEST_MODE;
    }

    private bool KickMany(CpuMask? cpus, uint request)
    {
        if (cpus is null || cpus.IsEmpty) return false;
        Host.SmpCallFunctionMany(cpus, static _ => { }, null, (request & KvmRequest.KVM_REQUEST_WAIT) != 0);
        return true;
    }
}
