using Kvm.Core.Tracing;
using static Kvm.Arch.X86.CpuidLeafs;
using static Kvm.Arch.X86.X86Feature;

namespace Kvm.Arch.X86;

/// <remarks>What KVM offers to guests: the host's capabilities, masked by what KVM virtualizes (cpuid.c:kvm_set_cpu_caps).</remarks>
public sealed partial class X86Arch
{
    private readonly uint[] kvmCpuCaps = new uint[NR_KVM_CPU_CAPS];

    /// <summary>kvm_cpu_caps.</summary>
    public ReadOnlySpan<uint> KvmCpuCaps => kvmCpuCaps;

    /// <summary>kvm_cpu_cap_has.</summary>
    public bool CpuCapHas(X86Feature feature)
    {
        int f = (int)Translate(feature);
        return (kvmCpuCaps[f >> 5] & (1u << (f & 31))) != 0;
    }

    /// <summary>kvm_cpu_cap_set.</summary>
    public void CpuCapSet(X86Feature feature)
    {
        int f = (int)Translate(feature);
        kvmCpuCaps[f >> 5] |= 1u << (f & 31);
    }

    /// <summary>kvm_cpu_cap_clear.</summary>
    public void CpuCapClear(X86Feature feature)
    {
        int f = (int)Translate(feature);
        kvmCpuCaps[f >> 5] &= ~(1u << (f & 31));
    }

    /// <summary>kvm_cpu_cap_check_and_set: only if the host has it.</summary>
    public void CpuCapCheckAndSet(X86Feature feature)
    {
        if (HostX86.BootCpuHas(feature))
            CpuCapSet(feature);
    }

    private static uint Bits(params ReadOnlySpan<X86Feature> features)
    {
        uint mask = 0;
        foreach (X86Feature feature in features)
            mask |= 1u << ((int)Translate(feature) & 31);
        return mask;
    }

    /// <summary>The word keeps what the host's CPUID has too.</summary>
    private void MaskByCpuid(int leaf)
    {
        (uint function, uint index, int register) = Of(leaf);
        HostX86.ThisCpu.Cpuid(function, index, out uint eax, out uint ebx, out uint ecx, out uint edx);
        kvmCpuCaps[leaf] &= register switch { EAX => eax, EBX => ebx, ECX => ecx, _ => edx };
    }

    private void CpuCapMask(int leaf, uint mask)
    {
        kvmCpuCaps[leaf] &= mask;
        MaskByCpuid(leaf);
    }

    private void CpuCapInitKvmDefined(int leaf, uint mask)
    {
        kvmCpuCaps[leaf] = mask;
        MaskByCpuid(leaf);
    }

    /// <summary>Called by the vendor's hardware_setup before it adds and removes its own features.</summary>
    [KernelFunction("kvm_set_cpu_caps", File = "arch/x86/kvm/cpuid.c")]
    public void SetCpuCaps()
    {
        using var _ = FunctionTrace.Enter("kvm_set_cpu_caps");
        Array.Clear(kvmCpuCaps);
        HostX86.BootCpuData.Capability.CopyTo(kvmCpuCaps);
        SetBasicCaps();
        SetStructuredCaps();
        SetExtendedCaps();

        if ((CpuCapHas(RDTSCP) || CpuCapHas(RDPID)) && !UserReturn.IsSupported(MsrIndex.MSR_TSC_AUX))
        {
            CpuCapClear(RDTSCP);
            CpuCapClear(RDPID);
        }
    }

    private void SetBasicCaps()
    {
        CpuCapMask(CPUID_1_ECX, Bits(XMM3, PCLMULQDQ, SSSE3, FMA, CX16, PDCM, PCID, XMM4_1, XMM4_2, X2APIC, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND));

        // x2APIC is emulated in software, whatever the host has.
        CpuCapSet(X2APIC);
        CpuCapMask(CPUID_1_EDX, Bits(X86Feature.FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36, CLFLUSH, MMX,
            FXSR, XMM, XMM2, SELFSNOOP));
    }

    private void SetStructuredCaps()
    {
        CpuCapMask(CPUID_7_0_EBX, Bits(FSGSBASE, SGX, BMI1, HLE, AVX2, FDP_EXCPTN_ONLY, SMEP, BMI2, ERMS, INVPCID, RTM, ZERO_FCS_FDS, AVX512F, AVX512DQ,
            RDSEED, ADX, SMAP, AVX512IFMA, CLFLUSHOPT, CLWB, AVX512PF, AVX512ER, AVX512CD, SHA_NI, AVX512BW, AVX512VL));
        CpuCapMask(CPUID_7_ECX, Bits(AVX512VBMI, LA57, PKU, RDPID, AVX512_VPOPCNTDQ, UMIP, AVX512_VBMI2, GFNI, VAES, VPCLMULQDQ, AVX512_VNNI,
            AVX512_BITALG, CLDEMOTE, MOVDIRI, MOVDIR64B, SGX_LC, BUS_LOCK_DETECT));

        // LA57 by what the hardware has, not by what the host kernel uses.
        HostX86.ThisCpu.Cpuid(7, 0, out _, out _, out uint ecx7, out _);
        if ((ecx7 & Bits(LA57)) != 0)
            CpuCapSet(LA57);
        if (!TdpEnabled || !HostX86.BootCpuHas(OSPKE))
            CpuCapClear(PKU);

        CpuCapMask(CPUID_7_EDX, Bits(AVX512_4VNNIW, AVX512_4FMAPS, SPEC_CTRL, SPEC_CTRL_SSBD, ARCH_CAPABILITIES, INTEL_STIBP, MD_CLEAR,
            AVX512_VP2INTERSECT, FSRM, SERIALIZE, TSXLDTRK, AVX512_FP16, AMX_TILE, AMX_INT8, AMX_BF16));
        CpuCapSet(TSC_ADJUST);
        CpuCapSet(ARCH_CAPABILITIES);
        if (HostX86.BootCpuHas(IBPB) && HostX86.BootCpuHas(IBRS))
            CpuCapSet(SPEC_CTRL);
        if (HostX86.BootCpuHas(STIBP))
            CpuCapSet(INTEL_STIBP);
        if (HostX86.BootCpuHas(AMD_SSBD))
            CpuCapSet(SPEC_CTRL_SSBD);

        CpuCapMask(CPUID_7_1_EAX, Bits(AVX_VNNI, AVX512_BF16));
        CpuCapInitKvmDefined(CPUID_7_2_EDX, Bits(INTEL_PSFD, IPRED_CTRL, RRSBA_CTRL, DDPD_U, BHI_CTRL, MCDT_NO));
        CpuCapMask(CPUID_D_1_EAX, Bits(XSAVEOPT, XSAVEC, XGETBV1, XSAVES, XFD));
        uint sgx = 0;
        if (HostX86.BootCpuHas(SGX1))
            sgx |= Bits(SGX1);
        if (HostX86.BootCpuHas(SGX2))
            sgx |= Bits(SGX2);
        CpuCapInitKvmDefined(CPUID_12_EAX, sgx);
    }

    private void SetExtendedCaps()
    {
        CpuCapMask(CPUID_8000_0001_ECX, Bits(LAHF_LM, CMP_LEGACY, CR8_LEGACY, ABM, SSE4A, MISALIGNSSE, _3DNOWPREFETCH, OSVW, XOP, FMA4, TBM, TOPOEXT));

        // The low bits of 80000001.EDX mirror CPUID.1:EDX.
        CpuCapMask(CPUID_8000_0001_EDX, Bits(X86Feature.FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SYSCALL, MTRR, PGE, MCA, CMOV, PAT, PSE36, NX,
            MMXEXT, MMX, FXSR, FXSR_OPT, GBPAGES, RDTSCP, LM, _3DNOWEXT, _3DNOW));
        if (!TdpEnabled)
            CpuCapSet(GBPAGES);

        CpuCapMask(CPUID_8000_0008_EBX, Bits(CLZERO, XSAVEERPTR, WBNOINVD, AMD_IBPB, AMD_IBRS, AMD_SSBD, VIRT_SSBD, AMD_SSB_NO, AMD_STIBP,
            AMD_STIBP_ALWAYS_ON, KVM_PSFD));
        if (HostX86.BootCpuHas(IBPB))
            CpuCapSet(AMD_IBPB);
        if (HostX86.BootCpuHas(IBRS))
            CpuCapSet(AMD_IBRS);
        if (HostX86.BootCpuHas(STIBP))
            CpuCapSet(AMD_STIBP);
        if (HostX86.BootCpuHas(SPEC_CTRL_SSBD))
            CpuCapSet(AMD_SSBD);
        if (!HostX86.BootCpuHasBug(X86Bug.SPEC_STORE_BYPASS))
            CpuCapSet(AMD_SSB_NO);
        if (HostX86.BootCpuHas(LS_CFG_SSBD) && !HostX86.BootCpuHas(AMD_SSBD))
            CpuCapSet(VIRT_SSBD);

        // SVM's features are added by kvm_amd when it nests.
        CpuCapMask(CPUID_8000_000A_EDX, 0);
        CpuCapMask(CPUID_8000_001F_EAX, Bits(SEV, SEV_ES, SME_COHERENT));

        // NO_NESTED_DATA_BP, LFENCE always serializing, VERW mitigates TSA, NULL_SEL_CLR_BASE.
        CpuCapMask(CPUID_8000_0021_EAX, (1 << 0) | (1 << 2) | (1 << 5) | (1 << 6));
        if (HostX86.BootCpuHas(LFENCE_RDTSC))
            kvmCpuCaps[CPUID_8000_0021_EAX] |= 1 << 2;
        if (!HostX86.BootCpuHasBug(X86Bug.NULL_SEG))
            kvmCpuCaps[CPUID_8000_0021_EAX] |= 1 << 6;
        kvmCpuCaps[CPUID_8000_0021_EAX] |= 1 << 9;

        CpuCapMask(CPUID_C000_0001_EDX, Bits(XSTORE, XSTORE_EN, XCRYPT, XCRYPT_EN, ACE2, ACE2_EN, PHE, PHE_EN, PMM, PMM_EN));
        CpuCapCheckAndSet(SRSO_NO);
        CpuCapCheckAndSet(VERW_CLEAR);
        CpuCapInitKvmDefined(CPUID_8000_0021_ECX, Bits(TSA_SQ_NO, TSA_L1_NO));
        CpuCapCheckAndSet(TSA_SQ_NO);
        CpuCapCheckAndSet(TSA_L1_NO);
    }
}
