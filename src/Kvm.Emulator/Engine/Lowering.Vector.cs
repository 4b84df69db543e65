using Iced.Intel;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Engine;

internal static unsafe partial class Lowering
{
    private static bool IsVector(OpKind kind) => kind >= OpKind.MovXX;

    /// <summary>What the loop for SSE instructions does as well.</summary>
    private static readonly Dictionary<OpKind, OpKind> InVector = Enum.GetValues<OpKind>().Where(k => Enum.TryParse<OpKind>($"{k}InVector", out _))
        .ToDictionary(k => k, k => Enum.Parse<OpKind>($"{k}InVector"));

    /// <summary>A branch behind one of these is part of it.</summary>
    private static readonly HashSet<OpKind> WithBranch;

    /// <summary>Integer instructions next to SSE ones become cases of their loop, so that it isn't left for them.</summary>
    private static void FinishVector(Op* ops, int count)
    {
        bool near = false;
        for (int i = 0; i < count; i++)
        {
            near = Join(&ops[i], near);
            if (!WithBranch.Contains(ops[i].Kind))
                continue;
            i++;
            if (ops[i - 1].Kind is OpKind.ComiSdXXJ or OpKind.ComiSdXMJ or OpKind.ComiSsXXJ or OpKind.ComiSsXMJ)
                ops[i].RmSlot = VectorLoop.Relations(ops[i].Kind);
        }
        near = false;
        for (int i = count - 1; i >= 0; i--)
        {
            if (i > 0 && WithBranch.Contains(ops[i - 1].Kind))
                i--;
            near = Join(&ops[i], near);
        }
    }

    private static bool Join(Op* op, bool near)
    {
        if (near && InVector.TryGetValue(op->Kind, out OpKind between))
            op->Kind = between;
        return IsVector(op->Kind);
    }

    private static void MapVector(Rule[] rules)
    {
        void Map(Code code, OpKind register, OpKind memory, Form form = Form.RegRm) => rules[(int)code] = new Rule { Register = register, Memory = memory, Form = form };
        // instruction, case with a register operand, case with a memory operand, form
        Map(Code.Movaps_xmm_xmmm128, OpKind.MovXX, OpKind.MovXM128Aligned);
        Map(Code.Movapd_xmm_xmmm128, OpKind.MovXX, OpKind.MovXM128Aligned);
        Map(Code.Movdqa_xmm_xmmm128, OpKind.MovXX, OpKind.MovXM128Aligned);
        Map(Code.Movups_xmm_xmmm128, OpKind.MovXX, OpKind.MovXM128);
        Map(Code.Movupd_xmm_xmmm128, OpKind.MovXX, OpKind.MovXM128);
        Map(Code.Movdqu_xmm_xmmm128, OpKind.MovXX, OpKind.MovXM128);
        Map(Code.Movaps_xmmm128_xmm, OpKind.MovXX, OpKind.MovMX128Aligned, Form.RmReg);
        Map(Code.Movapd_xmmm128_xmm, OpKind.MovXX, OpKind.MovMX128Aligned, Form.RmReg);
        Map(Code.Movdqa_xmmm128_xmm, OpKind.MovXX, OpKind.MovMX128Aligned, Form.RmReg);
        Map(Code.Movups_xmmm128_xmm, OpKind.MovXX, OpKind.MovMX128, Form.RmReg);
        Map(Code.Movupd_xmmm128_xmm, OpKind.MovXX, OpKind.MovMX128, Form.RmReg);
        Map(Code.Movdqu_xmmm128_xmm, OpKind.MovXX, OpKind.MovMX128, Form.RmReg);
        Map(Code.Movntps_m128_xmm, OpKind.Cold, OpKind.MovMX128Aligned, Form.RmReg);
        Map(Code.Movntpd_m128_xmm, OpKind.Cold, OpKind.MovMX128Aligned, Form.RmReg);
        Map(Code.Movntdq_m128_xmm, OpKind.Cold, OpKind.MovMX128Aligned, Form.RmReg);
        Map(Code.Movsd_xmm_xmmm64, OpKind.MovXX64, OpKind.MovXM64);
        Map(Code.Movsd_xmmm64_xmm, OpKind.MovXX64, OpKind.MovMX64, Form.RmReg);
        Map(Code.Movss_xmm_xmmm32, OpKind.MovXX32, OpKind.MovXM32);
        Map(Code.Movss_xmmm32_xmm, OpKind.MovXX32, OpKind.MovMX32, Form.RmReg);
        Map(Code.Movq_xmm_xmmm64, OpKind.MovqXX, OpKind.MovXM64);
        Map(Code.Movq_xmmm64_xmm, OpKind.MovqXX, OpKind.MovMX64, Form.RmReg);
        Map(Code.Movd_xmm_rm32, OpKind.MovXR32, OpKind.MovXM32);
        Map(Code.Movq_xmm_rm64, OpKind.MovXR64, OpKind.MovXM64);
        Map(Code.Movd_rm32_xmm, OpKind.MovRX32, OpKind.MovMX32, Form.RmReg);
        Map(Code.Movq_rm64_xmm, OpKind.MovRX64, OpKind.MovMX64, Form.RmReg);
        Map(Code.Movlps_m64_xmm, OpKind.Cold, OpKind.MovMX64, Form.RmReg);
        Map(Code.Movlpd_m64_xmm, OpKind.Cold, OpKind.MovMX64, Form.RmReg);
        Map(Code.Movhpd_xmm_m64, OpKind.Cold, OpKind.MovhXM);
        Map(Code.Movhps_m64_xmm, OpKind.Cold, OpKind.MovhMX, Form.RmReg);
        Map(Code.Movhpd_m64_xmm, OpKind.Cold, OpKind.MovhMX, Form.RmReg);
        Map(Code.Unpcklpd_xmm_xmmm128, OpKind.UnpcklpdXX, OpKind.Cold);
        Map(Code.Punpcklqdq_xmm_xmmm128, OpKind.UnpcklpdXX, OpKind.Cold);
        Map(Code.Xorps_xmm_xmmm128, OpKind.XorXX, OpKind.XorXM);
        Map(Code.Xorpd_xmm_xmmm128, OpKind.XorXX, OpKind.XorXM);
        Map(Code.Pxor_xmm_xmmm128, OpKind.XorXX, OpKind.XorXM);
        Map(Code.Andps_xmm_xmmm128, OpKind.AndXX, OpKind.AndXM);
        Map(Code.Andpd_xmm_xmmm128, OpKind.AndXX, OpKind.AndXM);
        Map(Code.Pand_xmm_xmmm128, OpKind.AndXX, OpKind.AndXM);
        Map(Code.Andnps_xmm_xmmm128, OpKind.AndnXX, OpKind.AndnXM);
        Map(Code.Andnpd_xmm_xmmm128, OpKind.AndnXX, OpKind.AndnXM);
        Map(Code.Pandn_xmm_xmmm128, OpKind.AndnXX, OpKind.AndnXM);
        Map(Code.Orps_xmm_xmmm128, OpKind.OrXX, OpKind.OrXM);
        Map(Code.Orpd_xmm_xmmm128, OpKind.OrXX, OpKind.OrXM);
        Map(Code.Por_xmm_xmmm128, OpKind.OrXX, OpKind.OrXM);
        Map(Code.Pmovmskb_r32_xmm, OpKind.PmovmskbRX, OpKind.Cold);
        Map(Code.Pmovmskb_r64_xmm, OpKind.PmovmskbRX, OpKind.Cold);
        Map(Code.Paddb_xmm_xmmm128, OpKind.PaddbXX, OpKind.PaddbXM);
        Map(Code.Paddd_xmm_xmmm128, OpKind.PadddXX, OpKind.PadddXM);
        Map(Code.Paddq_xmm_xmmm128, OpKind.PaddqXX, OpKind.PaddqXM);
        Map(Code.Psubb_xmm_xmmm128, OpKind.PsubbXX, OpKind.PsubbXM);
        Map(Code.Psubd_xmm_xmmm128, OpKind.PsubdXX, OpKind.PsubdXM);
        Map(Code.Psubq_xmm_xmmm128, OpKind.PsubqXX, OpKind.PsubqXM);
        Map(Code.Pcmpeqb_xmm_xmmm128, OpKind.PcmpeqbXX, OpKind.PcmpeqbXM);
        Map(Code.Pcmpeqd_xmm_xmmm128, OpKind.PcmpeqdXX, OpKind.PcmpeqdXM);
        Map(Code.Pminub_xmm_xmmm128, OpKind.PminubXX, OpKind.PminubXM);
        Map(Code.Pmaxub_xmm_xmmm128, OpKind.PmaxubXX, OpKind.PmaxubXM);
        Map(Code.Addsd_xmm_xmmm64, OpKind.AddSdXX, OpKind.AddSdXM);
        Map(Code.Subsd_xmm_xmmm64, OpKind.SubSdXX, OpKind.SubSdXM);
        Map(Code.Mulsd_xmm_xmmm64, OpKind.MulSdXX, OpKind.MulSdXM);
        Map(Code.Divsd_xmm_xmmm64, OpKind.DivSdXX, OpKind.DivSdXM);
        Map(Code.Sqrtsd_xmm_xmmm64, OpKind.SqrtSdXX, OpKind.SqrtSdXM);
        Map(Code.Addss_xmm_xmmm32, OpKind.AddSsXX, OpKind.AddSsXM);
        Map(Code.Subss_xmm_xmmm32, OpKind.SubSsXX, OpKind.SubSsXM);
        Map(Code.Mulss_xmm_xmmm32, OpKind.MulSsXX, OpKind.MulSsXM);
        Map(Code.Divss_xmm_xmmm32, OpKind.DivSsXX, OpKind.DivSsXM);
        Map(Code.Addpd_xmm_xmmm128, OpKind.AddPdXX, OpKind.AddPdXM);
        Map(Code.Subpd_xmm_xmmm128, OpKind.SubPdXX, OpKind.SubPdXM);
        Map(Code.Mulpd_xmm_xmmm128, OpKind.MulPdXX, OpKind.MulPdXM);
        Map(Code.Divpd_xmm_xmmm128, OpKind.DivPdXX, OpKind.DivPdXM);
        Map(Code.Addps_xmm_xmmm128, OpKind.AddPsXX, OpKind.AddPsXM);
        Map(Code.Subps_xmm_xmmm128, OpKind.SubPsXX, OpKind.SubPsXM);
        Map(Code.Mulps_xmm_xmmm128, OpKind.MulPsXX, OpKind.MulPsXM);
        Map(Code.Divps_xmm_xmmm128, OpKind.DivPsXX, OpKind.DivPsXM);
        Map(Code.Comisd_xmm_xmmm64, OpKind.ComiSdXX, OpKind.ComiSdXM);
        Map(Code.Ucomisd_xmm_xmmm64, OpKind.ComiSdXX, OpKind.ComiSdXM);
        Map(Code.Comiss_xmm_xmmm32, OpKind.ComiSsXX, OpKind.ComiSsXM);
        Map(Code.Ucomiss_xmm_xmmm32, OpKind.ComiSsXX, OpKind.ComiSsXM);
        Map(Code.Cvtsi2sd_xmm_rm32, OpKind.CvtSi32SdXR, OpKind.CvtSi32SdXM);
        Map(Code.Cvtsi2sd_xmm_rm64, OpKind.CvtSi64SdXR, OpKind.CvtSi64SdXM);
        Map(Code.Cvtsi2ss_xmm_rm32, OpKind.CvtSi32SsXR, OpKind.CvtSi32SsXM);
        Map(Code.Cvttsd2si_r32_xmmm64, OpKind.CvttSdSi32RX, OpKind.CvttSdSi32RM);
        Map(Code.Cvttsd2si_r64_xmmm64, OpKind.CvttSdSi64RX, OpKind.CvttSdSi64RM);
        Map(Code.Cvttss2si_r32_xmmm32, OpKind.CvttSsSi32RX, OpKind.CvttSsSi32RM);
        Map(Code.Cvtss2sd_xmm_xmmm32, OpKind.CvtSsSdXX, OpKind.CvtSsSdXM);
        Map(Code.Cvtsd2ss_xmm_xmmm64, OpKind.CvtSdSsXX, OpKind.CvtSdSsXM);
    }

    /// <summary>A comparison and any conditional branch.</summary>
    private static void FuseComparisons(Dictionary<(OpKind, OpKind), OpKind> fusions)
    {
        for (OpKind branch = OpKind.JO; branch <= OpKind.JG; branch++)
        {
            fusions[(OpKind.ComiSdXX, branch)] = OpKind.ComiSdXXJ;
            fusions[(OpKind.ComiSdXM, branch)] = OpKind.ComiSdXMJ;
            fusions[(OpKind.ComiSsXX, branch)] = OpKind.ComiSsXXJ;
            fusions[(OpKind.ComiSsXM, branch)] = OpKind.ComiSsXMJ;
        }
    }

    /// <summary>The case for an instruction that has a core and none of its own.</summary>
    private static OpKind CoreKind(Op* op, uint mode)
    {
        // Without a row of its own it is executed by the vector unit.
        if (op->Code == Code.INVALID || OpcodeTable.Instance[op->Code].Handler != null)
            return OpKind.Cold;
        VectorOp* v = VectorOp.Of(op);
        const VectorFlags others = VectorFlags.X87 | VectorFlags.Mmx | VectorFlags.Waits | VectorFlags.ReadsFlags | VectorFlags.WritesFlags;
        VectorFlags flags = v->Flags;
        CodeMode needed = (flags & VectorFlags.Avx) != 0 ? CodeMode.Avx : CodeMode.Sse;
        if ((flags & others) != 0 || (mode & (uint)needed) == 0)
            return OpKind.Cold;
        if (!op->HasMemory)
            return (flags & VectorFlags.Float) != 0 ? OpKind.VectorFloatX : OpKind.VectorX;
        const VectorFlags access = VectorFlags.ReadsMemory | VectorFlags.WritesMemory;
        return (flags & access) == VectorFlags.ReadsMemory ? OpKind.VectorXM
            : (flags & (access | VectorFlags.Float)) == VectorFlags.WritesMemory ? OpKind.VectorMX : OpKind.Cold;
    }
}
