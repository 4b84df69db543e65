using System.Runtime.Intrinsics.X86;
using Iced.Intel;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>What the host's processor has.</summary>
internal static class Features
{
    internal static bool Host(CpuidFeature feature) => feature switch
    {
        CpuidFeature.INTEL8086 or CpuidFeature.INTEL8086_ONLY or CpuidFeature.INTEL186 or CpuidFeature.INTEL286 or CpuidFeature.INTEL386 or CpuidFeature.INTEL486 or CpuidFeature.X64
            or CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387 or CpuidFeature.MULTIBYTENOP or CpuidFeature.PAUSE => true,
        CpuidFeature.CX8 => Bit(1, 3, 8),
        CpuidFeature.CMOV => Bit(1, 3, 15),
        CpuidFeature.MMX => Bit(1, 3, 23),
        CpuidFeature.SSE => Bit(1, 3, 25),
        CpuidFeature.SSE2 => Bit(1, 3, 26),
        CpuidFeature.SSE3 => Bit(1, 2, 0),
        CpuidFeature.PCLMULQDQ => Bit(1, 2, 1),
        CpuidFeature.SSSE3 => Bit(1, 2, 9),
        CpuidFeature.FMA => Bit(1, 2, 12),
        CpuidFeature.CMPXCHG16B => Bit(1, 2, 13),
        CpuidFeature.SSE4_1 => Bit(1, 2, 19),
        CpuidFeature.SSE4_2 => Bit(1, 2, 20),
        CpuidFeature.MOVBE => Bit(1, 2, 22),
        CpuidFeature.POPCNT => Bit(1, 2, 23),
        CpuidFeature.AES => Bit(1, 2, 25),
        CpuidFeature.AVX => Bit(1, 2, 28),
        CpuidFeature.F16C => Bit(1, 2, 29),
        CpuidFeature.BMI1 => Bit(7, 1, 3),
        CpuidFeature.AVX2 => Bit(7, 1, 5),
        CpuidFeature.BMI2 => Bit(7, 1, 8),
        CpuidFeature.ADX => Bit(7, 1, 19),
        CpuidFeature.SHA => Bit(7, 1, 29),
        CpuidFeature.GFNI => Bit(7, 2, 8),
        CpuidFeature.VAES => Bit(7, 2, 9),
        CpuidFeature.VPCLMULQDQ => Bit(7, 2, 10),
        CpuidFeature.LZCNT => Bit(unchecked((int)0x80000001), 2, 5),
        CpuidFeature.SSE4A => Bit(unchecked((int)0x80000001), 2, 6),
        CpuidFeature.PREFETCHW => Bit(unchecked((int)0x80000001), 2, 8),
        _ => false,
    };

    private static bool Bit(int leaf, int register, int bit)
    {
        (int eax, int ebx, int ecx, int edx) = X86Base.CpuId(leaf, 0);
        return ((register switch { 0 => eax, 1 => ebx, 2 => ecx, _ => edx }) >> bit & 1) != 0;
    }
}
