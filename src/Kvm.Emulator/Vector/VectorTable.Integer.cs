using Iced.Intel;
using Kvm.Emulator.Vector.Integer;

namespace Kvm.Emulator.Vector;

/// <summary>Packed integers of XMM and YMM registers, logic of all types, shuffles, tests, text.</summary>
internal sealed unsafe partial class VectorTable
{
    /// <summary>The SSE, VEX.128 and VEX.256 forms of an instruction that does the same to each lane.</summary>
    private void Lanes128<T>(Code sse, Code vex128, Code vex256) where T : struct, ILane
    {
        Row(sse, &Lanes.Sse<T>);
        Row(vex128, &Lanes.Vex128<T>);
        Row(vex256, &Lanes.Vex256<T>);
    }

    static partial void RegisterInteger(VectorTable t)
    {
        // Sums and differences
        t.Lanes128<Add<byte>>(Code.Paddb_xmm_xmmm128, Code.VEX_Vpaddb_xmm_xmm_xmmm128, Code.VEX_Vpaddb_ymm_ymm_ymmm256);
        t.Lanes128<Add<ushort>>(Code.Paddw_xmm_xmmm128, Code.VEX_Vpaddw_xmm_xmm_xmmm128, Code.VEX_Vpaddw_ymm_ymm_ymmm256);
        t.Lanes128<Add<uint>>(Code.Paddd_xmm_xmmm128, Code.VEX_Vpaddd_xmm_xmm_xmmm128, Code.VEX_Vpaddd_ymm_ymm_ymmm256);
        t.Lanes128<Add<ulong>>(Code.Paddq_xmm_xmmm128, Code.VEX_Vpaddq_xmm_xmm_xmmm128, Code.VEX_Vpaddq_ymm_ymm_ymmm256);
        t.Lanes128<AddSaturated<sbyte>>(Code.Paddsb_xmm_xmmm128, Code.VEX_Vpaddsb_xmm_xmm_xmmm128, Code.VEX_Vpaddsb_ymm_ymm_ymmm256);
        t.Lanes128<AddSaturated<byte>>(Code.Paddusb_xmm_xmmm128, Code.VEX_Vpaddusb_xmm_xmm_xmmm128, Code.VEX_Vpaddusb_ymm_ymm_ymmm256);
        t.Lanes128<AddSaturated<short>>(Code.Paddsw_xmm_xmmm128, Code.VEX_Vpaddsw_xmm_xmm_xmmm128, Code.VEX_Vpaddsw_ymm_ymm_ymmm256);
        t.Lanes128<AddSaturated<ushort>>(Code.Paddusw_xmm_xmmm128, Code.VEX_Vpaddusw_xmm_xmm_xmmm128, Code.VEX_Vpaddusw_ymm_ymm_ymmm256);
        t.Lanes128<Subtract<byte>>(Code.Psubb_xmm_xmmm128, Code.VEX_Vpsubb_xmm_xmm_xmmm128, Code.VEX_Vpsubb_ymm_ymm_ymmm256);
        t.Lanes128<Subtract<ushort>>(Code.Psubw_xmm_xmmm128, Code.VEX_Vpsubw_xmm_xmm_xmmm128, Code.VEX_Vpsubw_ymm_ymm_ymmm256);
        t.Lanes128<Subtract<uint>>(Code.Psubd_xmm_xmmm128, Code.VEX_Vpsubd_xmm_xmm_xmmm128, Code.VEX_Vpsubd_ymm_ymm_ymmm256);
        t.Lanes128<Subtract<ulong>>(Code.Psubq_xmm_xmmm128, Code.VEX_Vpsubq_xmm_xmm_xmmm128, Code.VEX_Vpsubq_ymm_ymm_ymmm256);
        t.Lanes128<SubtractSaturated<sbyte>>(Code.Psubsb_xmm_xmmm128, Code.VEX_Vpsubsb_xmm_xmm_xmmm128, Code.VEX_Vpsubsb_ymm_ymm_ymmm256);
        t.Lanes128<SubtractSaturated<byte>>(Code.Psubusb_xmm_xmmm128, Code.VEX_Vpsubusb_xmm_xmm_xmmm128, Code.VEX_Vpsubusb_ymm_ymm_ymmm256);
        t.Lanes128<SubtractSaturated<short>>(Code.Psubsw_xmm_xmmm128, Code.VEX_Vpsubsw_xmm_xmm_xmmm128, Code.VEX_Vpsubsw_ymm_ymm_ymmm256);
        t.Lanes128<SubtractSaturated<ushort>>(Code.Psubusw_xmm_xmmm128, Code.VEX_Vpsubusw_xmm_xmm_xmmm128, Code.VEX_Vpsubusw_ymm_ymm_ymmm256);
        t.Lanes128<Average<byte>>(Code.Pavgb_xmm_xmmm128, Code.VEX_Vpavgb_xmm_xmm_xmmm128, Code.VEX_Vpavgb_ymm_ymm_ymmm256);
        t.Lanes128<Average<ushort>>(Code.Pavgw_xmm_xmmm128, Code.VEX_Vpavgw_xmm_xmm_xmmm128, Code.VEX_Vpavgw_ymm_ymm_ymmm256);
        t.Lanes128<Absolute<sbyte>>(Code.Pabsb_xmm_xmmm128, Code.VEX_Vpabsb_xmm_xmmm128, Code.VEX_Vpabsb_ymm_ymmm256);
        t.Lanes128<Sign<sbyte>>(Code.Psignb_xmm_xmmm128, Code.VEX_Vpsignb_xmm_xmm_xmmm128, Code.VEX_Vpsignb_ymm_ymm_ymmm256);
        t.Lanes128<Absolute<short>>(Code.Pabsw_xmm_xmmm128, Code.VEX_Vpabsw_xmm_xmmm128, Code.VEX_Vpabsw_ymm_ymmm256);
        t.Lanes128<Sign<short>>(Code.Psignw_xmm_xmmm128, Code.VEX_Vpsignw_xmm_xmm_xmmm128, Code.VEX_Vpsignw_ymm_ymm_ymmm256);
        t.Lanes128<Absolute<int>>(Code.Pabsd_xmm_xmmm128, Code.VEX_Vpabsd_xmm_xmmm128, Code.VEX_Vpabsd_ymm_ymmm256);
        t.Lanes128<Sign<int>>(Code.Psignd_xmm_xmmm128, Code.VEX_Vpsignd_xmm_xmm_xmmm128, Code.VEX_Vpsignd_ymm_ymm_ymmm256);

        // Neighbours
        t.Lanes128<HorizontalWords<Sum>>(Code.Phaddw_xmm_xmmm128, Code.VEX_Vphaddw_xmm_xmm_xmmm128, Code.VEX_Vphaddw_ymm_ymm_ymmm256);
        t.Lanes128<HorizontalSaturated<Sum>>(Code.Phaddsw_xmm_xmmm128, Code.VEX_Vphaddsw_xmm_xmm_xmmm128, Code.VEX_Vphaddsw_ymm_ymm_ymmm256);
        t.Lanes128<HorizontalDoublewords<Sum>>(Code.Phaddd_xmm_xmmm128, Code.VEX_Vphaddd_xmm_xmm_xmmm128, Code.VEX_Vphaddd_ymm_ymm_ymmm256);
        t.Lanes128<HorizontalWords<Difference>>(Code.Phsubw_xmm_xmmm128, Code.VEX_Vphsubw_xmm_xmm_xmmm128, Code.VEX_Vphsubw_ymm_ymm_ymmm256);
        t.Lanes128<HorizontalSaturated<Difference>>(Code.Phsubsw_xmm_xmmm128, Code.VEX_Vphsubsw_xmm_xmm_xmmm128, Code.VEX_Vphsubsw_ymm_ymm_ymmm256);
        t.Lanes128<HorizontalDoublewords<Difference>>(Code.Phsubd_xmm_xmmm128, Code.VEX_Vphsubd_xmm_xmm_xmmm128, Code.VEX_Vphsubd_ymm_ymm_ymmm256);

        // Minima, maxima, comparisons
        t.Lanes128<Minimum<sbyte>>(Code.Pminsb_xmm_xmmm128, Code.VEX_Vpminsb_xmm_xmm_xmmm128, Code.VEX_Vpminsb_ymm_ymm_ymmm256);
        t.Lanes128<Minimum<short>>(Code.Pminsw_xmm_xmmm128, Code.VEX_Vpminsw_xmm_xmm_xmmm128, Code.VEX_Vpminsw_ymm_ymm_ymmm256);
        t.Lanes128<Minimum<int>>(Code.Pminsd_xmm_xmmm128, Code.VEX_Vpminsd_xmm_xmm_xmmm128, Code.VEX_Vpminsd_ymm_ymm_ymmm256);
        t.Lanes128<Minimum<byte>>(Code.Pminub_xmm_xmmm128, Code.VEX_Vpminub_xmm_xmm_xmmm128, Code.VEX_Vpminub_ymm_ymm_ymmm256);
        t.Lanes128<Minimum<ushort>>(Code.Pminuw_xmm_xmmm128, Code.VEX_Vpminuw_xmm_xmm_xmmm128, Code.VEX_Vpminuw_ymm_ymm_ymmm256);
        t.Lanes128<Minimum<uint>>(Code.Pminud_xmm_xmmm128, Code.VEX_Vpminud_xmm_xmm_xmmm128, Code.VEX_Vpminud_ymm_ymm_ymmm256);
        t.Lanes128<Maximum<sbyte>>(Code.Pmaxsb_xmm_xmmm128, Code.VEX_Vpmaxsb_xmm_xmm_xmmm128, Code.VEX_Vpmaxsb_ymm_ymm_ymmm256);
        t.Lanes128<Maximum<short>>(Code.Pmaxsw_xmm_xmmm128, Code.VEX_Vpmaxsw_xmm_xmm_xmmm128, Code.VEX_Vpmaxsw_ymm_ymm_ymmm256);
        t.Lanes128<Maximum<int>>(Code.Pmaxsd_xmm_xmmm128, Code.VEX_Vpmaxsd_xmm_xmm_xmmm128, Code.VEX_Vpmaxsd_ymm_ymm_ymmm256);
        t.Lanes128<Maximum<byte>>(Code.Pmaxub_xmm_xmmm128, Code.VEX_Vpmaxub_xmm_xmm_xmmm128, Code.VEX_Vpmaxub_ymm_ymm_ymmm256);
        t.Lanes128<Maximum<ushort>>(Code.Pmaxuw_xmm_xmmm128, Code.VEX_Vpmaxuw_xmm_xmm_xmmm128, Code.VEX_Vpmaxuw_ymm_ymm_ymmm256);
        t.Lanes128<Maximum<uint>>(Code.Pmaxud_xmm_xmmm128, Code.VEX_Vpmaxud_xmm_xmm_xmmm128, Code.VEX_Vpmaxud_ymm_ymm_ymmm256);
        t.Lanes128<CompareEqual<byte>>(Code.Pcmpeqb_xmm_xmmm128, Code.VEX_Vpcmpeqb_xmm_xmm_xmmm128, Code.VEX_Vpcmpeqb_ymm_ymm_ymmm256);
        t.Lanes128<CompareEqual<ushort>>(Code.Pcmpeqw_xmm_xmmm128, Code.VEX_Vpcmpeqw_xmm_xmm_xmmm128, Code.VEX_Vpcmpeqw_ymm_ymm_ymmm256);
        t.Lanes128<CompareEqual<uint>>(Code.Pcmpeqd_xmm_xmmm128, Code.VEX_Vpcmpeqd_xmm_xmm_xmmm128, Code.VEX_Vpcmpeqd_ymm_ymm_ymmm256);
        t.Lanes128<CompareEqual<ulong>>(Code.Pcmpeqq_xmm_xmmm128, Code.VEX_Vpcmpeqq_xmm_xmm_xmmm128, Code.VEX_Vpcmpeqq_ymm_ymm_ymmm256);
        t.Lanes128<CompareGreater<sbyte>>(Code.Pcmpgtb_xmm_xmmm128, Code.VEX_Vpcmpgtb_xmm_xmm_xmmm128, Code.VEX_Vpcmpgtb_ymm_ymm_ymmm256);
        t.Lanes128<CompareGreater<short>>(Code.Pcmpgtw_xmm_xmmm128, Code.VEX_Vpcmpgtw_xmm_xmm_xmmm128, Code.VEX_Vpcmpgtw_ymm_ymm_ymmm256);
        t.Lanes128<CompareGreater<int>>(Code.Pcmpgtd_xmm_xmmm128, Code.VEX_Vpcmpgtd_xmm_xmm_xmmm128, Code.VEX_Vpcmpgtd_ymm_ymm_ymmm256);
        t.Lanes128<CompareGreater<long>>(Code.Pcmpgtq_xmm_xmmm128, Code.VEX_Vpcmpgtq_xmm_xmm_xmmm128, Code.VEX_Vpcmpgtq_ymm_ymm_ymmm256);
        t.Row(Code.Phminposuw_xmm_xmmm128, &Lanes.Sse<SmallestWord>);
        t.Row(Code.VEX_Vphminposuw_xmm_xmmm128, &Lanes.Vex128<SmallestWord>);

        // Products
        t.Lanes128<MultiplyLow<ushort>>(Code.Pmullw_xmm_xmmm128, Code.VEX_Vpmullw_xmm_xmm_xmmm128, Code.VEX_Vpmullw_ymm_ymm_ymmm256);
        t.Lanes128<MultiplyLow<uint>>(Code.Pmulld_xmm_xmmm128, Code.VEX_Vpmulld_xmm_xmm_xmmm128, Code.VEX_Vpmulld_ymm_ymm_ymmm256);
        t.Lanes128<MultiplyHigh>(Code.Pmulhw_xmm_xmmm128, Code.VEX_Vpmulhw_xmm_xmm_xmmm128, Code.VEX_Vpmulhw_ymm_ymm_ymmm256);
        t.Lanes128<MultiplyHighUnsigned>(Code.Pmulhuw_xmm_xmmm128, Code.VEX_Vpmulhuw_xmm_xmm_xmmm128, Code.VEX_Vpmulhuw_ymm_ymm_ymmm256);
        t.Lanes128<MultiplyRounded>(Code.Pmulhrsw_xmm_xmmm128, Code.VEX_Vpmulhrsw_xmm_xmm_xmmm128, Code.VEX_Vpmulhrsw_ymm_ymm_ymmm256);
        t.Lanes128<MultiplyEven>(Code.Pmuldq_xmm_xmmm128, Code.VEX_Vpmuldq_xmm_xmm_xmmm128, Code.VEX_Vpmuldq_ymm_ymm_ymmm256);
        t.Lanes128<MultiplyEvenUnsigned>(Code.Pmuludq_xmm_xmmm128, Code.VEX_Vpmuludq_xmm_xmm_xmmm128, Code.VEX_Vpmuludq_ymm_ymm_ymmm256);
        t.Lanes128<MultiplyAddWords>(Code.Pmaddwd_xmm_xmmm128, Code.VEX_Vpmaddwd_xmm_xmm_xmmm128, Code.VEX_Vpmaddwd_ymm_ymm_ymmm256);
        t.Lanes128<MultiplyAddBytes>(Code.Pmaddubsw_xmm_xmmm128, Code.VEX_Vpmaddubsw_xmm_xmm_xmmm128, Code.VEX_Vpmaddubsw_ymm_ymm_ymmm256);
        t.Lanes128<SumOfDifferences>(Code.Psadbw_xmm_xmmm128, Code.VEX_Vpsadbw_xmm_xmm_xmmm128, Code.VEX_Vpsadbw_ymm_ymm_ymmm256);
        t.Lanes128<SlidingDifferences>(Code.Mpsadbw_xmm_xmmm128_imm8, Code.VEX_Vmpsadbw_xmm_xmm_xmmm128_imm8, Code.VEX_Vmpsadbw_ymm_ymm_ymmm256_imm8);

        // Logic
        t.Lanes128<And>(Code.Pand_xmm_xmmm128, Code.VEX_Vpand_xmm_xmm_xmmm128, Code.VEX_Vpand_ymm_ymm_ymmm256);
        t.Lanes128<And>(Code.Andps_xmm_xmmm128, Code.VEX_Vandps_xmm_xmm_xmmm128, Code.VEX_Vandps_ymm_ymm_ymmm256);
        t.Lanes128<And>(Code.Andpd_xmm_xmmm128, Code.VEX_Vandpd_xmm_xmm_xmmm128, Code.VEX_Vandpd_ymm_ymm_ymmm256);
        t.Lanes128<AndNot>(Code.Pandn_xmm_xmmm128, Code.VEX_Vpandn_xmm_xmm_xmmm128, Code.VEX_Vpandn_ymm_ymm_ymmm256);
        t.Lanes128<AndNot>(Code.Andnps_xmm_xmmm128, Code.VEX_Vandnps_xmm_xmm_xmmm128, Code.VEX_Vandnps_ymm_ymm_ymmm256);
        t.Lanes128<AndNot>(Code.Andnpd_xmm_xmmm128, Code.VEX_Vandnpd_xmm_xmm_xmmm128, Code.VEX_Vandnpd_ymm_ymm_ymmm256);
        t.Lanes128<Or>(Code.Por_xmm_xmmm128, Code.VEX_Vpor_xmm_xmm_xmmm128, Code.VEX_Vpor_ymm_ymm_ymmm256);
        t.Lanes128<Or>(Code.Orps_xmm_xmmm128, Code.VEX_Vorps_xmm_xmm_xmmm128, Code.VEX_Vorps_ymm_ymm_ymmm256);
        t.Lanes128<Or>(Code.Orpd_xmm_xmmm128, Code.VEX_Vorpd_xmm_xmm_xmmm128, Code.VEX_Vorpd_ymm_ymm_ymmm256);
        t.Lanes128<Xor>(Code.Pxor_xmm_xmmm128, Code.VEX_Vpxor_xmm_xmm_xmmm128, Code.VEX_Vpxor_ymm_ymm_ymmm256);
        t.Lanes128<Xor>(Code.Xorps_xmm_xmmm128, Code.VEX_Vxorps_xmm_xmm_xmmm128, Code.VEX_Vxorps_ymm_ymm_ymmm256);
        t.Lanes128<Xor>(Code.Xorpd_xmm_xmmm128, Code.VEX_Vxorpd_xmm_xmm_xmmm128, Code.VEX_Vxorpd_ymm_ymm_ymmm256);

        // Shifts
        t.Row(Code.Psllw_xmm_xmmm128, &Shifts.Sse<ShiftLeft<ushort>>);
        t.Row(Code.VEX_Vpsllw_xmm_xmm_xmmm128, &Shifts.Vex128<ShiftLeft<ushort>>);
        t.Row(Code.VEX_Vpsllw_ymm_ymm_xmmm128, &Shifts.Vex256<ShiftLeft<ushort>>);
        t.Row(Code.Psllw_xmm_imm8, &Shifts.SseImmediate<ShiftLeft<ushort>>);
        t.Row(Code.VEX_Vpsllw_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftLeft<ushort>>);
        t.Row(Code.VEX_Vpsllw_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftLeft<ushort>>);
        t.Row(Code.Pslld_xmm_xmmm128, &Shifts.Sse<ShiftLeft<uint>>);
        t.Row(Code.VEX_Vpslld_xmm_xmm_xmmm128, &Shifts.Vex128<ShiftLeft<uint>>);
        t.Row(Code.VEX_Vpslld_ymm_ymm_xmmm128, &Shifts.Vex256<ShiftLeft<uint>>);
        t.Row(Code.Pslld_xmm_imm8, &Shifts.SseImmediate<ShiftLeft<uint>>);
        t.Row(Code.VEX_Vpslld_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftLeft<uint>>);
        t.Row(Code.VEX_Vpslld_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftLeft<uint>>);
        t.Row(Code.Psllq_xmm_xmmm128, &Shifts.Sse<ShiftLeft<ulong>>);
        t.Row(Code.VEX_Vpsllq_xmm_xmm_xmmm128, &Shifts.Vex128<ShiftLeft<ulong>>);
        t.Row(Code.VEX_Vpsllq_ymm_ymm_xmmm128, &Shifts.Vex256<ShiftLeft<ulong>>);
        t.Row(Code.Psllq_xmm_imm8, &Shifts.SseImmediate<ShiftLeft<ulong>>);
        t.Row(Code.VEX_Vpsllq_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftLeft<ulong>>);
        t.Row(Code.VEX_Vpsllq_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftLeft<ulong>>);
        t.Row(Code.Psrlw_xmm_xmmm128, &Shifts.Sse<ShiftRight<ushort>>);
        t.Row(Code.VEX_Vpsrlw_xmm_xmm_xmmm128, &Shifts.Vex128<ShiftRight<ushort>>);
        t.Row(Code.VEX_Vpsrlw_ymm_ymm_xmmm128, &Shifts.Vex256<ShiftRight<ushort>>);
        t.Row(Code.Psrlw_xmm_imm8, &Shifts.SseImmediate<ShiftRight<ushort>>);
        t.Row(Code.VEX_Vpsrlw_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftRight<ushort>>);
        t.Row(Code.VEX_Vpsrlw_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftRight<ushort>>);
        t.Row(Code.Psrld_xmm_xmmm128, &Shifts.Sse<ShiftRight<uint>>);
        t.Row(Code.VEX_Vpsrld_xmm_xmm_xmmm128, &Shifts.Vex128<ShiftRight<uint>>);
        t.Row(Code.VEX_Vpsrld_ymm_ymm_xmmm128, &Shifts.Vex256<ShiftRight<uint>>);
        t.Row(Code.Psrld_xmm_imm8, &Shifts.SseImmediate<ShiftRight<uint>>);
        t.Row(Code.VEX_Vpsrld_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftRight<uint>>);
        t.Row(Code.VEX_Vpsrld_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftRight<uint>>);
        t.Row(Code.Psrlq_xmm_xmmm128, &Shifts.Sse<ShiftRight<ulong>>);
        t.Row(Code.VEX_Vpsrlq_xmm_xmm_xmmm128, &Shifts.Vex128<ShiftRight<ulong>>);
        t.Row(Code.VEX_Vpsrlq_ymm_ymm_xmmm128, &Shifts.Vex256<ShiftRight<ulong>>);
        t.Row(Code.Psrlq_xmm_imm8, &Shifts.SseImmediate<ShiftRight<ulong>>);
        t.Row(Code.VEX_Vpsrlq_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftRight<ulong>>);
        t.Row(Code.VEX_Vpsrlq_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftRight<ulong>>);
        t.Row(Code.Psraw_xmm_xmmm128, &Shifts.Sse<ShiftArithmetic<short>>);
        t.Row(Code.VEX_Vpsraw_xmm_xmm_xmmm128, &Shifts.Vex128<ShiftArithmetic<short>>);
        t.Row(Code.VEX_Vpsraw_ymm_ymm_xmmm128, &Shifts.Vex256<ShiftArithmetic<short>>);
        t.Row(Code.Psraw_xmm_imm8, &Shifts.SseImmediate<ShiftArithmetic<short>>);
        t.Row(Code.VEX_Vpsraw_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftArithmetic<short>>);
        t.Row(Code.VEX_Vpsraw_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftArithmetic<short>>);
        t.Row(Code.Psrad_xmm_xmmm128, &Shifts.Sse<ShiftArithmetic<int>>);
        t.Row(Code.VEX_Vpsrad_xmm_xmm_xmmm128, &Shifts.Vex128<ShiftArithmetic<int>>);
        t.Row(Code.VEX_Vpsrad_ymm_ymm_xmmm128, &Shifts.Vex256<ShiftArithmetic<int>>);
        t.Row(Code.Psrad_xmm_imm8, &Shifts.SseImmediate<ShiftArithmetic<int>>);
        t.Row(Code.VEX_Vpsrad_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftArithmetic<int>>);
        t.Row(Code.VEX_Vpsrad_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftArithmetic<int>>);
        t.Row(Code.Pslldq_xmm_imm8, &Shifts.SseImmediate<ShiftBytesLeft>);
        t.Row(Code.VEX_Vpslldq_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftBytesLeft>);
        t.Row(Code.VEX_Vpslldq_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftBytesLeft>);
        t.Row(Code.Psrldq_xmm_imm8, &Shifts.SseImmediate<ShiftBytesRight>);
        t.Row(Code.VEX_Vpsrldq_xmm_xmm_imm8, &Shifts.Vex128Immediate<ShiftBytesRight>);
        t.Row(Code.VEX_Vpsrldq_ymm_ymm_imm8, &Shifts.Vex256Immediate<ShiftBytesRight>);
        t.Row(Code.VEX_Vpsllvd_xmm_xmm_xmmm128, &Lanes.Vex128<ShiftLeftEach<uint>>);
        t.Row(Code.VEX_Vpsllvd_ymm_ymm_ymmm256, &Lanes.Vex256<ShiftLeftEach<uint>>);
        t.Row(Code.VEX_Vpsllvq_xmm_xmm_xmmm128, &Lanes.Vex128<ShiftLeftEach<ulong>>);
        t.Row(Code.VEX_Vpsllvq_ymm_ymm_ymmm256, &Lanes.Vex256<ShiftLeftEach<ulong>>);
        t.Row(Code.VEX_Vpsrlvd_xmm_xmm_xmmm128, &Lanes.Vex128<ShiftRightEach<uint>>);
        t.Row(Code.VEX_Vpsrlvd_ymm_ymm_ymmm256, &Lanes.Vex256<ShiftRightEach<uint>>);
        t.Row(Code.VEX_Vpsrlvq_xmm_xmm_xmmm128, &Lanes.Vex128<ShiftRightEach<ulong>>);
        t.Row(Code.VEX_Vpsrlvq_ymm_ymm_ymmm256, &Lanes.Vex256<ShiftRightEach<ulong>>);
        t.Row(Code.VEX_Vpsravd_xmm_xmm_xmmm128, &Lanes.Vex128<ShiftArithmeticEach>);
        t.Row(Code.VEX_Vpsravd_ymm_ymm_ymmm256, &Lanes.Vex256<ShiftArithmeticEach>);

        // Packing, unpacking, widening
        t.Lanes128<PackWords>(Code.Packsswb_xmm_xmmm128, Code.VEX_Vpacksswb_xmm_xmm_xmmm128, Code.VEX_Vpacksswb_ymm_ymm_ymmm256);
        t.Lanes128<PackWordsUnsigned>(Code.Packuswb_xmm_xmmm128, Code.VEX_Vpackuswb_xmm_xmm_xmmm128, Code.VEX_Vpackuswb_ymm_ymm_ymmm256);
        t.Lanes128<PackDoublewords>(Code.Packssdw_xmm_xmmm128, Code.VEX_Vpackssdw_xmm_xmm_xmmm128, Code.VEX_Vpackssdw_ymm_ymm_ymmm256);
        t.Lanes128<PackDoublewordsUnsigned>(Code.Packusdw_xmm_xmmm128, Code.VEX_Vpackusdw_xmm_xmm_xmmm128, Code.VEX_Vpackusdw_ymm_ymm_ymmm256);
        t.Lanes128<UnpackLowBytes>(Code.Punpcklbw_xmm_xmmm128, Code.VEX_Vpunpcklbw_xmm_xmm_xmmm128, Code.VEX_Vpunpcklbw_ymm_ymm_ymmm256);
        t.Lanes128<UnpackHighBytes>(Code.Punpckhbw_xmm_xmmm128, Code.VEX_Vpunpckhbw_xmm_xmm_xmmm128, Code.VEX_Vpunpckhbw_ymm_ymm_ymmm256);
        t.Lanes128<UnpackLowWords>(Code.Punpcklwd_xmm_xmmm128, Code.VEX_Vpunpcklwd_xmm_xmm_xmmm128, Code.VEX_Vpunpcklwd_ymm_ymm_ymmm256);
        t.Lanes128<UnpackHighWords>(Code.Punpckhwd_xmm_xmmm128, Code.VEX_Vpunpckhwd_xmm_xmm_xmmm128, Code.VEX_Vpunpckhwd_ymm_ymm_ymmm256);
        t.Lanes128<UnpackLowDoublewords>(Code.Punpckldq_xmm_xmmm128, Code.VEX_Vpunpckldq_xmm_xmm_xmmm128, Code.VEX_Vpunpckldq_ymm_ymm_ymmm256);
        t.Lanes128<UnpackHighDoublewords>(Code.Punpckhdq_xmm_xmmm128, Code.VEX_Vpunpckhdq_xmm_xmm_xmmm128, Code.VEX_Vpunpckhdq_ymm_ymm_ymmm256);
        t.Lanes128<LowAndLow>(Code.Punpcklqdq_xmm_xmmm128, Code.VEX_Vpunpcklqdq_xmm_xmm_xmmm128, Code.VEX_Vpunpcklqdq_ymm_ymm_ymmm256);
        t.Lanes128<HighAndHigh>(Code.Punpckhqdq_xmm_xmmm128, Code.VEX_Vpunpckhqdq_xmm_xmm_xmmm128, Code.VEX_Vpunpckhqdq_ymm_ymm_ymmm256);
        t.Lanes128<UnpackLowDoublewords>(Code.Unpcklps_xmm_xmmm128, Code.VEX_Vunpcklps_xmm_xmm_xmmm128, Code.VEX_Vunpcklps_ymm_ymm_ymmm256);
        t.Lanes128<UnpackHighDoublewords>(Code.Unpckhps_xmm_xmmm128, Code.VEX_Vunpckhps_xmm_xmm_xmmm128, Code.VEX_Vunpckhps_ymm_ymm_ymmm256);
        t.Lanes128<LowAndLow>(Code.Unpcklpd_xmm_xmmm128, Code.VEX_Vunpcklpd_xmm_xmm_xmmm128, Code.VEX_Vunpcklpd_ymm_ymm_ymmm256);
        t.Lanes128<HighAndHigh>(Code.Unpckhpd_xmm_xmmm128, Code.VEX_Vunpckhpd_xmm_xmm_xmmm128, Code.VEX_Vunpckhpd_ymm_ymm_ymmm256);
        t.Row(Code.Pmovsxbw_xmm_xmmm64, &Widening<sbyte, short>.Sse);
        t.Row(Code.VEX_Vpmovsxbw_xmm_xmmm64, &Widening<sbyte, short>.Vex128);
        t.Row(Code.VEX_Vpmovsxbw_ymm_xmmm128, &Widening<sbyte, short>.Vex256);
        t.Row(Code.Pmovsxbd_xmm_xmmm32, &Widening<sbyte, int>.Sse);
        t.Row(Code.VEX_Vpmovsxbd_xmm_xmmm32, &Widening<sbyte, int>.Vex128);
        t.Row(Code.VEX_Vpmovsxbd_ymm_xmmm64, &Widening<sbyte, int>.Vex256);
        t.Row(Code.Pmovsxbq_xmm_xmmm16, &Widening<sbyte, long>.Sse);
        t.Row(Code.VEX_Vpmovsxbq_xmm_xmmm16, &Widening<sbyte, long>.Vex128);
        t.Row(Code.VEX_Vpmovsxbq_ymm_xmmm32, &Widening<sbyte, long>.Vex256);
        t.Row(Code.Pmovsxwd_xmm_xmmm64, &Widening<short, int>.Sse);
        t.Row(Code.VEX_Vpmovsxwd_xmm_xmmm64, &Widening<short, int>.Vex128);
        t.Row(Code.VEX_Vpmovsxwd_ymm_xmmm128, &Widening<short, int>.Vex256);
        t.Row(Code.Pmovsxwq_xmm_xmmm32, &Widening<short, long>.Sse);
        t.Row(Code.VEX_Vpmovsxwq_xmm_xmmm32, &Widening<short, long>.Vex128);
        t.Row(Code.VEX_Vpmovsxwq_ymm_xmmm64, &Widening<short, long>.Vex256);
        t.Row(Code.Pmovsxdq_xmm_xmmm64, &Widening<int, long>.Sse);
        t.Row(Code.VEX_Vpmovsxdq_xmm_xmmm64, &Widening<int, long>.Vex128);
        t.Row(Code.VEX_Vpmovsxdq_ymm_xmmm128, &Widening<int, long>.Vex256);
        t.Row(Code.Pmovzxbw_xmm_xmmm64, &Widening<byte, ushort>.Sse);
        t.Row(Code.VEX_Vpmovzxbw_xmm_xmmm64, &Widening<byte, ushort>.Vex128);
        t.Row(Code.VEX_Vpmovzxbw_ymm_xmmm128, &Widening<byte, ushort>.Vex256);
        t.Row(Code.Pmovzxbd_xmm_xmmm32, &Widening<byte, uint>.Sse);
        t.Row(Code.VEX_Vpmovzxbd_xmm_xmmm32, &Widening<byte, uint>.Vex128);
        t.Row(Code.VEX_Vpmovzxbd_ymm_xmmm64, &Widening<byte, uint>.Vex256);
        t.Row(Code.Pmovzxbq_xmm_xmmm16, &Widening<byte, ulong>.Sse);
        t.Row(Code.VEX_Vpmovzxbq_xmm_xmmm16, &Widening<byte, ulong>.Vex128);
        t.Row(Code.VEX_Vpmovzxbq_ymm_xmmm32, &Widening<byte, ulong>.Vex256);
        t.Row(Code.Pmovzxwd_xmm_xmmm64, &Widening<ushort, uint>.Sse);
        t.Row(Code.VEX_Vpmovzxwd_xmm_xmmm64, &Widening<ushort, uint>.Vex128);
        t.Row(Code.VEX_Vpmovzxwd_ymm_xmmm128, &Widening<ushort, uint>.Vex256);
        t.Row(Code.Pmovzxwq_xmm_xmmm32, &Widening<ushort, ulong>.Sse);
        t.Row(Code.VEX_Vpmovzxwq_xmm_xmmm32, &Widening<ushort, ulong>.Vex128);
        t.Row(Code.VEX_Vpmovzxwq_ymm_xmmm64, &Widening<ushort, ulong>.Vex256);
        t.Row(Code.Pmovzxdq_xmm_xmmm64, &Widening<uint, ulong>.Sse);
        t.Row(Code.VEX_Vpmovzxdq_xmm_xmmm64, &Widening<uint, ulong>.Vex128);
        t.Row(Code.VEX_Vpmovzxdq_ymm_xmmm128, &Widening<uint, ulong>.Vex256);

        // Shuffles
        t.Lanes128<ShuffleBytes>(Code.Pshufb_xmm_xmmm128, Code.VEX_Vpshufb_xmm_xmm_xmmm128, Code.VEX_Vpshufb_ymm_ymm_ymmm256);
        t.Lanes128<ShuffleDoublewords>(Code.Pshufd_xmm_xmmm128_imm8, Code.VEX_Vpshufd_xmm_xmmm128_imm8, Code.VEX_Vpshufd_ymm_ymmm256_imm8);
        t.Lanes128<ShuffleLowWords>(Code.Pshuflw_xmm_xmmm128_imm8, Code.VEX_Vpshuflw_xmm_xmmm128_imm8, Code.VEX_Vpshuflw_ymm_ymmm256_imm8);
        t.Lanes128<ShuffleHighWords>(Code.Pshufhw_xmm_xmmm128_imm8, Code.VEX_Vpshufhw_xmm_xmmm128_imm8, Code.VEX_Vpshufhw_ymm_ymmm256_imm8);
        t.Lanes128<ShuffleSingles>(Code.Shufps_xmm_xmmm128_imm8, Code.VEX_Vshufps_xmm_xmm_xmmm128_imm8, Code.VEX_Vshufps_ymm_ymm_ymmm256_imm8);
        t.Lanes128<ShuffleDoubles>(Code.Shufpd_xmm_xmmm128_imm8, Code.VEX_Vshufpd_xmm_xmm_xmmm128_imm8, Code.VEX_Vshufpd_ymm_ymm_ymmm256_imm8);
        t.Lanes128<AlignRight>(Code.Palignr_xmm_xmmm128_imm8, Code.VEX_Vpalignr_xmm_xmm_xmmm128_imm8, Code.VEX_Vpalignr_ymm_ymm_ymmm256_imm8);
        t.Row(Code.VEX_Vpermilps_xmm_xmmm128_imm8, &Lanes.Vex128<ShuffleDoublewords>);
        t.Row(Code.VEX_Vpermilps_ymm_ymmm256_imm8, &Lanes.Vex256<ShuffleDoublewords>);
        t.Row(Code.VEX_Vpermilpd_xmm_xmmm128_imm8, &Lanes.Vex128<PermuteDoubles>);
        t.Row(Code.VEX_Vpermilpd_ymm_ymmm256_imm8, &Lanes.Vex256<PermuteDoubles>);
        t.Row(Code.VEX_Vpermilps_xmm_xmm_xmmm128, &Lanes.Vex128<PermuteSinglesBy>);
        t.Row(Code.VEX_Vpermilps_ymm_ymm_ymmm256, &Lanes.Vex256<PermuteSinglesBy>);
        t.Row(Code.VEX_Vpermilpd_xmm_xmm_xmmm128, &Lanes.Vex128<PermuteDoublesBy>);
        t.Row(Code.VEX_Vpermilpd_ymm_ymm_ymmm256, &Lanes.Vex256<PermuteDoublesBy>);
        t.Row(Code.VEX_Vpermq_ymm_ymmm256_imm8, &Permutes.Quadwords);
        t.Row(Code.VEX_Vpermpd_ymm_ymmm256_imm8, &Permutes.Quadwords);
        t.Row(Code.VEX_Vpermd_ymm_ymm_ymmm256, &Permutes.Doublewords);
        t.Row(Code.VEX_Vpermps_ymm_ymm_ymmm256, &Permutes.Doublewords);
        t.Row(Code.VEX_Vperm2f128_ymm_ymm_ymmm256_imm8, &Permutes.Halves);
        t.Row(Code.VEX_Vperm2i128_ymm_ymm_ymmm256_imm8, &Permutes.Halves);

        // Blends
        t.Lanes128<BlendWords>(Code.Pblendw_xmm_xmmm128_imm8, Code.VEX_Vpblendw_xmm_xmm_xmmm128_imm8, Code.VEX_Vpblendw_ymm_ymm_ymmm256_imm8);
        t.Lanes128<BlendSingles>(Code.Blendps_xmm_xmmm128_imm8, Code.VEX_Vblendps_xmm_xmm_xmmm128_imm8, Code.VEX_Vblendps_ymm_ymm_ymmm256_imm8);
        t.Lanes128<BlendDoubles>(Code.Blendpd_xmm_xmmm128_imm8, Code.VEX_Vblendpd_xmm_xmm_xmmm128_imm8, Code.VEX_Vblendpd_ymm_ymm_ymmm256_imm8);
        t.Row(Code.VEX_Vpblendd_xmm_xmm_xmmm128_imm8, &Lanes.Vex128<BlendSingles>);
        t.Row(Code.VEX_Vpblendd_ymm_ymm_ymmm256_imm8, &Lanes.Vex256<BlendSingles>);
        t.Row(Code.Pblendvb_xmm_xmmm128, &Lanes.SseMasked<BlendBySign<sbyte>>);
        t.Row(Code.VEX_Vpblendvb_xmm_xmm_xmmm128_xmm, &Lanes.Vex128Masked<BlendBySign<sbyte>>);
        t.Row(Code.VEX_Vpblendvb_ymm_ymm_ymmm256_ymm, &Lanes.Vex256Masked<BlendBySign<sbyte>>);
        t.Row(Code.Blendvps_xmm_xmmm128, &Lanes.SseMasked<BlendBySign<int>>);
        t.Row(Code.VEX_Vblendvps_xmm_xmm_xmmm128_xmm, &Lanes.Vex128Masked<BlendBySign<int>>);
        t.Row(Code.VEX_Vblendvps_ymm_ymm_ymmm256_ymm, &Lanes.Vex256Masked<BlendBySign<int>>);
        t.Row(Code.Blendvpd_xmm_xmmm128, &Lanes.SseMasked<BlendBySign<long>>);
        t.Row(Code.VEX_Vblendvpd_xmm_xmm_xmmm128_xmm, &Lanes.Vex128Masked<BlendBySign<long>>);
        t.Row(Code.VEX_Vblendvpd_ymm_ymm_ymmm256_ymm, &Lanes.Vex256Masked<BlendBySign<long>>);

        // Tests and text
        t.Row(Code.Ptest_xmm_xmmm128, &Tests<UInt128>.Lane);
        t.Row(Code.VEX_Vptest_xmm_xmmm128, &Tests<UInt128>.Lane);
        t.Row(Code.VEX_Vptest_ymm_ymmm256, &Tests<UInt128>.Lanes256);
        t.Row(Code.VEX_Vtestps_xmm_xmmm128, &Tests<uint>.Lane);
        t.Row(Code.VEX_Vtestps_ymm_ymmm256, &Tests<uint>.Lanes256);
        t.Row(Code.VEX_Vtestpd_xmm_xmmm128, &Tests<ulong>.Lane);
        t.Row(Code.VEX_Vtestpd_ymm_ymmm256, &Tests<ulong>.Lanes256);
        t.Row(Code.Pcmpestri_xmm_xmmm128_imm8, &StringCompare.ExplicitIndex);
        t.Row(Code.VEX_Vpcmpestri_xmm_xmmm128_imm8, &StringCompare.ExplicitIndex);
        t.Row(Code.Pcmpestri64_xmm_xmmm128_imm8, &StringCompare.ExplicitIndex64);
        t.Row(Code.VEX_Vpcmpestri64_xmm_xmmm128_imm8, &StringCompare.ExplicitIndex64);
        t.Row(Code.Pcmpestrm_xmm_xmmm128_imm8, &StringCompare.ExplicitMask);
        t.Row(Code.VEX_Vpcmpestrm_xmm_xmmm128_imm8, &StringCompare.ExplicitMask128);
        t.Row(Code.Pcmpestrm64_xmm_xmmm128_imm8, &StringCompare.ExplicitMask64);
        t.Row(Code.VEX_Vpcmpestrm64_xmm_xmmm128_imm8, &StringCompare.ExplicitMask64Bits128);
        t.Row(Code.Pcmpistri_xmm_xmmm128_imm8, &StringCompare.ImplicitIndex);
        t.Row(Code.VEX_Vpcmpistri_xmm_xmmm128_imm8, &StringCompare.ImplicitIndex);
        t.Row(Code.Pcmpistrm_xmm_xmmm128_imm8, &StringCompare.ImplicitMask);
        t.Row(Code.VEX_Vpcmpistrm_xmm_xmmm128_imm8, &StringCompare.ImplicitMask128);

        // SSE4A bit fields
        t.Row(Code.Extrq_xmm_imm8_imm8, &BitFields.ExtractImmediate);
        t.Row(Code.Extrq_xmm_xmm, &BitFields.Extract);
        t.Row(Code.Insertq_xmm_xmm_imm8_imm8, &BitFields.InsertImmediate);
        t.Row(Code.Insertq_xmm_xmm, &BitFields.Insert);
    }
}
