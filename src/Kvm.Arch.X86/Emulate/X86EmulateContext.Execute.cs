using Iced.Intel;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;
using Kind = Kvm.Arch.X86.EmulOperand.Kind;

namespace Kvm.Arch.X86;

/// <remarks>What each instruction does to its fetched operands.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    private int Execute() => (flags & EmulFlags.Implicit) != 0 ? ExecuteImplicit() : ExecuteOperands();

    private int ExecuteOperands()
    {
        Mnemonic op = insn.Mnemonic;
        switch (op)
        {
            case Mnemonic.Mov: return Move();
            case Mnemonic.Movnti:
            case Mnemonic.Movsb or Mnemonic.Movsw or Mnemonic.Movsd or Mnemonic.Movsq:
            case Mnemonic.Stosb or Mnemonic.Stosw or Mnemonic.Stosd or Mnemonic.Stosq:
            case Mnemonic.Lodsb or Mnemonic.Lodsw or Mnemonic.Lodsd or Mnemonic.Lodsq:
                FunctionTrace.Leaf("em_mov");
                dst.Val = src.Val;
                return Continue;
            case Mnemonic.Movups or Mnemonic.Movupd or Mnemonic.Movdqu or Mnemonic.Movaps or Mnemonic.Movapd or Mnemonic.Movdqa:
            case Mnemonic.Movntps or Mnemonic.Movntpd or Mnemonic.Movntdq:
                FunctionTrace.Leaf("em_mov");
                dst.Val = src.Val;
                dst.ValHigh = src.ValHigh;
                return Continue;
            case Mnemonic.Movzx: dst.Val = src.Val & MaskOf(src.Bytes); return Continue;
            case Mnemonic.Movsx or Mnemonic.Movsxd: dst.Val = (ulong)SignExtend(src.Val, src.Bytes); return Continue;
            case Mnemonic.Movbe: dst.Val = ByteSwap(src.Val, src.Bytes); return Continue;
            case Mnemonic.Lea: dst.Val = src.Ea; return Continue;
            case Mnemonic.Add: dst.Val = Add(dst.Val, Immediate(), 0, dst.Bytes); return Continue;
            case Mnemonic.Adc: dst.Val = Add(dst.Val, Immediate(), Carry, dst.Bytes); return Continue;
            case Mnemonic.Sub: dst.Val = Sub(dst.Val, Immediate(), 0, dst.Bytes); return Continue;
            case Mnemonic.Sbb: dst.Val = Sub(dst.Val, Immediate(), Carry, dst.Bytes); return Continue;
            case Mnemonic.Cmp: Sub(dst.Val, Immediate(), 0, dst.Bytes); return Continue;
            case Mnemonic.And: dst.Val = Logic(dst.Val & Immediate(), dst.Bytes); return Continue;
            case Mnemonic.Or: dst.Val = Logic(dst.Val | Immediate(), dst.Bytes); return Continue;
            case Mnemonic.Xor: dst.Val = Logic(dst.Val ^ Immediate(), dst.Bytes); return Continue;
            case Mnemonic.Test: Logic(dst.Val & Immediate(), dst.Bytes); return Continue;
            case Mnemonic.Not: dst.Val = ~dst.Val; return Continue;
            case Mnemonic.Neg: dst.Val = Sub(0, dst.Val, 0, dst.Bytes); return Continue;
            case Mnemonic.Inc or Mnemonic.Dec: dst.Val = IncDec(dst.Val, op == Mnemonic.Inc); return Continue;
            case Mnemonic.Xchg: (dst.Val, src.Val) = (src.Val, dst.Val); return Continue;
            case Mnemonic.Xadd: Xadd(); return Continue;
            case Mnemonic.Cmpxchg: CompareExchange(); return Continue;
            case Mnemonic.Cmpxchg8b: return CompareExchange8b();
            case Mnemonic.Cmpxchg16b: return Unhandleable;
            case Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc: BitTest(op); return Continue;
            case Mnemonic.Bsf or Mnemonic.Bsr: BitScan(op == Mnemonic.Bsr); return Continue;
            case Mnemonic.Shl or Mnemonic.Sal or Mnemonic.Shr or Mnemonic.Sar: dst.Val = Shift(op, dst.Val, (int)(byte)src.Val, dst.Bytes); return Continue;
            case Mnemonic.Rol or Mnemonic.Ror or Mnemonic.Rcl or Mnemonic.Rcr: dst.Val = Rotate(op, dst.Val, (int)(byte)src.Val, dst.Bytes); return Continue;
            case Mnemonic.Shld or Mnemonic.Shrd: dst.Val = DoubleShift(op == Mnemonic.Shld, dst.Val, src.Val, (byte)src2.Val, dst.Bytes); return Continue;
            case Mnemonic.Imul: ImulTruncating(insn.OpCount == 3 ? src.Val : dst.Val, insn.OpCount == 3 ? src2.Val : src.Val); return Continue;
            case Mnemonic.Bswap: dst.Val = ByteSwap(dst.Val, Math.Max(4, dst.Bytes)); return Continue;
            case Mnemonic.Cmpsb or Mnemonic.Cmpsw or Mnemonic.Cmpsd or Mnemonic.Cmpsq: CompareStrings(); return Continue;
            case Mnemonic.Scasb or Mnemonic.Scasw or Mnemonic.Scasd or Mnemonic.Scasq: ScanString(); return Continue;
            case Mnemonic.In or Mnemonic.Insb or Mnemonic.Insw or Mnemonic.Insd: return In();
            case Mnemonic.Out or Mnemonic.Outsb or Mnemonic.Outsw or Mnemonic.Outsd: return Out();
            default: return ExecuteConditional();
        }
    }

    private ulong Immediate() => src.Val;

    private int ExecuteConditional()
    {
        bool met = TestCondition(insn.ConditionCode);
        if (insn.OpCount == 1)
        {
            dst.Val = met ? 1ul : 0;
            return Continue;
        }

        // CMOVcc: a 32-bit destination loses its upper half even when nothing moves.
        if (met)
            dst.Val = src.Val;
        return Continue;
    }

    private int Move()
    {
        FunctionTrace.Leaf("em_mov");
        switch (dst.Type)
        {
            case Kind.Sreg:
                return MoveToSegment();
            case Kind.Cr:
                if (!CrAccessAllowed(dst.Reg, src.Val, write: true, out int crFault))
                    return crFault;
                dst.Type = Kind.None;
                return vcpu.SetCr(dst.Reg, src.Val) != 0 ? Gp(0) : Continue;
            case Kind.Dr:
                if (!DrAccessAllowed(dst.Reg, write: true, src.Val, out int drFault))
                    return drFault;
                dst.Type = Kind.None;
                return vcpu.SetDr(dst.Reg, Mode == EmulMode.Prot64 ? src.Val : (uint)src.Val) != 0 ? Gp(0) : Continue;
        }

        if (src.Type == Kind.Cr && !CrAccessAllowed(src.Reg, 0, write: false, out int fault))
            return fault;
        if (src.Type == Kind.Dr && !DrAccessAllowed(src.Reg, write: false, 0, out fault))
            return fault;
        dst.Val = src.Val;
        return Continue;
    }

    private void Xadd()
    {
        ulong old = dst.Val;
        dst.Val = Add(dst.Val, src.Val, 0, dst.Bytes);
        src.Val = old;
    }

    private void CompareExchange()
    {
        ulong replacement = src.Val;
        ulong accumulator = RegRead(RAX, false, dst.Bytes);
        Sub(accumulator, dst.OrigVal, 0, dst.Bytes);
        if ((Eflags & X86_EFLAGS_ZF) != 0)
        {
            src.Type = Kind.None;
            dst.Val = replacement;
            return;
        }

        RegModify(RAX);
        src.Type = Kind.Reg;
        src.Reg = RAX;
        src.HighByte = false;
        src.Val = dst.OrigVal;
        dst.Val = dst.OrigVal;
    }

    private int CompareExchange8b()
    {
        ulong old = dst.OrigVal;
        if ((uint)old != (uint)RegRead(RAX) || (uint)(old >> 32) != (uint)RegRead(RDX))
        {
            RegWrite(RAX, (uint)old);
            RegWrite(RDX, (uint)(old >> 32));
            Eflags &= ~X86_EFLAGS_ZF;
        }
        else
        {
            dst.Val = ((ulong)(uint)RegRead(RCX) << 32) | (uint)RegRead(RBX);
            Eflags |= X86_EFLAGS_ZF;
        }

        return Continue;
    }

    private void CompareStrings()
    {
        // Op0 is [rSI], op1 is [rDI].
        Sub(dst.Val, src.Val, 0, dst.Bytes);
    }

    private void ScanString() => Sub(dst.Val, src.Val, 0, dst.Bytes);

    /// <summary>Reads an operand of an instruction that handles its operands itself.</summary>
    private int FetchOperand(ref EmulOperand op)
    {
        if (op.Type == Kind.Mem)
            return ReadMemory(ref op);
        ReadRegister(ref op);
        return Continue;
    }

    private int StoreOperand(ref EmulOperand op, ulong value)
    {
        op.Val = value;
        return WriteOperand(ref op);
    }

    // ---- the rest ----

    private int ExecuteImplicit()
    {
        Mnemonic op = insn.Mnemonic;
        switch (op)
        {
            case Mnemonic.Push or Mnemonic.Pop or Mnemonic.Pusha or Mnemonic.Pushad or Mnemonic.Popa or Mnemonic.Popad:
            case Mnemonic.Pushf or Mnemonic.Pushfd or Mnemonic.Pushfq or Mnemonic.Popf or Mnemonic.Popfd or Mnemonic.Popfq:
            case Mnemonic.Enter or Mnemonic.Leave:
                return StackInstruction(op) is var stack && stack != Continue ? stack : Finish();
            case Mnemonic.Call or Mnemonic.Jmp or Mnemonic.Ret or Mnemonic.Retf or Mnemonic.Iret or Mnemonic.Iretd or Mnemonic.Iretq:
            case Mnemonic.Loop or Mnemonic.Loope or Mnemonic.Loopne or Mnemonic.Jcxz or Mnemonic.Jecxz or Mnemonic.Jrcxz:
            case Mnemonic.Int or Mnemonic.Int3 or Mnemonic.Into or Mnemonic.Syscall or Mnemonic.Sysenter or Mnemonic.Sysexit:
                return BranchInstruction(op);
            case Mnemonic.Mul or Mnemonic.Imul or Mnemonic.Div or Mnemonic.Idiv:
                return MulDiv(op);
            case Mnemonic.Clc: Eflags &= ~X86_EFLAGS_CF; return Continue;
            case Mnemonic.Stc: Eflags |= X86_EFLAGS_CF; return Continue;
            case Mnemonic.Cmc: Eflags ^= X86_EFLAGS_CF; return Continue;
            case Mnemonic.Cld: Eflags &= ~X86_EFLAGS_DF; return Continue;
            case Mnemonic.Std: Eflags |= X86_EFLAGS_DF; return Continue;
            case Mnemonic.Cli: return Cli();
            case Mnemonic.Sti: return Sti();
            case Mnemonic.Lahf: RegAssign(RAX, true, 1, (byte)((Eflags & 0xd7) | X86_EFLAGS_FIXED)); return Continue;
            case Mnemonic.Sahf: Eflags = (Eflags & ~0xd5ul) | ((RegRead(RAX) >> 8) & 0xd5) | X86_EFLAGS_FIXED; return Continue;
            case Mnemonic.Cbw: RegAssign(RAX, false, 2, (ulong)(sbyte)RegRead(RAX)); return Continue;
            case Mnemonic.Cwde: RegAssign(RAX, false, 4, (ulong)(short)RegRead(RAX)); return Continue;
            case Mnemonic.Cdqe: RegAssign(RAX, false, 8, (ulong)(int)RegRead(RAX)); return Continue;
            case Mnemonic.Cwd: RegAssign(RDX, false, 2, (ulong)((short)RegRead(RAX) >> 15)); return Continue;
            case Mnemonic.Cdq: RegAssign(RDX, false, 4, (ulong)((int)RegRead(RAX) >> 31)); return Continue;
            case Mnemonic.Cqo: RegAssign(RDX, false, 8, (ulong)((long)RegRead(RAX) >> 63)); return Continue;
            case Mnemonic.Das: Das(); return Continue;
            case Mnemonic.Aam: return Aam();
            case Mnemonic.Aad: Aad(); return Continue;
            case Mnemonic.Salc: RegAssign(RAX, false, 1, Carry != 0 ? 0xfful : 0); return Continue;
            case Mnemonic.Xlatb: return Xlat();
            case Mnemonic.Nop or Mnemonic.Reservednop or Mnemonic.Pause or Mnemonic.Monitor or Mnemonic.Mwait:
            case Mnemonic.Prefetchnta or Mnemonic.Prefetcht0 or Mnemonic.Prefetcht1 or Mnemonic.Prefetcht2 or Mnemonic.Prefetch or Mnemonic.Prefetchw:
            case Mnemonic.Clflush or Mnemonic.Clflushopt or Mnemonic.Invd or Mnemonic.Wbinvd:
                return Continue;
            case Mnemonic.Les or Mnemonic.Lds or Mnemonic.Lss or Mnemonic.Lfs or Mnemonic.Lgs:
                return LoadFarPointer(op);
            default:
                return SystemInstruction(op);
        }
    }

    private int Xlat()
    {
        ulong value = 0;
        int rc = SegmentedRead(SegmentIndex(insn.MemorySegment), AddressMask(RegRead(RBX) + (byte)RegRead(RAX)), &value, 1);
        if (rc == Continue)
            RegAssign(RAX, false, 1, value);
        return rc;
    }

    private int Cli()
    {
        if (BadIopl())
            return Gp(0);
        Eflags &= ~X86_EFLAGS_IF;
        return Continue;
    }

    private int Sti()
    {
        if (BadIopl())
            return Gp(0);
        Interruptibility = (uint)Abi.Uapi.KVM_X86_SHADOW_INT_STI;
        Eflags |= X86_EFLAGS_IF;
        return Continue;
    }
}
