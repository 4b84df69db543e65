using System.Runtime.CompilerServices;
using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.CpuidLeafs;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Feature;

namespace Kvm.Arch.X86;

/// <summary>Builds the answers of KVM_GET_SUPPORTED_CPUID and KVM_GET_EMULATED_CPUID.</summary>
/// <remarks>cpuid.c:kvm_dev_ioctl_get_cpuid, __do_cpuid_func, __do_cpuid_func_emulated.</remarks>
internal sealed class SupportedCpuid(X86Arch arch, int maxNent, bool emulated)
{
    private const uint KVM_CPUID_SIGNATURE = 0x40000000;
    private const uint KVM_CPUID_FEATURES_LEAF = 0x40000001;
    private const uint CentaurSignature = 0xc0000000;

    /// <summary>__do_cpuid_func copies what the CPU that runs the call says, topology leaves included.</summary>
    private readonly HostX86Cpu cpu = arch.HostX86.ThisCpu;
    private uint maxExtended;

    public kvm_cpuid_entry2[] Entries { get; } = new kvm_cpuid_entry2[maxNent];

    public int Nent { get; private set; }

    /// <summary>0, or -E2BIG when the entries do not fit.</summary>
    public int Build()
    {
        foreach (uint function in (ReadOnlySpan<uint>)[0, 0x80000000, CentaurSignature, KVM_CPUID_SIGNATURE])
        {
            int r = GetClass(function);
            if (r != 0)
                return r;
        }

        return 0;
    }

    private int GetClass(uint function)
    {
        if (function == CentaurSignature && arch.HostX86.BootCpuData.Vendor != CpuVendorId.Centaur)
            return 0;
        int r = Do(function);
        if (r != 0)
            return r;
        uint limit = Entries[Nent - 1].eax;
        for (uint f = function + 1; f <= limit; f++)
        {
            r = Do(f);
            if (r != 0)
                return r;
        }

        return 0;
    }

    private int Do(uint function) => emulated ? DoEmulated(function) : DoHost(function);

    private int DoEmulated(uint function)
    {
        if (Nent >= Entries.Length)
            return -E2BIG;
        ref kvm_cpuid_entry2 entry = ref Entries[Nent];
        entry.function = function;
        switch (function)
        {
            case 0:
                entry.eax = 7;
                Nent++;
                break;
            case 1:
                entry.ecx = 1u << ((int)MOVBE & 31);
                Nent++;
                break;
            case 7:
                entry.flags |= KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
                if (arch.CpuCapHas(RDTSCP))
                    entry.ecx = 1u << ((int)RDPID & 31);
                Nent++;
                break;
        }

        return 0;
    }

    internal static bool IsIndexed(uint function) => function is
        4 or 7 or 0xb or 0xd or 0xf or 0x10 or 0x12 or 0x14 or 0x17 or 0x18 or 0x1d or 0x1e or 0x1f or 0x8000001d;

    /// <summary>The next entry with the host's values; a null reference when the table is full.</summary>
    [KernelFunction("do_host_cpuid", File = "arch/x86/kvm/cpuid.c")]
    private ref kvm_cpuid_entry2 HostEntry(uint function, uint index)
    {
        FunctionTrace.Leaf("do_host_cpuid");
        if (Nent >= Entries.Length)
            return ref Unsafe.NullRef<kvm_cpuid_entry2>();
        ref kvm_cpuid_entry2 entry = ref Entries[Nent++];
        entry = default;
        entry.function = function;
        entry.index = index;
        if ((function & 0xc0000000) == 0x40000000)
            return ref entry;
        if ((function & 0xc0000000) == 0x80000000)
        {
            // Some of these leaves are made up: do not ask the host beyond its last.
            if (maxExtended == 0)
                cpu.Cpuid(0x80000000, 0, out maxExtended, out _, out _, out _);
            if (function > maxExtended)
                return ref entry;
        }

        cpu.Cpuid(function, index, out entry.eax, out entry.ebx, out entry.ecx, out entry.edx);
        if (IsIndexed(function))
            entry.flags |= KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        return ref entry;
    }

    private void Override(ref kvm_cpuid_entry2 entry, int leaf)
    {
        uint value = arch.KvmCpuCaps[leaf];
        switch (Of(leaf).Register)
        {
            case EAX: entry.eax = value; break;
            case EBX: entry.ebx = value; break;
            case ECX: entry.ecx = value; break;
            default: entry.edx = value; break;
        }
    }

    private static void Clear(ref kvm_cpuid_entry2 entry) => entry.eax = entry.ebx = entry.ecx = entry.edx = 0;

    private int DoHost(uint function)
    {
        ref kvm_cpuid_entry2 entry = ref HostEntry(function, 0);
        if (Unsafe.IsNullRef(ref entry))
            return -E2BIG;
        switch (function)
        {
            case 0:
                entry.eax = Math.Min(entry.eax, 0x1f);
                return 0;
            case 1:
                Override(ref entry, CPUID_1_EDX);
                Override(ref entry, CPUID_1_ECX);
                return 0;
            case 2:
                return 0;
            case 4 or 0x8000001d:
                return CacheLeaves(function, entry.eax);
            case 6:
                // ARAT only.
                Clear(ref entry);
                entry.eax = 4;
                return 0;
            case 7:
                return Leaf7(ref entry);
            case 0xa:
                PerfmonLeaf(ref entry);
                return 0;
            case 0xb or 0x1f:
                // No topology: that is what a missing subleaf 1 says. EDX keeps the APIC id.
                entry.eax = entry.ebx = entry.ecx = 0;
                return 0;
            case 0xd:
                return LeafXsave(ref entry);
            case 0x12:
                return LeafSgx(ref entry);
            case 0x14:
                return IndexedLeaves(ref entry, INTEL_PT);
            case 0x1d:
                return IndexedLeaves(ref entry, AMX_TILE);
            case 0x1e:
                if (!arch.CpuCapHas(AMX_TILE))
                    Clear(ref entry);
                return 0;
            case KVM_CPUID_SIGNATURE:
                entry.eax = KVM_CPUID_FEATURES_LEAF;
                entry.ebx = 0x4b4d564b;
                entry.ecx = 0x564b4d56;
                entry.edx = 0x4d;
                return 0;
            case KVM_CPUID_FEATURES_LEAF:
                ParavirtualLeaf(ref entry);
                return 0;
            default:
                ExtendedLeaf(ref entry, function);
                return 0;
        }
    }

    private int CacheLeaves(uint function, uint eax)
    {
        // Until an entry without a cache type.
        for (uint i = 1; (eax & 0x1f) != 0; i++)
        {
            ref kvm_cpuid_entry2 entry = ref HostEntry(function, i);
            if (Unsafe.IsNullRef(ref entry))
                return -E2BIG;
            eax = entry.eax;
        }

        return 0;
    }

    private int Leaf7(ref kvm_cpuid_entry2 entry)
    {
        uint max = entry.eax = Math.Min(entry.eax, 2);
        Override(ref entry, CPUID_7_0_EBX);
        Override(ref entry, CPUID_7_ECX);
        Override(ref entry, CPUID_7_EDX);
        if (max >= 1)
        {
            ref kvm_cpuid_entry2 sub = ref HostEntry(7, 1);
            if (Unsafe.IsNullRef(ref sub))
                return -E2BIG;
            Clear(ref sub);
            Override(ref sub, CPUID_7_1_EAX);
        }

        if (max >= 2)
        {
            ref kvm_cpuid_entry2 sub = ref HostEntry(7, 2);
            if (Unsafe.IsNullRef(ref sub))
                return -E2BIG;
            Clear(ref sub);
            Override(ref sub, CPUID_7_2_EDX);
        }

        return 0;
    }

    private void PerfmonLeaf(ref kvm_cpuid_entry2 entry)
    {
        Clear(ref entry);
        if (!arch.HostX86.BootCpuHas(ARCH_PERFMON))
            return;
        X86PmuCapability pmu = arch.PmuCap;
        entry.eax = (uint)(pmu.Version | (pmu.NumCountersGp << 8) | (pmu.BitWidthGp << 16) | (pmu.EventsMaskLength << 24));
        entry.ebx = pmu.EventsMask;
        entry.edx = (uint)(pmu.NumCountersFixed | (pmu.BitWidthFixed << 5) | (pmu.Version != 0 ? 1 << 15 : 0));
    }

    private int LeafXsave(ref kvm_cpuid_entry2 entry)
    {
        // XSTATE components that need permission are not granted.
        ulong xcr0 = arch.KvmCaps.SupportedXcr0 & ~XFEATURE_MASK_XTILE;
        ulong xss = arch.KvmCaps.SupportedXss;
        entry.eax &= (uint)xcr0;
        entry.ebx = arch.XstateRequiredSize(xcr0, false);
        entry.ecx = entry.ebx;
        entry.edx &= (uint)(xcr0 >> 32);
        if (xcr0 == 0)
            return 0;

        ref kvm_cpuid_entry2 sub = ref HostEntry(0xd, 1);
        if (Unsafe.IsNullRef(ref sub))
            return -E2BIG;
        Override(ref sub, CPUID_D_1_EAX);
        sub.ebx = (sub.eax & 0xa) != 0 ? arch.XstateRequiredSize(xcr0 | xss, true) : 0;
        sub.ecx &= (uint)xss;
        sub.edx &= (uint)(xss >> 32);

        for (int i = 2; i < 64; i++)
        {
            bool user = (xcr0 >> i & 1) != 0;
            if (!user && (xss >> i & 1) == 0)
                continue;
            ref kvm_cpuid_entry2 component = ref HostEntry(0xd, (uint)i);
            if (Unsafe.IsNullRef(ref component))
                return -E2BIG;
            if (component.eax == 0 || (component.ecx & 1) != (user ? 0u : 1u))
            {
                Nent--;
                continue;
            }

            if (!arch.CpuCapHas(XFD))
                component.ecx &= ~4u;
            component.edx = 0;
        }

        return 0;
    }

    private int LeafSgx(ref kvm_cpuid_entry2 entry)
    {
        if (!arch.CpuCapHas(SGX))
        {
            Clear(ref entry);
            return 0;
        }

        Override(ref entry, CPUID_12_EAX);
        entry.ebx &= 1;
        ref kvm_cpuid_entry2 sub = ref HostEntry(0x12, 1);
        if (Unsafe.IsNullRef(ref sub))
            return -E2BIG;
        sub.eax &= (1 << 1) | (1 << 2) | (1 << 4) | (1 << 5) | (1 << 7);
        sub.ebx = 0;
        return 0;
    }

    private int IndexedLeaves(ref kvm_cpuid_entry2 entry, X86Feature feature)
    {
        if (!arch.CpuCapHas(feature))
        {
            Clear(ref entry);
            return 0;
        }

        uint function = entry.function;
        uint max = entry.eax;
        for (uint i = 1; i <= max; i++)
        {
            if (Unsafe.IsNullRef(ref HostEntry(function, i)))
                return -E2BIG;
        }

        return 0;
    }

    private static void ParavirtualLeaf(ref kvm_cpuid_entry2 entry)
    {
        Clear(ref entry);
        foreach (int feature in (ReadOnlySpan<int>)[KVM_FEATURE_CLOCKSOURCE, KVM_FEATURE_NOP_IO_DELAY, KVM_FEATURE_CLOCKSOURCE2, KVM_FEATURE_ASYNC_PF,
                     KVM_FEATURE_PV_EOI, KVM_FEATURE_CLOCKSOURCE_STABLE_BIT, KVM_FEATURE_PV_UNHALT, KVM_FEATURE_PV_TLB_FLUSH, KVM_FEATURE_ASYNC_PF_VMEXIT,
                     KVM_FEATURE_PV_SEND_IPI, KVM_FEATURE_POLL_CONTROL, KVM_FEATURE_PV_SCHED_YIELD, KVM_FEATURE_ASYNC_PF_INT, KVM_FEATURE_STEAL_TIME])
        {
            entry.eax |= 1u << feature;
        }
    }

    private void ExtendedLeaf(ref kvm_cpuid_entry2 entry, uint function)
    {
        switch (function)
        {
            case 0x80000000:
                entry.eax = Math.Min(entry.eax, 0x80000021);

                // Serializing LFENCE and NullSelectorClearsBase are told in leaf 80000021, made up where the host has at least 8000001d.
                if (entry.eax >= 0x8000001d
                    && (arch.HostX86.BootCpuHas(LFENCE_RDTSC) || !arch.HostX86.BootCpuHasBug(X86Bug.NULL_SEG)))
                    entry.eax = Math.Max(entry.eax, 0x80000021);
                break;
            case 0x80000001:
                entry.ebx &= ~0x0fff0000u;
                Override(ref entry, CPUID_8000_0001_EDX);
                Override(ref entry, CPUID_8000_0001_ECX);
                break;
            case 0x80000006:
                entry.edx &= ~0x30000u;
                break;
            case 0x80000007:
                entry.edx &= 1 << 8;
                entry.edx &= arch.HostX86.BootCpuData.Power;
                entry.eax = entry.ebx = entry.ecx = 0;
                break;
            case 0x80000008:
                uint virtBits = Math.Max((entry.eax >> 8) & 0xff, 48);
                uint physBits = arch.TdpEnabled ? entry.eax & 0xff : (uint)arch.HostX86.BootCpuData.PhysBits;
                entry.eax = physBits | (virtBits << 8);
                entry.ecx &= ~0xffff0f00u;
                entry.edx = 0;
                Override(ref entry, CPUID_8000_0008_EBX);
                break;
            case 0x8000000a:
                SvmLeaf(ref entry);
                break;
            case 0x80000019:
                entry.ecx = entry.edx = 0;
                break;
            case 0x8000001a:
                entry.eax &= 7;
                entry.ebx = entry.ecx = entry.edx = 0;
                break;
            case 0x8000001f when arch.CpuCapHas(SEV):
                Override(ref entry, CPUID_8000_001F_EAX);
                entry.ebx &= 0x3f;
                break;
            case 0x80000021:
                entry.ebx = entry.edx = 0;
                Override(ref entry, CPUID_8000_0021_EAX);
                Override(ref entry, CPUID_8000_0021_ECX);
                break;
            case CentaurSignature:
                entry.eax = Math.Min(entry.eax, 0xc0000004);
                break;
            case CentaurSignature + 1:
                Override(ref entry, CPUID_C000_0001_EDX);
                break;
            default:
                // Serial number, MONITOR, host topology and everything that KVM does not know.
                Clear(ref entry);
                break;
        }
    }

    private void SvmLeaf(ref kvm_cpuid_entry2 entry)
    {
        Clear(ref entry);
        if (!arch.CpuCapHas(SVM))
            return;
        entry.eax = 1;
        entry.ebx = 8;
        Override(ref entry, CPUID_8000_000A_EDX);
    }
}
