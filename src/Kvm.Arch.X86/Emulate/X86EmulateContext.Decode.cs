using Iced.Intel;
using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.EmulFlags;
using static Kvm.Arch.X86.VcpuSreg;

namespace Kvm.Arch.X86;

/// <remarks>Fetching and decoding.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    private readonly FetchReader code;
    private readonly Decoder decoder16;
    private readonly Decoder decoder32;
    private readonly Decoder decoder64;
    private readonly byte[] fetch = new byte[DecodedInstruction.Bytes];
    private int fetchLength;
    private Instruction insn;
    private EmulFlags flags;
    private EmulOperand dst;
    private EmulOperand src;
    private EmulOperand src2;
    private int opBytes;
    private int adBytes;
    private byte repPrefix;
    private bool lockPrefix;
    private byte rex;
    private byte opcode;
    private bool operandSizePrefix;
    private bool dropRepeat;
    private bool dropOperandSize;
    private int prefixLength;
    private int droppedPrefixes;
    private bool aligned;

    /// <summary>The port of IN, OUT, INS and OUTS, as DX or the immediate had it when the instruction was decoded.</summary>
    private ushort port;

    /// <summary>modrm_ea: the address of the memory operand.</summary>
    private ulong modrmEa;

    /// <summary>The bytes fetched so far, for a report.</summary>
    internal ReadOnlySpan<byte> FetchedBytes => fetch.AsSpan(0, fetchLength);

    /// <summary>The bytes of the decoded instruction; all that were fetched when it could not be decoded.</summary>
    internal ReadOnlySpan<byte> DecodedBytes => NextEip > Eip && NextEip - Eip <= (uint)fetchLength ? fetch.AsSpan(0, (int)(NextEip - Eip)) : FetchedBytes;

    internal byte* IoData => ioRead;

    /// <summary>emulator_can_use_gpa: the access is the one that faulted.</summary>
    internal bool CanUseGpa
    {
        get
        {
            FunctionTrace.Leaf("emulator_can_use_gpa");
            return (flags & TwoMemOp) == 0 && !(repPrefix != 0 && (flags & StringOp) != 0);
        }
    }

    /// <summary>x86_page_table_writing_insn.</summary>
    internal bool IsPageTableWriting => (flags & PageTable) != 0;

    /// <summary>is_vmware_backdoor_opcode: IN, OUT, INS, OUTS, RDPMC.</summary>
    internal bool IsVmwareBackdoorOpcode => (flags & (PortIn | PortOut)) != 0 || insn.Mnemonic == Mnemonic.Rdpmc;

    /// <summary>is_soft_int_instruction.</summary>
    internal bool IsSoftInterrupt(byte vector) => insn.Mnemonic switch
    {
        Mnemonic.Int3 => vector == 3,
        Mnemonic.Into => vector == 4,
        Mnemonic.Int => vector == insn.Immediate8,
        _ => false,
    };

    private sealed class FetchReader(X86EmulateContext ctxt) : CodeReader
    {
        internal int Position;

        /// <summary>Why a byte could not be had; Continue while all went well.</summary>
        internal int Result;

        public override int ReadByte()
        {
            while (Position < ctxt.prefixLength && ctxt.IsDropped(ctxt.fetch[Position]))
                Position++;
            return Next();
        }

        /// <summary>The next byte as the guest has it.</summary>
        internal int Next()
        {
            if (Position >= ctxt.fetchLength)
            {
                if (Result != Continue)
                    return -1;
                Result = ctxt.FetchBytes(1);
                if (Result != Continue)
                    return -1;
            }

            return ctxt.fetch[Position++];
        }
    }

    /// <summary>__do_insn_fetch_bytes: as many bytes as the page, the segment and 15 allow.</summary>
    [KernelFunction("__do_insn_fetch_bytes", File = "arch/x86/kvm/emulate.c")]
    private int FetchBytes(uint atLeast)
    {
        using var _ = FunctionTrace.Enter("__do_insn_fetch_bytes");
        int rc = Linearize(VCPU_SREG_CS, Eip + (uint)fetchLength, 0, false, fetch: true, Mode, out ulong linear, out ulong maxSize);
        if (rc != Continue)
            return rc;
        uint size = (uint)Math.Min((ulong)(15 - fetchLength), maxSize);
        size = (uint)Math.Min(size, 0x1000 - (linear & 0xfff));
        if (size < atLeast)
            return Gp(0);
        rc = vcpu.FetchGuestVirt(linear, fetch.AsSpan(fetchLength, (int)size), out X86Exception fault);
        if (rc == PropagateFault)
            Exception = fault;
        if (rc != Continue)
            return rc == IoNeeded ? Unhandleable : rc;
        fetchLength += (int)size;
        return Continue;
    }

    /// <summary>x86_decode_insn: EmulationOk or EmulationFailed; in the latter case <see cref="HaveException"/> tells a fault of the fetch.</summary>
    [KernelFunction("x86_decode_insn", File = "arch/x86/kvm/emulate.c")]
    internal int Decode(ReadOnlySpan<byte> bytes, EmulType emulType)
    {
        using var _ = FunctionTrace.Enter("x86_decode_insn");
        NextEip = Eip;
        flags = None;
        aligned = false;
        dst = src = src2 = default;
        fetchLength = Math.Min(bytes.Length, 15);
        bytes[..fetchLength].CopyTo(fetch);
        code.Position = 0;
        code.Result = Continue;
        if (fetchLength == 0 && (code.Result = FetchBytes(1)) != Continue)
            return DecodeFault();

        Decoder decoder = SelectDecoder(out int defOp, out int defAd);
        ref DecodedInstruction memo = ref decoded[(int)Eip & (DecodedInstructions - 1)];
        if (memo.IsOf(decoder, Eip, fetch, fetchLength))
        {
            Recall(memo);
            return Finish(emulType);
        }

        ScanPrefixes(defOp, defAd);
        EmulFlags undefined = ReadOpcode();
        if (code.Result != Continue)
            return DecodeFault();
        if (undefined != None)
        {
            insn = default;
            flags = undefined;
            return undefined == Unknown ? EmulationFailed : EmulationOk;
        }

        code.Position = 0;
        decoder.IP = Eip + (uint)droppedPrefixes;
        decoder.Decode(out insn);
        if (code.Result != Continue)
            return DecodeFault();
        if (insn.IsInvalid)
            return EmulationFailed;
        flags = EmulTable.Of(insn);
        if (flags == None)
            return EmulationFailed;
        Remember(ref memo, decoder);
        return Finish(emulType);
    }

    /// <summary>What follows the decoder: everything that depends on registers.</summary>
    private int Finish(EmulType emulType)
    {
        if ((emulType & EmulType.EMULTYPE_TRAP_UD) != 0 && (flags & EmulateOnUd) == 0)
            return EmulationFailed;
        IsBranch = (flags & Branch) != 0;
        NextEip = Eip + (uint)code.Position;
        aligned = (flags & Aligned) != 0;
        DecodeOperands();
        return EmulationOk;
    }

    private int DecodeFault()
    {
        HaveException = code.Result == PropagateFault;
        return EmulationFailed;
    }

    private Decoder SelectDecoder(out int opSize, out int addressSize)
    {
        switch (Mode)
        {
            case EmulMode.Prot64:
                opSize = 4;
                addressSize = 8;
                return decoder64;
            case EmulMode.Prot32:
                opSize = addressSize = 4;
                return decoder32;
            case EmulMode.Prot16:
                opSize = addressSize = 2;
                return decoder16;
            default:
                kvm_segment cs;
                using (FunctionTrace.Enter("emulator_get_segment"))
                    ops.GetSegment(vcpu, out cs, VCPU_SREG_CS);
                opSize = addressSize = cs.db != 0 ? 4 : 2;
                return cs.db != 0 ? decoder32 : decoder16;
        }
    }

    /// <summary>The prefixes, in any number and order; a REX prefix counts directly before the opcode.</summary>
    private void ScanPrefixes(int defOp, int defAd)
    {
        opBytes = defOp;
        adBytes = defAd;
        repPrefix = 0;
        lockPrefix = operandSizePrefix = false;
        prefixLength = droppedPrefixes = 0;
        byte rexByte = 0;
        for (int next; (next = code.Next()) >= 0; prefixLength++)
        {
            byte b = (byte)next;
            if (Mode == EmulMode.Prot64 && (b & 0xf0) == 0x40)
            {
                rexByte = b;
                continue;
            }

            switch (b)
            {
                case 0x66:
                    operandSizePrefix = true;
                    opBytes = defOp ^ 6;
                    break;
                case 0x67: adBytes = Mode == EmulMode.Prot64 ? defAd ^ 12 : defAd ^ 6; break;
                case 0xf0: lockPrefix = true; break;
                case 0xf2 or 0xf3: repPrefix = b; break;
                case 0x26 or 0x2e or 0x36 or 0x3e or 0x64 or 0x65: break;
                default:
                    rex = rexByte;
                    if ((rexByte & 8) != 0)
                        opBytes = 8;
                    opcode = b;
                    return;
            }

            rexByte = 0;
        }
    }

    /// <summary>
    /// The opcode behind the prefixes: not None when the kernel's tables give it up (Unknown) or raise #UD for what the decoder would not tell from an unknown
    /// instruction. Decides which prefixes the decoder gets to see.
    /// </summary>
    private EmulFlags ReadOpcode()
    {
        if (code.Result != Continue)
            return None;
        int map = 1;
        if (opcode == 0x0f)
        {
            map = 2;
            opcode = (byte)code.Next();
            if (opcode == 0x38 && code.Result == Continue)
            {
                map = 3;
                opcode = (byte)code.Next();
            }
        }

        byte modrm = 0;
        if (code.Result == Continue && EmulOpcodes.NeedsModRm(map, opcode))
            modrm = (byte)code.Next();
        if (code.Result != Continue)
            return None;
        bool selects = EmulOpcodes.PrefixSelects(map, opcode, modrm);
        if (selects && operandSizePrefix && repPrefix != 0)
            return Unknown;
        dropRepeat = !selects;
        dropOperandSize = EmulOpcodes.IgnoresOperandSize(map, opcode, modrm);
        for (int i = 0; i < prefixLength; i++)
            droppedPrefixes += IsDropped(fetch[i]) ? 1 : 0;
        return EmulOpcodes.Verdict(Mode == EmulMode.Prot64, map, opcode, modrm, (rex & 4) << 1, operandSizePrefix || repPrefix != 0);
    }

    /// <summary>
    /// The decoder takes prefixes that the kernel ignores for other instructions, or refuses them: LOCK, which is checked later, and what selects none of the kernel's
    /// instructions.
    /// </summary>
    private bool IsDropped(byte prefix) => prefix switch
    {
        0xf0 => true,
        0xf2 or 0xf3 => dropRepeat,
        0x66 => dropOperandSize,
        _ => false,
    };

    // ---- operands ----

    private void DecodeOperands()
    {
        int count = insn.OpCount;
        for (int i = 0; i < count; i++)
        {
            if (insn.GetOpKind(i) == OpKind.Memory)
                modrmEa = EffectiveAddress();
        }

        // An absent operand is looked at too.
        // The kernel's source of CMPS and SCAS is the manual's first operand.
        bool reversed = (flags & (StringOp | NoWrite | PortOut)) == (StringOp | NoWrite);
        DecodeOperand(reversed ? 0 : 1, ref src);
        DecodeOperand(2, ref src2);
        DecodeOperand(reversed ? 1 : 0, ref dst);
        if ((flags & (PortIn | PortOut)) != 0)
        {
            ref EmulOperand at = ref (flags & PortIn) != 0 ? ref src : ref dst;
            port = at.Type == EmulOperand.Kind.Imm ? (byte)at.Val : (ushort)regs[at.Reg];
        }

        if ((flags & BitOp) != 0 && src.Type == EmulOperand.Kind.Reg && dst.Type == EmulOperand.Kind.Mem)
            BitOffset();
    }

    [KernelFunction("decode_operand", File = "arch/x86/kvm/emulate.c")]
    private void DecodeOperand(int index, ref EmulOperand op)
    {
        using var _ = FunctionTrace.Enter("decode_operand");
        if (index >= insn.OpCount)
            return;
        switch (insn.GetOpKind(index))
        {
            case OpKind.Register:
                DecodeRegister(insn.GetOpRegister(index), ref op);
                break;
            case OpKind.Memory:
                op.Type = EmulOperand.Kind.Mem;
                op.Bytes = MemoryBytes();
                op.Seg = SegmentIndex(insn.MemorySegment);
                op.Ea = modrmEa;
                break;
            case OpKind.MemorySegSI or OpKind.MemorySegESI or OpKind.MemorySegRSI:
                StringOperand(ref op, SegmentIndex(insn.MemorySegment), 6);
                break;
            case OpKind.MemorySegDI or OpKind.MemorySegEDI or OpKind.MemorySegRDI:
                StringOperand(ref op, SegmentIndex(insn.MemorySegment), 7);
                break;
            case OpKind.MemoryESDI or OpKind.MemoryESEDI or OpKind.MemoryESRDI:
                StringOperand(ref op, VCPU_SREG_ES, 7);
                break;
            case OpKind.NearBranch16 or OpKind.NearBranch32 or OpKind.NearBranch64:
                op.Type = EmulOperand.Kind.Imm;
                op.Val = insn.NearBranchTarget;
                op.Bytes = insn.GetOpKind(index) switch { OpKind.NearBranch16 => 2, OpKind.NearBranch32 => 4, _ => 8 };
                break;
            case OpKind.FarBranch16:
                op.Type = EmulOperand.Kind.Imm;
                op.Val = insn.FarBranch16;
                op.ValHigh = insn.FarBranchSelector;
                op.Bytes = 2;
                break;
            case OpKind.FarBranch32:
                op.Type = EmulOperand.Kind.Imm;
                op.Val = insn.FarBranch32;
                op.ValHigh = insn.FarBranchSelector;
                op.Bytes = 4;
                break;
            default:
                op.Type = EmulOperand.Kind.Imm;
                op.Val = insn.GetImmediate(index);
                op.Bytes = opBytes;
                break;
        }
    }

    private int MemoryBytes()
    {
        int size = insn.MemorySize.GetSize();
        return size != 0 ? size : opBytes;
    }

    private void StringOperand(ref EmulOperand op, int seg, int reg)
    {
        op.Type = EmulOperand.Kind.Mem;
        op.Bytes = MemoryBytes();
        op.Seg = seg;
        op.Ea = AddressMask(RegRead(reg));
        op.Count = 1;
    }

    [KernelFunction("decode_register", File = "arch/x86/kvm/emulate.c")]
    private void DecodeRegister(Register register, ref EmulOperand op)
    {
        op.Bytes = register.GetSize();
        op.Reg = register.GetNumber();
        if (register.IsGPR8())
        {
            op.Type = EmulOperand.Kind.Reg;
            op.HighByte = register is Register.AH or Register.CH or Register.DH or Register.BH;
            op.Reg = register.GetFullRegister().GetNumber();
            GeneralRegister(op.Reg);
        }
        else if (register.IsGPR())
        {
            op.Type = EmulOperand.Kind.Reg;
            GeneralRegister(op.Reg);
        }
        else if (register.IsSegmentRegister())
        {
            op.Type = EmulOperand.Kind.Sreg;
            op.Reg = SegmentIndex(register);
            op.Bytes = 2;
        }
        else
        {
            op.Type = register.IsXMM() ? EmulOperand.Kind.Xmm : register.IsMM() ? EmulOperand.Kind.Mm : register.IsCR() ? EmulOperand.Kind.Cr : register.IsDR() ? EmulOperand.Kind.Dr : EmulOperand.Kind.None;
        }
    }

    private void GeneralRegister(int reg)
    {
        using (FunctionTrace.Enter("decode_register"))
            RegModify(reg);
        FunctionTrace.Leaf("fetch_register_operand");
    }

    private static int SegmentIndex(Register register) => register switch
    {
        Register.ES => VCPU_SREG_ES,
        Register.CS => VCPU_SREG_CS,
        Register.SS => VCPU_SREG_SS,
        Register.FS => VCPU_SREG_FS,
        Register.GS => VCPU_SREG_GS,
        _ => VCPU_SREG_DS,
    };

    private ulong AddressMask(ulong value) => OperandSize.Truncate(value, adBytes);

    private static int ScaleShift(int scale) => scale switch { 2 => 1, 4 => 2, 8 => 3, _ => 0 };

    private ulong EffectiveAddress()
    {
        if (insn.IsIPRelativeMemoryOperand)
            return AddressMask(insn.IPRelativeMemoryAddress);
        if (adBytes == 2)
        {
            // The kernel has the four address registers at hand before it looks which ones the instruction names.
            RegRead(RBX);
            RegRead(RBP);
            RegRead(RSI);
            RegRead(RDI);
        }

        ulong from = 0;
        Register b = insn.MemoryBase;
        if (b != Register.None)
        {
            from = RegRead(b.GetNumber());

            // POP's address is formed with the stack pointer after the pop.
            if (b.GetNumber() == RSP && insn.Mnemonic == Mnemonic.Pop)
                from += (uint)insn.StackPointerIncrement;
        }

        Register index = insn.MemoryIndex;
        ulong scaled = index != Register.None ? RegRead(index.GetNumber()) : 0;
        return OperandSize.Address(from, scaled, ScaleShift(insn.MemoryIndexScale), insn.MemoryDisplacement64, adBytes);
    }

    /// <summary>fetch_bit_operand: the bit offset in a register is signed and reaches any word of memory around the operand.</summary>
    private void BitOffset()
    {
        dst.Ea = AddressMask(dst.Ea + OperandSize.BitStringOffset(RegRead(src.Reg, false, src.Bytes), src.Bytes));
    }
}
