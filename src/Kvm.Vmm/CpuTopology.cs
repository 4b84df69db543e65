using System.Numerics;
using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm;

/// <summary>The leaves of CPUID by which a guest groups its processors: cores of one package, one thread each, APIC ids as the vCPUs' ids.</summary>
/// <remarks>SDM vol 2, "CPUID"; SDM vol 3A, "Detecting Hardware Multi-Threading Support and Topology"; APM vol 3, "Multiple Core Processors".</remarks>
internal static class CpuTopology
{
    private const uint HyperThreading = 1 << 28; // leaf 1 EDX: EBX[23:16] counts
    private const uint CmpLegacy = 1 << 1;       // leaf 8000_0001 ECX: those are cores
    private const uint CacheSharing = 0xffffc000; // leaf 4 EAX: cores of the package, threads that share the cache, less 1
    private const uint SmtLevel = 1, CoreLevel = 2;
    private const int LastLevelCache = 3;

    /// <summary>The leaves of levels, 0bh and 1fh, get one entry a level and one that ends them; for a single processor they stay as they are.</summary>
    public static kvm_cpuid_entry2[] WithLevels(kvm_cpuid_entry2[] entries, int processors)
    {
        if (processors == 1) return entries;
        var all = new List<kvm_cpuid_entry2>();
        foreach (kvm_cpuid_entry2 entry in entries)
        {
            if (entry.function is not (0xb or 0x1f)) all.Add(entry);
            else if (entry.index == 0) all.AddRange(Levels(entry.function, processors));
        }

        return [.. all];
    }

    public static void Adjust(ref kvm_cpuid_entry2 entry, uint apicId, int processors)
    {
        uint bits = Bits(processors);
        switch (entry.function)
        {
            case 1:
                entry.ebx = (entry.ebx & 0x0000ffff) | (Math.Min(1u << (int)bits, 255) << 16) | (apicId << 24);
                if (processors > 1) entry.edx |= HyperThreading;
                break;
            case 4:
                entry.eax &= ~CacheSharing; // the host's cores are not the guest's
                if ((entry.eax & 0x1f) == 0) break;
                entry.eax |= ((1u << (int)bits) - 1) << 26;
                if ((entry.eax >> 5 & 7) == LastLevelCache) entry.eax |= ((1u << (int)bits) - 1) << 14;
                break;
            case 0xb or 0x1f:
                entry.edx = apicId;
                break;
            case 0x80000001 when processors > 1:
                entry.ecx |= CmpLegacy;
                break;
            case 0x80000008 when processors > 1:
                entry.ecx = (entry.ecx & 0xffff0f00) | (uint)(processors - 1) | bits << 12;
                break;
            case 0x8000001e when processors > 1:
                (entry.eax, entry.ebx, entry.ecx) = (apicId, apicId & 0xff, 0); // one thread a core, one node
                break;
        }
    }

    private static kvm_cpuid_entry2[] Levels(uint function, int processors) =>
    [
        new() { function = function, index = 0, flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, eax = 0, ebx = 1, ecx = SmtLevel << 8 },
        new() { function = function, index = 1, flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, eax = Bits(processors), ebx = (uint)processors, ecx = CoreLevel << 8 | 1 },
        new() { function = function, index = 2, flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, ecx = 2 },
    ];

    /// <summary>Bits of an APIC id that tell cores apart.</summary>
    private static uint Bits(int processors) => (uint)BitOperations.Log2(BitOperations.RoundUpToPowerOf2((uint)processors));
}
