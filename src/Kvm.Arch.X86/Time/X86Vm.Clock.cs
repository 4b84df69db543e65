using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>kvmclock: the VM-wide clock that guests extrapolate from their TSC.</remarks>
public abstract partial class X86Vm
{
    private const uint KVM_CLOCK_VALID_FLAGS = KVM_CLOCK_REALTIME | KVM_CLOCK_TSC_STABLE | KVM_CLOCK_HOST_TSC;

    /// <summary>pvclock_update_vm_gtod_copy: decides whether all vCPUs share one clock sample, and takes it. Under <see cref="TscWriteLock"/>.</summary>
    [KernelFunction("pvclock_update_vm_gtod_copy", File = "arch/x86/kvm/x86.c")]
    internal void PvclockUpdateVmGtodCopy()
    {
        FunctionTrace.Leaf("pvclock_update_vm_gtod_copy");
        bool matched = NrVcpusMatchedTsc + 1 == OnlineVcpus;
        MasterKernelNs = Arch.KvmclockBaseNs();
        MasterCycleNow = Arch.HostX86.Rdtsc();
        UseMasterClock = !Arch.HostX86.TscUnstable && matched && !BackwardsTscObserved && !BootVcpuRunsOldKvmclock;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_update_master_clock", $"masterclock {(UseMasterClock ? 1 : 0)} hostclock {HostClock} offsetmatched {(matched ? 1 : 0)}");
    }

    /// <summary>For tracepoints: what the host's clock runs on.</summary>
    internal string HostClock => Arch.HostX86.TscUnstable ? "none" : "tsc";

    /// <summary>kvm_update_masterclock: vCPUs leave the guest while the sample changes.</summary>
    internal void UpdateMasterclock()
    {
        Hyperv.RequestTscPageUpdate();
        MakeAllCpusRequest(KVM_REQ_MCLOCK_INPROGRESS);
        lock (TscWriteLock)
            PvclockUpdateVmGtodCopy();
        EndPvclockUpdate();
    }

    [KernelFunction("kvm_end_pvclock_update", File = "arch/x86/kvm/x86.c")]
    private void EndPvclockUpdate()
    {
        FunctionTrace.Leaf("kvm_end_pvclock_update");
        foreach (KvmVcpu vcpu in Vcpus)
            vcpu.MakeRequest(KVM_REQ_CLOCK_UPDATE);

        // Guest entries are allowed again.
        foreach (KvmVcpu vcpu in Vcpus)
            vcpu.ClearRequest(KVM_REQ_MCLOCK_INPROGRESS);
    }

    /// <summary>get_kvmclock.</summary>
    internal kvm_clock_data GetKvmclock()
    {
        var data = default(kvm_clock_data);
        lock (TscWriteLock)
        {
            if (!UseMasterClock)
            {
                data.clock = (ulong)(Arch.KvmclockBaseNs() + KvmclockOffset);
                return data;
            }

            data.host_tsc = Arch.HostX86.Rdtsc();
            data.realtime = Arch.RealtimeNs();
            data.flags = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC | KVM_CLOCK_TSC_STABLE;
            TscMath.GetTimeScale(X86Const.NSEC_PER_SEC, Arch.HostX86.TscKhz * 1000ul, out sbyte shift, out uint multiplier);
            ulong cycles = data.host_tsc - MasterCycleNow;
            data.clock = (ulong)(MasterKernelNs + KvmclockOffset) + TscMath.ScaleDelta(cycles, multiplier, shift);
            return data;
        }
    }

    /// <summary>KVM_SET_CLOCK: -EINVAL for unknown flags; with KVM_CLOCK_REALTIME the clock advances by the time since then.</summary>
    [KernelFunction("kvm_vm_ioctl_set_clock", File = "arch/x86/kvm/x86.c")]
    internal KvmResult SetClock(in kvm_clock_data data)
    {
        if ((data.flags & ~KVM_CLOCK_VALID_FLAGS) != 0)
            return -EINVAL;
        Hyperv.RequestTscPageUpdate();
        MakeAllCpusRequest(KVM_REQ_MCLOCK_INPROGRESS);
        lock (TscWriteLock)
        {
            PvclockUpdateVmGtodCopy();
            ulong clock = data.clock;
            if ((data.flags & KVM_CLOCK_REALTIME) != 0)
            {
                ulong now = Arch.RealtimeNs();
                if (now > data.realtime)
                    clock += now - data.realtime;
            }

            long raw = UseMasterClock ? MasterKernelNs : Arch.KvmclockBaseNs();
            KvmclockOffset = (long)clock - raw;
        }

        EndPvclockUpdate();
        return 0;
    }

    /// <summary>kvm_write_wall_clock: the wall-clock time of the VM's boot, at a guest address.</summary>
    internal void WriteWallClock(ulong gpa)
    {
        if (gpa == 0)
            return;
        Span<byte> wc = stackalloc byte[12];
        if (ReadGuest(gpa, wc[..4]).IsError)
            return;
        uint version = BitConverter.ToUInt32(wc);
        if ((version & 1) != 0)
            version++;
        version++;
        BitConverter.TryWriteBytes(wc, version);
        if (WriteGuest(gpa, wc[..4]).IsError)
            return;
        ulong wall = Arch.RealtimeNs() - GetKvmclock().clock;
        BitConverter.TryWriteBytes(wc, version + 1);
        BitConverter.TryWriteBytes(wc[4..], (uint)(wall / X86Const.NSEC_PER_SEC));
        BitConverter.TryWriteBytes(wc[8..], (uint)(wall % X86Const.NSEC_PER_SEC));
        WriteGuest(gpa, wc);
    }

    /// <summary>kvm_gen_kvmclock_update: this vCPU at once, the others shortly after.</summary>
    internal void GenKvmclockUpdate(X86Vcpu vcpu)
    {
        foreach (KvmVcpu other in Vcpus)
        {
            other.MakeRequest(KVM_REQ_CLOCK_UPDATE);
            if (other != vcpu)
                other.Kick();
        }
    }
}
