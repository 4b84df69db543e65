using System.Runtime.CompilerServices;
using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>The x86 calls on /dev/kvm (x86.c:kvm_arch_dev_ioctl), in number order.</remarks>
public sealed unsafe partial class X86Arch
{
    private const int MAX_IO_MSRS = 256;

    public IoctlTable<KvmDevice> DevIoctls { get; }

    [KernelFunction("kvm_arch_dev_ioctl", File = "arch/x86/kvm/x86.c")]
    public KvmResult DevIoctl(KvmDevice device, uint request, ulong arg)
    {
        using var _ = FunctionTrace.Enter("kvm_arch_dev_ioctl");
        return DevIoctls.Dispatch(device, request, arg, Errno.EINVAL);
    }

    private IoctlTable<KvmDevice> BuildDevIoctls() => new()
    {
        { KVM_GET_MSR_INDEX_LIST, nameof(KVM_GET_MSR_INDEX_LIST), (_, arg) => GetMsrIndexList(arg) },
        { KVM_GET_SUPPORTED_CPUID, nameof(KVM_GET_SUPPORTED_CPUID), (_, arg) => GetCpuid(arg, false) },
        { KVM_GET_EMULATED_CPUID, nameof(KVM_GET_EMULATED_CPUID), (_, arg) => GetCpuid(arg, true) },
        { KVM_GET_MSR_FEATURE_INDEX_LIST, nameof(KVM_GET_MSR_FEATURE_INDEX_LIST), (_, arg) => GetMsrFeatureIndexList(arg) },
        { KVM_GET_MSRS, nameof(KVM_GET_MSRS), (_, arg) => MsrIo(null, arg, MsrIoKind.Feature) },
        { KVM_X86_GET_MCE_CAP_SUPPORTED, nameof(KVM_X86_GET_MCE_CAP_SUPPORTED), (_, arg) => Put(arg, KvmCaps.SupportedMceCap) },
        { KVM_GET_SUPPORTED_HV_CPUID, nameof(KVM_GET_SUPPORTED_HV_CPUID), (_, arg) => HvCpuid.Ioctl(this, null, arg) },
        { KVM_GET_DEVICE_ATTR, nameof(KVM_GET_DEVICE_ATTR), (_, arg) => DevGetAttr(arg) },
        { KVM_HAS_DEVICE_ATTR, nameof(KVM_HAS_DEVICE_ATTR), (_, arg) => DevHasAttr(arg) },
    };

    internal static KvmResult Put<T>(ulong address, T value)
        where T : unmanaged => new UserPtr<T>(address).Write(in value) ? 0 : -EFAULT;

    /// <summary>The count is always written back; -E2BIG when the caller's table is smaller.</summary>
    private KvmResult GetMsrIndexList(ulong arg)
    {
        var list = new UserPtr<kvm_msr_list>(arg);
        if (!list.Read(out kvm_msr_list header))
            return -EFAULT;
        uint n = header.nmsrs;
        header.nmsrs = (uint)(Msrs.MsrsToSave.Length + Msrs.EmulatedMsrs.Length);
        if (!list.Write(in header))
            return -EFAULT;
        if (n < header.nmsrs)
            return -E2BIG;
        UserPtr<uint> indices = list.Offset<uint>(sizeof(uint));
        if (!indices.Write(Msrs.MsrsToSave) || !indices.At(Msrs.MsrsToSave.Length).Write(Msrs.EmulatedMsrs))
            return -EFAULT;
        return 0;
    }

    private KvmResult GetMsrFeatureIndexList(ulong arg)
    {
        var list = new UserPtr<kvm_msr_list>(arg);
        if (!list.Read(out kvm_msr_list header))
            return -EFAULT;
        uint n = header.nmsrs;
        header.nmsrs = (uint)Msrs.MsrBasedFeatures.Length;
        if (!list.Write(in header))
            return -EFAULT;
        if (n < header.nmsrs)
            return -E2BIG;
        return list.Offset<uint>(sizeof(uint)).Write(Msrs.MsrBasedFeatures) ? 0 : -EFAULT;
    }

    [KernelFunction("kvm_dev_ioctl_get_cpuid", File = "arch/x86/kvm/cpuid.c")]
    private KvmResult GetCpuid(ulong arg, bool emulated)
    {
        using var _ = FunctionTrace.Enter("kvm_dev_ioctl_get_cpuid");
        var argp = new UserPtr<kvm_cpuid2>(arg);
        if (!argp.Read(out kvm_cpuid2 cpuid))
            return -EFAULT;
        if (cpuid.nent < 1)
            return -E2BIG;
        cpuid.nent = Math.Min(cpuid.nent, KVM_MAX_CPUID_ENTRIES);
        UserPtr<kvm_cpuid_entry2> entries = argp.Offset<kvm_cpuid_entry2>(sizeof(kvm_cpuid2));
        if (emulated)
        {
            // The padding of the caller's entries must be clean, for a meaning that it may get one day.
            for (int i = 0; i < cpuid.nent; i++)
            {
                if (!entries.At(i).Read(out kvm_cpuid_entry2 e) || e.padding[0] != 0 || e.padding[1] != 0 || e.padding[2] != 0)
                    return -EINVAL;
            }
        }

        if (Host.Faults.ShouldFail("kvcalloc", "cpuid_entries"))
            return -ENOMEM;
        var answer = new SupportedCpuid(this, (int)cpuid.nent, emulated);
        int r = answer.Build();
        if (r != 0)
            return r;
        cpuid.nent = (uint)answer.Nent;
        if (!entries.Write(answer.Entries.AsSpan(0, answer.Nent)) || !argp.Write(in cpuid))
            return -EFAULT;
        return 0;
    }

    internal enum MsrIoKind
    {
        Feature,
        Get,
        Set,
    }

    /// <summary>msr_io: how many MSRs were transferred before the first that failed; -E2BIG for 256 or more.</summary>
    [KernelFunction("msr_io", File = "arch/x86/kvm/x86.c")]
    internal KvmResult MsrIo(X86Vcpu? vcpu, ulong arg, MsrIoKind kind)
    {
        var argp = new UserPtr<kvm_msrs>(arg);
        if (!argp.Read(out kvm_msrs msrs))
            return -EFAULT;
        if (msrs.nmsrs >= MAX_IO_MSRS)
            return -E2BIG;
        Span<kvm_msr_entry> entries = stackalloc kvm_msr_entry[(int)msrs.nmsrs];
        UserPtr<kvm_msr_entry> user = argp.Offset<kvm_msr_entry>(sizeof(kvm_msrs));
        if (Host.Faults.ShouldFail("memdup_user", "msr_io"))
            return -ENOMEM;
        if (!user.Read(entries))
            return -EFAULT;
        int n = 0;
        for (; n < entries.Length; n++)
        {
            if (Transfer(vcpu, ref entries[n], kind) != 0)
                break;
        }

        if (kind != MsrIoKind.Set && !user.Write(entries))
            return -EFAULT;
        return n;
    }

    private int Transfer(X86Vcpu? vcpu, ref kvm_msr_entry entry, MsrIoKind kind)
    {
        switch (kind)
        {
            case MsrIoKind.Get:
                return vcpu!.DoGetMsr(entry.index, out entry.data);
            case MsrIoKind.Set:
                return vcpu!.DoSetMsr(entry.index, entry.data);
            default:
                var feature = new MsrData(entry.index, 0, true);
                int r = GetMsrFeature(ref feature);
                if (r == KVM_MSR_RET_UNSUPPORTED && MsrIgnoredCheck(entry.index, 0, false))
                    r = 0;
                entry.data = feature.Data;
                return r;
        }
    }

    private KvmResult DevGetAttr(ulong arg)
    {
        if (!new UserPtr<kvm_device_attr>(arg).Read(out kvm_device_attr attr))
            return -EFAULT;
        if (attr.group != 0 || attr.attr != KVM_X86_XCOMP_GUEST_SUPP)
            return -ENXIO;
        return Put(attr.addr, KvmCaps.SupportedXcr0);
    }

    private static KvmResult DevHasAttr(ulong arg)
    {
        if (!new UserPtr<kvm_device_attr>(arg).Read(out kvm_device_attr attr))
            return -EFAULT;
        return attr.group != 0 || attr.attr != KVM_X86_XCOMP_GUEST_SUPP ? -ENXIO : 0;
    }
}
