using static Kvm.Arch.X86.MsrBits;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86;

/// <summary>Which errata a processor model has, as far as KVM decides by them.</summary>
/// <remarks>kernel/cpu/common.c:cpu_set_bug_bits, cpu_vuln_whitelist: AMD and Hygon processors from family 0xf on are immune to Meltdown, L1TF, MDS and SWAPGS effects.</remarks>
internal static class CpuBugs
{
    // Family 6 models named in the whitelists.
    private static readonly HashSet<int> noSpeculation = [0x1c, 0x26, 0x27, 0x35, 0x36];
    private static readonly HashSet<int> atomNoL1tf = [0x37, 0x4d, 0x4c, 0x4a, 0x5a, 0x5c, 0x5f, 0x7a, 0x86, 0x96, 0x9c];
    // Skylake to Rocket Lake: what a gather leaves in registers can be read.
    private static readonly HashSet<int> gatherDataSampling = [0x4e, 0x5e, 0x55, 0x8e, 0x9e, 0x6a, 0x6c, 0x7e, 0x8c, 0x8d, 0xa5, 0xa6, 0xa7];
    // override_cache_bits: client processors from Nehalem to Kaby Lake.
    private static readonly HashSet<int> wideCacheTags = [0x1e, 0x25, 0x2a, 0x3a, 0x3c, 0x45, 0x46, 0x3d, 0x47, 0x4e, 0x5e, 0x8e, 0x9e];
    private static readonly HashSet<int> itlbMultihitFree = [.. atomNoL1tf, 0x57, 0x85];

    public static void Set(CpuInfoX86 c, HostX86Cpu cpu)
    {
        ulong caps = 0;
        if (c.Has(X86Feature.ARCH_CAPABILITIES))
            cpu.RdmsrSafe(MSR_IA32_ARCH_CAPABILITIES, out caps);
        bool amd = c.Vendor is CpuVendorId.Amd or CpuVendorId.Hygon;
        bool intel6 = c.Vendor == CpuVendorId.Intel && c.Family == 6;

        if (!amd && !(intel6 && itlbMultihitFree.Contains(c.Model)) && (caps & ARCH_CAP_PSCHANGE_MC_NO) == 0)
            c.SetBug(X86Bug.ITLB_MULTIHIT);
        if (intel6 && noSpeculation.Contains(c.Model))
            return;
        c.SetBug(X86Bug.SPECTRE_V1);
        c.SetBug(X86Bug.SPECTRE_V2);
        if ((caps & ARCH_CAP_SSB_NO) == 0 && !c.Has(X86Feature.AMD_SSB_NO))
            c.SetBug(X86Bug.SPEC_STORE_BYPASS);
        if (amd)
        {
            if (c.Family is 0x17 or 0x18 or 0x19)
                c.SetBug(X86Bug.RETBLEED);
            if (c.Family is 0x17 or 0x18)
                c.SetBug(X86Bug.SMT_RSB);

            // detect_null_seg_behavior: loading a null selector clears the base from Zen 2 on.
            bool clearsBase = (c.Capability[20] & (1 << 6)) != 0 || c.Family > 0x17 || (c.Family == 0x17 && c.Model >= 0x30);
            if (!clearsBase)
                c.SetBug(X86Bug.NULL_SEG);
            return;
        }

        if (!(intel6 && atomNoL1tf.Contains(c.Model)) && (caps & ARCH_CAP_MDS_NO) == 0)
            c.SetBug(X86Bug.MDS);
        c.SetBug(X86Bug.SWAPGS);
        if ((caps & ARCH_CAP_TAA_NO) == 0 && (c.Has(X86Feature.RTM) || (caps & ARCH_CAP_TSX_CTRL_MSR) != 0))
            c.SetBug(X86Bug.TAA);
        if (intel6 && gatherDataSampling.Contains(c.Model) && (caps & ARCH_CAP_GDS_NO) == 0 && c.Has(X86Feature.AVX))
            c.SetBug(X86Bug.GDS);
        if ((caps & ARCH_CAP_RDCL_NO) != 0)
            return;
        c.SetBug(X86Bug.CPU_MELTDOWN);
        if (intel6 && atomNoL1tf.Contains(c.Model))
            return;
        c.SetBug(X86Bug.L1TF);
        if (intel6 && wideCacheTags.Contains(c.Model))
            c.CacheBits = Math.Max(c.CacheBits, 44);
    }
}
