using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using Kvm.Emulator.Engine;
using IcedMemory = Iced.Intel.MemoryOperand;
using OpKind = Iced.Intel.OpKind;

namespace Kvm.Emulator.Vector;

/// <summary>
/// Turns a guest's vector or x87 instruction into a small host function that executes the very same instruction on the state block: its registers are
/// loaded, the instruction runs with its memory operand replaced by the operand area, its results are stored. Exact by construction.
/// </summary>
/// <remarks>
/// The function gets the state block in RDI, the operand area in RSI and sixteen times the numbers of the registers in ModRM.reg, ModRM.rm, VEX.vvvv and /is4 in
/// RDX, RCX, R8 and R9, so one function serves all registers; only those of x87 and MMX instructions are part of it. Vector operands become XMM1–XMM4 (XMM0 is implicit in some
/// instructions), general registers RAX, R10, R11. x87 and MMX instructions run between FXRSTOR and FXSAVE; FNINIT leaves the host's x87 unit empty and masked.
/// Host MXCSR is put back.
/// </remarks>
internal sealed unsafe class HostStubs
{
    /// <summary>Where an operand's register is found: what the function is called with, and what stands for it in the function.</summary>
    private readonly record struct Slot(OperandRole Role, Register Index, Register Vector, Register General);

    private static readonly Slot[] slots =
    [
        new(OperandRole.Reg, Register.RDX, Register.XMM1, Register.RAX),
        new(OperandRole.Rm, Register.RCX, Register.XMM2, Register.R10),
        new(OperandRole.Vvvv, Register.R8, Register.XMM3, Register.R11),
        new(OperandRole.None, Register.R9, Register.XMM4, Register.None), // is4
    ];

    private readonly List<Instruction> code = [];
    private readonly List<(Slot Slot, bool General, bool Wide, bool Written)> operands = [];
    private readonly InstructionInfoFactory infoFactory = new();
    private static readonly int gprOffset, fxOffset, ymmOffset;

    static HostStubs()
    {
        CpuState state = default;
        byte* start = (byte*)&state;
        gprOffset = (int)((byte*)state.Gpr - start);
        fxOffset = (int)(state.Fx - start);
        ymmOffset = (int)(state.YmmHi - start);
    }

    private static readonly bool[] hostFeatures = [.. Enumerable.Range(0, (int)Enum.GetValues<CpuidFeature>().Max() + 1).Select(static f => HostHas((CpuidFeature)f))];

    /// <summary>The host executes instructions of all these features.</summary>
    internal static bool HostHas(Code instruction)
    {
        foreach (CpuidFeature feature in instruction.CpuidFeatures())
        {
            if (!hostFeatures[(int)feature])
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

    /// <summary>x87 and MMX registers come and go with the whole FXSAVE image, XMM registers beside them too: those are named in the function.</summary>
    internal static bool UsesImage(VectorFlags flags) => (flags & (VectorFlags.X87 | VectorFlags.Mmx)) != 0;

    /// <summary>The host function for an instruction, null when the memory for code is used up or the instruction has no such form.</summary>
    internal void* Compile(in Instruction guest, VectorFlags flags)
    {
        code.Clear();
        operands.Clear();
        Instruction body = guest;
        InstructionInfo info = infoFactory.GetInfo(guest);
        bool legacyUnit = UsesImage(flags);
        if (!IsPlain(guest.Mnemonic) || !Rename(ref body, info, legacyUnit))
            return null;
        bool vex = (flags & VectorFlags.Avx) != 0;
        bool mxcsr = legacyUnit || (flags & VectorFlags.Float) != 0;
        if (mxcsr)
            Emit(Instruction.Create(Code.Stmxcsr_m32, Area(VectorUnit.HostMxcsrOffset)));
        if (legacyUnit)
            Emit(Instruction.Create(Code.Fxrstor64_m512byte, State(fxOffset)));
        LoadOperands(vex);
        Implicit(guest, load: true, vex);
        if (mxcsr && !legacyUnit)
            Emit(Instruction.Create(Code.Ldmxcsr_m32, State(fxOffset + VectorUnit.FxMxcsr)));
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
        StoreOperands(legacyUnit, vex);
        Implicit(guest, load: false, vex);
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
    /// with values that the host might refuse. VZEROUPPER and VZEROALL have nothing to compute.
    /// </summary>
    internal static bool IsPlain(Mnemonic mnemonic) => mnemonic is not (Mnemonic.Ldmxcsr or Mnemonic.Stmxcsr or Mnemonic.Vldmxcsr or Mnemonic.Vstmxcsr
        or Mnemonic.Fldenv or Mnemonic.Fnstenv or Mnemonic.Fstenv or Mnemonic.Fnsave or Mnemonic.Fsave or Mnemonic.Frstor or Mnemonic.Fldcw or Mnemonic.Fnstcw
        or Mnemonic.Fxsave or Mnemonic.Fxsave64 or Mnemonic.Fxrstor or Mnemonic.Fxrstor64 or Mnemonic.Maskmovq or Mnemonic.Maskmovdqu or Mnemonic.Vmaskmovdqu
        or Mnemonic.Vmaskmovps or Mnemonic.Vmaskmovpd or Mnemonic.Vpmaskmovd or Mnemonic.Vpmaskmovq or Mnemonic.Vzeroupper or Mnemonic.Vzeroall);

    /// <summary>Memory operand to the area, registers to those that stand for them.</summary>
    private bool Rename(ref Instruction body, InstructionInfo info, bool legacyUnit)
    {
        OperandLayout layout = OperandLayout.Of(body.Code);
        OpCodeInfo forms = body.Code.ToOpCode();
        for (int i = 0; i < body.OpCount; i++)
        {
            switch (body.GetOpKind(i))
            {
                case OpKind.Memory when !body.IsVsib:
                    body.MemoryBase = Register.RSI;
                    body.MemoryIndex = Register.None;
                    body.MemoryIndexScale = 1;
                    body.MemoryDisplacement64 = 0;
                    body.MemoryDisplSize = 0;
                    body.SegmentPrefix = Register.None;
                    break;
                case OpKind.Register:
                    Register register = body.GetOpRegister(i);
                    if (legacyUnit && !register.IsGPR())
                        break;
                    OperandRole role = layout.Roles[i];
                    bool is4 = forms.GetOpKind(i) is OpCodeOperandKind.xmm_is4 or OpCodeOperandKind.ymm_is4;
                    if (role is OperandRole.Implicit or OperandRole.None && !is4)
                        return false;
                    Slot slot = is4 ? slots[3] : slots[(int)role - (int)OperandRole.Reg];
                    bool written = IsWrite(info.GetOpAccess(i));
                    operands.Add((slot, register.IsGPR(), register.IsYMM(), written));
                    body.SetOpRegister(i, register.IsGPR() ? Same(register, slot.General) : register.IsYMM() ? Register.YMM0 + slot.Vector.GetNumber() : slot.Vector);
                    break;
                case OpKind.Immediate8 or OpKind.Immediate8_2nd:
                    break;
                default:
                    return false;
            }
        }
        return true;
    }

    private static Register Same(Register form, Register to)
    {
        int number = to.GetNumber();
        return form.IsGPR64() ? Register.RAX + number : form.IsGPR32() ? Register.EAX + number : form.IsGPR16() ? Register.AX + number : number < 4 ? Register.AL + number : Register.R8L + (number - 8);
    }

    private static bool IsWrite(OpAccess access) => access is OpAccess.Write or OpAccess.CondWrite or OpAccess.ReadWrite or OpAccess.ReadCondWrite;

    // Whatever an operand is used for it is loaded: parts that the instruction does not write stay.
    private void LoadOperands(bool vex)
    {
        foreach ((Slot slot, bool general, bool wide, _) in operands)
        {
            if (general)
            {
                Emit(Instruction.Create(Code.Mov_r64_rm64, slot.General, slot.Index));
                Emit(Instruction.Create(Code.Shr_rm64_1, slot.General, 1));
                Emit(Instruction.Create(Code.Mov_r64_rm64, slot.General, new IcedMemory(Register.RDI, slot.General, 1, gprOffset, 1)));
                continue;
            }
            LoadVector(slot.Vector.GetNumber(), new IcedMemory(Register.RDI, slot.Index, 1, fxOffset + VectorUnit.FxXmm, 1), vex,
                wide ? new IcedMemory(Register.RDI, slot.Index, 1, ymmOffset, 1) : null);
        }
    }

    private void LoadVector(int n, IcedMemory low, bool vex, IcedMemory? high)
    {
        Emit(vex ? Instruction.Create(Code.VEX_Vmovups_xmm_xmmm128, Register.XMM0 + n, low) : Instruction.Create(Code.Movups_xmm_xmmm128, Register.XMM0 + n, low));
        if (high is { } h)
            Emit(Instruction.Create(Code.VEX_Vinsertf128_ymm_ymm_xmmm128_imm8, Register.YMM0 + n, Register.YMM0 + n, h, 1));
    }

    /// <summary>VEX-encoded instructions write whole registers.</summary>
    private void StoreVector(int n, IcedMemory low, bool vex, IcedMemory high)
    {
        Emit(vex ? Instruction.Create(Code.VEX_Vmovups_xmmm128_xmm, low, Register.XMM0 + n) : Instruction.Create(Code.Movups_xmmm128_xmm, low, Register.XMM0 + n));
        if (vex)
            Emit(Instruction.Create(Code.VEX_Vextractf128_xmmm128_ymm_imm8, high, Register.YMM0 + n, 1));
    }

    private void StoreOperands(bool legacyUnit, bool vex)
    {
        if (legacyUnit)
        {
            Emit(Instruction.Create(Code.Fxsave64_m512byte, State(fxOffset)));
            Emit(Instruction.Create(Code.Fninit));
        }
        foreach ((Slot slot, bool general, _, bool written) in operands)
        {
            if (!written)
                continue;
            if (general)
            {
                Emit(Instruction.Create(Code.Shr_rm64_1, slot.Index, 1));
                Emit(Instruction.Create(Code.Mov_rm64_r64, new IcedMemory(Register.RDI, slot.Index, 1, gprOffset, 1), slot.General));
                continue;
            }
            StoreVector(slot.Vector.GetNumber(), new IcedMemory(Register.RDI, slot.Index, 1, fxOffset + VectorUnit.FxXmm, 1), vex, new IcedMemory(Register.RDI, slot.Index, 1, ymmOffset, 1));
        }
    }

    /// <summary>Registers that an instruction uses without naming them: XMM0, and the lengths and index of string comparisons.</summary>
    private void Implicit(in Instruction guest, bool load, bool vex)
    {
        string name = guest.Mnemonic.ToString();
        bool strings = name.Contains("cmpestr", StringComparison.Ordinal) || name.Contains("cmpistr", StringComparison.Ordinal);
        bool mask = strings && (name.EndsWith('m') || name.EndsWith("m64", StringComparison.Ordinal));
        bool xmm0 = load ? guest.Mnemonic is Mnemonic.Blendvps or Mnemonic.Blendvpd or Mnemonic.Pblendvb or Mnemonic.Sha256rnds2 : mask;
        IcedMemory low = State(fxOffset + VectorUnit.FxXmm), high = State(ymmOffset);
        if (xmm0 && load)
            LoadVector(0, low, vex, null);
        else if (xmm0)
            StoreVector(0, low, vex, high);
        if (load && name.Contains("cmpestr", StringComparison.Ordinal))
        {
            Emit(Instruction.Create(Code.Mov_r64_rm64, Register.RAX, State(gprOffset)));
            Emit(Instruction.Create(Code.Mov_r64_rm64, Register.RDX, State(gprOffset + (2 * 8))));
        }
        if (!load && strings && !mask)
            Emit(Instruction.Create(Code.Mov_rm64_r64, State(gprOffset + 8), Register.RCX));
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
