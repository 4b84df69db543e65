namespace Kvm.Arch.X86;

/// <summary>The CPUID register behind each capability word.</summary>
/// <remarks>reverse_cpuid.h.</remarks>
internal static class CpuidLeafs
{
    public const int EAX = 0;
    public const int EBX = 1;
    public const int ECX = 2;
    public const int EDX = 3;

    /// <summary>Words of kvm_cpu_caps: NCAPINTS and three that only KVM knows.</summary>
    public const int NR_KVM_CPU_CAPS = CpuInfoX86.NCAPINTS + 3;

    public const int CPUID_1_EDX = 0;
    public const int CPUID_8000_0001_EDX = 1;
    public const int CPUID_1_ECX = 4;
    public const int CPUID_C000_0001_EDX = 5;
    public const int CPUID_8000_0001_ECX = 6;
    public const int CPUID_7_0_EBX = 9;
    public const int CPUID_D_1_EAX = 10;
    public const int CPUID_7_1_EAX = 12;
    public const int CPUID_8000_0008_EBX = 13;
    public const int CPUID_6_EAX = 14;
    public const int CPUID_8000_000A_EDX = 15;
    public const int CPUID_7_ECX = 16;
    public const int CPUID_8000_0007_EBX = 17;
    public const int CPUID_7_EDX = 18;
    public const int CPUID_8000_001F_EAX = 19;
    public const int CPUID_8000_0021_EAX = 20;
    public const int CPUID_12_EAX = 22;
    public const int CPUID_7_2_EDX = 23;
    public const int CPUID_8000_0021_ECX = 24;

    /// <summary>Function, index and register of a word; function 0 for words defined by software.</summary>
    public static (uint Function, uint Index, int Register) Of(int word) => word switch
    {
        CPUID_1_EDX => (1, 0, EDX),
        CPUID_8000_0001_EDX => (0x80000001, 0, EDX),
        2 => (0x80860001, 0, EDX),
        CPUID_1_ECX => (1, 0, ECX),
        CPUID_C000_0001_EDX => (0xc0000001, 0, EDX),
        CPUID_8000_0001_ECX => (0x80000001, 0, ECX),
        CPUID_7_0_EBX => (7, 0, EBX),
        CPUID_D_1_EAX => (0xd, 1, EAX),
        CPUID_8000_0008_EBX => (0x80000008, 0, EBX),
        CPUID_6_EAX => (6, 0, EAX),
        CPUID_8000_000A_EDX => (0x8000000a, 0, EDX),
        CPUID_7_ECX => (7, 0, ECX),
        CPUID_8000_0007_EBX => (0x80000007, 0, EBX),
        CPUID_7_EDX => (7, 0, EDX),
        CPUID_7_1_EAX => (7, 1, EAX),
        CPUID_12_EAX => (0x12, 0, EAX),
        CPUID_8000_001F_EAX => (0x8000001f, 0, EAX),
        CPUID_8000_0021_EAX => (0x80000021, 0, EAX),
        CPUID_7_2_EDX => (7, 2, EDX),
        CPUID_8000_0021_ECX => (0x80000021, 0, ECX),
        _ => default,
    };

    /// <summary>__feature_translate: features that Linux scatters, as the bit that CPUID has.</summary>
    public static X86Feature Translate(X86Feature feature) => feature switch
    {
        X86Feature.SGX1 => X86Feature.KVM_SGX1,
        X86Feature.SGX2 => X86Feature.KVM_SGX2,
        X86Feature.RRSBA_CTRL => X86Feature.KVM_RRSBA_CTRL,
        X86Feature.BHI_CTRL => X86Feature.KVM_BHI_CTRL,
        X86Feature.TSA_SQ_NO => X86Feature.KVM_TSA_SQ_NO,
        X86Feature.TSA_L1_NO => X86Feature.KVM_TSA_L1_NO,
        _ => feature,
    };
}
