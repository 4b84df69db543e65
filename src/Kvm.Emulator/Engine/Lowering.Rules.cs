using Iced.Intel;

namespace Kvm.Emulator.Engine;

internal static unsafe partial class Lowering
{
    /// <summary>How the operands of a switch case are laid out.</summary>
    private enum Form : byte
    {
        None,
        /// <summary>Destination r/m, source reg: the register form exchanges the slots, so that cases find the destination in RegSlot.</summary>
        RmReg,
        RegRm,
        /// <summary>Destination r/m, source immediate.</summary>
        RmImm,
        /// <summary>As RmImm; the immediate is zero-extended.</summary>
        RmImm32,
        /// <summary>As RmImm; only for counts of 1 to one less than the width.</summary>
        Shift,
        Lea,
        Branch,
        Return,
    }

    private struct Rule
    {
        internal OpKind Register;
        internal OpKind Memory;
        internal Form Form;
    }

    private static readonly Rule[] Rules = BuildRules();

    private static Rule[] BuildRules()
    {
        var rules = new Rule[(int)Enum.GetValues<Code>().Max() + 1];
        void Map(Code code, OpKind register, OpKind memory, Form form) => rules[(int)code] = new Rule { Register = register, Memory = memory, Form = form };
        // instruction, case with a register operand, case with a memory operand, form
        Map(Code.Add_rm8_r8, OpKind.AddRR8, OpKind.AddMR8, Form.RmReg);
        Map(Code.Add_r8_rm8, OpKind.AddRR8, OpKind.AddRM8, Form.RegRm);
        Map(Code.Add_AL_imm8, OpKind.AddRI8, OpKind.Cold, Form.RmImm);
        Map(Code.Add_rm8_imm8, OpKind.AddRI8, OpKind.AddMI8, Form.RmImm);
        Map(Code.Add_rm32_r32, OpKind.AddRR32, OpKind.AddMR32, Form.RmReg);
        Map(Code.Add_r32_rm32, OpKind.AddRR32, OpKind.AddRM32, Form.RegRm);
        Map(Code.Add_EAX_imm32, OpKind.AddRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Add_rm32_imm32, OpKind.AddRI32, OpKind.AddMI32, Form.RmImm);
        Map(Code.Add_rm32_imm8, OpKind.AddRI32, OpKind.AddMI32, Form.RmImm);
        Map(Code.Add_rm64_r64, OpKind.AddRR64, OpKind.AddMR64, Form.RmReg);
        Map(Code.Add_r64_rm64, OpKind.AddRR64, OpKind.AddRM64, Form.RegRm);
        Map(Code.Add_RAX_imm32, OpKind.AddRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Add_rm64_imm32, OpKind.AddRI64, OpKind.AddMI64, Form.RmImm);
        Map(Code.Add_rm64_imm8, OpKind.AddRI64, OpKind.AddMI64, Form.RmImm);
        Map(Code.Sub_rm8_r8, OpKind.SubRR8, OpKind.SubMR8, Form.RmReg);
        Map(Code.Sub_r8_rm8, OpKind.SubRR8, OpKind.SubRM8, Form.RegRm);
        Map(Code.Sub_AL_imm8, OpKind.SubRI8, OpKind.Cold, Form.RmImm);
        Map(Code.Sub_rm8_imm8, OpKind.SubRI8, OpKind.SubMI8, Form.RmImm);
        Map(Code.Sub_rm32_r32, OpKind.SubRR32, OpKind.SubMR32, Form.RmReg);
        Map(Code.Sub_r32_rm32, OpKind.SubRR32, OpKind.SubRM32, Form.RegRm);
        Map(Code.Sub_EAX_imm32, OpKind.SubRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Sub_rm32_imm32, OpKind.SubRI32, OpKind.SubMI32, Form.RmImm);
        Map(Code.Sub_rm32_imm8, OpKind.SubRI32, OpKind.SubMI32, Form.RmImm);
        Map(Code.Sub_rm64_r64, OpKind.SubRR64, OpKind.SubMR64, Form.RmReg);
        Map(Code.Sub_r64_rm64, OpKind.SubRR64, OpKind.SubRM64, Form.RegRm);
        Map(Code.Sub_RAX_imm32, OpKind.SubRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Sub_rm64_imm32, OpKind.SubRI64, OpKind.SubMI64, Form.RmImm);
        Map(Code.Sub_rm64_imm8, OpKind.SubRI64, OpKind.SubMI64, Form.RmImm);
        Map(Code.Cmp_rm8_r8, OpKind.CmpRR8, OpKind.CmpMR8, Form.RmReg);
        Map(Code.Cmp_r8_rm8, OpKind.CmpRR8, OpKind.CmpRM8, Form.RegRm);
        Map(Code.Cmp_AL_imm8, OpKind.CmpRI8, OpKind.Cold, Form.RmImm);
        Map(Code.Cmp_rm8_imm8, OpKind.CmpRI8, OpKind.CmpMI8, Form.RmImm);
        Map(Code.Cmp_rm32_r32, OpKind.CmpRR32, OpKind.CmpMR32, Form.RmReg);
        Map(Code.Cmp_r32_rm32, OpKind.CmpRR32, OpKind.CmpRM32, Form.RegRm);
        Map(Code.Cmp_EAX_imm32, OpKind.CmpRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Cmp_rm32_imm32, OpKind.CmpRI32, OpKind.CmpMI32, Form.RmImm);
        Map(Code.Cmp_rm32_imm8, OpKind.CmpRI32, OpKind.CmpMI32, Form.RmImm);
        Map(Code.Cmp_rm64_r64, OpKind.CmpRR64, OpKind.CmpMR64, Form.RmReg);
        Map(Code.Cmp_r64_rm64, OpKind.CmpRR64, OpKind.CmpRM64, Form.RegRm);
        Map(Code.Cmp_RAX_imm32, OpKind.CmpRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Cmp_rm64_imm32, OpKind.CmpRI64, OpKind.CmpMI64, Form.RmImm);
        Map(Code.Cmp_rm64_imm8, OpKind.CmpRI64, OpKind.CmpMI64, Form.RmImm);
        Map(Code.And_rm8_r8, OpKind.AndRR8, OpKind.AndMR8, Form.RmReg);
        Map(Code.And_r8_rm8, OpKind.AndRR8, OpKind.AndRM8, Form.RegRm);
        Map(Code.And_AL_imm8, OpKind.AndRI8, OpKind.Cold, Form.RmImm);
        Map(Code.And_rm8_imm8, OpKind.AndRI8, OpKind.AndMI8, Form.RmImm);
        Map(Code.And_rm32_r32, OpKind.AndRR32, OpKind.AndMR32, Form.RmReg);
        Map(Code.And_r32_rm32, OpKind.AndRR32, OpKind.AndRM32, Form.RegRm);
        Map(Code.And_EAX_imm32, OpKind.AndRI32, OpKind.Cold, Form.RmImm);
        Map(Code.And_rm32_imm32, OpKind.AndRI32, OpKind.AndMI32, Form.RmImm);
        Map(Code.And_rm32_imm8, OpKind.AndRI32, OpKind.AndMI32, Form.RmImm);
        Map(Code.And_rm64_r64, OpKind.AndRR64, OpKind.AndMR64, Form.RmReg);
        Map(Code.And_r64_rm64, OpKind.AndRR64, OpKind.AndRM64, Form.RegRm);
        Map(Code.And_RAX_imm32, OpKind.AndRI64, OpKind.Cold, Form.RmImm);
        Map(Code.And_rm64_imm32, OpKind.AndRI64, OpKind.AndMI64, Form.RmImm);
        Map(Code.And_rm64_imm8, OpKind.AndRI64, OpKind.AndMI64, Form.RmImm);
        Map(Code.Or_rm8_r8, OpKind.OrRR8, OpKind.OrMR8, Form.RmReg);
        Map(Code.Or_r8_rm8, OpKind.OrRR8, OpKind.OrRM8, Form.RegRm);
        Map(Code.Or_AL_imm8, OpKind.OrRI8, OpKind.Cold, Form.RmImm);
        Map(Code.Or_rm8_imm8, OpKind.OrRI8, OpKind.OrMI8, Form.RmImm);
        Map(Code.Or_rm32_r32, OpKind.OrRR32, OpKind.OrMR32, Form.RmReg);
        Map(Code.Or_r32_rm32, OpKind.OrRR32, OpKind.OrRM32, Form.RegRm);
        Map(Code.Or_EAX_imm32, OpKind.OrRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Or_rm32_imm32, OpKind.OrRI32, OpKind.OrMI32, Form.RmImm);
        Map(Code.Or_rm32_imm8, OpKind.OrRI32, OpKind.OrMI32, Form.RmImm);
        Map(Code.Or_rm64_r64, OpKind.OrRR64, OpKind.OrMR64, Form.RmReg);
        Map(Code.Or_r64_rm64, OpKind.OrRR64, OpKind.OrRM64, Form.RegRm);
        Map(Code.Or_RAX_imm32, OpKind.OrRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Or_rm64_imm32, OpKind.OrRI64, OpKind.OrMI64, Form.RmImm);
        Map(Code.Or_rm64_imm8, OpKind.OrRI64, OpKind.OrMI64, Form.RmImm);
        Map(Code.Xor_rm8_r8, OpKind.XorRR8, OpKind.XorMR8, Form.RmReg);
        Map(Code.Xor_r8_rm8, OpKind.XorRR8, OpKind.XorRM8, Form.RegRm);
        Map(Code.Xor_AL_imm8, OpKind.XorRI8, OpKind.Cold, Form.RmImm);
        Map(Code.Xor_rm8_imm8, OpKind.XorRI8, OpKind.XorMI8, Form.RmImm);
        Map(Code.Xor_rm32_r32, OpKind.XorRR32, OpKind.XorMR32, Form.RmReg);
        Map(Code.Xor_r32_rm32, OpKind.XorRR32, OpKind.XorRM32, Form.RegRm);
        Map(Code.Xor_EAX_imm32, OpKind.XorRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Xor_rm32_imm32, OpKind.XorRI32, OpKind.XorMI32, Form.RmImm);
        Map(Code.Xor_rm32_imm8, OpKind.XorRI32, OpKind.XorMI32, Form.RmImm);
        Map(Code.Xor_rm64_r64, OpKind.XorRR64, OpKind.XorMR64, Form.RmReg);
        Map(Code.Xor_r64_rm64, OpKind.XorRR64, OpKind.XorRM64, Form.RegRm);
        Map(Code.Xor_RAX_imm32, OpKind.XorRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Xor_rm64_imm32, OpKind.XorRI64, OpKind.XorMI64, Form.RmImm);
        Map(Code.Xor_rm64_imm8, OpKind.XorRI64, OpKind.XorMI64, Form.RmImm);
        Map(Code.Test_rm8_r8, OpKind.TestRR8, OpKind.TestMR8, Form.RmReg);
        Map(Code.Test_AL_imm8, OpKind.TestRI8, OpKind.Cold, Form.RmImm);
        Map(Code.Test_rm8_imm8, OpKind.TestRI8, OpKind.TestMI8, Form.RmImm);
        Map(Code.Test_rm32_r32, OpKind.TestRR32, OpKind.TestMR32, Form.RmReg);
        Map(Code.Test_EAX_imm32, OpKind.TestRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Test_rm32_imm32, OpKind.TestRI32, OpKind.TestMI32, Form.RmImm);
        Map(Code.Test_rm64_r64, OpKind.TestRR64, OpKind.TestMR64, Form.RmReg);
        Map(Code.Test_RAX_imm32, OpKind.TestRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Test_rm64_imm32, OpKind.TestRI64, OpKind.TestMI64, Form.RmImm);
        Map(Code.Adc_rm8_r8, OpKind.Cold, OpKind.Cold, Form.RmReg);
        Map(Code.Adc_r8_rm8, OpKind.Cold, OpKind.Cold, Form.RegRm);
        Map(Code.Adc_AL_imm8, OpKind.Cold, OpKind.Cold, Form.RmImm);
        Map(Code.Adc_rm8_imm8, OpKind.Cold, OpKind.Cold, Form.RmImm);
        Map(Code.Adc_rm32_r32, OpKind.AdcRR32, OpKind.Cold, Form.RmReg);
        Map(Code.Adc_r32_rm32, OpKind.AdcRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Adc_EAX_imm32, OpKind.AdcRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Adc_rm32_imm32, OpKind.AdcRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Adc_rm32_imm8, OpKind.AdcRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Adc_rm64_r64, OpKind.AdcRR64, OpKind.Cold, Form.RmReg);
        Map(Code.Adc_r64_rm64, OpKind.AdcRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Adc_RAX_imm32, OpKind.AdcRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Adc_rm64_imm32, OpKind.AdcRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Adc_rm64_imm8, OpKind.AdcRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Sbb_rm8_r8, OpKind.Cold, OpKind.Cold, Form.RmReg);
        Map(Code.Sbb_r8_rm8, OpKind.Cold, OpKind.Cold, Form.RegRm);
        Map(Code.Sbb_AL_imm8, OpKind.Cold, OpKind.Cold, Form.RmImm);
        Map(Code.Sbb_rm8_imm8, OpKind.Cold, OpKind.Cold, Form.RmImm);
        Map(Code.Sbb_rm32_r32, OpKind.SbbRR32, OpKind.Cold, Form.RmReg);
        Map(Code.Sbb_r32_rm32, OpKind.SbbRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Sbb_EAX_imm32, OpKind.SbbRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Sbb_rm32_imm32, OpKind.SbbRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Sbb_rm32_imm8, OpKind.SbbRI32, OpKind.Cold, Form.RmImm);
        Map(Code.Sbb_rm64_r64, OpKind.SbbRR64, OpKind.Cold, Form.RmReg);
        Map(Code.Sbb_r64_rm64, OpKind.SbbRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Sbb_RAX_imm32, OpKind.SbbRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Sbb_rm64_imm32, OpKind.SbbRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Sbb_rm64_imm8, OpKind.SbbRI64, OpKind.Cold, Form.RmImm);
        Map(Code.Inc_rm32, OpKind.IncR32, OpKind.Cold, Form.RmImm);
        Map(Code.Inc_rm64, OpKind.IncR64, OpKind.Cold, Form.RmImm);
        Map(Code.Dec_rm32, OpKind.DecR32, OpKind.Cold, Form.RmImm);
        Map(Code.Dec_rm64, OpKind.DecR64, OpKind.Cold, Form.RmImm);
        Map(Code.Neg_rm32, OpKind.NegR32, OpKind.Cold, Form.RmImm);
        Map(Code.Neg_rm64, OpKind.NegR64, OpKind.Cold, Form.RmImm);
        Map(Code.Not_rm32, OpKind.NotR32, OpKind.Cold, Form.RmImm);
        Map(Code.Not_rm64, OpKind.NotR64, OpKind.Cold, Form.RmImm);
        Map(Code.Inc_r32, OpKind.IncR32, OpKind.Cold, Form.RmImm);
        Map(Code.Dec_r32, OpKind.DecR32, OpKind.Cold, Form.RmImm);
        Map(Code.Shl_rm32_imm8, OpKind.ShlRI32, OpKind.Cold, Form.Shift);
        Map(Code.Shl_rm32_1, OpKind.ShlRI32, OpKind.Cold, Form.Shift);
        Map(Code.Shl_rm64_imm8, OpKind.ShlRI64, OpKind.Cold, Form.Shift);
        Map(Code.Shl_rm64_1, OpKind.ShlRI64, OpKind.Cold, Form.Shift);
        Map(Code.Shr_rm32_imm8, OpKind.ShrRI32, OpKind.Cold, Form.Shift);
        Map(Code.Shr_rm32_1, OpKind.ShrRI32, OpKind.Cold, Form.Shift);
        Map(Code.Shr_rm64_imm8, OpKind.ShrRI64, OpKind.Cold, Form.Shift);
        Map(Code.Shr_rm64_1, OpKind.ShrRI64, OpKind.Cold, Form.Shift);
        Map(Code.Sar_rm32_imm8, OpKind.SarRI32, OpKind.Cold, Form.Shift);
        Map(Code.Sar_rm32_1, OpKind.SarRI32, OpKind.Cold, Form.Shift);
        Map(Code.Sar_rm64_imm8, OpKind.SarRI64, OpKind.Cold, Form.Shift);
        Map(Code.Sar_rm64_1, OpKind.SarRI64, OpKind.Cold, Form.Shift);
        Map(Code.Rol_rm32_imm8, OpKind.RolRI32, OpKind.Cold, Form.Shift);
        Map(Code.Rol_rm32_1, OpKind.RolRI32, OpKind.Cold, Form.Shift);
        Map(Code.Rol_rm64_imm8, OpKind.RolRI64, OpKind.Cold, Form.Shift);
        Map(Code.Rol_rm64_1, OpKind.RolRI64, OpKind.Cold, Form.Shift);
        Map(Code.Ror_rm32_imm8, OpKind.RorRI32, OpKind.Cold, Form.Shift);
        Map(Code.Ror_rm32_1, OpKind.RorRI32, OpKind.Cold, Form.Shift);
        Map(Code.Ror_rm64_imm8, OpKind.RorRI64, OpKind.Cold, Form.Shift);
        Map(Code.Ror_rm64_1, OpKind.RorRI64, OpKind.Cold, Form.Shift);
        Map(Code.Imul_r64_rm64, OpKind.ImulRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Imul_r64_rm64_imm32, OpKind.ImulRRI64, OpKind.Cold, Form.RegRm);
        Map(Code.Imul_r64_rm64_imm8, OpKind.ImulRRI64, OpKind.Cold, Form.RegRm);
        Map(Code.Mov_rm8_r8, OpKind.MovRR8, OpKind.MovMR8, Form.RmReg);
        Map(Code.Mov_r8_rm8, OpKind.MovRR8, OpKind.MovRM8, Form.RegRm);
        Map(Code.Mov_rm16_r16, OpKind.Cold, OpKind.MovMR16, Form.RmReg);
        Map(Code.Mov_r16_rm16, OpKind.Cold, OpKind.MovRM16, Form.RegRm);
        Map(Code.Mov_rm32_r32, OpKind.MovRR32, OpKind.MovMR32, Form.RmReg);
        Map(Code.Mov_r32_rm32, OpKind.MovRR32, OpKind.MovRM32, Form.RegRm);
        Map(Code.Mov_rm64_r64, OpKind.MovRR64, OpKind.MovMR64, Form.RmReg);
        Map(Code.Mov_r64_rm64, OpKind.MovRR64, OpKind.MovRM64, Form.RegRm);
        Map(Code.Mov_rm8_imm8, OpKind.Cold, OpKind.MovMI8, Form.RmImm);
        Map(Code.Mov_rm16_imm16, OpKind.Cold, OpKind.MovMI16, Form.RmImm);
        Map(Code.Mov_rm32_imm32, OpKind.MovRI, OpKind.MovMI32, Form.RmImm32);
        Map(Code.Mov_rm64_imm32, OpKind.MovRI, OpKind.MovMI64, Form.RmImm);
        Map(Code.Mov_r32_imm32, OpKind.MovRI, OpKind.Cold, Form.RmImm32);
        Map(Code.Mov_r64_imm64, OpKind.MovRI, OpKind.Cold, Form.RmImm);
        Map(Code.Movzx_r32_rm8, OpKind.Movzx8RR, OpKind.Movzx8RM, Form.RegRm);
        Map(Code.Movsx_r32_rm8, OpKind.Movsx8To32RR, OpKind.Movsx8To32RM, Form.RegRm);
        Map(Code.Movzx_r32_rm16, OpKind.Movzx16RR, OpKind.Movzx16RM, Form.RegRm);
        Map(Code.Movsx_r32_rm16, OpKind.Movsx16To32RR, OpKind.Movsx16To32RM, Form.RegRm);
        Map(Code.Movzx_r64_rm8, OpKind.Movzx8RR, OpKind.Movzx8RM, Form.RegRm);
        Map(Code.Movsx_r64_rm8, OpKind.Movsx8To64RR, OpKind.Movsx8To64RM, Form.RegRm);
        Map(Code.Movzx_r64_rm16, OpKind.Movzx16RR, OpKind.Movzx16RM, Form.RegRm);
        Map(Code.Movsx_r64_rm16, OpKind.Movsx16To64RR, OpKind.Movsx16To64RM, Form.RegRm);
        Map(Code.Movsxd_r64_rm32, OpKind.Movsx32To64RR, OpKind.Movsx32To64RM, Form.RegRm);
        Map(Code.Lea_r64_m, OpKind.Cold, OpKind.Lea64, Form.Lea);
        Map(Code.Lea_r32_m, OpKind.Cold, OpKind.Lea32, Form.Lea);
        Map(Code.Cmovo_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovo_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Seto_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovno_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovno_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setno_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovb_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovb_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setb_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovae_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovae_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setae_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmove_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmove_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Sete_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovne_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovne_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setne_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovbe_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovbe_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setbe_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmova_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmova_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Seta_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovs_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovs_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Sets_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovns_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovns_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setns_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovp_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovp_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setp_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovnp_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovnp_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setnp_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovl_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovl_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setl_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovge_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovge_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setge_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovle_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovle_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setle_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovg_r32_rm32, OpKind.CmovRR32, OpKind.Cold, Form.RegRm);
        Map(Code.Cmovg_r64_rm64, OpKind.CmovRR64, OpKind.Cold, Form.RegRm);
        Map(Code.Setg_rm8, OpKind.SetccR, OpKind.Cold, Form.RegRm);
        Map(Code.Nopw, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Nopd, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Nopq, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Nop_rm16, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Nop_rm32, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Nop_rm64, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm16_r16_0F0D, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm32_r32_0F0D, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm64_r64_0F0D, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm16_r16_0F18, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm32_r32_0F18, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm64_r64_0F18, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm16_r16_0F1E, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm32_r32_0F1E, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm64_r64_0F1E, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm16_r16_0F1F, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm32_r32_0F1F, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Reservednop_rm64_r64_0F1F, OpKind.Nop, OpKind.Nop, Form.None);
        Map(Code.Push_r64, OpKind.PushR64, OpKind.Cold, Form.RegRm);
        Map(Code.Push_rm64, OpKind.PushR64, OpKind.Cold, Form.RegRm);
        Map(Code.Pushq_imm8, OpKind.PushI64, OpKind.Cold, Form.None);
        Map(Code.Pushq_imm32, OpKind.PushI64, OpKind.Cold, Form.None);
        Map(Code.Pop_r64, OpKind.PopR64, OpKind.Cold, Form.RegRm);
        Map(Code.Leaveq, OpKind.Leave64, OpKind.Cold, Form.None);
        Map(Code.Jo_rel8_16, OpKind.JO, OpKind.Cold, Form.Branch);
        Map(Code.Jo_rel8_32, OpKind.JO, OpKind.Cold, Form.Branch);
        Map(Code.Jo_rel8_64, OpKind.JO, OpKind.Cold, Form.Branch);
        Map(Code.Jo_rel16, OpKind.JO, OpKind.Cold, Form.Branch);
        Map(Code.Jo_rel32_32, OpKind.JO, OpKind.Cold, Form.Branch);
        Map(Code.Jo_rel32_64, OpKind.JO, OpKind.Cold, Form.Branch);
        Map(Code.Jno_rel8_16, OpKind.JNO, OpKind.Cold, Form.Branch);
        Map(Code.Jno_rel8_32, OpKind.JNO, OpKind.Cold, Form.Branch);
        Map(Code.Jno_rel8_64, OpKind.JNO, OpKind.Cold, Form.Branch);
        Map(Code.Jno_rel16, OpKind.JNO, OpKind.Cold, Form.Branch);
        Map(Code.Jno_rel32_32, OpKind.JNO, OpKind.Cold, Form.Branch);
        Map(Code.Jno_rel32_64, OpKind.JNO, OpKind.Cold, Form.Branch);
        Map(Code.Jb_rel8_16, OpKind.JB, OpKind.Cold, Form.Branch);
        Map(Code.Jb_rel8_32, OpKind.JB, OpKind.Cold, Form.Branch);
        Map(Code.Jb_rel8_64, OpKind.JB, OpKind.Cold, Form.Branch);
        Map(Code.Jb_rel16, OpKind.JB, OpKind.Cold, Form.Branch);
        Map(Code.Jb_rel32_32, OpKind.JB, OpKind.Cold, Form.Branch);
        Map(Code.Jb_rel32_64, OpKind.JB, OpKind.Cold, Form.Branch);
        Map(Code.Jae_rel8_16, OpKind.JAE, OpKind.Cold, Form.Branch);
        Map(Code.Jae_rel8_32, OpKind.JAE, OpKind.Cold, Form.Branch);
        Map(Code.Jae_rel8_64, OpKind.JAE, OpKind.Cold, Form.Branch);
        Map(Code.Jae_rel16, OpKind.JAE, OpKind.Cold, Form.Branch);
        Map(Code.Jae_rel32_32, OpKind.JAE, OpKind.Cold, Form.Branch);
        Map(Code.Jae_rel32_64, OpKind.JAE, OpKind.Cold, Form.Branch);
        Map(Code.Je_rel8_16, OpKind.JE, OpKind.Cold, Form.Branch);
        Map(Code.Je_rel8_32, OpKind.JE, OpKind.Cold, Form.Branch);
        Map(Code.Je_rel8_64, OpKind.JE, OpKind.Cold, Form.Branch);
        Map(Code.Je_rel16, OpKind.JE, OpKind.Cold, Form.Branch);
        Map(Code.Je_rel32_32, OpKind.JE, OpKind.Cold, Form.Branch);
        Map(Code.Je_rel32_64, OpKind.JE, OpKind.Cold, Form.Branch);
        Map(Code.Jne_rel8_16, OpKind.JNE, OpKind.Cold, Form.Branch);
        Map(Code.Jne_rel8_32, OpKind.JNE, OpKind.Cold, Form.Branch);
        Map(Code.Jne_rel8_64, OpKind.JNE, OpKind.Cold, Form.Branch);
        Map(Code.Jne_rel16, OpKind.JNE, OpKind.Cold, Form.Branch);
        Map(Code.Jne_rel32_32, OpKind.JNE, OpKind.Cold, Form.Branch);
        Map(Code.Jne_rel32_64, OpKind.JNE, OpKind.Cold, Form.Branch);
        Map(Code.Jbe_rel8_16, OpKind.JBE, OpKind.Cold, Form.Branch);
        Map(Code.Jbe_rel8_32, OpKind.JBE, OpKind.Cold, Form.Branch);
        Map(Code.Jbe_rel8_64, OpKind.JBE, OpKind.Cold, Form.Branch);
        Map(Code.Jbe_rel16, OpKind.JBE, OpKind.Cold, Form.Branch);
        Map(Code.Jbe_rel32_32, OpKind.JBE, OpKind.Cold, Form.Branch);
        Map(Code.Jbe_rel32_64, OpKind.JBE, OpKind.Cold, Form.Branch);
        Map(Code.Ja_rel8_16, OpKind.JA, OpKind.Cold, Form.Branch);
        Map(Code.Ja_rel8_32, OpKind.JA, OpKind.Cold, Form.Branch);
        Map(Code.Ja_rel8_64, OpKind.JA, OpKind.Cold, Form.Branch);
        Map(Code.Ja_rel16, OpKind.JA, OpKind.Cold, Form.Branch);
        Map(Code.Ja_rel32_32, OpKind.JA, OpKind.Cold, Form.Branch);
        Map(Code.Ja_rel32_64, OpKind.JA, OpKind.Cold, Form.Branch);
        Map(Code.Js_rel8_16, OpKind.JS, OpKind.Cold, Form.Branch);
        Map(Code.Js_rel8_32, OpKind.JS, OpKind.Cold, Form.Branch);
        Map(Code.Js_rel8_64, OpKind.JS, OpKind.Cold, Form.Branch);
        Map(Code.Js_rel16, OpKind.JS, OpKind.Cold, Form.Branch);
        Map(Code.Js_rel32_32, OpKind.JS, OpKind.Cold, Form.Branch);
        Map(Code.Js_rel32_64, OpKind.JS, OpKind.Cold, Form.Branch);
        Map(Code.Jns_rel8_16, OpKind.JNS, OpKind.Cold, Form.Branch);
        Map(Code.Jns_rel8_32, OpKind.JNS, OpKind.Cold, Form.Branch);
        Map(Code.Jns_rel8_64, OpKind.JNS, OpKind.Cold, Form.Branch);
        Map(Code.Jns_rel16, OpKind.JNS, OpKind.Cold, Form.Branch);
        Map(Code.Jns_rel32_32, OpKind.JNS, OpKind.Cold, Form.Branch);
        Map(Code.Jns_rel32_64, OpKind.JNS, OpKind.Cold, Form.Branch);
        Map(Code.Jp_rel8_16, OpKind.JP, OpKind.Cold, Form.Branch);
        Map(Code.Jp_rel8_32, OpKind.JP, OpKind.Cold, Form.Branch);
        Map(Code.Jp_rel8_64, OpKind.JP, OpKind.Cold, Form.Branch);
        Map(Code.Jp_rel16, OpKind.JP, OpKind.Cold, Form.Branch);
        Map(Code.Jp_rel32_32, OpKind.JP, OpKind.Cold, Form.Branch);
        Map(Code.Jp_rel32_64, OpKind.JP, OpKind.Cold, Form.Branch);
        Map(Code.Jnp_rel8_16, OpKind.JNP, OpKind.Cold, Form.Branch);
        Map(Code.Jnp_rel8_32, OpKind.JNP, OpKind.Cold, Form.Branch);
        Map(Code.Jnp_rel8_64, OpKind.JNP, OpKind.Cold, Form.Branch);
        Map(Code.Jnp_rel16, OpKind.JNP, OpKind.Cold, Form.Branch);
        Map(Code.Jnp_rel32_32, OpKind.JNP, OpKind.Cold, Form.Branch);
        Map(Code.Jnp_rel32_64, OpKind.JNP, OpKind.Cold, Form.Branch);
        Map(Code.Jl_rel8_16, OpKind.JL, OpKind.Cold, Form.Branch);
        Map(Code.Jl_rel8_32, OpKind.JL, OpKind.Cold, Form.Branch);
        Map(Code.Jl_rel8_64, OpKind.JL, OpKind.Cold, Form.Branch);
        Map(Code.Jl_rel16, OpKind.JL, OpKind.Cold, Form.Branch);
        Map(Code.Jl_rel32_32, OpKind.JL, OpKind.Cold, Form.Branch);
        Map(Code.Jl_rel32_64, OpKind.JL, OpKind.Cold, Form.Branch);
        Map(Code.Jge_rel8_16, OpKind.JGE, OpKind.Cold, Form.Branch);
        Map(Code.Jge_rel8_32, OpKind.JGE, OpKind.Cold, Form.Branch);
        Map(Code.Jge_rel8_64, OpKind.JGE, OpKind.Cold, Form.Branch);
        Map(Code.Jge_rel16, OpKind.JGE, OpKind.Cold, Form.Branch);
        Map(Code.Jge_rel32_32, OpKind.JGE, OpKind.Cold, Form.Branch);
        Map(Code.Jge_rel32_64, OpKind.JGE, OpKind.Cold, Form.Branch);
        Map(Code.Jle_rel8_16, OpKind.JLE, OpKind.Cold, Form.Branch);
        Map(Code.Jle_rel8_32, OpKind.JLE, OpKind.Cold, Form.Branch);
        Map(Code.Jle_rel8_64, OpKind.JLE, OpKind.Cold, Form.Branch);
        Map(Code.Jle_rel16, OpKind.JLE, OpKind.Cold, Form.Branch);
        Map(Code.Jle_rel32_32, OpKind.JLE, OpKind.Cold, Form.Branch);
        Map(Code.Jle_rel32_64, OpKind.JLE, OpKind.Cold, Form.Branch);
        Map(Code.Jg_rel8_16, OpKind.JG, OpKind.Cold, Form.Branch);
        Map(Code.Jg_rel8_32, OpKind.JG, OpKind.Cold, Form.Branch);
        Map(Code.Jg_rel8_64, OpKind.JG, OpKind.Cold, Form.Branch);
        Map(Code.Jg_rel16, OpKind.JG, OpKind.Cold, Form.Branch);
        Map(Code.Jg_rel32_32, OpKind.JG, OpKind.Cold, Form.Branch);
        Map(Code.Jg_rel32_64, OpKind.JG, OpKind.Cold, Form.Branch);
        Map(Code.Jmp_rel8_16, OpKind.Jmp, OpKind.Cold, Form.Branch);
        Map(Code.Jmp_rel8_32, OpKind.Jmp, OpKind.Cold, Form.Branch);
        Map(Code.Jmp_rel8_64, OpKind.Jmp, OpKind.Cold, Form.Branch);
        Map(Code.Jmp_rel16, OpKind.Jmp, OpKind.Cold, Form.Branch);
        Map(Code.Jmp_rel32_32, OpKind.Jmp, OpKind.Cold, Form.Branch);
        Map(Code.Jmp_rel32_64, OpKind.Jmp, OpKind.Cold, Form.Branch);
        Map(Code.Call_rel32_64, OpKind.Call64, OpKind.Cold, Form.Branch);
        Map(Code.Retnq, OpKind.Ret64, OpKind.Cold, Form.Return);
        Map(Code.Retnq_imm16, OpKind.Ret64, OpKind.Cold, Form.Return);
        Map(Code.Jmp_rm64, OpKind.JmpR64, OpKind.JmpM64, Form.RegRm);
        Map(Code.Call_rm64, OpKind.CallR64, OpKind.CallM64, Form.RegRm);
        MapVector(rules);
        return rules;
    }

    private static readonly Dictionary<(OpKind, OpKind), OpKind> Fusions = BuildFusions();

    private static Dictionary<(OpKind, OpKind), OpKind> BuildFusions()
    {
        var fusions = new Dictionary<(OpKind, OpKind), OpKind>
        {
            [(OpKind.CmpRR8, OpKind.JE)] = OpKind.CmpRR8JE,
            [(OpKind.CmpRR8, OpKind.JNE)] = OpKind.CmpRR8JNE,
            [(OpKind.CmpRI8, OpKind.JE)] = OpKind.CmpRI8JE,
            [(OpKind.CmpRI8, OpKind.JNE)] = OpKind.CmpRI8JNE,
            [(OpKind.TestRR8, OpKind.JE)] = OpKind.TestRR8JE,
            [(OpKind.TestRR8, OpKind.JNE)] = OpKind.TestRR8JNE,
            [(OpKind.TestRI8, OpKind.JE)] = OpKind.TestRI8JE,
            [(OpKind.TestRI8, OpKind.JNE)] = OpKind.TestRI8JNE,
            [(OpKind.CmpRR32, OpKind.JB)] = OpKind.CmpRR32JB,
            [(OpKind.CmpRR32, OpKind.JAE)] = OpKind.CmpRR32JAE,
            [(OpKind.CmpRR32, OpKind.JE)] = OpKind.CmpRR32JE,
            [(OpKind.CmpRR32, OpKind.JNE)] = OpKind.CmpRR32JNE,
            [(OpKind.CmpRR32, OpKind.JBE)] = OpKind.CmpRR32JBE,
            [(OpKind.CmpRR32, OpKind.JA)] = OpKind.CmpRR32JA,
            [(OpKind.CmpRR32, OpKind.JL)] = OpKind.CmpRR32JL,
            [(OpKind.CmpRR32, OpKind.JGE)] = OpKind.CmpRR32JGE,
            [(OpKind.CmpRR32, OpKind.JLE)] = OpKind.CmpRR32JLE,
            [(OpKind.CmpRR32, OpKind.JG)] = OpKind.CmpRR32JG,
            [(OpKind.CmpRI32, OpKind.JB)] = OpKind.CmpRI32JB,
            [(OpKind.CmpRI32, OpKind.JAE)] = OpKind.CmpRI32JAE,
            [(OpKind.CmpRI32, OpKind.JE)] = OpKind.CmpRI32JE,
            [(OpKind.CmpRI32, OpKind.JNE)] = OpKind.CmpRI32JNE,
            [(OpKind.CmpRI32, OpKind.JBE)] = OpKind.CmpRI32JBE,
            [(OpKind.CmpRI32, OpKind.JA)] = OpKind.CmpRI32JA,
            [(OpKind.CmpRI32, OpKind.JL)] = OpKind.CmpRI32JL,
            [(OpKind.CmpRI32, OpKind.JGE)] = OpKind.CmpRI32JGE,
            [(OpKind.CmpRI32, OpKind.JLE)] = OpKind.CmpRI32JLE,
            [(OpKind.CmpRI32, OpKind.JG)] = OpKind.CmpRI32JG,
            [(OpKind.TestRR32, OpKind.JE)] = OpKind.TestRR32JE,
            [(OpKind.TestRR32, OpKind.JNE)] = OpKind.TestRR32JNE,
            [(OpKind.TestRR32, OpKind.JS)] = OpKind.TestRR32JS,
            [(OpKind.TestRR32, OpKind.JNS)] = OpKind.TestRR32JNS,
            [(OpKind.TestRI32, OpKind.JE)] = OpKind.TestRI32JE,
            [(OpKind.TestRI32, OpKind.JNE)] = OpKind.TestRI32JNE,
            [(OpKind.CmpRR64, OpKind.JB)] = OpKind.CmpRR64JB,
            [(OpKind.CmpRR64, OpKind.JAE)] = OpKind.CmpRR64JAE,
            [(OpKind.CmpRR64, OpKind.JE)] = OpKind.CmpRR64JE,
            [(OpKind.CmpRR64, OpKind.JNE)] = OpKind.CmpRR64JNE,
            [(OpKind.CmpRR64, OpKind.JBE)] = OpKind.CmpRR64JBE,
            [(OpKind.CmpRR64, OpKind.JA)] = OpKind.CmpRR64JA,
            [(OpKind.CmpRR64, OpKind.JL)] = OpKind.CmpRR64JL,
            [(OpKind.CmpRR64, OpKind.JGE)] = OpKind.CmpRR64JGE,
            [(OpKind.CmpRR64, OpKind.JLE)] = OpKind.CmpRR64JLE,
            [(OpKind.CmpRR64, OpKind.JG)] = OpKind.CmpRR64JG,
            [(OpKind.CmpRI64, OpKind.JB)] = OpKind.CmpRI64JB,
            [(OpKind.CmpRI64, OpKind.JAE)] = OpKind.CmpRI64JAE,
            [(OpKind.CmpRI64, OpKind.JE)] = OpKind.CmpRI64JE,
            [(OpKind.CmpRI64, OpKind.JNE)] = OpKind.CmpRI64JNE,
            [(OpKind.CmpRI64, OpKind.JBE)] = OpKind.CmpRI64JBE,
            [(OpKind.CmpRI64, OpKind.JA)] = OpKind.CmpRI64JA,
            [(OpKind.CmpRI64, OpKind.JL)] = OpKind.CmpRI64JL,
            [(OpKind.CmpRI64, OpKind.JGE)] = OpKind.CmpRI64JGE,
            [(OpKind.CmpRI64, OpKind.JLE)] = OpKind.CmpRI64JLE,
            [(OpKind.CmpRI64, OpKind.JG)] = OpKind.CmpRI64JG,
            [(OpKind.TestRR64, OpKind.JE)] = OpKind.TestRR64JE,
            [(OpKind.TestRR64, OpKind.JNE)] = OpKind.TestRR64JNE,
            [(OpKind.TestRR64, OpKind.JS)] = OpKind.TestRR64JS,
            [(OpKind.TestRR64, OpKind.JNS)] = OpKind.TestRR64JNS,
            [(OpKind.TestRI64, OpKind.JE)] = OpKind.TestRI64JE,
            [(OpKind.TestRI64, OpKind.JNE)] = OpKind.TestRI64JNE,
            [(OpKind.DecR32, OpKind.JE)] = OpKind.DecR32JE,
            [(OpKind.DecR32, OpKind.JNE)] = OpKind.DecR32JNE,
            [(OpKind.DecR64, OpKind.JE)] = OpKind.DecR64JE,
            [(OpKind.DecR64, OpKind.JNE)] = OpKind.DecR64JNE,
            [(OpKind.SubRI32, OpKind.JE)] = OpKind.SubRI32JE,
            [(OpKind.SubRI32, OpKind.JNE)] = OpKind.SubRI32JNE,
            [(OpKind.SubRI64, OpKind.JE)] = OpKind.SubRI64JE,
            [(OpKind.SubRI64, OpKind.JNE)] = OpKind.SubRI64JNE,
            [(OpKind.AddRI32, OpKind.JE)] = OpKind.AddRI32JE,
            [(OpKind.AddRI32, OpKind.JNE)] = OpKind.AddRI32JNE,
            [(OpKind.AddRI64, OpKind.JE)] = OpKind.AddRI64JE,
            [(OpKind.AddRI64, OpKind.JNE)] = OpKind.AddRI64JNE,
            [(OpKind.AndRI32, OpKind.JE)] = OpKind.AndRI32JE,
            [(OpKind.AndRI32, OpKind.JNE)] = OpKind.AndRI32JNE,
            [(OpKind.AndRI64, OpKind.JE)] = OpKind.AndRI64JE,
            [(OpKind.AndRI64, OpKind.JNE)] = OpKind.AndRI64JNE,
        };
        FuseComparisons(fusions);
        return fusions;
    }

    /// <summary>Cases that do the same without flags.</summary>
    private static readonly Dictionary<OpKind, OpKind> Flagless = new()
    {
        [OpKind.AddRR32] = OpKind.AddRR32NoFlags,
        [OpKind.AddRI32] = OpKind.AddRI32NoFlags,
        [OpKind.AddRR64] = OpKind.AddRR64NoFlags,
        [OpKind.AddRI64] = OpKind.AddRI64NoFlags,
        [OpKind.SubRR32] = OpKind.SubRR32NoFlags,
        [OpKind.SubRI32] = OpKind.SubRI32NoFlags,
        [OpKind.SubRR64] = OpKind.SubRR64NoFlags,
        [OpKind.SubRI64] = OpKind.SubRI64NoFlags,
        [OpKind.AndRR32] = OpKind.AndRR32NoFlags,
        [OpKind.AndRI32] = OpKind.AndRI32NoFlags,
        [OpKind.AndRR64] = OpKind.AndRR64NoFlags,
        [OpKind.AndRI64] = OpKind.AndRI64NoFlags,
        [OpKind.OrRR32] = OpKind.OrRR32NoFlags,
        [OpKind.OrRI32] = OpKind.OrRI32NoFlags,
        [OpKind.OrRR64] = OpKind.OrRR64NoFlags,
        [OpKind.OrRI64] = OpKind.OrRI64NoFlags,
        [OpKind.XorRR32] = OpKind.XorRR32NoFlags,
        [OpKind.XorRI32] = OpKind.XorRI32NoFlags,
        [OpKind.XorRR64] = OpKind.XorRR64NoFlags,
        [OpKind.XorRI64] = OpKind.XorRI64NoFlags,
        [OpKind.IncR32] = OpKind.IncR32NoFlags,
        [OpKind.IncR64] = OpKind.IncR64NoFlags,
        [OpKind.DecR32] = OpKind.DecR32NoFlags,
        [OpKind.DecR64] = OpKind.DecR64NoFlags,
        [OpKind.ShlRI32] = OpKind.ShlRI32NoFlags,
        [OpKind.ShrRI32] = OpKind.ShrRI32NoFlags,
        [OpKind.RolRI32] = OpKind.RolRI32NoFlags,
        [OpKind.RorRI32] = OpKind.RorRI32NoFlags,
        [OpKind.ShlRI64] = OpKind.ShlRI64NoFlags,
        [OpKind.ShrRI64] = OpKind.ShrRI64NoFlags,
        [OpKind.RolRI64] = OpKind.RolRI64NoFlags,
        [OpKind.RorRI64] = OpKind.RorRI64NoFlags,
    };

    /// <summary>What a case does with the arithmetic flags.</summary>
    private static readonly FlagEffect[] Effects = BuildEffects();

    private static FlagEffect[] BuildEffects()
    {
        // Whatever can fault or leave the block needs them exact.
        var effects = new FlagEffect[Enum.GetValues<OpKind>().Length];
        foreach (OpKind kind in (ReadOnlySpan<OpKind>)
        [
            OpKind.AddRR8, OpKind.AddRR32, OpKind.AddRR64, OpKind.AddRI8, OpKind.AddRI32, OpKind.AddRI64, OpKind.SubRR8, OpKind.SubRR32,
            OpKind.SubRR64, OpKind.SubRI8, OpKind.SubRI32, OpKind.SubRI64, OpKind.CmpRR8, OpKind.CmpRR32, OpKind.CmpRR64, OpKind.CmpRI8,
            OpKind.CmpRI32, OpKind.CmpRI64, OpKind.AndRR8, OpKind.AndRR32, OpKind.AndRR64, OpKind.AndRI8, OpKind.AndRI32, OpKind.AndRI64,
            OpKind.OrRR8, OpKind.OrRR32, OpKind.OrRR64, OpKind.OrRI8, OpKind.OrRI32, OpKind.OrRI64, OpKind.XorRR8, OpKind.XorRR32, OpKind.XorRR64,
            OpKind.XorRI8, OpKind.XorRI32, OpKind.XorRI64, OpKind.TestRR8, OpKind.TestRR32, OpKind.TestRR64, OpKind.TestRI8, OpKind.TestRI32,
            OpKind.TestRI64, OpKind.ShlRI32, OpKind.ShlRI64, OpKind.ShrRI32, OpKind.ShrRI64, OpKind.SarRI32, OpKind.SarRI64, OpKind.NegR32,
            OpKind.NegR64, OpKind.ImulRR64, OpKind.ImulRRI64, OpKind.CmpRR8JE, OpKind.CmpRR8JNE, OpKind.CmpRI8JE, OpKind.CmpRI8JNE, OpKind.TestRR8JE,
            OpKind.TestRR8JNE, OpKind.TestRI8JE, OpKind.TestRI8JNE, OpKind.CmpRR32JB, OpKind.CmpRR32JAE, OpKind.CmpRR32JE, OpKind.CmpRR32JNE,
            OpKind.CmpRR32JBE, OpKind.CmpRR32JA, OpKind.CmpRR32JL, OpKind.CmpRR32JGE, OpKind.CmpRR32JLE, OpKind.CmpRR32JG, OpKind.CmpRI32JB,
            OpKind.CmpRI32JAE, OpKind.CmpRI32JE, OpKind.CmpRI32JNE, OpKind.CmpRI32JBE, OpKind.CmpRI32JA, OpKind.CmpRI32JL, OpKind.CmpRI32JGE,
            OpKind.CmpRI32JLE, OpKind.CmpRI32JG, OpKind.TestRR32JE, OpKind.TestRR32JNE, OpKind.TestRR32JS, OpKind.TestRR32JNS, OpKind.TestRI32JE,
            OpKind.TestRI32JNE, OpKind.CmpRR64JB, OpKind.CmpRR64JAE, OpKind.CmpRR64JE, OpKind.CmpRR64JNE, OpKind.CmpRR64JBE, OpKind.CmpRR64JA,
            OpKind.CmpRR64JL, OpKind.CmpRR64JGE, OpKind.CmpRR64JLE, OpKind.CmpRR64JG, OpKind.CmpRI64JB, OpKind.CmpRI64JAE, OpKind.CmpRI64JE,
            OpKind.CmpRI64JNE, OpKind.CmpRI64JBE, OpKind.CmpRI64JA, OpKind.CmpRI64JL, OpKind.CmpRI64JGE, OpKind.CmpRI64JLE, OpKind.CmpRI64JG,
            OpKind.TestRR64JE, OpKind.TestRR64JNE, OpKind.TestRR64JS, OpKind.TestRR64JNS, OpKind.TestRI64JE, OpKind.TestRI64JNE, OpKind.SubRI32JE,
            OpKind.SubRI32JNE, OpKind.SubRI64JE, OpKind.SubRI64JNE, OpKind.AddRI32JE, OpKind.AddRI32JNE, OpKind.AddRI64JE, OpKind.AddRI64JNE,
            OpKind.AndRI32JE, OpKind.AndRI32JNE, OpKind.AndRI64JE, OpKind.AndRI64JNE,
        ])
            effects[(int)kind] = FlagEffect.Overwrites;
        foreach (OpKind kind in (ReadOnlySpan<OpKind>)
        [
            OpKind.MovRR8, OpKind.MovRR32, OpKind.MovRR64, OpKind.MovRI, OpKind.Movzx8RR, OpKind.Movzx16RR, OpKind.Movsx8To32RR, OpKind.Movsx16To32RR,
            OpKind.Movsx8To64RR, OpKind.Movsx16To64RR, OpKind.Movsx32To64RR, OpKind.Lea32, OpKind.Lea64, OpKind.NotR32, OpKind.NotR64, OpKind.Nop,
            OpKind.AddRR32NoFlags, OpKind.AddRI32NoFlags, OpKind.AddRR64NoFlags, OpKind.AddRI64NoFlags, OpKind.SubRR32NoFlags, OpKind.SubRI32NoFlags,
            OpKind.SubRR64NoFlags, OpKind.SubRI64NoFlags, OpKind.AndRR32NoFlags, OpKind.AndRI32NoFlags, OpKind.AndRR64NoFlags, OpKind.AndRI64NoFlags,
            OpKind.OrRR32NoFlags, OpKind.OrRI32NoFlags, OpKind.OrRR64NoFlags, OpKind.OrRI64NoFlags, OpKind.XorRR32NoFlags, OpKind.XorRI32NoFlags,
            OpKind.XorRR64NoFlags, OpKind.XorRI64NoFlags, OpKind.IncR32NoFlags, OpKind.IncR64NoFlags, OpKind.DecR32NoFlags, OpKind.DecR64NoFlags,
            OpKind.ShlRI32NoFlags, OpKind.ShrRI32NoFlags, OpKind.RolRI32NoFlags, OpKind.RorRI32NoFlags, OpKind.ShlRI64NoFlags, OpKind.ShrRI64NoFlags,
            OpKind.RolRI64NoFlags, OpKind.RorRI64NoFlags, OpKind.MovXX, OpKind.MovXX64, OpKind.MovXX32, OpKind.MovqXX, OpKind.MovXR32, OpKind.MovXR64,
            OpKind.MovRX32, OpKind.MovRX64, OpKind.UnpcklpdXX, OpKind.XorXX, OpKind.AndXX, OpKind.AndnXX, OpKind.OrXX, OpKind.CvtSi32SdXR, OpKind.VectorX, OpKind.PmovmskbRX,
            OpKind.PaddbXX, OpKind.PadddXX, OpKind.PaddqXX, OpKind.PsubbXX, OpKind.PsubdXX, OpKind.PsubqXX, OpKind.PcmpeqbXX, OpKind.PcmpeqdXX, OpKind.PminubXX, OpKind.PmaxubXX,
        ])
            effects[(int)kind] = FlagEffect.Ignores;
        return effects;
    }
}
