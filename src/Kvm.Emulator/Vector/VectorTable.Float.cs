using Iced.Intel;
using Kvm.Emulator.Vector.Float;

namespace Kvm.Emulator.Vector;

/// <summary>Floating-point arithmetic, comparisons and conversions of SSE, AVX, FMA and F16C.</summary>
internal sealed unsafe partial class VectorTable
{
    static partial void RegisterFloat(VectorTable t)
    {
        RegisterArithmetic(t);
        RegisterUnary(t);
        RegisterHorizontal(t);
        RegisterComparisons(t);
        RegisterConversions(t);
        RegisterFused(t);
    }

    private static void RegisterArithmetic(VectorTable t)
    {
        t.Row(Code.Addps_xmm_xmmm128, &FloatArithmetic.Packed<AddOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vaddps_xmm_xmm_xmmm128, &FloatArithmetic.Packed<AddOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vaddps_ymm_ymm_ymmm256, &FloatArithmetic.Packed<AddOperation, Binary32, Vex256>);
        t.Row(Code.Addpd_xmm_xmmm128, &FloatArithmetic.Packed<AddOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vaddpd_xmm_xmm_xmmm128, &FloatArithmetic.Packed<AddOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vaddpd_ymm_ymm_ymmm256, &FloatArithmetic.Packed<AddOperation, Binary64, Vex256>);
        t.Row(Code.Addss_xmm_xmmm32, &FloatArithmetic.Scalar<AddOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vaddss_xmm_xmm_xmmm32, &FloatArithmetic.Scalar<AddOperation, Binary32, Vex128>);
        t.Row(Code.Addsd_xmm_xmmm64, &FloatArithmetic.Scalar<AddOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vaddsd_xmm_xmm_xmmm64, &FloatArithmetic.Scalar<AddOperation, Binary64, Vex128>);
        t.Row(Code.Mulps_xmm_xmmm128, &FloatArithmetic.Packed<MultiplyOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vmulps_xmm_xmm_xmmm128, &FloatArithmetic.Packed<MultiplyOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vmulps_ymm_ymm_ymmm256, &FloatArithmetic.Packed<MultiplyOperation, Binary32, Vex256>);
        t.Row(Code.Mulpd_xmm_xmmm128, &FloatArithmetic.Packed<MultiplyOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vmulpd_xmm_xmm_xmmm128, &FloatArithmetic.Packed<MultiplyOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vmulpd_ymm_ymm_ymmm256, &FloatArithmetic.Packed<MultiplyOperation, Binary64, Vex256>);
        t.Row(Code.Mulss_xmm_xmmm32, &FloatArithmetic.Scalar<MultiplyOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vmulss_xmm_xmm_xmmm32, &FloatArithmetic.Scalar<MultiplyOperation, Binary32, Vex128>);
        t.Row(Code.Mulsd_xmm_xmmm64, &FloatArithmetic.Scalar<MultiplyOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vmulsd_xmm_xmm_xmmm64, &FloatArithmetic.Scalar<MultiplyOperation, Binary64, Vex128>);
        t.Row(Code.Subps_xmm_xmmm128, &FloatArithmetic.Packed<SubtractOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vsubps_xmm_xmm_xmmm128, &FloatArithmetic.Packed<SubtractOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vsubps_ymm_ymm_ymmm256, &FloatArithmetic.Packed<SubtractOperation, Binary32, Vex256>);
        t.Row(Code.Subpd_xmm_xmmm128, &FloatArithmetic.Packed<SubtractOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vsubpd_xmm_xmm_xmmm128, &FloatArithmetic.Packed<SubtractOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vsubpd_ymm_ymm_ymmm256, &FloatArithmetic.Packed<SubtractOperation, Binary64, Vex256>);
        t.Row(Code.Subss_xmm_xmmm32, &FloatArithmetic.Scalar<SubtractOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vsubss_xmm_xmm_xmmm32, &FloatArithmetic.Scalar<SubtractOperation, Binary32, Vex128>);
        t.Row(Code.Subsd_xmm_xmmm64, &FloatArithmetic.Scalar<SubtractOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vsubsd_xmm_xmm_xmmm64, &FloatArithmetic.Scalar<SubtractOperation, Binary64, Vex128>);
        t.Row(Code.Minps_xmm_xmmm128, &FloatArithmetic.Packed<MinimumOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vminps_xmm_xmm_xmmm128, &FloatArithmetic.Packed<MinimumOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vminps_ymm_ymm_ymmm256, &FloatArithmetic.Packed<MinimumOperation, Binary32, Vex256>);
        t.Row(Code.Minpd_xmm_xmmm128, &FloatArithmetic.Packed<MinimumOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vminpd_xmm_xmm_xmmm128, &FloatArithmetic.Packed<MinimumOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vminpd_ymm_ymm_ymmm256, &FloatArithmetic.Packed<MinimumOperation, Binary64, Vex256>);
        t.Row(Code.Minss_xmm_xmmm32, &FloatArithmetic.Scalar<MinimumOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vminss_xmm_xmm_xmmm32, &FloatArithmetic.Scalar<MinimumOperation, Binary32, Vex128>);
        t.Row(Code.Minsd_xmm_xmmm64, &FloatArithmetic.Scalar<MinimumOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vminsd_xmm_xmm_xmmm64, &FloatArithmetic.Scalar<MinimumOperation, Binary64, Vex128>);
        t.Row(Code.Divps_xmm_xmmm128, &FloatArithmetic.Packed<DivideOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vdivps_xmm_xmm_xmmm128, &FloatArithmetic.Packed<DivideOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vdivps_ymm_ymm_ymmm256, &FloatArithmetic.Packed<DivideOperation, Binary32, Vex256>);
        t.Row(Code.Divpd_xmm_xmmm128, &FloatArithmetic.Packed<DivideOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vdivpd_xmm_xmm_xmmm128, &FloatArithmetic.Packed<DivideOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vdivpd_ymm_ymm_ymmm256, &FloatArithmetic.Packed<DivideOperation, Binary64, Vex256>);
        t.Row(Code.Divss_xmm_xmmm32, &FloatArithmetic.Scalar<DivideOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vdivss_xmm_xmm_xmmm32, &FloatArithmetic.Scalar<DivideOperation, Binary32, Vex128>);
        t.Row(Code.Divsd_xmm_xmmm64, &FloatArithmetic.Scalar<DivideOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vdivsd_xmm_xmm_xmmm64, &FloatArithmetic.Scalar<DivideOperation, Binary64, Vex128>);
        t.Row(Code.Maxps_xmm_xmmm128, &FloatArithmetic.Packed<MaximumOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vmaxps_xmm_xmm_xmmm128, &FloatArithmetic.Packed<MaximumOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vmaxps_ymm_ymm_ymmm256, &FloatArithmetic.Packed<MaximumOperation, Binary32, Vex256>);
        t.Row(Code.Maxpd_xmm_xmmm128, &FloatArithmetic.Packed<MaximumOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vmaxpd_xmm_xmm_xmmm128, &FloatArithmetic.Packed<MaximumOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vmaxpd_ymm_ymm_ymmm256, &FloatArithmetic.Packed<MaximumOperation, Binary64, Vex256>);
        t.Row(Code.Maxss_xmm_xmmm32, &FloatArithmetic.Scalar<MaximumOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vmaxss_xmm_xmm_xmmm32, &FloatArithmetic.Scalar<MaximumOperation, Binary32, Vex128>);
        t.Row(Code.Maxsd_xmm_xmmm64, &FloatArithmetic.Scalar<MaximumOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vmaxsd_xmm_xmm_xmmm64, &FloatArithmetic.Scalar<MaximumOperation, Binary64, Vex128>);
    }

    private static void RegisterUnary(VectorTable t)
    {
        t.Row(Code.Sqrtps_xmm_xmmm128, &FloatArithmetic.PackedUnary<SquareRootOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vsqrtps_xmm_xmmm128, &FloatArithmetic.PackedUnary<SquareRootOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vsqrtps_ymm_ymmm256, &FloatArithmetic.PackedUnary<SquareRootOperation, Binary32, Vex256>);
        t.Row(Code.Sqrtpd_xmm_xmmm128, &FloatArithmetic.PackedUnary<SquareRootOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vsqrtpd_xmm_xmmm128, &FloatArithmetic.PackedUnary<SquareRootOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vsqrtpd_ymm_ymmm256, &FloatArithmetic.PackedUnary<SquareRootOperation, Binary64, Vex256>);
        t.Row(Code.Sqrtss_xmm_xmmm32, &FloatArithmetic.ScalarUnary<SquareRootOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vsqrtss_xmm_xmm_xmmm32, &FloatArithmetic.ScalarUnary<SquareRootOperation, Binary32, Vex128>);
        t.Row(Code.Sqrtsd_xmm_xmmm64, &FloatArithmetic.ScalarUnary<SquareRootOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vsqrtsd_xmm_xmm_xmmm64, &FloatArithmetic.ScalarUnary<SquareRootOperation, Binary64, Vex128>);
        t.Row(Code.Rsqrtps_xmm_xmmm128, &FloatArithmetic.PackedUnary<ReciprocalRootOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vrsqrtps_xmm_xmmm128, &FloatArithmetic.PackedUnary<ReciprocalRootOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vrsqrtps_ymm_ymmm256, &FloatArithmetic.PackedUnary<ReciprocalRootOperation, Binary32, Vex256>);
        t.Row(Code.Rsqrtss_xmm_xmmm32, &FloatArithmetic.ScalarUnary<ReciprocalRootOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vrsqrtss_xmm_xmm_xmmm32, &FloatArithmetic.ScalarUnary<ReciprocalRootOperation, Binary32, Vex128>);
        t.Row(Code.Rcpps_xmm_xmmm128, &FloatArithmetic.PackedUnary<ReciprocalOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vrcpps_xmm_xmmm128, &FloatArithmetic.PackedUnary<ReciprocalOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vrcpps_ymm_ymmm256, &FloatArithmetic.PackedUnary<ReciprocalOperation, Binary32, Vex256>);
        t.Row(Code.Rcpss_xmm_xmmm32, &FloatArithmetic.ScalarUnary<ReciprocalOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vrcpss_xmm_xmm_xmmm32, &FloatArithmetic.ScalarUnary<ReciprocalOperation, Binary32, Vex128>);
        t.Row(Code.Roundps_xmm_xmmm128_imm8, &FloatArithmetic.PackedUnary<RoundOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vroundps_xmm_xmmm128_imm8, &FloatArithmetic.PackedUnary<RoundOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vroundps_ymm_ymmm256_imm8, &FloatArithmetic.PackedUnary<RoundOperation, Binary32, Vex256>);
        t.Row(Code.Roundpd_xmm_xmmm128_imm8, &FloatArithmetic.PackedUnary<RoundOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vroundpd_xmm_xmmm128_imm8, &FloatArithmetic.PackedUnary<RoundOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vroundpd_ymm_ymmm256_imm8, &FloatArithmetic.PackedUnary<RoundOperation, Binary64, Vex256>);
        t.Row(Code.Roundss_xmm_xmmm32_imm8, &FloatArithmetic.ScalarUnary<RoundOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vroundss_xmm_xmm_xmmm32_imm8, &FloatArithmetic.ScalarUnary<RoundOperation, Binary32, Vex128>);
        t.Row(Code.Roundsd_xmm_xmmm64_imm8, &FloatArithmetic.ScalarUnary<RoundOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vroundsd_xmm_xmm_xmmm64_imm8, &FloatArithmetic.ScalarUnary<RoundOperation, Binary64, Vex128>);
    }

    private static void RegisterHorizontal(VectorTable t)
    {
        t.Row(Code.Haddpd_xmm_xmmm128, &FloatArithmetic.Horizontal<AddOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vhaddpd_xmm_xmm_xmmm128, &FloatArithmetic.Horizontal<AddOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vhaddpd_ymm_ymm_ymmm256, &FloatArithmetic.Horizontal<AddOperation, Binary64, Vex256>);
        t.Row(Code.Haddps_xmm_xmmm128, &FloatArithmetic.Horizontal<AddOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vhaddps_xmm_xmm_xmmm128, &FloatArithmetic.Horizontal<AddOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vhaddps_ymm_ymm_ymmm256, &FloatArithmetic.Horizontal<AddOperation, Binary32, Vex256>);
        t.Row(Code.Hsubpd_xmm_xmmm128, &FloatArithmetic.Horizontal<SubtractOperation, Binary64, Legacy128>);
        t.Row(Code.VEX_Vhsubpd_xmm_xmm_xmmm128, &FloatArithmetic.Horizontal<SubtractOperation, Binary64, Vex128>);
        t.Row(Code.VEX_Vhsubpd_ymm_ymm_ymmm256, &FloatArithmetic.Horizontal<SubtractOperation, Binary64, Vex256>);
        t.Row(Code.Hsubps_xmm_xmmm128, &FloatArithmetic.Horizontal<SubtractOperation, Binary32, Legacy128>);
        t.Row(Code.VEX_Vhsubps_xmm_xmm_xmmm128, &FloatArithmetic.Horizontal<SubtractOperation, Binary32, Vex128>);
        t.Row(Code.VEX_Vhsubps_ymm_ymm_ymmm256, &FloatArithmetic.Horizontal<SubtractOperation, Binary32, Vex256>);
        t.Row(Code.Addsubpd_xmm_xmmm128, &FloatArithmetic.Alternating<Binary64, Legacy128>);
        t.Row(Code.VEX_Vaddsubpd_xmm_xmm_xmmm128, &FloatArithmetic.Alternating<Binary64, Vex128>);
        t.Row(Code.VEX_Vaddsubpd_ymm_ymm_ymmm256, &FloatArithmetic.Alternating<Binary64, Vex256>);
        t.Row(Code.Addsubps_xmm_xmmm128, &FloatArithmetic.Alternating<Binary32, Legacy128>);
        t.Row(Code.VEX_Vaddsubps_xmm_xmm_xmmm128, &FloatArithmetic.Alternating<Binary32, Vex128>);
        t.Row(Code.VEX_Vaddsubps_ymm_ymm_ymmm256, &FloatArithmetic.Alternating<Binary32, Vex256>);
        t.Row(Code.Dpps_xmm_xmmm128_imm8, &FloatDotProduct.Packed<Binary32, Legacy128>);
        t.Row(Code.VEX_Vdpps_xmm_xmm_xmmm128_imm8, &FloatDotProduct.Packed<Binary32, Vex128>);
        t.Row(Code.VEX_Vdpps_ymm_ymm_ymmm256_imm8, &FloatDotProduct.Packed<Binary32, Vex256>);
        t.Row(Code.Dppd_xmm_xmmm128_imm8, &FloatDotProduct.Packed<Binary64, Legacy128>);
        t.Row(Code.VEX_Vdppd_xmm_xmm_xmmm128_imm8, &FloatDotProduct.Packed<Binary64, Vex128>);
    }

    private static void RegisterComparisons(VectorTable t)
    {
        t.Row(Code.Ucomiss_xmm_xmmm32, &FloatComparison.Unordered<Binary32>);
        t.Row(Code.VEX_Vucomiss_xmm_xmmm32, &FloatComparison.Unordered<Binary32>);
        t.Row(Code.Ucomisd_xmm_xmmm64, &FloatComparison.Unordered<Binary64>);
        t.Row(Code.VEX_Vucomisd_xmm_xmmm64, &FloatComparison.Unordered<Binary64>);
        t.Row(Code.Comiss_xmm_xmmm32, &FloatComparison.Ordered<Binary32>);
        t.Row(Code.Comisd_xmm_xmmm64, &FloatComparison.Ordered<Binary64>);
        t.Row(Code.VEX_Vcomiss_xmm_xmmm32, &FloatComparison.Ordered<Binary32>);
        t.Row(Code.VEX_Vcomisd_xmm_xmmm64, &FloatComparison.Ordered<Binary64>);
        t.Row(Code.Cmpps_xmm_xmmm128_imm8, &FloatComparison.Packed<Binary32, Legacy128>);
        t.Row(Code.VEX_Vcmpps_xmm_xmm_xmmm128_imm8, &FloatComparison.Packed<Binary32, Vex128>);
        t.Row(Code.VEX_Vcmpps_ymm_ymm_ymmm256_imm8, &FloatComparison.Packed<Binary32, Vex256>);
        t.Row(Code.Cmppd_xmm_xmmm128_imm8, &FloatComparison.Packed<Binary64, Legacy128>);
        t.Row(Code.VEX_Vcmppd_xmm_xmm_xmmm128_imm8, &FloatComparison.Packed<Binary64, Vex128>);
        t.Row(Code.VEX_Vcmppd_ymm_ymm_ymmm256_imm8, &FloatComparison.Packed<Binary64, Vex256>);
        t.Row(Code.Cmpss_xmm_xmmm32_imm8, &FloatComparison.Scalar<Binary32, Legacy128>);
        t.Row(Code.VEX_Vcmpss_xmm_xmm_xmmm32_imm8, &FloatComparison.Scalar<Binary32, Vex128>);
        t.Row(Code.Cmpsd_xmm_xmmm64_imm8, &FloatComparison.Scalar<Binary64, Legacy128>);
        t.Row(Code.VEX_Vcmpsd_xmm_xmm_xmmm64_imm8, &FloatComparison.Scalar<Binary64, Vex128>);
    }

    private static void RegisterConversions(VectorTable t)
    {
        t.Row(Code.Cvtpi2ps_xmm_mmm64, &FloatConvert.FromMmx<Int32To<Binary32>>);
        t.Row(Code.Cvtpi2pd_xmm_mmm64, &FloatConvert.FromMmx<Int32To<Binary64>>);
        t.Row(Code.Cvtsi2ss_xmm_rm32, &FloatConvert.FromGeneral<Int32To<Binary32>, Binary32, Legacy128>);
        t.Row(Code.Cvtsi2ss_xmm_rm64, &FloatConvert.FromGeneral<Int64To<Binary32>, Binary32, Legacy128>);
        t.Row(Code.VEX_Vcvtsi2ss_xmm_xmm_rm32, &FloatConvert.FromGeneral<Int32To<Binary32>, Binary32, Vex128>);
        t.Row(Code.VEX_Vcvtsi2ss_xmm_xmm_rm64, &FloatConvert.FromGeneral<Int64To<Binary32>, Binary32, Vex128>);
        t.Row(Code.Cvtsi2sd_xmm_rm32, &FloatConvert.FromGeneral<Int32To<Binary64>, Binary64, Legacy128>);
        t.Row(Code.Cvtsi2sd_xmm_rm64, &FloatConvert.FromGeneral<Int64To<Binary64>, Binary64, Legacy128>);
        t.Row(Code.VEX_Vcvtsi2sd_xmm_xmm_rm32, &FloatConvert.FromGeneral<Int32To<Binary64>, Binary64, Vex128>);
        t.Row(Code.VEX_Vcvtsi2sd_xmm_xmm_rm64, &FloatConvert.FromGeneral<Int64To<Binary64>, Binary64, Vex128>);
        t.Row(Code.Cvttps2pi_mm_xmmm64, &FloatConvert.ToMmx<TruncateToInt32<Binary32>>);
        t.Row(Code.Cvttpd2pi_mm_xmmm128, &FloatConvert.ToMmx<TruncateToInt32<Binary64>>);
        t.Row(Code.Cvttss2si_r32_xmmm32, &FloatConvert.ToGeneral<TruncateToInt32<Binary32>>);
        t.Row(Code.Cvttss2si_r64_xmmm32, &FloatConvert.ToGeneral<TruncateToInt64<Binary32>>);
        t.Row(Code.VEX_Vcvttss2si_r32_xmmm32, &FloatConvert.ToGeneral<TruncateToInt32<Binary32>>);
        t.Row(Code.VEX_Vcvttss2si_r64_xmmm32, &FloatConvert.ToGeneral<TruncateToInt64<Binary32>>);
        t.Row(Code.Cvttsd2si_r32_xmmm64, &FloatConvert.ToGeneral<TruncateToInt32<Binary64>>);
        t.Row(Code.Cvttsd2si_r64_xmmm64, &FloatConvert.ToGeneral<TruncateToInt64<Binary64>>);
        t.Row(Code.VEX_Vcvttsd2si_r32_xmmm64, &FloatConvert.ToGeneral<TruncateToInt32<Binary64>>);
        t.Row(Code.VEX_Vcvttsd2si_r64_xmmm64, &FloatConvert.ToGeneral<TruncateToInt64<Binary64>>);
        t.Row(Code.Cvtps2pi_mm_xmmm64, &FloatConvert.ToMmx<ToInt32<Binary32>>);
        t.Row(Code.Cvtpd2pi_mm_xmmm128, &FloatConvert.ToMmx<ToInt32<Binary64>>);
        t.Row(Code.Cvtss2si_r32_xmmm32, &FloatConvert.ToGeneral<ToInt32<Binary32>>);
        t.Row(Code.Cvtss2si_r64_xmmm32, &FloatConvert.ToGeneral<ToInt64<Binary32>>);
        t.Row(Code.VEX_Vcvtss2si_r32_xmmm32, &FloatConvert.ToGeneral<ToInt32<Binary32>>);
        t.Row(Code.VEX_Vcvtss2si_r64_xmmm32, &FloatConvert.ToGeneral<ToInt64<Binary32>>);
        t.Row(Code.Cvtsd2si_r32_xmmm64, &FloatConvert.ToGeneral<ToInt32<Binary64>>);
        t.Row(Code.Cvtsd2si_r64_xmmm64, &FloatConvert.ToGeneral<ToInt64<Binary64>>);
        t.Row(Code.VEX_Vcvtsd2si_r32_xmmm64, &FloatConvert.ToGeneral<ToInt32<Binary64>>);
        t.Row(Code.VEX_Vcvtsd2si_r64_xmmm64, &FloatConvert.ToGeneral<ToInt64<Binary64>>);
        t.Row(Code.Cvtps2pd_xmm_xmmm64, &FloatConvert.Packed<FloatTo<Binary32, Binary64>, Legacy128>);
        t.Row(Code.VEX_Vcvtps2pd_xmm_xmmm64, &FloatConvert.Packed<FloatTo<Binary32, Binary64>, Vex128>);
        t.Row(Code.VEX_Vcvtps2pd_ymm_xmmm128, &FloatConvert.Packed<FloatTo<Binary32, Binary64>, Vex256>);
        t.Row(Code.Cvtpd2ps_xmm_xmmm128, &FloatConvert.Packed<FloatTo<Binary64, Binary32>, Legacy128>);
        t.Row(Code.VEX_Vcvtpd2ps_xmm_xmmm128, &FloatConvert.Packed<FloatTo<Binary64, Binary32>, Vex128>);
        t.Row(Code.VEX_Vcvtpd2ps_xmm_ymmm256, &FloatConvert.Packed<FloatTo<Binary64, Binary32>, Vex256>);
        t.Row(Code.Cvtss2sd_xmm_xmmm32, &FloatConvert.Scalar<Binary32, Binary64, Legacy128>);
        t.Row(Code.VEX_Vcvtss2sd_xmm_xmm_xmmm32, &FloatConvert.Scalar<Binary32, Binary64, Vex128>);
        t.Row(Code.Cvtsd2ss_xmm_xmmm64, &FloatConvert.Scalar<Binary64, Binary32, Legacy128>);
        t.Row(Code.VEX_Vcvtsd2ss_xmm_xmm_xmmm64, &FloatConvert.Scalar<Binary64, Binary32, Vex128>);
        t.Row(Code.Cvtdq2ps_xmm_xmmm128, &FloatConvert.Packed<Int32To<Binary32>, Legacy128>);
        t.Row(Code.VEX_Vcvtdq2ps_xmm_xmmm128, &FloatConvert.Packed<Int32To<Binary32>, Vex128>);
        t.Row(Code.VEX_Vcvtdq2ps_ymm_ymmm256, &FloatConvert.Packed<Int32To<Binary32>, Vex256>);
        t.Row(Code.Cvtps2dq_xmm_xmmm128, &FloatConvert.Packed<ToInt32<Binary32>, Legacy128>);
        t.Row(Code.VEX_Vcvtps2dq_xmm_xmmm128, &FloatConvert.Packed<ToInt32<Binary32>, Vex128>);
        t.Row(Code.VEX_Vcvtps2dq_ymm_ymmm256, &FloatConvert.Packed<ToInt32<Binary32>, Vex256>);
        t.Row(Code.Cvttps2dq_xmm_xmmm128, &FloatConvert.Packed<TruncateToInt32<Binary32>, Legacy128>);
        t.Row(Code.VEX_Vcvttps2dq_xmm_xmmm128, &FloatConvert.Packed<TruncateToInt32<Binary32>, Vex128>);
        t.Row(Code.VEX_Vcvttps2dq_ymm_ymmm256, &FloatConvert.Packed<TruncateToInt32<Binary32>, Vex256>);
        t.Row(Code.Cvttpd2dq_xmm_xmmm128, &FloatConvert.Packed<TruncateToInt32<Binary64>, Legacy128>);
        t.Row(Code.VEX_Vcvttpd2dq_xmm_xmmm128, &FloatConvert.Packed<TruncateToInt32<Binary64>, Vex128>);
        t.Row(Code.VEX_Vcvttpd2dq_xmm_ymmm256, &FloatConvert.Packed<TruncateToInt32<Binary64>, Vex256>);
        t.Row(Code.Cvtdq2pd_xmm_xmmm64, &FloatConvert.Packed<Int32To<Binary64>, Legacy128>);
        t.Row(Code.VEX_Vcvtdq2pd_xmm_xmmm64, &FloatConvert.Packed<Int32To<Binary64>, Vex128>);
        t.Row(Code.VEX_Vcvtdq2pd_ymm_xmmm128, &FloatConvert.Packed<Int32To<Binary64>, Vex256>);
        t.Row(Code.Cvtpd2dq_xmm_xmmm128, &FloatConvert.Packed<ToInt32<Binary64>, Legacy128>);
        t.Row(Code.VEX_Vcvtpd2dq_xmm_xmmm128, &FloatConvert.Packed<ToInt32<Binary64>, Vex128>);
        t.Row(Code.VEX_Vcvtpd2dq_xmm_ymmm256, &FloatConvert.Packed<ToInt32<Binary64>, Vex256>);
        t.Row(Code.VEX_Vcvtph2ps_xmm_xmmm64, &FloatConvert.Packed<HalfToSingle, Vex128>);
        t.Row(Code.VEX_Vcvtph2ps_ymm_xmmm128, &FloatConvert.Packed<HalfToSingle, Vex256>);
        t.Row(Code.VEX_Vcvtps2ph_xmmm64_xmm_imm8, &FloatConvert.SingleToHalf<Vex128>);
        t.Row(Code.VEX_Vcvtps2ph_xmmm128_ymm_imm8, &FloatConvert.SingleToHalf<Vex256>);
    }

    private static void RegisterFused(VectorTable t)
    {
        t.Row(Code.VEX_Vfmaddsub132ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, MultiplyAddSubtractSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmaddsub132ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, MultiplyAddSubtractSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmaddsub132pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, MultiplyAddSubtractSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmaddsub132pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, MultiplyAddSubtractSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmsubadd132ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, MultiplySubtractAddSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmsubadd132ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, MultiplySubtractAddSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmsubadd132pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, MultiplySubtractAddSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmsubadd132pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, MultiplySubtractAddSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmadd132ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, MultiplyAddSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmadd132ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, MultiplyAddSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmadd132pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, MultiplyAddSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmadd132pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, MultiplyAddSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmadd132ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order132, MultiplyAddSigns, Binary32>);
        t.Row(Code.VEX_Vfmadd132sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order132, MultiplyAddSigns, Binary64>);
        t.Row(Code.VEX_Vfmsub132ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, MultiplySubtractSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmsub132ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, MultiplySubtractSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmsub132pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, MultiplySubtractSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmsub132pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, MultiplySubtractSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmsub132ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order132, MultiplySubtractSigns, Binary32>);
        t.Row(Code.VEX_Vfmsub132sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order132, MultiplySubtractSigns, Binary64>);
        t.Row(Code.VEX_Vfnmadd132ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, NegativeMultiplyAddSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfnmadd132ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, NegativeMultiplyAddSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfnmadd132pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, NegativeMultiplyAddSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfnmadd132pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, NegativeMultiplyAddSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfnmadd132ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order132, NegativeMultiplyAddSigns, Binary32>);
        t.Row(Code.VEX_Vfnmadd132sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order132, NegativeMultiplyAddSigns, Binary64>);
        t.Row(Code.VEX_Vfnmsub132ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, NegativeMultiplySubtractSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfnmsub132ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, NegativeMultiplySubtractSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfnmsub132pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order132, NegativeMultiplySubtractSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfnmsub132pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order132, NegativeMultiplySubtractSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfnmsub132ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order132, NegativeMultiplySubtractSigns, Binary32>);
        t.Row(Code.VEX_Vfnmsub132sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order132, NegativeMultiplySubtractSigns, Binary64>);
        t.Row(Code.VEX_Vfmaddsub213ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, MultiplyAddSubtractSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmaddsub213ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, MultiplyAddSubtractSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmaddsub213pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, MultiplyAddSubtractSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmaddsub213pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, MultiplyAddSubtractSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmsubadd213ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, MultiplySubtractAddSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmsubadd213ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, MultiplySubtractAddSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmsubadd213pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, MultiplySubtractAddSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmsubadd213pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, MultiplySubtractAddSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmadd213ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, MultiplyAddSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmadd213ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, MultiplyAddSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmadd213pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, MultiplyAddSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmadd213pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, MultiplyAddSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmadd213ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order213, MultiplyAddSigns, Binary32>);
        t.Row(Code.VEX_Vfmadd213sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order213, MultiplyAddSigns, Binary64>);
        t.Row(Code.VEX_Vfmsub213ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, MultiplySubtractSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmsub213ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, MultiplySubtractSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmsub213pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, MultiplySubtractSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmsub213pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, MultiplySubtractSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmsub213ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order213, MultiplySubtractSigns, Binary32>);
        t.Row(Code.VEX_Vfmsub213sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order213, MultiplySubtractSigns, Binary64>);
        t.Row(Code.VEX_Vfnmadd213ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, NegativeMultiplyAddSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfnmadd213ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, NegativeMultiplyAddSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfnmadd213pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, NegativeMultiplyAddSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfnmadd213pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, NegativeMultiplyAddSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfnmadd213ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order213, NegativeMultiplyAddSigns, Binary32>);
        t.Row(Code.VEX_Vfnmadd213sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order213, NegativeMultiplyAddSigns, Binary64>);
        t.Row(Code.VEX_Vfnmsub213ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, NegativeMultiplySubtractSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfnmsub213ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, NegativeMultiplySubtractSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfnmsub213pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order213, NegativeMultiplySubtractSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfnmsub213pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order213, NegativeMultiplySubtractSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfnmsub213ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order213, NegativeMultiplySubtractSigns, Binary32>);
        t.Row(Code.VEX_Vfnmsub213sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order213, NegativeMultiplySubtractSigns, Binary64>);
        t.Row(Code.VEX_Vfmaddsub231ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, MultiplyAddSubtractSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmaddsub231ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, MultiplyAddSubtractSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmaddsub231pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, MultiplyAddSubtractSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmaddsub231pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, MultiplyAddSubtractSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmsubadd231ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, MultiplySubtractAddSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmsubadd231ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, MultiplySubtractAddSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmsubadd231pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, MultiplySubtractAddSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmsubadd231pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, MultiplySubtractAddSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmadd231ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, MultiplyAddSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmadd231ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, MultiplyAddSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmadd231pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, MultiplyAddSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmadd231pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, MultiplyAddSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmadd231ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order231, MultiplyAddSigns, Binary32>);
        t.Row(Code.VEX_Vfmadd231sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order231, MultiplyAddSigns, Binary64>);
        t.Row(Code.VEX_Vfmsub231ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, MultiplySubtractSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfmsub231ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, MultiplySubtractSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfmsub231pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, MultiplySubtractSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfmsub231pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, MultiplySubtractSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfmsub231ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order231, MultiplySubtractSigns, Binary32>);
        t.Row(Code.VEX_Vfmsub231sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order231, MultiplySubtractSigns, Binary64>);
        t.Row(Code.VEX_Vfnmadd231ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, NegativeMultiplyAddSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfnmadd231ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, NegativeMultiplyAddSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfnmadd231pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, NegativeMultiplyAddSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfnmadd231pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, NegativeMultiplyAddSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfnmadd231ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order231, NegativeMultiplyAddSigns, Binary32>);
        t.Row(Code.VEX_Vfnmadd231sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order231, NegativeMultiplyAddSigns, Binary64>);
        t.Row(Code.VEX_Vfnmsub231ps_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, NegativeMultiplySubtractSigns, Binary32, Vex128>);
        t.Row(Code.VEX_Vfnmsub231ps_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, NegativeMultiplySubtractSigns, Binary32, Vex256>);
        t.Row(Code.VEX_Vfnmsub231pd_xmm_xmm_xmmm128, &FloatFused.Packed<Order231, NegativeMultiplySubtractSigns, Binary64, Vex128>);
        t.Row(Code.VEX_Vfnmsub231pd_ymm_ymm_ymmm256, &FloatFused.Packed<Order231, NegativeMultiplySubtractSigns, Binary64, Vex256>);
        t.Row(Code.VEX_Vfnmsub231ss_xmm_xmm_xmmm32, &FloatFused.Scalar<Order231, NegativeMultiplySubtractSigns, Binary32>);
        t.Row(Code.VEX_Vfnmsub231sd_xmm_xmm_xmmm64, &FloatFused.Scalar<Order231, NegativeMultiplySubtractSigns, Binary64>);
    }
}
