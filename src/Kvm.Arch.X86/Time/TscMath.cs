namespace Kvm.Arch.X86;

/// <summary>Fixed-point arithmetic of time stamp counters and pvclock.</summary>
/// <remarks>x86.c:kvm_get_time_scale, __scale_tsc; asm/pvclock.h:pvclock_scale_delta.</remarks>
internal static class TscMath
{
    /// <summary>mul_u64_u64_shr.</summary>
    public static ulong MulShift(ulong a, ulong b, int shift) => (ulong)(((UInt128)a * b) >> shift);

    /// <summary>kvm_get_time_scale: shift and multiplier that turn a count at <paramref name="baseHz"/> into one at <paramref name="scaledHz"/>.</summary>
    public static void GetTimeScale(ulong scaledHz, ulong baseHz, out sbyte shift, out uint multiplier)
    {
        int s = 0;
        ulong scaled64 = scaledHz;
        ulong tps64 = baseHz;
        while (tps64 > scaled64 * 2 || (tps64 & 0xffffffff00000000) != 0)
        {
            tps64 >>= 1;
            s--;
        }

        uint tps32 = (uint)tps64;
        while (tps32 <= scaled64 || (scaled64 & 0xffffffff00000000) != 0)
        {
            if ((scaled64 & 0xffffffff00000000) != 0 || (tps32 & 0x80000000) != 0)
                scaled64 >>= 1;
            else
                tps32 <<= 1;
            s++;
        }

        shift = (sbyte)s;
        multiplier = (uint)((scaled64 << 32) / tps32);
    }

    /// <summary>pvclock_scale_delta.</summary>
    public static ulong ScaleDelta(ulong delta, uint multiplier, int shift)
    {
        delta = shift < 0 ? delta >> -shift : delta << shift;
        return MulShift(delta, multiplier, 32);
    }
}
