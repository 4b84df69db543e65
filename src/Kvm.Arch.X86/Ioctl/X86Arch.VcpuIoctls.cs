using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>The x86 calls on a vCPU (x86.c:kvm_arch_vcpu_ioctl), in number order. The vCPU is loaded around each of them.</remarks>
public sealed unsafe partial class X86Arch
{
    public IoctlTable<KvmVcpu> VcpuIoctls { get; }

    [KernelFunction("kvm_arch_vcpu_ioctl", File = "arch/x86/kvm/x86.c")]
    public KvmResult VcpuIoctl(KvmVcpu vcpu, uint request, ulong arg)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_vcpu_ioctl");
        vcpu.Load();
        KvmResult r = VcpuIoctls.Dispatch(vcpu, request, arg, Errno.EINVAL);
        vcpu.Put();
        return r;
    }

    private IoctlTable<KvmVcpu> BuildVcpuIoctls() => new()
    {
        { KVM_INTERRUPT, nameof(KVM_INTERRUPT), (v, arg) => new UserPtr<uint>(arg).Read(out uint irq) ? X(v).IoctlInterrupt(irq) : -EFAULT },
        { KVM_GET_MSRS, nameof(KVM_GET_MSRS), (v, arg) => MsrIoSrcu(X(v), arg, MsrIoKind.Get) },
        { KVM_SET_MSRS, nameof(KVM_SET_MSRS), (v, arg) => MsrIoSrcu(X(v), arg, MsrIoKind.Set) },
        { KVM_SET_CPUID, nameof(KVM_SET_CPUID), (v, arg) => SetCpuid(X(v), arg) },
        { KVM_GET_LAPIC, nameof(KVM_GET_LAPIC), (v, arg) => GetLapic(X(v), arg) },
        { KVM_SET_LAPIC, nameof(KVM_SET_LAPIC), (v, arg) => SetLapic(X(v), arg) },
        { KVM_SET_CPUID2, nameof(KVM_SET_CPUID2), (v, arg) => SetCpuid2(X(v), arg) },
        { KVM_GET_CPUID2, nameof(KVM_GET_CPUID2), (v, arg) => GetCpuid2(X(v), arg) },
        { KVM_TPR_ACCESS_REPORTING, nameof(KVM_TPR_ACCESS_REPORTING), (v, arg) => TprAccessReporting(X(v), arg) },
        { KVM_SET_VAPIC_ADDR, nameof(KVM_SET_VAPIC_ADDR), static (v, arg) => SetVapicAddr(X(v), arg) },
        { KVM_NMI, nameof(KVM_NMI), static (KvmVcpu v) => Nmi(X(v)) },
        { KVM_X86_SETUP_MCE, nameof(KVM_X86_SETUP_MCE), (v, arg) => new UserPtr<ulong>(arg).Read(out ulong cap) ? X(v).SetupMce(cap) : -EFAULT },
        { KVM_X86_SET_MCE, nameof(KVM_X86_SET_MCE), (v, arg) => new UserPtr<kvm_x86_mce>(arg).Read(out kvm_x86_mce mce) ? X(v).SetMce(in mce) : -EFAULT },
        { KVM_GET_VCPU_EVENTS, nameof(KVM_GET_VCPU_EVENTS), (v, arg) => GetVcpuEvents(X(v), arg) },
        { KVM_SET_VCPU_EVENTS, nameof(KVM_SET_VCPU_EVENTS), (v, arg) => SetVcpuEvents(X(v), arg) },
        { KVM_GET_DEBUGREGS, nameof(KVM_GET_DEBUGREGS), (v, arg) => Put(arg, X(v).GetDebugregs()) },
        { KVM_SET_DEBUGREGS, nameof(KVM_SET_DEBUGREGS), (v, arg) => new UserPtr<kvm_debugregs>(arg).Read(out kvm_debugregs d) ? X(v).SetDebugregs(in d) : -EFAULT },
        { KVM_SET_TSC_KHZ, nameof(KVM_SET_TSC_KHZ), (v, arg) => VcpuSetTscKhz(X(v), (uint)arg) },
        { KVM_GET_TSC_KHZ, nameof(KVM_GET_TSC_KHZ), static (KvmVcpu v) => X(v).VirtualTscKhz },
        { KVM_ENABLE_CAP, nameof(KVM_ENABLE_CAP), (v, arg) => new UserPtr<kvm_enable_cap>(arg).Read(out kvm_enable_cap c) ? VcpuEnableCap(X(v), in c) : -EFAULT },
        { KVM_GET_XSAVE, nameof(KVM_GET_XSAVE), (v, arg) => X(v).IoctlGetXsave(arg, 4096) },
        { KVM_SET_XSAVE, nameof(KVM_SET_XSAVE), (v, arg) => X(v).IoctlSetXsave(arg) },
        { KVM_GET_XCRS, nameof(KVM_GET_XCRS), (v, arg) => Put(arg, X(v).GetXcrs()) },
        { KVM_SET_XCRS, nameof(KVM_SET_XCRS), (v, arg) => new UserPtr<kvm_xcrs>(arg).Read(out kvm_xcrs x) ? X(v).SetXcrs(in x) : -EFAULT },
        { KVM_KVMCLOCK_CTRL, nameof(KVM_KVMCLOCK_CTRL), static (KvmVcpu v) => X(v).SetGuestPaused() },
        { KVM_SMI, nameof(KVM_SMI), static (KvmVcpu v) => Smi(X(v)) },
        { KVM_GET_NESTED_STATE, nameof(KVM_GET_NESTED_STATE), (v, arg) => GetNestedState(X(v), arg) },
        { KVM_SET_NESTED_STATE, nameof(KVM_SET_NESTED_STATE), (v, arg) => SetNestedState(X(v), arg) },
        { KVM_GET_SUPPORTED_HV_CPUID, nameof(KVM_GET_SUPPORTED_HV_CPUID), (v, arg) => HvCpuid.Ioctl(this, X(v), arg) },
        { KVM_GET_SREGS2, nameof(KVM_GET_SREGS2), (v, arg) => GetSregs2(X(v), arg) },
        { KVM_SET_SREGS2, nameof(KVM_SET_SREGS2), (v, arg) => new UserPtr<kvm_sregs2>(arg).Read(out kvm_sregs2 s) ? X(v).SetSregs2(in s) : -EFAULT },
        { KVM_GET_XSAVE2, nameof(KVM_GET_XSAVE2), (v, arg) => X(v).IoctlGetXsave(arg, X(v).GuestFpu.UabiSize) },
        { KVM_SET_DEVICE_ATTR, nameof(KVM_SET_DEVICE_ATTR), (v, arg) => DeviceAttr(X(v), KVM_SET_DEVICE_ATTR, arg) },
        { KVM_GET_DEVICE_ATTR, nameof(KVM_GET_DEVICE_ATTR), (v, arg) => DeviceAttr(X(v), KVM_GET_DEVICE_ATTR, arg) },
        { KVM_HAS_DEVICE_ATTR, nameof(KVM_HAS_DEVICE_ATTR), (v, arg) => DeviceAttr(X(v), KVM_HAS_DEVICE_ATTR, arg) },
    };

    private static X86Vcpu X(KvmVcpu vcpu) => (X86Vcpu)vcpu;

    private static KvmResult Nmi(X86Vcpu vcpu)
    {
        vcpu.InjectNmi();
        return 0;
    }

    private static KvmResult Smi(X86Vcpu vcpu)
    {
        vcpu.MakeRequest(KVM_REQ_SMI);
        return 0;
    }

    /// <summary>-EINVAL without an in-kernel local APIC.</summary>
    private KvmResult GetLapic(X86Vcpu vcpu, ulong arg)
    {
        if (vcpu.Apic is not { } apic)
            return -EINVAL;
        if (Host.Faults.ShouldFail("kzalloc", "kvm_lapic_state"))
            return -ENOMEM;
        if (Ops.HasSyncPirToIrr)
            Ops.SyncPirToIrr(vcpu);
        var state = default(kvm_lapic_state);
        int r = apic.GetState(ref state);
        return r != 0 ? r : Put(arg, state);
    }

    private KvmResult SetLapic(X86Vcpu vcpu, ulong arg)
    {
        if (vcpu.Apic is not { } apic)
            return -EINVAL;
        if (Host.Faults.ShouldFail("memdup_user", "kvm_lapic_state"))
            return -ENOMEM;
        if (!new UserPtr<kvm_lapic_state>(arg).Read(out kvm_lapic_state state))
            return -EFAULT;
        int r = apic.SetState(state);
        if (r != 0)
            return r;
        vcpu.UpdateCr8Intercept();
        return 0;
    }

    private static KvmResult SetVapicAddr(X86Vcpu vcpu, ulong arg)
    {
        if (vcpu.Apic is not { } apic)
            return -EINVAL;
        if (!new UserPtr<kvm_vapic_addr>(arg).Read(out kvm_vapic_addr va))
            return -EFAULT;
        int index = vcpu.Vm.Srcu.ReadLock();
        int r = apic.SetVapicAddr(va.vapic_addr);
        vcpu.Vm.Srcu.ReadUnlock(index);
        return r;
    }

    private KvmResult MsrIoSrcu(X86Vcpu vcpu, ulong arg, MsrIoKind kind)
    {
        int index = vcpu.Vm.Srcu.ReadLock();
        KvmResult r;

        // Writing copies its table with msr_io too, but the recorded name of that call is inlined away.
        using (kind == MsrIoKind.Get ? FunctionTrace.Enter("msr_io") : default)
            r = MsrIo(vcpu, arg, kind);
        vcpu.Vm.Srcu.ReadUnlock(index);
        return r;
    }

    private KvmResult SetCpuid(X86Vcpu vcpu, ulong arg)
    {
        var argp = new UserPtr<kvm_cpuid>(arg);
        if (!argp.Read(out kvm_cpuid cpuid))
            return -EFAULT;
        if (cpuid.nent > X86Const.KVM_MAX_CPUID_ENTRIES)
            return -E2BIG;
        var old = new kvm_cpuid_entry[cpuid.nent];
        if (!argp.Offset<kvm_cpuid_entry>(sizeof(kvm_cpuid)).Read(old))
            return -EFAULT;
        if (cpuid.nent != 0 && Host.Faults.ShouldFail("kvmalloc", "cpuid_entries"))
            return -ENOMEM;
        var entries = new kvm_cpuid_entry2[cpuid.nent];
        for (int i = 0; i < old.Length; i++)
        {
            entries[i].function = old[i].function;
            entries[i].eax = old[i].eax;
            entries[i].ebx = old[i].ebx;
            entries[i].ecx = old[i].ecx;
            entries[i].edx = old[i].edx;
        }

        return vcpu.SetCpuid(entries);
    }

    [KernelFunction("kvm_vcpu_ioctl_set_cpuid2", File = "arch/x86/kvm/cpuid.c")]
    private KvmResult SetCpuid2(X86Vcpu vcpu, ulong arg)
    {
        var argp = new UserPtr<kvm_cpuid2>(arg);
        if (!argp.Read(out kvm_cpuid2 cpuid))
            return -EFAULT;
        using var _ = FunctionTrace.Enter("kvm_vcpu_ioctl_set_cpuid2");
        if (cpuid.nent > X86Const.KVM_MAX_CPUID_ENTRIES)
            return -E2BIG;
        FunctionTrace.Leaf("kvmalloc_node");
        if (cpuid.nent != 0 && Host.Faults.ShouldFail("kvmalloc", "cpuid_entries"))
            return -ENOMEM;
        var entries = new kvm_cpuid_entry2[cpuid.nent];
        if (!argp.Offset<kvm_cpuid_entry2>(sizeof(kvm_cpuid2)).Read(entries))
            return -EFAULT;
        return vcpu.SetCpuid(entries);
    }

    /// <summary>-E2BIG when the table is too small; the count is not written back then.</summary>
    private static KvmResult GetCpuid2(X86Vcpu vcpu, ulong arg)
    {
        var argp = new UserPtr<kvm_cpuid2>(arg);
        if (!argp.Read(out kvm_cpuid2 cpuid))
            return -EFAULT;
        if (cpuid.nent < vcpu.CpuidNent)
            return -E2BIG;
        if (!argp.Offset<kvm_cpuid_entry2>(sizeof(kvm_cpuid2)).Write(vcpu.CpuidEntries.AsSpan(0, vcpu.CpuidNent)))
            return -EFAULT;
        return argp.Write(in cpuid) ? 0 : -EFAULT;
    }

    private static KvmResult TprAccessReporting(X86Vcpu vcpu, ulong arg)
    {
        var argp = new UserPtr<kvm_tpr_access_ctl>(arg);
        if (!argp.Read(out kvm_tpr_access_ctl tac))
            return -EFAULT;
        if (tac.flags != 0)
            return -EINVAL;
        vcpu.TprAccessReporting = tac.enabled != 0;
        return argp.Write(in tac) ? 0 : -EFAULT;
    }

    private static KvmResult GetVcpuEvents(X86Vcpu vcpu, ulong arg)
    {
        var events = default(kvm_vcpu_events);
        vcpu.GetVcpuEvents(ref events);
        return Put(arg, events);
    }

    private static KvmResult SetVcpuEvents(X86Vcpu vcpu, ulong arg)
    {
        if (!new UserPtr<kvm_vcpu_events>(arg).Read(out kvm_vcpu_events events))
            return -EFAULT;
        vcpu.SrcuReadLock();
        int r = vcpu.SetVcpuEvents(events);
        vcpu.SrcuReadUnlock();
        return r;
    }

    private KvmResult VcpuSetTscKhz(X86Vcpu vcpu, uint khz)
    {
        if (KvmCaps.HasTscControl && khz >= KvmCaps.MaxGuestTscKhz)
            return -EINVAL;
        return vcpu.SetTscKhz(khz == 0 ? HostX86.TscKhz : khz) == 0 ? 0 : -EINVAL;
    }

    private KvmResult VcpuEnableCap(X86Vcpu vcpu, in kvm_enable_cap cap)
    {
        if (cap.flags != 0)
            return -EINVAL;
        switch (cap.cap)
        {
            case KVM_CAP_HYPERV_SYNIC2 when cap.args[0] != 0:
                return -EINVAL;
            case KVM_CAP_HYPERV_SYNIC2 or KVM_CAP_HYPERV_SYNIC:
                return vcpu.Vm.IrqchipInKernel ? vcpu.ActivateSynic(cap.cap == KVM_CAP_HYPERV_SYNIC2) : -EINVAL;
            case KVM_CAP_HYPERV_ENLIGHTENED_VMCS:
                return Ops.NestedOps.HasEnableEvmcs ? Put(cap.args[0], Ops.NestedOps.EnableEvmcs(vcpu)) : -ENOTTY;
            case KVM_CAP_HYPERV_DIRECT_TLBFLUSH:
                return Ops.HasDirectTlbflush ? Ops.EnableDirectTlbflush(vcpu) : -ENOTTY;
            case KVM_CAP_HYPERV_ENFORCE_CPUID:
                return vcpu.SetEnforceCpuid(cap.args[0] != 0);
            case KVM_CAP_ENFORCE_PV_FEATURE_CPUID:
                vcpu.PvCpuidEnforce = cap.args[0] != 0;
                if (vcpu.PvCpuidEnforce)
                    vcpu.UpdatePvRuntime();
                return 0;
            default:
                return -EINVAL;
        }
    }

    private KvmResult GetNestedState(X86Vcpu vcpu, ulong arg)
    {
        if (Ops.NestedOps.MaxStateSize == 0)
            return -EINVAL;
        UserPtr<uint> size = new UserPtr<kvm_nested_state>(arg).Offset<uint>(4);
        if (!size.Read(out uint userSize))
            return -EFAULT;
        int r = Ops.NestedOps.GetState(vcpu, arg, userSize);
        if (r < 0)
            return r;
        if (r <= userSize)
            return 0;
        return size.Write((uint)r) ? -E2BIG : -EFAULT;
    }

    private KvmResult SetNestedState(X86Vcpu vcpu, ulong arg)
    {
        if (Ops.NestedOps.MaxStateSize == 0)
            return -EINVAL;
        if (!new UserPtr<kvm_nested_state>(arg).Read(out kvm_nested_state state))
            return -EFAULT;
        if (state.size < sizeof(kvm_nested_state))
            return -EINVAL;
        const uint valid = KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_EVMCS | KVM_STATE_NESTED_MTF_PENDING
            | KVM_STATE_NESTED_GIF_SET;
        if ((state.flags & ~valid) != 0)
            return -EINVAL;
        if ((state.flags & KVM_STATE_NESTED_RUN_PENDING) != 0 && (state.flags & KVM_STATE_NESTED_GUEST_MODE) == 0)
            return -EINVAL;
        int index = vcpu.Vm.Srcu.ReadLock();
        int r = Ops.NestedOps.SetState(vcpu, arg, ref state);
        vcpu.Vm.Srcu.ReadUnlock(index);
        return r;
    }

    private static KvmResult GetSregs2(X86Vcpu vcpu, ulong arg)
    {
        var sregs = default(kvm_sregs2);
        vcpu.GetSregs2(ref sregs);
        return Put(arg, sregs);
    }

    /// <summary>The TSC offset attribute; -ENXIO for anything else.</summary>
    private static KvmResult DeviceAttr(X86Vcpu vcpu, uint request, ulong arg)
    {
        if (!new UserPtr<kvm_device_attr>(arg).Read(out kvm_device_attr attr))
            return -EFAULT;
        if (attr.group != KVM_VCPU_TSC_CTRL || attr.attr != KVM_VCPU_TSC_OFFSET)
            return -ENXIO;
        switch (request)
        {
            case KVM_HAS_DEVICE_ATTR:
                return 0;
            case KVM_GET_DEVICE_ATTR:
                return Put(attr.addr, vcpu.L1TscOffset);
            default:
                return new UserPtr<ulong>(attr.addr).Read(out ulong offset) ? vcpu.SetTscOffsetAttr(offset) : -EFAULT;
        }
    }
}
