using Iced.Intel;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Engine;

internal sealed unsafe partial class OpcodeTable
{
    /// <summary>Instructions on x87, SSE and AVX state whose memory access is not just the bytes of an operand, or that have no operand: no <see cref="VectorOp"/>.</summary>
    private static void RegisterStates(OpcodeTable t)
    {
        RegisterX87Control(t);
        RegisterXsave(t);
        RegisterMaskedMoves(t);
        RegisterGathers(t);
    }

    private static void RegisterX87Control(OpcodeTable t)
    {
        t.Row(Code.Wait, &X87Control.Wait);
        t.Row(Code.Fninit, &X87Control.Fninit);
        t.Row(Code.Fnclex, &X87Control.Fnclex);
        t.Row(Code.Fneni, &X87Control.Nothing);
        t.Row(Code.Fndisi, &X87Control.Nothing);
        t.Row(Code.Fnsetpm, &X87Control.Nothing);
        t.Row(Code.Fnstsw_AX, &X87Control.FnstswAx);
        t.Row(Code.Fnstsw_m2byte, &X87Control.Fnstsw);
        t.Row(Code.Fnstcw_m2byte, &X87Control.Fnstcw);
        t.Row(Code.Fldcw_m2byte, &X87Control.Fldcw);
        t.Row(Code.Fldenv_m14byte, &X87Environment.Fldenv);
        t.Row(Code.Fldenv_m28byte, &X87Environment.Fldenv);
        t.Row(Code.Fnstenv_m14byte, &X87Environment.Fnstenv);
        t.Row(Code.Fnstenv_m28byte, &X87Environment.Fnstenv);
        t.Row(Code.Fnsave_m94byte, &X87Environment.Fnsave);
        t.Row(Code.Fnsave_m108byte, &X87Environment.Fnsave);
        t.Row(Code.Frstor_m94byte, &X87Environment.Frstor);
        t.Row(Code.Frstor_m108byte, &X87Environment.Frstor);
        t.Row(Code.Emms, &X87Control.Emms);
        t.Row(Code.Ldmxcsr_m32, &MxcsrInstructions.Ldmxcsr);
        t.Row(Code.Stmxcsr_m32, &MxcsrInstructions.Stmxcsr);
        t.Row(Code.VEX_Vldmxcsr_m32, &MxcsrInstructions.Vldmxcsr);
        t.Row(Code.VEX_Vstmxcsr_m32, &MxcsrInstructions.Vstmxcsr);
    }

    private static void RegisterXsave(OpcodeTable t)
    {
        t.Row(Code.Fxsave_m512byte, &FxsaveInstructions.Fxsave);
        t.Row(Code.Fxsave64_m512byte, &FxsaveInstructions.Fxsave);
        t.Row(Code.Fxrstor_m512byte, &FxsaveInstructions.Fxrstor);
        t.Row(Code.Fxrstor64_m512byte, &FxsaveInstructions.Fxrstor);
        t.Row(Code.Xsave_mem, &XsaveInstructions.Xsave);
        t.Row(Code.Xsave64_mem, &XsaveInstructions.Xsave);
        t.Row(Code.Xsaveopt_mem, &XsaveInstructions.Xsaveopt);
        t.Row(Code.Xsaveopt64_mem, &XsaveInstructions.Xsaveopt);
        t.Row(Code.Xsavec_mem, &XsaveInstructions.Xsavec);
        t.Row(Code.Xsavec64_mem, &XsaveInstructions.Xsavec);
        t.Row(Code.Xsaves_mem, &XsaveInstructions.Xsaves, End);
        t.Row(Code.Xsaves64_mem, &XsaveInstructions.Xsaves, End);
        t.Row(Code.Xrstor_mem, &XsaveInstructions.Xrstor, End);
        t.Row(Code.Xrstor64_mem, &XsaveInstructions.Xrstor, End);
        t.Row(Code.Xrstors_mem, &XsaveInstructions.Xrstors, End);
        t.Row(Code.Xrstors64_mem, &XsaveInstructions.Xrstors, End);
        t.Row(Code.Xgetbv, &XsaveInstructions.Xgetbv);
        t.Row(Code.Xsetbv, &XsaveInstructions.Xsetbv, End);
    }

    private static void RegisterMaskedMoves(OpcodeTable t)
    {
        t.Row(Code.Maskmovq_rDI_mm_mm, &MaskedMoves.Maskmovq);
        t.Row(Code.Maskmovdqu_rDI_xmm_xmm, &MaskedMoves.Maskmovdqu);
        t.Row(Code.VEX_Vmaskmovdqu_rDI_xmm_xmm, &MaskedMoves.Vmaskmovdqu);
        t.Row(Code.VEX_Vmaskmovps_xmm_xmm_m128, &MaskedMoves.Load<W32, Bits128>);
        t.Row(Code.VEX_Vmaskmovps_ymm_ymm_m256, &MaskedMoves.Load<W32, Bits256>);
        t.Row(Code.VEX_Vmaskmovps_m128_xmm_xmm, &MaskedMoves.Store<W32, Bits128>);
        t.Row(Code.VEX_Vmaskmovps_m256_ymm_ymm, &MaskedMoves.Store<W32, Bits256>);
        t.Row(Code.VEX_Vmaskmovpd_xmm_xmm_m128, &MaskedMoves.Load<W64, Bits128>);
        t.Row(Code.VEX_Vmaskmovpd_ymm_ymm_m256, &MaskedMoves.Load<W64, Bits256>);
        t.Row(Code.VEX_Vmaskmovpd_m128_xmm_xmm, &MaskedMoves.Store<W64, Bits128>);
        t.Row(Code.VEX_Vmaskmovpd_m256_ymm_ymm, &MaskedMoves.Store<W64, Bits256>);
        t.Row(Code.VEX_Vpmaskmovd_xmm_xmm_m128, &MaskedMoves.Load<W32, Bits128>);
        t.Row(Code.VEX_Vpmaskmovd_ymm_ymm_m256, &MaskedMoves.Load<W32, Bits256>);
        t.Row(Code.VEX_Vpmaskmovd_m128_xmm_xmm, &MaskedMoves.Store<W32, Bits128>);
        t.Row(Code.VEX_Vpmaskmovd_m256_ymm_ymm, &MaskedMoves.Store<W32, Bits256>);
        t.Row(Code.VEX_Vpmaskmovq_xmm_xmm_m128, &MaskedMoves.Load<W64, Bits128>);
        t.Row(Code.VEX_Vpmaskmovq_ymm_ymm_m256, &MaskedMoves.Load<W64, Bits256>);
        t.Row(Code.VEX_Vpmaskmovq_m128_xmm_xmm, &MaskedMoves.Store<W64, Bits128>);
        t.Row(Code.VEX_Vpmaskmovq_m256_ymm_ymm, &MaskedMoves.Store<W64, Bits256>);
    }

    private static void RegisterGathers(OpcodeTable t)
    {
        t.Row(Code.VEX_Vpgatherdd_xmm_vm32x_xmm, &Gathers.Gather<W32, W32, Bits128>);
        t.Row(Code.VEX_Vpgatherdd_ymm_vm32y_ymm, &Gathers.Gather<W32, W32, Bits256>);
        t.Row(Code.VEX_Vpgatherdq_xmm_vm32x_xmm, &Gathers.Gather<W32, W64, Bits128>);
        t.Row(Code.VEX_Vpgatherdq_ymm_vm32x_ymm, &Gathers.Gather<W32, W64, Bits256>);
        t.Row(Code.VEX_Vpgatherqd_xmm_vm64x_xmm, &Gathers.Gather<W64, W32, Bits128>);
        t.Row(Code.VEX_Vpgatherqd_xmm_vm64y_xmm, &Gathers.Gather<W64, W32, Bits256>);
        t.Row(Code.VEX_Vpgatherqq_xmm_vm64x_xmm, &Gathers.Gather<W64, W64, Bits128>);
        t.Row(Code.VEX_Vpgatherqq_ymm_vm64y_ymm, &Gathers.Gather<W64, W64, Bits256>);
        t.Row(Code.VEX_Vgatherdps_xmm_vm32x_xmm, &Gathers.Gather<W32, W32, Bits128>);
        t.Row(Code.VEX_Vgatherdps_ymm_vm32y_ymm, &Gathers.Gather<W32, W32, Bits256>);
        t.Row(Code.VEX_Vgatherdpd_xmm_vm32x_xmm, &Gathers.Gather<W32, W64, Bits128>);
        t.Row(Code.VEX_Vgatherdpd_ymm_vm32x_ymm, &Gathers.Gather<W32, W64, Bits256>);
        t.Row(Code.VEX_Vgatherqps_xmm_vm64x_xmm, &Gathers.Gather<W64, W32, Bits128>);
        t.Row(Code.VEX_Vgatherqps_xmm_vm64y_xmm, &Gathers.Gather<W64, W32, Bits256>);
        t.Row(Code.VEX_Vgatherqpd_xmm_vm64x_xmm, &Gathers.Gather<W64, W64, Bits128>);
        t.Row(Code.VEX_Vgatherqpd_ymm_vm64y_ymm, &Gathers.Gather<W64, W64, Bits256>);
    }
}
