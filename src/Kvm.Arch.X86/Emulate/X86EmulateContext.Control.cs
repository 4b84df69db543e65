using Iced.Intel;
using Kvm.Abi;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.VcpuSreg;
using static Kvm.Arch.X86.X86Const;
using Kind = Kvm.Arch.X86.EmulOperand.Kind;

namespace Kvm.Arch.X86;

/// <remarks>Stack, near and far transfers, interrupts of real mode, fast system calls.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    private const ulong IretMask = ArithmeticFlags | X86_EFLAGS_TF | X86_EFLAGS_IF | X86_EFLAGS_DF | X86_EFLAGS_IOPL | X86_EFLAGS_NT | X86_EFLAGS_RF
        | X86_EFLAGS_AC | X86_EFLAGS_ID | X86_EFLAGS_FIXED;
    private const ulong FlagsReservedZero = ~0x3fffd7ul;

    private int StackStep => Math.Abs(insn.StackPointerIncrement);

    private int StackSize
    {
        get
        {
            ulong mask = StackMask;
            return mask == ~0ul ? 8 : mask == 0xffff ? 2 : 4;
        }
    }

    private int StackInstruction(Mnemonic op)
    {
        switch (op)
        {
            case Mnemonic.Push: return PushInstruction();
            case Mnemonic.Pop: return PopInstruction();
            case Mnemonic.Pushf or Mnemonic.Pushfd or Mnemonic.Pushfq:
                return Push(Eflags & ~X86_EFLAGS_VM, StackStep);
            case Mnemonic.Popf or Mnemonic.Popfd or Mnemonic.Popfq:
                return PopFlags(StackStep);
            case Mnemonic.Pusha or Mnemonic.Pushad: return PushAll(op == Mnemonic.Pusha ? 2 : 4);
            case Mnemonic.Popa or Mnemonic.Popad: return PopAll(op == Mnemonic.Popa ? 2 : 4);
            case Mnemonic.Enter: return Enter();
            default: return Leave();
        }
    }

    private int PushInstruction()
    {
        if (dst.Type == Kind.Imm)
            return Push(dst.Val, StackStep);
        int rc = FetchOperand(ref dst);
        return rc != Continue ? rc : Push(dst.Val, StackStep);
    }

    private int PopInstruction()
    {
        if (dst.Type == Kind.Sreg)
        {
            int r = Pop(out ulong selector, 2);
            if (r != Continue)
                return r;
            if (dst.Reg == VCPU_SREG_SS)
                Interruptibility = (uint)Uapi.KVM_X86_SHADOW_INT_MOV_SS;
            if (StackStep > 2)
                RspIncrement(StackStep - 2);
            return LoadSegment((ushort)selector, dst.Reg, ops.GetCpl(vcpu), Transfer.None, out kvm_segment _);
        }

        int rc = Pop(out ulong value, StackStep);
        return rc != Continue ? rc : StoreOperand(ref dst, value);
    }

    private int PopFlags(int bytes)
    {
        int iopl = (int)((Eflags & X86_EFLAGS_IOPL) >> 12);
        int cpl = ops.GetCpl(vcpu);
        int rc = Pop(out ulong value, bytes);
        if (rc != Continue)
            return rc;
        ulong change = ArithmeticFlags | X86_EFLAGS_TF | X86_EFLAGS_DF | X86_EFLAGS_NT | X86_EFLAGS_AC | X86_EFLAGS_ID;
        switch (Mode)
        {
            case EmulMode.Real:
                change |= X86_EFLAGS_IOPL | X86_EFLAGS_IF;
                break;
            case EmulMode.Vm86:
                if (iopl < 3)
                    return Gp(0);
                change |= X86_EFLAGS_IF;
                break;
            default:
                if (cpl == 0)
                    change |= X86_EFLAGS_IOPL;
                if (cpl <= iopl)
                    change |= X86_EFLAGS_IF;
                break;
        }

        if (bytes == 2)
            change &= 0xffff;
        Eflags = (Eflags & ~change) | (value & change);
        return Continue;
    }

    private int PushAll(int bytes)
    {
        ulong oldRsp = RegRead(RSP);
        for (int reg = RAX; reg <= RDI; reg++)
        {
            int rc = Push(reg == RSP ? oldRsp : RegRead(reg), bytes);
            if (rc != Continue)
                return rc;
        }

        return Continue;
    }

    private int PopAll(int bytes)
    {
        for (int reg = RDI; reg >= RAX; reg--)
        {
            if (reg == RSP)
            {
                RspIncrement(bytes);
                continue;
            }

            int rc = Pop(out ulong value, bytes);
            if (rc != Continue)
                return rc;
            RegAssign(reg, false, bytes, value);
        }

        return Continue;
    }

    private int Enter()
    {
        if ((insn.Immediate8_2nd & 31) != 0)
            return Unhandleable;
        int rc = Push(RegRead(RBP), StackSize);
        if (rc != Continue)
            return rc;
        RegWrite(RBP, Merge(RegRead(RBP), RegRead(RSP), StackMask));
        RegWrite(RSP, Merge(RegRead(RSP), RegRead(RSP) - insn.Immediate16, StackMask));
        return Continue;
    }

    private int Leave()
    {
        RegWrite(RSP, Merge(RegRead(RSP), RegRead(RBP), StackMask));
        int bytes = insn.Code switch { Code.Leavew => 2, Code.Leaved => 4, _ => 8 };
        int rc = Pop(out ulong value, bytes);
        if (rc == Continue)
            RegAssign(RBP, false, bytes, value);
        return rc;
    }

    // ---- transfers; RIP is set by them, so the write-back of it is here ----

    private int BranchInstruction(Mnemonic op)
    {
        int rc = op switch
        {
            Mnemonic.Call => Call(),
            Mnemonic.Jmp => Jump(),
            Mnemonic.Ret => Return(),
            Mnemonic.Retf => ReturnFar(),
            Mnemonic.Iret or Mnemonic.Iretd or Mnemonic.Iretq => InterruptReturn(),
            Mnemonic.Int => SoftInterrupt(insn.Immediate8),
            Mnemonic.Int3 => SoftInterrupt(3),
            Mnemonic.Into => (Eflags & X86_EFLAGS_OF) != 0 ? SoftInterrupt(4) : Continue,
            Mnemonic.Syscall => Syscall(),
            Mnemonic.Sysenter => Sysenter(),
            Mnemonic.Sysexit => Sysexit(),
            _ => Loop(op),
        };
        return rc;
    }

    /// <summary>assign_eip_near: #GP beyond the segment's limit or non-canonical.</summary>
    private int AssignEip(ulong target, int bytes)
    {
        ulong value = OperandSize.Truncate(target, bytes);
        int rc = Linearize(VCPU_SREG_CS, value, 1, false, fetch: true, Mode, out ulong _, out ulong _);
        if (rc == Continue)
            NextEip = value;
        return rc;
    }

    private int BranchBytes => Mode == EmulMode.Prot64 ? 8 : opBytes;

    private int Call()
    {
        ulong old = NextEip;
        if (insn.IsCallFar || insn.IsCallFarIndirect)
            return FarTransfer(call: true);
        int rc = JumpTarget(out ulong target);
        if (rc == Continue)
            rc = AssignEip(target, BranchBytes);
        return rc != Continue ? rc : Push(old, BranchBytes);
    }

    private int Jump()
    {
        if (insn.IsJmpFar || insn.IsJmpFarIndirect)
            return FarTransfer(call: false);
        int rc = JumpTarget(out ulong target);
        return rc != Continue ? rc : AssignEip(target, BranchBytes);
    }

    private int JumpTarget(out ulong target)
    {
        int rc = dst.Type == Kind.Imm ? Continue : FetchOperand(ref dst);
        target = dst.Val;
        return rc;
    }

    private int Loop(Mnemonic op)
    {
        bool taken;
        if (op is Mnemonic.Loop or Mnemonic.Loope or Mnemonic.Loopne)
        {
            RegisterAddressIncrement(RCX, -1);
            taken = AddressMask(RegRead(RCX)) != 0
                && (op == Mnemonic.Loop || TestCondition(op == Mnemonic.Loope ? ConditionCode.e : ConditionCode.ne));
        }
        else if (op is Mnemonic.Jcxz or Mnemonic.Jecxz or Mnemonic.Jrcxz)
        {
            taken = AddressMask(RegRead(RCX)) == 0;
        }
        else
        {
            taken = TestCondition(insn.ConditionCode);
        }

        return taken ? AssignEip(dst.Val, BranchBytes) : Continue;
    }

    private int Return()
    {
        int rc = Pop(out ulong target, BranchBytes);
        if (rc == Continue)
            rc = AssignEip(target, BranchBytes);
        if (rc == Continue && insn.OpCount == 1)
            RspIncrement(insn.Immediate16);
        return rc;
    }

    private int FarTransfer(bool call)
    {
        ulong target;
        ushort selector;
        int bytes;
        if (dst.Type == Kind.Imm)
        {
            target = dst.Val;
            selector = (ushort)dst.ValHigh;
            bytes = dst.Bytes;
        }
        else
        {
            bytes = dst.Bytes - 2;
            byte* pointer = stackalloc byte[10];
            int r = SegmentedRead(dst.Seg, dst.Ea, pointer, dst.Bytes);
            if (r != Continue)
                return r;
            target = bytes switch { 2 => *(ushort*)pointer, 4 => *(uint*)pointer, _ => *(ulong*)pointer };
            selector = *(ushort*)(pointer + bytes);
        }

        ulong oldEip = NextEip;
        EmulMode oldMode = Mode;
        ops.GetSegment(vcpu, out kvm_segment oldCs, VCPU_SREG_CS);
        int rc = LoadSegment(selector, VCPU_SREG_CS, ops.GetCpl(vcpu), Transfer.CallJmp, out kvm_segment cs);
        if (rc != Continue)
            return rc;
        rc = AssignEipFar(target, bytes, cs);
        if (!call)
            return rc == Continue ? rc : Unhandleable;
        if (rc == Continue)
            rc = Push(oldCs.selector, bytes);
        if (rc == Continue)
            rc = Push(oldEip, bytes);
        if (rc != Continue)
        {
            ops.SetSegment(vcpu, oldCs, VCPU_SREG_CS);
            Mode = oldMode;
        }

        return rc;
    }

    private int AssignEipFar(ulong target, int bytes, in kvm_segment cs)
    {
        RecalculateMode(cs);
        return AssignEip(target, bytes);
    }

    /// <summary>emulator_recalc_and_set_mode.</summary>
    private void RecalculateMode(in kvm_segment cs)
    {
        if (!vcpu.IsProtmode)
            Mode = EmulMode.Real;
        else if ((Eflags & X86_EFLAGS_VM) != 0)
            Mode = EmulMode.Vm86;
        else if (vcpu.IsLongMode && cs.l != 0)
            Mode = EmulMode.Prot64;
        else
            Mode = cs.db != 0 ? EmulMode.Prot32 : EmulMode.Prot16;
    }

    private int RecalculateMode()
    {
        ops.GetSegment(vcpu, out kvm_segment cs, VCPU_SREG_CS);
        RecalculateMode(cs);
        return Continue;
    }

    private int ReturnFar()
    {
        int bytes = opBytes;
        int rc = Pop(out ulong eip, bytes);
        if (rc != Continue)
            return rc;
        rc = Pop(out ulong selector, bytes);
        if (rc != Continue)
            return rc;
        rc = LoadSegment((ushort)selector, VCPU_SREG_CS, ops.GetCpl(vcpu), Transfer.Ret, out kvm_segment cs);
        if (rc != Continue)
            return rc;
        rc = AssignEipFar(eip, bytes, cs);
        if (rc != Continue)
            return Unhandleable;
        if (insn.OpCount == 1)
            RspIncrement(insn.Immediate16);
        return Continue;
    }

    private int InterruptReturn()
    {
        // Protected mode is left to the processor.
        if (Mode != EmulMode.Real)
            return Unhandleable;
        int rc = Pop(out ulong eip, opBytes);
        if (rc != Continue)
            return rc;
        if ((eip & ~0xfffful) != 0)
            return Gp(0);
        rc = Pop(out ulong selector, opBytes);
        if (rc != Continue)
            return rc;
        rc = Pop(out ulong value, opBytes);
        if (rc != Continue)
            return rc;
        rc = LoadSegment((ushort)selector, VCPU_SREG_CS, 0, Transfer.None, out kvm_segment _);
        if (rc != Continue)
            return rc;
        NextEip = eip;
        const ulong Vm86Bits = X86_EFLAGS_VM | X86_EFLAGS_VIF | X86_EFLAGS_VIP;
        Eflags = opBytes == 4 ? (value & IretMask) | (Eflags & Vm86Bits) : (Eflags & ~0xfffful) | (ushort)value;
        Eflags = (Eflags & ~FlagsReservedZero) | X86_EFLAGS_FIXED;
        ops.SetNmiMask(vcpu, false);
        return Continue;
    }

    private int SoftInterrupt(int vector) => Mode == EmulMode.Real ? InterruptReal(vector) : Unhandleable;

    /// <summary>emulate_int_real: through the interrupt vector table.</summary>
    private int InterruptReal(int vector)
    {
        int bytes = opBytes == 0 ? 2 : opBytes;
        int rc = Push(Eflags, bytes);
        if (rc != Continue)
            return rc;
        Eflags &= ~(X86_EFLAGS_IF | X86_EFLAGS_TF | X86_EFLAGS_AC);
        ops.GetSegment(vcpu, out kvm_segment cs, VCPU_SREG_CS);
        rc = Push(cs.selector, bytes);
        if (rc != Continue)
            return rc;
        rc = Push(NextEip, bytes);
        if (rc != Continue)
            return rc;
        ops.GetIdt(vcpu, out DescPtr idt);
        uint entry = 0;
        rc = LinearReadSystem(idt.Address + ((uint)vector << 2), &entry, 4);
        if (rc != Continue)
            return rc;
        rc = LoadSegment((ushort)(entry >> 16), VCPU_SREG_CS, 0, Transfer.None, out kvm_segment _);
        if (rc == Continue)
            NextEip = (ushort)entry;
        return rc;
    }

    /// <summary>kvm_inject_realmode_interrupt: enters the handler of an event on behalf of a guest in real mode; false for an unhandled fault.</summary>
    internal bool InjectRealmodeInterrupt(int vector, int incEip)
    {
        Init();
        opBytes = 2;
        adBytes = 2;
        NextEip = Eip + (uint)incEip;
        if (InterruptReal(vector) != Continue)
            return false;
        Eip = NextEip;
        WritebackRegisterCache();
        return true;
    }

    // ---- fast system calls ----

    private static void FlatSegments(out kvm_segment cs, out kvm_segment ss)
    {
        cs = new kvm_segment { limit = 0xffffffff, g = 1, s = 1, type = 0x0b, present = 1, db = 1 };
        ss = new kvm_segment { limit = 0xffffffff, g = 1, s = 1, type = 0x03, present = 1, db = 1 };
    }

    private ulong GetMsr(uint index) => vcpu.GetMsr(index, out ulong data) == 0 ? data : 0;

    private void SetCodeAndStack(kvm_segment cs, kvm_segment ss, ushort csSelector, ushort ssSelector)
    {
        cs.selector = csSelector;
        ss.selector = ssSelector;
        ops.SetSegment(vcpu, cs, VCPU_SREG_CS);
        ops.SetSegment(vcpu, ss, VCPU_SREG_SS);
    }

    private int Syscall()
    {
        if (Mode is EmulMode.Real or EmulMode.Vm86 || (Mode != EmulMode.Prot64 && !vcpu.IsAmdCompatible))
            return Ud();
        ulong efer = GetMsr(MsrIndex.MSR_EFER);
        if ((efer & EFER_SCE) == 0)
            return Ud();
        FlatSegments(out kvm_segment cs, out kvm_segment ss);
        ulong star = GetMsr(MsrIndex.MSR_STAR);
        bool longMode = (efer & EFER_LMA) != 0;
        if (longMode)
        {
            cs.db = 0;
            cs.l = 1;
        }

        SetCodeAndStack(cs, ss, (ushort)((star >> 32) & 0xfffc), (ushort)((star >> 32) + 8));
        RegWrite(RCX, NextEip);
        if (longMode)
        {
            RegWrite(11, Eflags);
            NextEip = GetMsr(Mode == EmulMode.Prot64 ? MsrIndex.MSR_LSTAR : MsrIndex.MSR_CSTAR);
            Eflags = (Eflags & ~GetMsr(MsrIndex.MSR_SYSCALL_MASK)) | X86_EFLAGS_FIXED;
            Mode = EmulMode.Prot64;
        }
        else
        {
            NextEip = (uint)star;
            Eflags &= ~(X86_EFLAGS_VM | X86_EFLAGS_IF);
        }

        Tf = (Eflags & X86_EFLAGS_TF) != 0;
        return Continue;
    }

    private int Sysenter()
    {
        ulong efer = GetMsr(MsrIndex.MSR_EFER);
        bool longMode = (efer & EFER_LMA) != 0;
        if (Mode == EmulMode.Real)
            return Gp(0);
        if (Mode != EmulMode.Prot64 && longMode && vcpu.IsAmdCompatible)
            return Ud();
        if (Mode == EmulMode.Prot64)
            return Unhandleable;
        ulong selector = GetMsr(MsrIndex.MSR_IA32_SYSENTER_CS);
        if ((selector & 0xfffc) == 0)
            return Gp(0);
        FlatSegments(out kvm_segment cs, out kvm_segment ss);
        Eflags &= ~(X86_EFLAGS_VM | X86_EFLAGS_IF);
        if (longMode)
        {
            cs.db = 0;
            cs.l = 1;
        }

        ushort csSelector = (ushort)(selector & 0xfffc);
        SetCodeAndStack(cs, ss, csSelector, (ushort)(csSelector + 8));
        ulong eip = GetMsr(MsrIndex.MSR_IA32_SYSENTER_EIP);
        ulong esp = GetMsr(MsrIndex.MSR_IA32_SYSENTER_ESP);
        NextEip = longMode ? eip : (uint)eip;
        RegWrite(RSP, longMode ? esp : (uint)esp);
        if (longMode)
            Mode = EmulMode.Prot64;
        return Continue;
    }

    private int Sysexit()
    {
        if (Mode is EmulMode.Real or EmulMode.Vm86)
            return Gp(0);
        FlatSegments(out kvm_segment cs, out kvm_segment ss);
        bool to64 = insn.Code == Code.Sysexitq;
        ulong rsp = RegRead(RCX);
        ulong rip = RegRead(RDX);
        cs.dpl = ss.dpl = 3;
        ulong msr = GetMsr(MsrIndex.MSR_IA32_SYSENTER_CS);
        ushort csSelector;
        ushort ssSelector;
        if (to64)
        {
            if (msr == 0 || vcpu.IsNoncanonicalAddress(rsp) || vcpu.IsNoncanonicalAddress(rip))
                return Gp(0);
            csSelector = (ushort)(msr + 32);
            ssSelector = (ushort)(csSelector + 8);
            cs.db = 0;
            cs.l = 1;
        }
        else
        {
            if ((msr & 0xfffc) == 0)
                return Gp(0);
            csSelector = (ushort)(msr + 16);
            ssSelector = (ushort)(msr + 24);
            rsp = (uint)rsp;
            rip = (uint)rip;
        }

        SetCodeAndStack(cs, ss, (ushort)(csSelector | 3), (ushort)(ssSelector | 3));
        NextEip = rip;
        Mode = to64 ? EmulMode.Prot64 : EmulMode.Prot32;
        RegWrite(RSP, rsp);
        return Continue;
    }
}
