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
            case Mnemonic.Movnti or Mnemonic.Movq:
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
            case Mnemonic.Lea:
                dst.Val = src.Ea;
                return Continue;
            case Mnemonic.Movbe: return MoveBigEndian();
            case Mnemonic.Cmpxchg: return CompareExchange();
            case Mnemonic.Cmpxchg8b: return CompareExchange8b();
            case Mnemonic.Cmpxchg16b: return Unhandleable;
            case Mnemonic.Bsf or Mnemonic.Bsr: return BitScan();
            case Mnemonic.Cmpsb or Mnemonic.Cmpsw or Mnemonic.Cmpsd or Mnemonic.Cmpsq:
            case Mnemonic.Scasb or Mnemonic.Scasw or Mnemonic.Scasd or Mnemonic.Scasq:
                return CompareStrings();
            case Mnemonic.In or Mnemonic.Insb or Mnemonic.Insw or Mnemonic.Insd: return In();
            case Mnemonic.Out or Mnemonic.Outsb or Mnemonic.Outsw or Mnemonic.Outsd: return Out();
            default: return insn.ConditionCode != ConditionCode.None && insn.OpCount == 2 ? ConditionalMove() : Fastop();
        }
    }

    /// <summary>em_movbe: #UD unless the guest's CPUID has it.</summary>
    private int MoveBigEndian() => vcpu.GuestCpuidHas(X86Feature.MOVBE) ? Fastop() : Ud();

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
        if ((flags & EmulFlags.Branch) != 0)
            return BranchInstruction(op);
        switch (op)
        {
            case Mnemonic.Push or Mnemonic.Pop or Mnemonic.Pusha or Mnemonic.Pushad or Mnemonic.Popa or Mnemonic.Popad:
            case Mnemonic.Pushf or Mnemonic.Pushfd or Mnemonic.Pushfq or Mnemonic.Popf or Mnemonic.Popfd or Mnemonic.Popfq:
            case Mnemonic.Enter or Mnemonic.Leave:
                return StackInstruction(op) is var stack && stack != Continue ? stack : Finish();
            case Mnemonic.Mul or Mnemonic.Imul or Mnemonic.Div or Mnemonic.Idiv:
                return MulDiv();
            case Mnemonic.Cli: return Cli();
            case Mnemonic.Sti: return Sti();
            case Mnemonic.Clc or Mnemonic.Stc or Mnemonic.Cmc or Mnemonic.Cld or Mnemonic.Std:
                return Fastop();
            case Mnemonic.Lahf or Mnemonic.Sahf or Mnemonic.Das or Mnemonic.Salc:
            case Mnemonic.Cbw or Mnemonic.Cwde or Mnemonic.Cdqe or Mnemonic.Cwd or Mnemonic.Cdq or Mnemonic.Cqo:
                return Accumulator();
            case Mnemonic.Aam or Mnemonic.Aad:
                return Accumulator(insn.Immediate8);
            case Mnemonic.Xlatb: return Xlat();
            case Mnemonic.Nop or Mnemonic.Reservednop or Mnemonic.Pause:
            case Mnemonic.Prefetchnta or Mnemonic.Prefetcht0 or Mnemonic.Prefetcht1 or Mnemonic.Prefetcht2 or Mnemonic.Prefetch or Mnemonic.Prefetchw:
            case Mnemonic.Prefetchwt1 or Mnemonic.Prefetchit0 or Mnemonic.Prefetchit1:
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
