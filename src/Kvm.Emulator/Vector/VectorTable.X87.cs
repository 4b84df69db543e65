using Iced.Intel;
using Kvm.Emulator.Vector.X87;

namespace Kvm.Emulator.Vector;

/// <summary>x87, in opcode order. The environment and state instructions (FLDENV, FNSAVE, FLDCW …) have handlers of their own in the opcode table.</summary>
internal sealed unsafe partial class VectorTable
{
    static partial void RegisterX87(VectorTable t)
    {
        RegisterD8D9(t);
        RegisterD9Functions(t);
        RegisterDADB(t);
        RegisterDCDD(t);
        RegisterDEDF(t);
    }

    private static void RegisterD8D9(VectorTable t)
    {
        t.Row(Code.Fadd_m32fp, &X87Arithmetic.Memory<Add, M32>);
        t.Row(Code.Fmul_m32fp, &X87Arithmetic.Memory<Mul, M32>);
        t.Row(Code.Fcom_m32fp, &X87Compare.Memory<M32>);
        t.Row(Code.Fcomp_m32fp, &X87Compare.MemoryPop<M32>);
        t.Row(Code.Fsub_m32fp, &X87Arithmetic.Memory<Sub, M32>);
        t.Row(Code.Fsubr_m32fp, &X87Arithmetic.Memory<SubR, M32>);
        t.Row(Code.Fdiv_m32fp, &X87Arithmetic.Memory<Div, M32>);
        t.Row(Code.Fdivr_m32fp, &X87Arithmetic.Memory<DivR, M32>);
        t.Row(Code.Fadd_st0_sti, &X87Arithmetic.Top<Add>);
        t.Row(Code.Fmul_st0_sti, &X87Arithmetic.Top<Mul>);
        t.Row(Code.Fcom_st0_sti, &X87Compare.Fcom);
        t.Row(Code.Fcomp_st0_sti, &X87Compare.Fcomp);
        t.Row(Code.Fsub_st0_sti, &X87Arithmetic.Top<Sub>);
        t.Row(Code.Fsubr_st0_sti, &X87Arithmetic.Top<SubR>);
        t.Row(Code.Fdiv_st0_sti, &X87Arithmetic.Top<Div>);
        t.Row(Code.Fdivr_st0_sti, &X87Arithmetic.Top<DivR>);

        t.Row(Code.Fld_m32fp, &X87Loads.Load<M32>);
        t.Row(Code.Fst_m32fp, &X87Stores.FstM32);
        t.Row(Code.Fstp_m32fp, &X87Stores.FstpM32);
        t.Row(Code.Fld_sti, &X87Loads.FldSti);
        t.Row(Code.Fxch_st0_sti, &X87Registers.Fxch);
        t.Row(Code.Fnop, &X87Registers.Nothing);
        t.Row(Code.Fstpnce_sti, &X87Stores.Fstpnce);
    }

    private static void RegisterD9Functions(VectorTable t)
    {
        t.Row(Code.Fchs, &X87Arithmetic.Fchs);
        t.Row(Code.Fabs, &X87Arithmetic.Fabs);
        t.Row(Code.Ftst, &X87Compare.Ftst);
        t.Row(Code.Fxam, &X87Compare.Fxam);
        t.Row(Code.Fld1, &X87Loads.Fld1);
        t.Row(Code.Fldl2t, &X87Loads.Fldl2t);
        t.Row(Code.Fldl2e, &X87Loads.Fldl2e);
        t.Row(Code.Fldpi, &X87Loads.Fldpi);
        t.Row(Code.Fldlg2, &X87Loads.Fldlg2);
        t.Row(Code.Fldln2, &X87Loads.Fldln2);
        t.Row(Code.Fldz, &X87Loads.Fldz);
        t.Row(Code.F2xm1, &X87Transcendentals.F2xm1);
        t.Row(Code.Fyl2x, &X87Transcendentals.Fyl2x);
        t.Row(Code.Fptan, &X87Transcendentals.Fptan);
        t.Row(Code.Fpatan, &X87Transcendentals.Fpatan);
        t.Row(Code.Fxtract, &X87Arithmetic.Fxtract);
        t.Row(Code.Fprem1, &X87Arithmetic.Fprem1);
        t.Row(Code.Fdecstp, &X87Registers.Fdecstp);
        t.Row(Code.Fincstp, &X87Registers.Fincstp);
        t.Row(Code.Fprem, &X87Arithmetic.Fprem);
        t.Row(Code.Fyl2xp1, &X87Transcendentals.Fyl2xp1);
        t.Row(Code.Fsqrt, &X87Arithmetic.Unary<Sqrt>);
        t.Row(Code.Fsincos, &X87Transcendentals.Fsincos);
        t.Row(Code.Frndint, &X87Arithmetic.Unary<RndInt>);
        t.Row(Code.Fscale, &X87Arithmetic.Fscale);
        t.Row(Code.Fsin, &X87Transcendentals.Fsin);
        t.Row(Code.Fcos, &X87Transcendentals.Fcos);
    }

    private static void RegisterDADB(VectorTable t)
    {
        t.Row(Code.Fiadd_m32int, &X87Arithmetic.Memory<Add, I32>);
        t.Row(Code.Fimul_m32int, &X87Arithmetic.Memory<Mul, I32>);
        t.Row(Code.Ficom_m32int, &X87Compare.Memory<I32>);
        t.Row(Code.Ficomp_m32int, &X87Compare.MemoryPop<I32>);
        t.Row(Code.Fisub_m32int, &X87Arithmetic.Memory<Sub, I32>);
        t.Row(Code.Fisubr_m32int, &X87Arithmetic.Memory<SubR, I32>);
        t.Row(Code.Fidiv_m32int, &X87Arithmetic.Memory<Div, I32>);
        t.Row(Code.Fidivr_m32int, &X87Arithmetic.Memory<DivR, I32>);
        t.Row(Code.Fcmovb_st0_sti, &X87Registers.Fcmovb);
        t.Row(Code.Fcmove_st0_sti, &X87Registers.Fcmove);
        t.Row(Code.Fcmovbe_st0_sti, &X87Registers.Fcmovbe);
        t.Row(Code.Fcmovu_st0_sti, &X87Registers.Fcmovu);
        t.Row(Code.Fucompp, &X87Compare.Fucompp);

        t.Row(Code.Fild_m32int, &X87Loads.Load<I32>);
        t.Row(Code.Fisttp_m32int, &X87Stores.FisttpM32);
        t.Row(Code.Fist_m32int, &X87Stores.FistM32);
        t.Row(Code.Fistp_m32int, &X87Stores.FistpM32);
        t.Row(Code.Fld_m80fp, &X87Loads.FldM80);
        t.Row(Code.Fstp_m80fp, &X87Stores.FstpM80);
        t.Row(Code.Fcmovnb_st0_sti, &X87Registers.Fcmovnb);
        t.Row(Code.Fcmovne_st0_sti, &X87Registers.Fcmovne);
        t.Row(Code.Fcmovnbe_st0_sti, &X87Registers.Fcmovnbe);
        t.Row(Code.Fcmovnu_st0_sti, &X87Registers.Fcmovnu);
        t.Row(Code.Fucomi_st0_sti, &X87Compare.Fucomi);
        t.Row(Code.Fcomi_st0_sti, &X87Compare.Fcomi);
    }

    private static void RegisterDCDD(VectorTable t)
    {
        t.Row(Code.Fadd_m64fp, &X87Arithmetic.Memory<Add, M64>);
        t.Row(Code.Fmul_m64fp, &X87Arithmetic.Memory<Mul, M64>);
        t.Row(Code.Fcom_m64fp, &X87Compare.Memory<M64>);
        t.Row(Code.Fcomp_m64fp, &X87Compare.MemoryPop<M64>);
        t.Row(Code.Fsub_m64fp, &X87Arithmetic.Memory<Sub, M64>);
        t.Row(Code.Fsubr_m64fp, &X87Arithmetic.Memory<SubR, M64>);
        t.Row(Code.Fdiv_m64fp, &X87Arithmetic.Memory<Div, M64>);
        t.Row(Code.Fdivr_m64fp, &X87Arithmetic.Memory<DivR, M64>);
        t.Row(Code.Fadd_sti_st0, &X87Arithmetic.Register<Add>);
        t.Row(Code.Fmul_sti_st0, &X87Arithmetic.Register<Mul>);
        t.Row(Code.Fcom_st0_sti_DCD0, &X87Compare.Fcom);
        t.Row(Code.Fcomp_st0_sti_DCD8, &X87Compare.Fcomp);
        t.Row(Code.Fsubr_sti_st0, &X87Arithmetic.Register<SubR>);
        t.Row(Code.Fsub_sti_st0, &X87Arithmetic.Register<Sub>);
        t.Row(Code.Fdivr_sti_st0, &X87Arithmetic.Register<DivR>);
        t.Row(Code.Fdiv_sti_st0, &X87Arithmetic.Register<Div>);

        t.Row(Code.Fld_m64fp, &X87Loads.Load<M64>);
        t.Row(Code.Fisttp_m64int, &X87Stores.FisttpM64);
        t.Row(Code.Fst_m64fp, &X87Stores.FstM64);
        t.Row(Code.Fstp_m64fp, &X87Stores.FstpM64);
        t.Row(Code.Ffree_sti, &X87Registers.Ffree);
        t.Row(Code.Fxch_st0_sti_DDC8, &X87Registers.Fxch);
        t.Row(Code.Fst_sti, &X87Stores.FstSti);
        t.Row(Code.Fstp_sti, &X87Stores.FstpSti);
        t.Row(Code.Fucom_st0_sti, &X87Compare.Fucom);
        t.Row(Code.Fucomp_st0_sti, &X87Compare.Fucomp);
    }

    private static void RegisterDEDF(VectorTable t)
    {
        t.Row(Code.Fiadd_m16int, &X87Arithmetic.Memory<Add, I16>);
        t.Row(Code.Fimul_m16int, &X87Arithmetic.Memory<Mul, I16>);
        t.Row(Code.Ficom_m16int, &X87Compare.Memory<I16>);
        t.Row(Code.Ficomp_m16int, &X87Compare.MemoryPop<I16>);
        t.Row(Code.Fisub_m16int, &X87Arithmetic.Memory<Sub, I16>);
        t.Row(Code.Fisubr_m16int, &X87Arithmetic.Memory<SubR, I16>);
        t.Row(Code.Fidiv_m16int, &X87Arithmetic.Memory<Div, I16>);
        t.Row(Code.Fidivr_m16int, &X87Arithmetic.Memory<DivR, I16>);
        t.Row(Code.Faddp_sti_st0, &X87Arithmetic.Popping<Add>);
        t.Row(Code.Fmulp_sti_st0, &X87Arithmetic.Popping<Mul>);
        t.Row(Code.Fcomp_st0_sti_DED0, &X87Compare.Fcomp);
        t.Row(Code.Fcompp, &X87Compare.Fcompp);
        t.Row(Code.Fsubrp_sti_st0, &X87Arithmetic.Popping<SubR>);
        t.Row(Code.Fsubp_sti_st0, &X87Arithmetic.Popping<Sub>);
        t.Row(Code.Fdivrp_sti_st0, &X87Arithmetic.Popping<DivR>);
        t.Row(Code.Fdivp_sti_st0, &X87Arithmetic.Popping<Div>);

        t.Row(Code.Fild_m16int, &X87Loads.Load<I16>);
        t.Row(Code.Fisttp_m16int, &X87Stores.FisttpM16);
        t.Row(Code.Fist_m16int, &X87Stores.FistM16);
        t.Row(Code.Fistp_m16int, &X87Stores.FistpM16);
        t.Row(Code.Fbld_m80bcd, &X87Loads.Fbld);
        t.Row(Code.Fild_m64int, &X87Loads.Load<I64>);
        t.Row(Code.Fbstp_m80bcd, &X87Stores.Fbstp);
        t.Row(Code.Fistp_m64int, &X87Stores.FistpM64);
        t.Row(Code.Ffreep_sti, &X87Registers.Ffreep);
        t.Row(Code.Fxch_st0_sti_DFC8, &X87Registers.Fxch);
        t.Row(Code.Fstp_sti_DFD0, &X87Stores.FstpSti);
        t.Row(Code.Fstp_sti_DFD8, &X87Stores.FstpSti);
        t.Row(Code.Fucomip_st0_sti, &X87Compare.Fucomip);
        t.Row(Code.Fcomip_st0_sti, &X87Compare.Fcomip);
    }
}
