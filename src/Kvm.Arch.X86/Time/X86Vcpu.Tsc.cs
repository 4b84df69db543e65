using Kvm.Core.Tracing;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The guest's time stamp counter: offset, scaling, synchronization of vCPUs by their first writes.</remarks>
public partial class X86Vcpu
{
    /// <summary>kvm_compute_l1_tsc_offset: what must be added to the host's counter to read <paramref name="targetTsc"/> now.</summary>
    private ulong ComputeL1TscOffset(ulong targetTsc) => targetTsc - Arch.ScaleTsc(Arch.HostX86.Rdtsc(), L1TscScalingRatio);

    /// <summary>kvm_read_l1_tsc.</summary>
    public ulong ReadL1Tsc(ulong hostTsc) => L1TscOffset + Arch.ScaleTsc(hostTsc, L1TscScalingRatio);

    [KernelFunction("kvm_vcpu_write_tsc_offset", File = "arch/x86/kvm/x86.c")]
    private void WriteTscOffset(ulong l1Offset)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_write_tsc_offset");
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_write_tsc_offset", $"vcpu={VcpuId} prev={L1TscOffset} next={l1Offset}");
        L1TscOffset = l1Offset;
        TscOffset = IsGuestMode
            ? Arch.CalcNestedTscOffset(l1Offset, Ops.GetL2TscOffset(this), Ops.GetL2TscMultiplier(this))
            : l1Offset;
        Ops.WriteTscOffset(this, TscOffset);
    }

    [KernelFunction("kvm_vcpu_write_tsc_multiplier", File = "arch/x86/kvm/x86.c")]
    private void WriteTscMultiplier(ulong l1Multiplier)
    {
        using var _ = FunctionTrace.Enter("kvm_vcpu_write_tsc_multiplier");
        L1TscScalingRatio = l1Multiplier;
        TscScalingRatio = IsGuestMode ? Arch.CalcNestedTscMultiplier(l1Multiplier, Ops.GetL2TscMultiplier(this)) : l1Multiplier;
        if (Arch.KvmCaps.HasTscControl)
            Ops.WriteTscMultiplier(this, TscScalingRatio);
    }

    private void AdjustTscOffsetGuest(long adjustment) => WriteTscOffset(L1TscOffset + (ulong)adjustment);

    /// <summary>Sets the guest's frequency: 0, or -1 for one that the hardware cannot give.</summary>
    [KernelFunction("kvm_set_tsc_khz", File = "arch/x86/kvm/x86.c")]
    internal int SetTscKhz(uint userTscKhz)
    {
        using var _ = FunctionTrace.Enter("kvm_set_tsc_khz");
        KvmCaps caps = Arch.KvmCaps;
        uint hostKhz = Arch.HostX86.TscKhz;
        if (userTscKhz == 0)
        {
            WriteTscMultiplier(caps.DefaultTscScalingRatio);
            return -1;
        }

        TscMath.GetTimeScale(userTscKhz * 1000ul, X86Const.NSEC_PER_SEC, out VirtualTscShift, out VirtualTscMult);
        VirtualTscKhz = userTscKhz;

        // A rate within the tolerance runs unscaled.
        long ppm = Arch.Params.TscTolerancePpm;
        uint low = (uint)((long)hostKhz * (1_000_000 - ppm) / 1_000_000);
        uint high = (uint)((long)hostKhz * (1_000_000 + ppm) / 1_000_000);
        if (userTscKhz >= low && userTscKhz <= high)
        {
            WriteTscMultiplier(caps.DefaultTscScalingRatio);
            return 0;
        }

        if (!caps.HasTscControl)
        {
            if (userTscKhz > hostKhz)
            {
                TscCatchup = true;
                TscAlwaysCatchup = true;
                return 0;
            }

            Vm.Host.Log.Warn("user requested TSC rate below hardware speed");
            return -1;
        }

        ulong ratio = (ulong)(((UInt128)(1ul << caps.TscScalingRatioFracBits) * userTscKhz) / hostKhz);
        if (ratio == 0 || ratio >= caps.MaxTscScalingRatio)
        {
            Vm.Host.Log.Warn($"Invalid TSC scaling ratio - virtual-tsc-khz={userTscKhz}");
            return -1;
        }

        WriteTscMultiplier(ratio);
        return 0;
    }

    internal ulong NsecToCycles(ulong nsec) => TscMath.ScaleDelta(nsec, VirtualTscMult, VirtualTscShift);

    private ulong ComputeGuestTsc(long kernelNs) => ThisTscWrite + TscMath.ScaleDelta((ulong)(kernelNs - (long)ThisTscNsec), VirtualTscMult, VirtualTscShift);

    /// <summary>A host write of the TSC: vCPUs whose writes are close together get the same offset.</summary>
    [KernelFunction("kvm_synchronize_tsc", File = "arch/x86/kvm/x86.c")]
    internal void SynchronizeTsc(ulong data)
    {
        using var _ = FunctionTrace.Enter("kvm_synchronize_tsc");
        X86Vm vm = Vm;
        lock (vm.TscWriteLock)
        {
            ulong offset = ComputeL1TscOffset(data);
            ulong ns = (ulong)Arch.KvmclockBaseNs();
            ulong elapsed = ns - vm.LastTscNsec;
            bool synchronizing = false;
            if (VirtualTscKhz != 0)
            {
                // 0: the initialization of a vCPU. Otherwise within a second of what the last write would read by now.
                ulong expected = vm.LastTscWrite + NsecToCycles(elapsed);
                ulong hz = VirtualTscKhz * 1000ul;
                synchronizing = data == 0 || (data < expected + hz && data + hz > expected);
            }

            bool matched = false;
            if (synchronizing && VirtualTscKhz == vm.LastTscKhz)
            {
                if (!Arch.HostX86.TscUnstable)
                {
                    offset = vm.CurTscOffset;
                }
                else
                {
                    data += NsecToCycles(elapsed);
                    offset = ComputeL1TscOffset(data);
                }

                matched = true;
            }

            SynchronizeTscLocked(offset, data, ns, matched);
        }
    }

    [KernelFunction("__kvm_synchronize_tsc", File = "arch/x86/kvm/x86.c")]
    internal void SynchronizeTscLocked(ulong offset, ulong tsc, ulong ns, bool matched)
    {
        using var _ = FunctionTrace.Enter("__kvm_synchronize_tsc");
        X86Vm vm = Vm;
        vm.LastTscNsec = ns;
        vm.LastTscWrite = tsc;
        vm.LastTscKhz = VirtualTscKhz;
        vm.LastTscOffset = offset;
        LastGuestTsc = tsc;
        WriteTscOffset(offset);

        if (!matched)
        {
            // A new generation: its first write is what the others are matched with.
            vm.CurTscGeneration++;
            vm.CurTscNsec = ns;
            vm.CurTscWrite = tsc;
            vm.CurTscOffset = offset;
            vm.NrVcpusMatchedTsc = 0;
        }
        else if (ThisTscGeneration != vm.CurTscGeneration)
        {
            vm.NrVcpusMatchedTsc++;
        }

        ThisTscGeneration = vm.CurTscGeneration;
        ThisTscNsec = vm.CurTscNsec;
        ThisTscWrite = vm.CurTscWrite;

        // kvm_track_tsc_matching.
        if (vm.UseMasterClock || (!Arch.HostX86.TscUnstable && vm.NrVcpusMatchedTsc + 1 == vm.OnlineVcpus))
            MakeRequest(KVM_REQ_MASTERCLOCK_UPDATE);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_track_tsc", $"vcpu_id {VcpuId} masterclock {(vm.UseMasterClock ? 1 : 0)} offsetmatched {vm.NrVcpusMatchedTsc} nr_online {vm.OnlineVcpus} hostclock {vm.HostClock}");
    }

    /// <summary>Brings kvmclock's page up to date and catches up a slow guest counter; 0.</summary>
    [KernelFunction("kvm_guest_time_update", File = "arch/x86/kvm/x86.c")]
    internal unsafe int GuestTimeUpdate()
    {
        using var _ = FunctionTrace.Enter("kvm_guest_time_update");
        X86Vm vm = Vm;
        ulong hostTsc;
        long kernelNs;
        bool master;
        lock (vm.TscWriteLock)
        {
            master = vm.UseMasterClock;
            hostTsc = vm.MasterCycleNow;
            kernelNs = vm.MasterKernelNs;
        }

        if (!master)
        {
            hostTsc = Arch.HostX86.Rdtsc();
            kernelNs = Arch.KvmclockBaseNs();
        }

        ulong tscTimestamp = ReadL1Tsc(hostTsc);
        if (TscCatchup)
        {
            ulong tsc = ComputeGuestTsc(kernelNs);
            if (tsc > tscTimestamp)
            {
                AdjustTscOffsetGuest((long)(tsc - tscTimestamp));
                tscTimestamp = tsc;
            }
        }

        uint khz = Arch.HostX86.TscKhz;
        if (Arch.KvmCaps.HasTscControl)
            khz = (uint)Arch.ScaleTsc(khz, L1TscScalingRatio);
        if (HwTscKhz != khz)
        {
            TscMath.GetTimeScale(X86Const.NSEC_PER_SEC, khz * 1000ul, out HvClock.TscShift, out HvClock.TscToSystemMul);
            HwTscKhz = khz;
        }

        LastGuestTsc = tscTimestamp;
        HvClock.TscTimestamp = tscTimestamp;
        HvClock.SystemTime = (ulong)(kernelNs + vm.KvmclockOffset);
        HvClock.TscStable = master;
        if (PvTimeActive)
            SetupGuestPvclock();
        vm.Hyperv.SetupTscPage(in HvClock);
        return 0;
    }

    /// <summary>kvm_setup_guest_pvclock: odd version, contents, even version.</summary>
    private void SetupGuestPvclock()
    {
        Span<byte> page = stackalloc byte[32];
        if (ReadGuest(PvTimeGpa, page) != 0)
            return;
        uint version = BitConverter.ToUInt32(page) | 1;
        BitConverter.TryWriteBytes(page, version);
        WriteGuest(PvTimeGpa, page[..4]);

        byte flags = (byte)(page[29] & 2);
        if (PvclockSetGuestStoppedRequest)
        {
            flags |= 2;
            PvclockSetGuestStoppedRequest = false;
        }

        if (HvClock.TscStable)
            flags |= 1;
        BitConverter.TryWriteBytes(page[8..], HvClock.TscTimestamp);
        BitConverter.TryWriteBytes(page[16..], HvClock.SystemTime);
        BitConverter.TryWriteBytes(page[24..], HvClock.TscToSystemMul);
        page[28] = (byte)HvClock.TscShift;
        page[29] = flags;
        WriteGuest(PvTimeGpa + 4, page[4..]);
        BitConverter.TryWriteBytes(page, version + 1);
        WriteGuest(PvTimeGpa, page[..4]);
    }

    /// <summary>kvm_write_system_time: a guest (or userspace) places the kvmclock page, or turns it off.</summary>
    [KernelFunction("kvm_write_system_time", File = "arch/x86/kvm/x86.c")]
    private void WriteSystemTime(ulong systemTime, bool oldMsr, bool hostInitiated)
    {
        using var _ = FunctionTrace.Enter("kvm_write_system_time");
        if (VcpuId == 0 && !hostInitiated)
        {
            if (Vm.BootVcpuRunsOldKvmclock != oldMsr)
                MakeRequest(KVM_REQ_MASTERCLOCK_UPDATE);
            Vm.BootVcpuRunsOldKvmclock = oldMsr;
        }

        Time = systemTime;
        MakeRequest(KVM_REQ_GLOBAL_CLOCK_UPDATE);
        PvTimeActive = (systemTime & 1) != 0;
        PvTimeGpa = systemTime & ~1ul;
    }

    private void KvmclockReset()
    {
        FunctionTrace.Leaf("kvm_gpc_deactivate");
        PvTimeActive = false;
        Time = 0;
    }

    /// <summary>KVM_KVMCLOCK_CTRL: -EINVAL while the guest has no kvmclock.</summary>
    [KernelFunction("kvm_set_guest_paused", File = "arch/x86/kvm/x86.c")]
    internal int SetGuestPaused()
    {
        if (!PvTimeActive)
            return -Errnos.EINVAL;
        PvclockSetGuestStoppedRequest = true;
        MakeRequest(KVM_REQ_CLOCK_UPDATE);
        return 0;
    }

    /// <summary>hv_clock: the kvmclock parameters as last computed.</summary>
    private PvclockVcpuTimeInfo HvClock;

    /// <summary>Guest-physical address of the kvmclock page.</summary>
    public ulong PvTimeGpa;
}
