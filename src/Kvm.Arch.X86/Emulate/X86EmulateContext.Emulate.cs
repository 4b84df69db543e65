using Iced.Intel;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.EmulFlags;
using static Kvm.Arch.X86.X86Const;
using Kind = Kvm.Arch.X86.EmulOperand.Kind;

namespace Kvm.Arch.X86;

/// <remarks>x86_emulate_insn: checks, operands, the instruction, write-back, string repetition.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    private const int RAX = 0;
    private const int RCX = 1;
    private const int RDX = 2;
    private const int RBX = 3;
    private const int RBP = 5;
    private const int RSI = 6;
    private const int RDI = 7;

    private bool IsRepString => repPrefix != 0 && (flags & StringOp) != 0;

    [KernelFunction("x86_emulate_insn", File = "arch/x86/kvm/emulate.c")]
    internal int Emulate()
    {
        using var _ = FunctionTrace.Enter("x86_emulate_insn");
        memReadPos = 0;
        int rc = Run(out bool restart);
        if (restart)
            return EmulationRestart;
        if (rc == PropagateFault)
            HaveException = true;
        if (rc == Intercepted)
            return EmulationIntercepted;
        if (rc == Continue)
            WritebackRegisterCache();
        return rc == Unhandleable ? EmulationFailed : EmulationOk;
    }

    private int Run(out bool restart)
    {
        restart = false;
        int rc = CheckInstruction();
        if (rc != Continue)
            return rc;
        if (IsRepString && AddressMask(RegRead(RCX)) == 0)
        {
            StringRegistersQuirk();
            Finish();
            Eflags &= ~X86_EFLAGS_RF;
            return Continue;
        }

        EmulOperand savedDst = dst;
        if ((flags & Implicit) == 0)
        {
            rc = ReadOperands();
            if (rc != Continue)
            {
                dst = savedDst;
                return rc;
            }
        }

        if (IsRepString)
            Eflags |= X86_EFLAGS_RF;
        else
            Eflags &= ~X86_EFLAGS_RF;

        rc = Execute();
        if (rc == Continue && (flags & Implicit) == 0)
            rc = WriteOperands();
        EmulOperand done = dst;
        dst = savedDst;
        if (rc != Continue)
            return rc;
        return (flags & StringOp) != 0 ? FinishString(done, out restart) : Finish();
    }

    private int Finish()
    {
        Eip = Mode == EmulMode.Prot64 ? NextEip : (uint)NextEip;
        return Continue;
    }

    private int CheckInstruction()
    {
        if ((flags & Undefined) != 0 || (lockPrefix && ((flags & LockOk) == 0 || dst.Type != Kind.Mem)))
            return Ud();
        if ((flags & (Sse | Mmx)) != 0)
        {
            if ((vcpu.ReadCr0() & X86_CR0_EM) != 0 || ((flags & Sse) != 0 && (vcpu.ReadCr4() & X86_CR4_OSFXSR) == 0))
                return Ud();
            if ((vcpu.ReadCr0() & X86_CR0_TS) != 0)
                return Nm();
            if ((flags & Mmx) != 0 && vcpu.FpuFaultPending)
                return Fault(MF_VECTOR, 0, false);
        }

        if ((flags & Prot) != 0 && Mode is EmulMode.Real or EmulMode.Vm86)
            return Ud();
        if ((flags & Priv) != 0 && ops.GetCpl(vcpu) != 0)
            return Gp(0);
        if ((flags & UndefinedPriv) != 0)
            return Ud();
        if ((flags & SvmePa) != 0 && (RegRead(RAX) & 0xffff000000000000) != 0)
            return Gp(0);
        if ((flags & Svme) != 0 && (vcpu.Efer & EFER_SVME) == 0)
            return Ud();
        if ((flags & (PortIn | PortOut)) != 0)
        {
            bool isIn = (flags & PortIn) != 0;
            using var _ = FunctionTrace.Enter(isIn ? "check_perm_in" : "check_perm_out");
            if (!IoPermitted(port, isIn ? dst.Bytes : src.Bytes))
                return Gp(0);
        }

        return Continue;
    }

    private int ReadOperands()
    {
        int rc;
        if ((flags & (PortIn | PortOut)) == 0 || (flags & StringOp) != 0)
        {
            if (src.Type == Kind.Mem && (flags & NoAccess) == 0)
            {
                rc = ReadMemory(ref src);
                if (rc != Continue)
                    return rc;
            }
        }

        ReadRegister(ref src);
        ReadRegister(ref src2);
        if (dst.Type == Kind.Mem)
        {
            if ((flags & Mov) != 0)
                return Continue;
            rc = ReadMemory(ref dst);
            if (rc == PropagateFault && (flags & NoWrite) == 0 && Exception.Vector == PF_VECTOR)
                Exception.ErrorCode |= (ushort)PFERR_WRITE_MASK;
            return rc;
        }

        ReadRegister(ref dst);
        return Continue;
    }

    private int ReadMemory(ref EmulOperand op)
    {
        ulong* value = stackalloc ulong[2];
        value[0] = value[1] = 0;
        int rc = SegmentedRead(op.Seg, op.Ea, value, op.Bytes);
        op.Val = op.OrigVal = value[0];
        op.ValHigh = op.OrigValHigh = value[1];
        return rc;
    }

    private void ReadRegister(ref EmulOperand op)
    {
        switch (op.Type)
        {
            case Kind.Reg:
                op.Val = op.OrigVal = RegRead(op.Reg, op.HighByte, op.Bytes);
                break;
            case Kind.Xmm:
                vcpu.ReadXmm(op.Reg, out op.Val, out op.ValHigh);
                break;
            case Kind.Mm:
                op.Val = vcpu.ReadMmx(op.Reg);
                break;
            case Kind.Sreg:
                ops.GetSegment(vcpu, out Abi.kvm_segment segment, op.Reg);
                op.Val = segment.selector;
                break;
            case Kind.Cr:
                op.Val = vcpu.GetCr(op.Reg);
                break;
            case Kind.Dr:
                op.Val = vcpu.GetDr(op.Reg);
                break;
        }
    }

    private int WriteOperands()
    {
        if ((flags & SrcWrite) != 0)
        {
            int rc = WriteOperand(ref src);
            if (rc != Continue)
                return rc;
        }

        if ((flags & NoWrite) == 0)
            return WriteOperand(ref dst);

        // OUT has cancelled its destination instead of having none.
        if ((flags & PortOut) != 0)
            FunctionTrace.Leaf("writeback");
        return Continue;
    }

    private int WriteOperand(ref EmulOperand op)
    {
        using var _ = FunctionTrace.Enter("writeback");
        switch (op.Type)
        {
            case Kind.Reg:
                RegStore(op.Reg, op.HighByte, op.Bytes, op.Val);
                return Continue;
            case Kind.Mem:
                {
                    // A fixed place: an access that becomes MMIO in several pieces is handed out from here, exit by exit.
                    ulong* value = (ulong*)(memRead + MemReadBytes - 16);
                    value[0] = op.Val;
                    value[1] = op.ValHigh;

                    // XCHG with memory is locked in any case.
                    ulong old = op.OrigVal;
                    return lockPrefix || insn.Mnemonic == Mnemonic.Xchg
                        ? SegmentedCmpxchg(op.Seg, op.Ea, &old, value, op.Bytes)
                        : SegmentedWrite(op.Seg, op.Ea, value, op.Bytes);
                }

            case Kind.MemStr:
                return SegmentedWrite(op.Seg, op.Ea, ioRead + op.DataOffset, op.Bytes * (int)op.Count);
            case Kind.Xmm:
                vcpu.WriteXmm(op.Reg, op.Val, op.ValHigh);
                return Continue;
            case Kind.Mm:
                vcpu.WriteMmx(op.Reg, op.Val);
                return Continue;
            default:
                return Continue;
        }
    }

    // ---- strings ----

    private int FinishString(in EmulOperand done, out bool restart)
    {
        restart = false;
        bool hasSource = src.Type == Kind.Mem;
        bool hasDestination = dst.Type == Kind.Mem;
        uint count = hasSource ? src.Count : done.Type == Kind.MemStr ? done.Count : 1;
        if (hasSource)
            StringAddressIncrement(RSI, ref src, 1);
        if (hasDestination)
            StringAddressIncrement(RDI, ref dst, done.Type == Kind.MemStr ? done.Count : 1);
        if (repPrefix == 0)
            return Finish();

        RegisterAddressIncrement(RCX, -(long)count);
        if (!StringCompleted())
        {
            // Back into the guest when the read-ahead of a port is used up, or every 1024 elements: interrupts want to be seen.
            bool readAhead = ioReadEnd != 0;
            if ((readAhead || (RegRead(RCX) & 0x3ff) != 0) && (!readAhead || ioReadEnd != ioReadPos))
            {
                memReadEnd = 0;
                WritebackRegisterCache();
                restart = true;
            }

            return Continue;
        }

        Eflags &= ~X86_EFLAGS_RF;
        return Finish();
    }

    [KernelFunction("string_addr_inc", File = "arch/x86/kvm/emulate.c")]
    private void StringAddressIncrement(int reg, ref EmulOperand op, uint count)
    {
        using var _ = FunctionTrace.Enter("string_addr_inc");
        long step = (Eflags & X86_EFLAGS_DF) != 0 ? -(long)op.Bytes : op.Bytes;
        RegisterAddressIncrement(reg, step * count);
        op.Ea = AddressMask(RegRead(reg));
    }

    private void RegisterAddressIncrement(int reg, long by)
    {
        ulong old = RegRead(reg);
        RegWrite(reg, OperandSize.Insert(old, old + (ulong)by, adBytes));
    }

    /// <summary>
    /// string_insn_completed: the end condition of CMPS and SCAS. A count that has reached zero ends nothing here: the guest is entered again at the instruction,
    /// which then does nothing.
    /// </summary>
    private bool StringCompleted()
    {
        if ((flags & NoWrite) == 0 || (flags & PortOut) != 0)
            return false;
        bool equal = (Eflags & X86_EFLAGS_ZF) != 0;
        return repPrefix == 0xf3 ? !equal : equal;
    }

    /// <summary>string_registers_quirk: Intel processors clear the upper halves when ECX is 0 with 32-bit addresses in 64-bit code.</summary>
    private void StringRegistersQuirk()
    {
        if (adBytes != 4 || Mode != EmulMode.Prot64 || vcpu.IsAmdCompatible)
            return;
        RegWrite(RCX, 0);
        if (src.Type == Kind.Mem && insn.Mnemonic is Mnemonic.Movsb or Mnemonic.Movsw or Mnemonic.Movsd or Mnemonic.Movsq)
            RegWrite(RSI, (uint)RegRead(RSI));
        if (dst.Type == Kind.Mem && insn.Mnemonic is Mnemonic.Movsb or Mnemonic.Movsw or Mnemonic.Movsd or Mnemonic.Movsq
            or Mnemonic.Stosb or Mnemonic.Stosw or Mnemonic.Stosd or Mnemonic.Stosq)
            RegWrite(RDI, (uint)RegRead(RDI));
    }

    // ---- ports ----

    [KernelFunction("em_in", File = "arch/x86/kvm/emulate.c")]
    private int In()
    {
        using var _ = FunctionTrace.Enter("em_in");
        if (ioReadPos == ioReadEnd)
        {
            uint n = 1;
            if (IsRepString)
            {
                uint inPage = (uint)(RegRead(RDI) & 0xfff);
                if ((Eflags & X86_EFLAGS_DF) == 0)
                    inPage = 0x1000 - inPage;
                n = (uint)Math.Min(Math.Min(inPage, (ulong)(ReadAheadBytes / dst.Bytes)), AddressMask(RegRead(RCX)));
                n = Math.Max(1, n);
            }

            ioReadPos = ioReadEnd = 0;
            if (vcpu.PioInEmulated(dst.Bytes, port, ioRead, n) == 0)
                return IoNeeded;
            ioReadEnd = (int)n * dst.Bytes;
        }

        if (IsRepString && (Eflags & X86_EFLAGS_DF) == 0)
        {
            dst.Type = Kind.MemStr;
            dst.DataOffset = ioReadPos;
            dst.Count = (uint)((ioReadEnd - ioReadPos) / dst.Bytes);
            ioReadPos = ioReadEnd;
        }
        else
        {
            ulong value = 0;
            Buffer.MemoryCopy(ioRead + ioReadPos, &value, 8, dst.Bytes);
            dst.Val = value;
            ioReadPos += dst.Bytes;
        }

        return Continue;
    }

    [KernelFunction("em_out", File = "arch/x86/kvm/emulate.c")]
    private int Out()
    {
        using var _ = FunctionTrace.Enter("em_out");
        ulong value = src.Val;
        vcpu.PioOutEmulated(src.Bytes, port, (byte*)&value, 1);
        return Continue;
    }

    /// <summary>emulator_io_permited: IOPL, else the bitmap of the TSS.</summary>
    private bool IoPermitted(ushort port, int bytes)
    {
        if (permOk)
            return true;
        if (BadIopl() && !IoAllowedByTss(port, bytes))
            return false;
        permOk = true;
        return true;
    }

    private bool BadIopl()
    {
        if (Mode == EmulMode.Real)
            return false;
        if (Mode == EmulMode.Vm86)
            return true;
        return ops.GetCpl(vcpu) > (int)((Eflags & X86_EFLAGS_IOPL) >> 12);
    }

    private bool IoAllowedByTss(ushort port, int bytes)
    {
        ops.GetSegment(vcpu, out Abi.kvm_segment tr, VcpuSreg.VCPU_SREG_TR);
        if (tr.unusable != 0 || tr.limit < 103)
            return false;
        ushort offset = 0;
        if (LinearReadSystem(tr.@base + 102, &offset, 2) != Continue || offset + (port / 8) > tr.limit)
            return false;
        ushort bits = 0;
        if (LinearReadSystem(tr.@base + offset + (uint)(port / 8), &bits, 2) != Continue)
            return false;
        return ((bits >> (port & 7)) & ((1 << bytes) - 1)) == 0;
    }
}
