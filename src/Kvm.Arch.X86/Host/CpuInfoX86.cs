using Kvm.Core;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86;

/// <summary>What the kernel learned about one processor at boot: vendor, model, capability words, errata.</summary>
/// <remarks>struct cpuinfo_x86, asm/processor.h; identify_cpu in kernel/cpu/common.c.</remarks>
public sealed class CpuInfoX86
{
    /// <summary>Words of x86_capability: NCAPINTS.</summary>
    public const int NCAPINTS = 22;

    /// <summary>Words of vmx_capability: NVMXINTS.</summary>
    public const int NVMXINTS = 5;

    private readonly uint[] capability = new uint[NCAPINTS];
    private ulong bugs;

    public CpuVendorId Vendor { get; internal set; }
    public int Family { get; internal set; }
    public int Model { get; internal set; }
    public int Stepping { get; internal set; }
    public uint CpuidLevel { get; internal set; }
    public uint ExtendedCpuidLevel { get; internal set; }
    public uint Power { get; internal set; }
    public int PhysBits { get; internal set; } = 36;
    public int VirtBits { get; internal set; } = 48;

    /// <summary>x86_cache_bits: address bits that the first-level cache compares; more than <see cref="PhysBits"/> on some processors that L1TF concerns.</summary>
    public int CacheBits { get; internal set; } = 36;
    public uint Microcode { get; internal set; }

    /// <summary>smp_num_siblings.</summary>
    public int ThreadsPerCore { get; private set; } = 1;

    /// <summary>MISC_FEATURES, PRIMARY_CTLS, SECONDARY_CTLS, TERTIARY_CTLS_LOW, TERTIARY_CTLS_HIGH: filled when FEAT_CTL allows VMX.</summary>
    public uint[] VmxCapability { get; } = new uint[NVMXINTS];

    public ReadOnlySpan<uint> Capability => capability;

    /// <summary>cpu_has.</summary>
    public bool Has(X86Feature feature)
    {
        int f = (int)feature;
        return f < NCAPINTS * 32 && (capability[f >> 5] & (1u << (f & 31))) != 0;
    }

    public bool HasBug(X86Bug bug) => (bugs & (1ul << (int)bug)) != 0;

    internal void Set(X86Feature feature) => capability[(int)feature >> 5] |= 1u << ((int)feature & 31);

    internal void Clear(X86Feature feature) => capability[(int)feature >> 5] &= ~(1u << ((int)feature & 31));

    internal void SetBug(X86Bug bug) => bugs |= 1ul << (int)bug;

    /// <summary>Another processor came up: the common set keeps what both have; errata accumulate.</summary>
    internal void IntersectWith(CpuInfoX86 other)
    {
        for (int i = 0; i < NCAPINTS; i++)
            capability[i] &= other.capability[i];
        bugs |= other.bugs;
    }

    internal CpuInfoX86 Clone()
    {
        var copy = new CpuInfoX86
        {
            Vendor = Vendor,
            Family = Family,
            Model = Model,
            Stepping = Stepping,
            CpuidLevel = CpuidLevel,
            ExtendedCpuidLevel = ExtendedCpuidLevel,
            Power = Power,
            PhysBits = PhysBits,
            VirtBits = VirtBits,
            CacheBits = CacheBits,
            Microcode = Microcode,
            ThreadsPerCore = ThreadsPerCore,
            bugs = bugs,
        };
        capability.CopyTo(copy.capability, 0);
        VmxCapability.CopyTo(copy.VmxCapability, 0);
        return copy;
    }

    /// <summary>early_identify_cpu, get_cpu_cap, the vendor's init and cpu_set_bug_bits, on <paramref name="cpu"/>.</summary>
    internal void Identify(HostX86Cpu cpu, Printk log)
    {
        cpu.Cpuid(0, 0, out uint level, out uint ebx, out uint ecx, out uint edx);
        CpuidLevel = level;
        Vendor = (ebx, edx, ecx) switch
        {
            (0x756e6547, 0x49656e69, 0x6c65746e) => CpuVendorId.Intel,
            (0x68747541, 0x69746e65, 0x444d4163) => CpuVendorId.Amd,
            (0x6f677948, 0x6e65476e, 0x656e6975) => CpuVendorId.Hygon,
            _ => CpuVendorId.Unknown,
        };
        ReadCapabilityWords(cpu);
        if (Vendor is CpuVendorId.Intel)
            InitIntel(cpu, log);
        else if (Vendor is CpuVendorId.Amd or CpuVendorId.Hygon)
            InitAmd(cpu);
        CacheBits = PhysBits;
        CpuBugs.Set(this, cpu);
        ThreadsPerCore = Math.Max(1, ReadThreadsPerCore(cpu));
    }

    /// <summary>detect_extended_topology and amd_get_topology; without either leaf, detect_ht.</summary>
    private int ReadThreadsPerCore(HostX86Cpu cpu)
    {
        const int smtLevel = 1;
        if (CpuidLevel >= 0xb)
        {
            cpu.Cpuid(0xb, 0, out _, out uint threads, out uint level, out _);
            if (threads != 0 && (level >> 8 & 0xff) == smtLevel)
                return (int)(threads & 0xffff);
        }

        if (Has(X86Feature.TOPOEXT))
        {
            cpu.Cpuid(0x8000001e, 0, out _, out uint threads, out _, out _);
            return Family >= 0x17 ? (int)(threads >> 8 & 0xff) + 1 : 1;
        }

        if (!Has(X86Feature.HT) || Has(X86Feature.CMP_LEGACY) || CpuidLevel < 4)
            return 1;
        cpu.Cpuid(1, 0, out _, out uint logical, out _, out _);
        cpu.Cpuid(4, 0, out uint cores, out _, out _, out _);
        return (int)((logical >> 16 & 0xff) / ((cores >> 26) + 1));
    }

    private void ReadCapabilityWords(HostX86Cpu cpu)
    {
        cpu.Cpuid(1, 0, out uint eax, out _, out uint ecx, out uint edx);
        Family = (int)(eax >> 8) & 0xf;
        Model = (int)(eax >> 4) & 0xf;
        Stepping = (int)eax & 0xf;
        if (Family == 0xf)
            Family += (int)(eax >> 20) & 0xff;
        if (Family >= 6)
            Model |= (int)(eax >> 12) & 0xf0;
        capability[0] = edx;
        capability[4] = ecx;
        if (CpuidLevel >= 6)
        {
            cpu.Cpuid(6, 0, out eax, out _, out _, out _);
            capability[14] = eax;
        }

        if (CpuidLevel >= 7)
        {
            cpu.Cpuid(7, 0, out uint max, out uint ebx, out ecx, out edx);
            capability[9] = ebx;
            capability[16] = ecx;
            capability[18] = edx;
            if (max >= 1)
            {
                cpu.Cpuid(7, 1, out eax, out _, out _, out _);
                capability[12] = eax;
            }
        }

        if (CpuidLevel >= 0xd)
        {
            cpu.Cpuid(0xd, 1, out eax, out _, out _, out _);
            capability[10] = eax;
        }

        ReadExtendedWords(cpu);
        ReadScatteredWords(cpu);
    }

    private void ReadExtendedWords(HostX86Cpu cpu)
    {
        cpu.Cpuid(0x80000000, 0, out uint max, out _, out _, out _);
        ExtendedCpuidLevel = max >> 16 == 0x8000 ? max : 0;
        if (ExtendedCpuidLevel >= 0x80000001)
        {
            cpu.Cpuid(0x80000001, 0, out _, out _, out uint ecx, out uint edx);
            capability[1] = edx;
            capability[6] = ecx;
        }

        if (ExtendedCpuidLevel >= 0x80000007)
        {
            cpu.Cpuid(0x80000007, 0, out _, out uint ebx, out _, out uint edx);
            capability[17] = ebx;
            Power = edx;
        }

        if (ExtendedCpuidLevel >= 0x80000008)
        {
            cpu.Cpuid(0x80000008, 0, out uint eax, out uint ebx, out _, out _);
            capability[13] = ebx;
            PhysBits = (int)(eax & 0xff);
            VirtBits = (int)(eax >> 8) & 0xff;
        }

        if (ExtendedCpuidLevel >= 0x8000000a)
        {
            cpu.Cpuid(0x8000000a, 0, out _, out _, out _, out uint edx);
            capability[15] = edx;
        }

        if (ExtendedCpuidLevel >= 0x8000001f)
        {
            cpu.Cpuid(0x8000001f, 0, out uint eax, out _, out _, out _);
            capability[19] = eax;
        }

        if (ExtendedCpuidLevel >= 0x80000021)
        {
            cpu.Cpuid(0x80000021, 0, out uint eax, out _, out _, out _);
            capability[20] = eax;
        }
    }

    /// <summary>init_scattered_cpuid_features and init_speculation_control: bits that Linux keeps in words of its own.</summary>
    private void ReadScatteredWords(HostX86Cpu cpu)
    {
        if (ExtendedCpuidLevel >= 0x80000007)
        {
            if ((Power & (1 << 9)) != 0)
                Set(X86Feature.CPB);
            if ((Power & (1 << 11)) != 0)
                Set(X86Feature.PROC_FEEDBACK);
        }

        if (CpuidLevel >= 7)
        {
            cpu.Cpuid(7, 2, out _, out _, out _, out uint edx);
            cpu.Cpuid(7, 0, out uint max, out _, out _, out _);
            if (max >= 2)
            {
                if ((edx & (1 << 2)) != 0)
                    Set(X86Feature.RRSBA_CTRL);
                if ((edx & (1 << 4)) != 0)
                    Set(X86Feature.BHI_CTRL);
            }
        }

        if (Has(X86Feature.SPEC_CTRL))
        {
            Set(X86Feature.IBRS);
            Set(X86Feature.IBPB);
            Set(X86Feature.MSR_SPEC_CTRL);
        }

        if (Has(X86Feature.INTEL_STIBP))
            Set(X86Feature.STIBP);
        if (Has(X86Feature.SPEC_CTRL_SSBD) || Has(X86Feature.VIRT_SSBD))
            Set(X86Feature.SSBD);
        if (Has(X86Feature.AMD_IBRS))
        {
            Set(X86Feature.IBRS);
            Set(X86Feature.MSR_SPEC_CTRL);
        }

        if (Has(X86Feature.AMD_IBPB))
            Set(X86Feature.IBPB);
        if (Has(X86Feature.AMD_STIBP))
        {
            Set(X86Feature.STIBP);
            Set(X86Feature.MSR_SPEC_CTRL);
        }

        if (Has(X86Feature.AMD_SSBD))
        {
            Set(X86Feature.SSBD);
            Set(X86Feature.MSR_SPEC_CTRL);
            Clear(X86Feature.VIRT_SSBD);
        }
    }

    private void InitIntel(HostX86Cpu cpu, Printk log)
    {
        Set(X86Feature.CONSTANT_TSC);
        if ((Power & (1 << 8)) != 0)
            Set(X86Feature.NONSTOP_TSC);
        if (Family == 6)
            Set(X86Feature.REP_GOOD);
        if (Has(X86Feature.XMM2))
            Set(X86Feature.LFENCE_RDTSC);
        if (CpuidLevel > 9)
        {
            cpu.Cpuid(0xa, 0, out uint perfmon, out _, out _, out _);
            if ((perfmon & 0xff) != 0 && (perfmon >> 8 & 0xff) > 1)
                Set(X86Feature.ARCH_PERFMON);
        }

        FeatCtl.Init(this, cpu, log);
    }

    private void InitAmd(HostX86Cpu cpu)
    {
        if ((Power & (1 << 8)) != 0)
        {
            Set(X86Feature.CONSTANT_TSC);
            Set(X86Feature.NONSTOP_TSC);
        }

        Set(X86Feature.REP_GOOD);
        if (Family == 0x17 || Family == 0x19)
            Set(X86Feature.ZEN);

        // bsp_init_amd: without an architectural way, LS_CFG switches speculative store bypass off.
        if (Family is >= 0x15 and <= 0x17 && !Has(X86Feature.AMD_SSBD) && !Has(X86Feature.VIRT_SSBD) && cpu.RdmsrSafe(MSR_AMD64_LS_CFG, out ulong _))
        {
            Set(X86Feature.LS_CFG_SSBD);
            Set(X86Feature.SSBD);
        }

        // LFENCE becomes serializing: DE_CFG bit 1.
        if (Has(X86Feature.XMM2))
        {
            if (cpu.RdmsrSafe(MSR_AMD64_DE_CFG, out ulong cfg))
                cpu.WrmsrSafe(MSR_AMD64_DE_CFG, cfg | 2);
            Set(X86Feature.LFENCE_RDTSC);
        }

        // Secure virtual machine: cleared from view only where the kernel has no KVM.
        if (Has(X86Feature.SYSCALL))
            Set(X86Feature.SYSCALL);
    }
}
