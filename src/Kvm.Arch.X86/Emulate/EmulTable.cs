using Iced.Intel;
using static Kvm.Arch.X86.EmulFlags;

namespace Kvm.Arch.X86;

/// <summary>The instructions that are emulated, with the treatment of their operands.</summary>
/// <remarks>The set is that of emulate.c:opcode_table, twobyte_table, opcode_map_0f_38.</remarks>
internal static class EmulTable
{
    private static readonly EmulFlags[] Flags = Build();

    internal static EmulFlags Of(in Instruction instruction)
    {
        EmulFlags flags = Flags[(int)instruction.Mnemonic];
        switch (instruction.Mnemonic)
        {
            // One name, two instructions: the string forms have no SSE register.
            case Mnemonic.Movsd or Mnemonic.Cmpsd:
                return instruction.IsStringInstruction ? flags : None;
            case Mnemonic.Mov when IsSpecial(instruction.Op0Kind, instruction.Op0Register):
            case Mnemonic.Mov when IsSpecial(instruction.Op1Kind, instruction.Op1Register):
                return MovSpecial(instruction);
            case Mnemonic.Imul when instruction.OpCount == 1:
                return Known | Implicit;
            case Mnemonic.Movq:
                return instruction.Code is Code.Movq_mm_mmm64 or Code.Movq_mmm64_mm ? flags : None;
            case Mnemonic.Movbe or Mnemonic.Rdpid:
                return flags | EmulateOnUd;
            default:
                return flags;
        }
    }

    private static bool IsSpecial(OpKind kind, Register register) =>
        kind == OpKind.Register && (register.IsSegmentRegister() || register.IsCR() || register.IsDR());

    private static EmulFlags MovSpecial(in Instruction i)
    {
        Register special = IsSpecial(i.Op0Kind, i.Op0Register) ? i.Op0Register : i.Op1Register;
        if (special.IsSegmentRegister())
            return Known | Mov | (special == i.Op0Register ? NoWrite : PageTable);
        return Known | Mov | Priv;
    }

    private static EmulFlags[] Build()
    {
        var t = new EmulFlags[Enum.GetValues<Mnemonic>().Max(m => (int)m) + 1];
        void Set(EmulFlags flags, params ReadOnlySpan<Mnemonic> names)
        {
            foreach (Mnemonic name in names)
                t[(int)name] = flags | Known;
        }

        Set(LockOk, Mnemonic.Add, Mnemonic.Adc, Mnemonic.Sbb, Mnemonic.Sub, Mnemonic.Xor, Mnemonic.Not, Mnemonic.Neg, Mnemonic.Inc, Mnemonic.Dec);
        Set(LockOk | PageTable, Mnemonic.Or, Mnemonic.And);
        Set(NoWrite, Mnemonic.Cmp, Mnemonic.Test);
        Set(Mov | PageTable, Mnemonic.Mov);
        Set(Mov, Mnemonic.Movzx, Mnemonic.Movsx, Mnemonic.Movsxd, Mnemonic.Movnti, Mnemonic.Movbe);
        Set(Mov | NoAccess, Mnemonic.Lea);
        Set(SrcWrite | LockOk | PageTable, Mnemonic.Xchg);
        Set(SrcWrite | LockOk, Mnemonic.Xadd);
        Set(SrcWrite | LockOk | PageTable, Mnemonic.Cmpxchg);
        Set(LockOk | PageTable, Mnemonic.Cmpxchg8b, Mnemonic.Cmpxchg16b);
        Set(BitOp | NoWrite, Mnemonic.Bt);
        Set(BitOp | LockOk | PageTable, Mnemonic.Bts, Mnemonic.Btc);
        Set(BitOp | LockOk, Mnemonic.Btr);
        Set(None, Mnemonic.Rol, Mnemonic.Ror, Mnemonic.Rcl, Mnemonic.Rcr, Mnemonic.Shl, Mnemonic.Sal, Mnemonic.Shr, Mnemonic.Sar, Mnemonic.Shld, Mnemonic.Shrd);
        Set(None, Mnemonic.Bsf, Mnemonic.Bsr, Mnemonic.Imul, Mnemonic.Bswap);
        Set(Implicit, Mnemonic.Mul, Mnemonic.Div, Mnemonic.Idiv);
        Set(StringOp | Mov | TwoMemOp | PageTable, Mnemonic.Movsb, Mnemonic.Movsw, Mnemonic.Movsd, Mnemonic.Movsq);
        Set(StringOp | NoWrite | TwoMemOp, Mnemonic.Cmpsb, Mnemonic.Cmpsw, Mnemonic.Cmpsd, Mnemonic.Cmpsq);
        Set(StringOp | Mov | PageTable, Mnemonic.Stosb, Mnemonic.Stosw, Mnemonic.Stosd, Mnemonic.Stosq);
        Set(StringOp | Mov, Mnemonic.Lodsb, Mnemonic.Lodsw, Mnemonic.Lodsd, Mnemonic.Lodsq);
        Set(StringOp | NoWrite, Mnemonic.Scasb, Mnemonic.Scasw, Mnemonic.Scasd, Mnemonic.Scasq);
        Set(StringOp | Mov | PortIn, Mnemonic.Insb, Mnemonic.Insw, Mnemonic.Insd);
        Set(StringOp | NoWrite | PortOut, Mnemonic.Outsb, Mnemonic.Outsw, Mnemonic.Outsd);
        Set(Mov | PortIn, Mnemonic.In);
        Set(NoWrite | PortOut, Mnemonic.Out);
        Set(Implicit | TwoMemOp, Mnemonic.Push, Mnemonic.Pop, Mnemonic.Enter, Mnemonic.Leave);
        Set(Implicit, Mnemonic.Pusha, Mnemonic.Pushad, Mnemonic.Popa, Mnemonic.Popad, Mnemonic.Pushf, Mnemonic.Pushfd, Mnemonic.Pushfq,
            Mnemonic.Popf, Mnemonic.Popfd, Mnemonic.Popfq);
        Set(Implicit | Branch, Mnemonic.Call, Mnemonic.Jmp, Mnemonic.Ret, Mnemonic.Retf, Mnemonic.Iret, Mnemonic.Iretd, Mnemonic.Iretq,
            Mnemonic.Loop, Mnemonic.Loope, Mnemonic.Loopne, Mnemonic.Jcxz, Mnemonic.Jecxz, Mnemonic.Jrcxz, Mnemonic.Int, Mnemonic.Int3, Mnemonic.Into);
        for (Mnemonic m = Mnemonic.INVALID; (int)m < t.Length; m++)
        {
            string name = m.ToString();
            if (IsCondition(name, "J"))
                Set(Implicit | Branch, m);
            else if (IsCondition(name, "Set"))
                Set(Mov, m);
            else if (IsCondition(name, "Cmov"))
                Set(None, m);
        }

        Set(Implicit, Mnemonic.Clc, Mnemonic.Stc, Mnemonic.Cmc, Mnemonic.Cld, Mnemonic.Std, Mnemonic.Cli, Mnemonic.Sti, Mnemonic.Sahf, Mnemonic.Lahf);
        Set(Implicit, Mnemonic.Cbw, Mnemonic.Cwde, Mnemonic.Cdqe, Mnemonic.Cwd, Mnemonic.Cdq, Mnemonic.Cqo, Mnemonic.Das, Mnemonic.Aam, Mnemonic.Aad,
            Mnemonic.Salc, Mnemonic.Xlatb, Mnemonic.Nop, Mnemonic.Reservednop, Mnemonic.Pause);
        Set(Implicit, Mnemonic.Prefetchnta, Mnemonic.Prefetcht0, Mnemonic.Prefetcht1, Mnemonic.Prefetcht2, Mnemonic.Prefetch, Mnemonic.Prefetchw,
            Mnemonic.Prefetchwt1, Mnemonic.Prefetchit0, Mnemonic.Prefetchit1);
        Set(Implicit, Mnemonic.Les, Mnemonic.Lds, Mnemonic.Lss, Mnemonic.Lfs, Mnemonic.Lgs);
        Set(Implicit | Priv, Mnemonic.Hlt, Mnemonic.Clts, Mnemonic.Invd, Mnemonic.Wbinvd, Mnemonic.Wrmsr, Mnemonic.Rdmsr, Mnemonic.Xsetbv, Mnemonic.Invlpg,
            Mnemonic.Lgdt, Mnemonic.Lidt, Mnemonic.Lmsw);
        Set(Implicit | Prot | Priv | Svme, Mnemonic.Stgi, Mnemonic.Clgi, Mnemonic.Skinit, Mnemonic.Invlpga);
        Set(Implicit | Prot | Priv | Svme | SvmePa, Mnemonic.Vmrun, Mnemonic.Vmload, Mnemonic.Vmsave);
        Set(Implicit | Priv | EmulateOnUd | Branch, Mnemonic.Sysexit);
        Set(Implicit | EmulateOnUd | Branch, Mnemonic.Syscall, Mnemonic.Sysenter);
        Set(Implicit | Priv | EmulateOnUd, Mnemonic.Vmcall);
        Set(Implicit | Prot | EmulateOnUd, Mnemonic.Vmmcall);
        Set(Implicit | EmulateOnUd, Mnemonic.Rsm, Mnemonic.Rdpid);
        Set(Implicit | Prot | Priv, Mnemonic.Lldt, Mnemonic.Ltr);
        Set(Implicit | Prot, Mnemonic.Sldt, Mnemonic.Str);
        Set(Implicit, Mnemonic.Sgdt, Mnemonic.Sidt, Mnemonic.Smsw, Mnemonic.Rdtsc, Mnemonic.Rdpmc, Mnemonic.Cpuid);
        Set(Implicit | NoAccess, Mnemonic.Clflush, Mnemonic.Clflushopt);
        Set(Mov | Mmx, Mnemonic.Movq);
        Set(Implicit | Aligned, Mnemonic.Fxsave, Mnemonic.Fxsave64, Mnemonic.Fxrstor, Mnemonic.Fxrstor64);
        Set(Implicit, Mnemonic.Fninit, Mnemonic.Fnstcw, Mnemonic.Fnstsw);
        Set(Mov | Sse, Mnemonic.Movups, Mnemonic.Movupd, Mnemonic.Movdqu);
        // DIVERGES: D-X86-5
        Set(Mov | Sse | Aligned, Mnemonic.Movaps, Mnemonic.Movapd, Mnemonic.Movdqa, Mnemonic.Movntps, Mnemonic.Movntpd, Mnemonic.Movntdq);
        return t;
    }

    private static bool IsCondition(string name, string prefix) =>
        name.StartsWith(prefix, StringComparison.Ordinal)
        && (name[prefix.Length..] is "o" or "no" or "b" or "ae" or "e" or "ne" or "be" or "a" or "s" or "ns" or "p" or "np" or "l" or "ge" or "le" or "g");
}
