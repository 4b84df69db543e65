using Iced.Intel;
using Kvm.Emulator.Vector.Integer;

namespace Kvm.Emulator.Vector;

/// <summary>AES, carry-less products, GF(2^8), SHA.</summary>
internal sealed unsafe partial class VectorTable
{
    static partial void RegisterCrypto(VectorTable t)
    {
        // AES
        t.Lanes128<AesEncrypt>(Code.Aesenc_xmm_xmmm128, Code.VEX_Vaesenc_xmm_xmm_xmmm128, Code.VEX_Vaesenc_ymm_ymm_ymmm256);
        t.Lanes128<AesEncryptLast>(Code.Aesenclast_xmm_xmmm128, Code.VEX_Vaesenclast_xmm_xmm_xmmm128, Code.VEX_Vaesenclast_ymm_ymm_ymmm256);
        t.Lanes128<AesDecrypt>(Code.Aesdec_xmm_xmmm128, Code.VEX_Vaesdec_xmm_xmm_xmmm128, Code.VEX_Vaesdec_ymm_ymm_ymmm256);
        t.Lanes128<AesDecryptLast>(Code.Aesdeclast_xmm_xmmm128, Code.VEX_Vaesdeclast_xmm_xmm_xmmm128, Code.VEX_Vaesdeclast_ymm_ymm_ymmm256);
        t.Row(Code.Aesimc_xmm_xmmm128, &Lanes.Sse<AesInvertKey>);
        t.Row(Code.VEX_Vaesimc_xmm_xmmm128, &Lanes.Vex128<AesInvertKey>);
        t.Row(Code.Aeskeygenassist_xmm_xmmm128_imm8, &Lanes.Sse<AesAssistKey>);
        t.Row(Code.VEX_Vaeskeygenassist_xmm_xmmm128_imm8, &Lanes.Vex128<AesAssistKey>);

        // Polynomials
        t.Lanes128<CarrylessMultiply>(Code.Pclmulqdq_xmm_xmmm128_imm8, Code.VEX_Vpclmulqdq_xmm_xmm_xmmm128_imm8, Code.VEX_Vpclmulqdq_ymm_ymm_ymmm256_imm8);
        t.Lanes128<GaloisMultiply>(Code.Gf2p8mulb_xmm_xmmm128, Code.VEX_Vgf2p8mulb_xmm_xmm_xmmm128, Code.VEX_Vgf2p8mulb_ymm_ymm_ymmm256);
        t.Lanes128<GaloisAffine>(Code.Gf2p8affineqb_xmm_xmmm128_imm8, Code.VEX_Vgf2p8affineqb_xmm_xmm_xmmm128_imm8, Code.VEX_Vgf2p8affineqb_ymm_ymm_ymmm256_imm8);
        t.Lanes128<GaloisAffineInverse>(Code.Gf2p8affineinvqb_xmm_xmmm128_imm8, Code.VEX_Vgf2p8affineinvqb_xmm_xmm_xmmm128_imm8, Code.VEX_Vgf2p8affineinvqb_ymm_ymm_ymmm256_imm8);

        // SHA
        t.Row(Code.Sha1nexte_xmm_xmmm128, &Lanes.Sse<Sha1NextE>);
        t.Row(Code.Sha1msg1_xmm_xmmm128, &Lanes.Sse<Sha1Message1>);
        t.Row(Code.Sha1msg2_xmm_xmmm128, &Lanes.Sse<Sha1Message2>);
        t.Row(Code.Sha256msg1_xmm_xmmm128, &Lanes.Sse<Sha256Message1>);
        t.Row(Code.Sha256msg2_xmm_xmmm128, &Lanes.Sse<Sha256Message2>);
        t.Row(Code.Sha1rnds4_xmm_xmmm128_imm8, &Lanes.Sse<Sha1FourRounds>);
        t.Row(Code.Sha256rnds2_xmm_xmmm128, &Lanes.SseMasked<Sha256TwoRounds>);
    }
}
