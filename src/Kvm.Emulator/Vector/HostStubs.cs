using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using IcedMemory = Iced.Intel.MemoryOperand;

namespace Kvm.Emulator.Vector;

/// <summary>
/// Turns a guest's vector or x87 instruction into a small host function that executes the very same instruction on the state block: its registers are
/// loaded, the instruction runs with its memory operand replaced by the operand area, its results are stored. Exact by construction.
/// </summary>
/// <remarks>
/// The function gets the state block in RDI and the operand area in RSI. Vector registers keep their numbers; general registers become RAX, RDX, RCX.
/// x87 and MMX instructions run between FXRSTOR and FXSAVE; FNINIT leaves the host's x87 unit empty and masked. Host MXCSR is put back.
/// </remarks>
internal sealed unsafe class HostStubs
{
    private static readonly Register[] generalRegisters = [Register.RAX, Register.RDX, Register.RCX];
    private readonly List<Instruction> code = [];
    private readonly Dictionary<Register, Register> renamed = [];
    private static readonly int gprOffset, fxOffset, ymmOffset;
    private readonly InstructionInfoFactory infoFactory = new();

    static HostStubs()
    {
        CpuState state = default;
        byte* start = (byte*)&state;
        gprOffset = (int)((byte*)state.Gpr - start);
        fxOffset = (int)(state.Fx - start);
        ymmOffset = (int)(state.YmmHi - start);
    }

    /// <summary>The host executes instructions of all these features.</summary>
    internal static bool HostHas(Code instruction)
    {
        foreach (CpuidFeature feature in instruction.CpuidFeatures())
        {
            if (!HostHas(feature))
                return false;
        }
        return HostCode.Supported;
    }

    private static bool HostHas(CpuidFeature feature) => feature switch
    {
        CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387 or CpuidFeature.MMX or CpuidFeature.SSE or CpuidFeature.SSE2 or CpuidFeature.CMOV => true,
        CpuidFeature.SSE3 => Sse3.IsSupported,
        CpuidFeature.SSSE3 => Ssse3.IsSupported,
        CpuidFeature.SSE4_1 => Sse41.IsSupported,
        CpuidFeature.SSE4_2 => Sse42.IsSupported,
        CpuidFeature.AES => Aes.IsSupported,
        CpuidFeature.PCLMULQDQ => Pclmulqdq.IsSupported,
        CpuidFeature.SHA => Cpuid(7, 0).Ebx >> 29 is var b && (b & 1) != 0,
        CpuidFeature.SSE4A => (Cpuid(unchecked((int)0x80000001), 0).Ecx >> 6 & 1) != 0,
        CpuidFeature.GFNI => (Cpuid(7, 0).Ecx >> 8 & 1) != 0 && Avx.IsSupported,
        CpuidFeature.VAES => (Cpuid(7, 0).Ecx >> 9 & 1) != 0 && Avx2.IsSupported,
        CpuidFeature.VPCLMULQDQ => (Cpuid(7, 0).Ecx >> 10 & 1) != 0 && Avx2.IsSupported,
        CpuidFeature.AVX => Avx.IsSupported,
        CpuidFeature.AVX2 => Avx2.IsSupported,
        CpuidFeature.FMA => Fma.IsSupported,
        CpuidFeature.F16C => Avx.IsSupported && (Cpuid(1, 0).Ecx >> 29 & 1) != 0,
        _ => false,
    };

    private static (uint Eax, uint Ebx, uint Ecx, uint Edx) Cpuid(int leaf, int subleaf)
    {
        (int a, int b, int c, int d) = X86Base.CpuId(leaf, subleaf);
        return ((uint)a, (uint)b, (uint)c, (uint)d);
    }

    /// <summary>The host function for an instruction, null when the memory for code is used up or the instruction has no such form.</summary>
    internal void* Compile(in Instruction guest, VectorFlags flags)
    {
        code.Clear();
        renamed.Clear();
        Instruction body = guest;
        if (!IsPlain(guest.Mnemonic) || !Rename(ref body))
            return null;
        bool legacyUnit = (flags & (VectorFlags.X87 | VectorFlags.Mmx)) != 0;
        bool vex = (flags & VectorFlags.Avx) != 0;
        bool mxcsr = legacyUnit || (flags & VectorFlags.Float) != 0;
        InstructionInfo info = infoFactory.GetInfo(guest);
        if (mxcsr)
            Emit(Instruction.Create(Code.Stmxcsr_m32, Area(VectorUnit.HostMxcsrOffset)));
        if (legacyUnit)
            Emit(Instruction.Create(Code.Fxrstor64_m512byte, State(fxOffset)));
        else
            LoadVectors(info, vex);
        if (mxcsr && !legacyUnit)
            Emit(Instruction.Create(Code.Ldmxcsr_m32, State(fxOffset + VectorUnit.FxMxcsr)));
        foreach ((Register from, Register to) in renamed)
            Emit(Instruction.Create(Code.Mov_r64_rm64, to, State(gprOffset + from.GetNumber() * 8)));
        if ((flags & VectorFlags.ReadsFlags) != 0)
        {
            Emit(Instruction.Create(Code.Push_rm64, Area(VectorUnit.FlagsOffset)));
            Emit(Instruction.Create(Code.Popfq));
        }
        Emit(body);
        if ((flags & VectorFlags.WritesFlags) != 0)
        {
            Emit(Instruction.Create(Code.Pushfq));
            Emit(Instruction.Create(Code.Pop_rm64, Area(VectorUnit.FlagsOffset)));
        }
        foreach ((Register from, Register to) in renamed)
        {
            if (Written(info, from))
                Emit(Instruction.Create(Code.Mov_rm64_r64, State(gprOffset + from.GetNumber() * 8), to));
        }
        if (legacyUnit)
        {
            Emit(Instruction.Create(Code.Fxsave64_m512byte, State(fxOffset)));
            Emit(Instruction.Create(Code.Fninit));
        }
        else
        {
            StoreVectors(info, guest, vex);
        }
        if (mxcsr)
        {
            if (!legacyUnit)
                Emit(Instruction.Create(Code.Stmxcsr_m32, State(fxOffset + VectorUnit.FxMxcsr)));
            Emit(Instruction.Create(Code.Ldmxcsr_m32, Area(VectorUnit.HostMxcsrOffset)));
        }
        if (vex)
            Emit(Instruction.Create(Code.VEX_Vzeroupper));
        Emit(Instruction.Create(Code.Retnq));
        return Place();
    }

    /// <summary>
    /// Not those whose memory operand is not simply its bytes (masked, gathered, dependent on the mode), and not those that would load control registers
    /// with values that the host might refuse.
    /// </summary>
    private static bool IsPlain(Mnemonic mnemonic) => mnemonic is not (Mnemonic.Ldmxcsr or Mnemonic.Stmxcsr or Mnemonic.Vldmxcsr or Mnemonic.Vstmxcsr
        or Mnemonic.Fldenv or Mnemonic.Fnstenv or Mnemonic.Fstenv or Mnemonic.Fnsave or Mnemonic.Fsave or Mnemonic.Frstor or Mnemonic.Fldcw or Mnemonic.Fnstcw
        or Mnemonic.Fxsave or Mnemonic.Fxsave64 or Mnemonic.Fxrstor or Mnemonic.Fxrstor64 or Mnemonic.Maskmovq or Mnemonic.Maskmovdqu or Mnemonic.Vmaskmovdqu
        or Mnemonic.Vmaskmovps or Mnemonic.Vmaskmovpd or Mnemonic.Vpmaskmovd or Mnemonic.Vpmaskmovq);

    /// <summary>Memory operand to the area, general registers to those of the calling convention that are free.</summary>
    private bool Rename(ref Instruction body)
    {
        for (int i = 0; i < body.OpCount; i++)
        {
            if (body.GetOpKind(i) == OpKind.Memory)
            {
                if (body.IsVsib)
                    return false;
                body.MemoryBase = Register.RSI;
                body.MemoryIndex = Register.None;
                body.MemoryIndexScale = 1;
                body.MemoryDisplacement64 = 0;
                body.MemoryDisplSize = 0;
                body.SegmentPrefix = Register.None;
            }
            else if (body.GetOpKind(i) == OpKind.Register && body.GetOpRegister(i).IsGPR())
            {
                if (body.GetOpRegister(i) == Register.AX && body.Code is Code.Fnstsw_AX)
                    return false;
                Register full = body.GetOpRegister(i).GetFullRegister();
                if (!renamed.TryGetValue(full, out Register to))
                    renamed[full] = to = generalRegisters[renamed.Count];
                body.SetOpRegister(i, Same(body.GetOpRegister(i), to));
            }
            else if (body.GetOpKind(i) is not (OpKind.Register or OpKind.Immediate8 or OpKind.Immediate8_2nd))
            {
                return false;
            }
        }
        // Lengths in (E|R)AX and (E|R)DX, an index out in ECX.
        string name = body.Mnemonic.ToString();
        bool index = name.Contains("cmpestri", StringComparison.Ordinal) || name.Contains("cmpistri", StringComparison.Ordinal);
        if (name.Contains("cmpestr", StringComparison.Ordinal))
        {
            renamed[Register.RAX] = Register.RAX;
            renamed[Register.RDX] = Register.RDX;
        }
        if (index)
            renamed[Register.RCX] = Register.RCX;
        return true;
    }

    private static Register Same(Register form, Register to)
    {
        int number = to.GetNumber();
        return form.IsGPR64() ? Register.RAX + number : form.IsGPR32() ? Register.EAX + number : form.IsGPR16() ? Register.AX + number : Register.AL + number;
    }

    private static bool Written(InstructionInfo info, Register full)
    {
        foreach (UsedRegister used in info.GetUsedRegisters())
        {
            if (used.Register.IsGPR() && used.Register.GetFullRegister() == full && IsWrite(used.Access))
                return true;
        }
        return false;
    }

    private static bool IsWrite(OpAccess access) => access is OpAccess.Write or OpAccess.CondWrite or OpAccess.ReadWrite or OpAccess.ReadCondWrite;

    private void LoadVectors(InstructionInfo info, bool vex)
    {
        // A register is listed once for each way it is used: whole for what is written, in the width that is read.
        uint all = 0, wide = 0;
        foreach (UsedRegister used in info.GetUsedRegisters())
        {
            if (!used.Register.IsVectorRegister())
                continue;
            all |= 1u << used.Register.GetNumber();
            if (used.Register.IsYMM())
                wide |= 1u << used.Register.GetNumber();
        }
        for (int n = 0; n < 16; n++)
        {
            if ((all >> n & 1) == 0)
                continue;
            Register xmm = Register.XMM0 + n;
            IcedMemory low = State(fxOffset + VectorUnit.FxXmm + n * 16);
            Emit(vex ? Instruction.Create(Code.VEX_Vmovups_xmm_xmmm128, xmm, low) : Instruction.Create(Code.Movups_xmm_xmmm128, xmm, low));
            if (vex && (wide >> n & 1) != 0)
                Emit(Instruction.Create(Code.VEX_Vinsertf128_ymm_ymm_xmmm128_imm8, Register.YMM0 + n, Register.YMM0 + n, State(ymmOffset + n * 16), 1));
        }
    }

    /// <summary>VEX-encoded instructions write whole registers: what they report as a YMM write is stored in both halves.</summary>
    private void StoreVectors(InstructionInfo info, in Instruction guest, bool vex)
    {
        ulong done = 0;
        foreach (UsedRegister used in info.GetUsedRegisters())
        {
            if (!used.Register.IsVectorRegister() || !IsWrite(used.Access))
                continue;
            int n = used.Register.GetNumber();
            if ((done >> n & 1) != 0)
                continue;
            done |= 1UL << n;
            IcedMemory low = State(fxOffset + VectorUnit.FxXmm + n * 16);
            Emit(vex ? Instruction.Create(Code.VEX_Vmovups_xmmm128_xmm, low, Register.XMM0 + n) : Instruction.Create(Code.Movups_xmmm128_xmm, low, Register.XMM0 + n));
            if (vex)
                Emit(Instruction.Create(Code.VEX_Vextractf128_xmmm128_ymm_imm8, State(ymmOffset + n * 16), Register.YMM0 + n, 1));
        }
    }

    private static IcedMemory State(int offset) => new(Register.RDI, offset, 1);

    private static IcedMemory Area(int offset) => new(Register.RSI, offset, 1);

    private void Emit(in Instruction instruction) => code.Add(instruction);

    private void* Place()
    {
        var writer = new ByteWriter();
        Encoder encoder = Encoder.Create(64, writer);
        foreach (Instruction instruction in code)
        {
            if (!encoder.TryEncode(instruction, (ulong)writer.Bytes.Count, out _, out _))
                return null;
        }
        return HostCode.Add(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(writer.Bytes));
    }

    private sealed class ByteWriter : CodeWriter
    {
        internal List<byte> Bytes { get; } = [];

        public override void WriteByte(byte value) => Bytes.Add(value);
    }
}
