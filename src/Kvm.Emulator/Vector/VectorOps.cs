using System.Runtime.InteropServices;
using Iced.Intel;

namespace Kvm.Emulator.Vector;

/// <summary>Who computes vector and x87 instructions.</summary>
public enum VectorEngine
{
    /// <summary>
    /// The host processor where it can and is quicker, C# elsewhere. Host functions for x87 and MMX exchange the whole FXSAVE image, which takes ten times as long as
    /// most of these instructions in C#; the x87 functions that processors approximate each in its way are the host's.
    /// </summary>
    Auto,
    /// <summary>C# always, also where the host could: the results are the same.</summary>
    Managed,
    /// <summary>The host processor wherever it can.</summary>
    Host,
}

/// <summary>The <see cref="VectorOp"/> of each instruction that has been decoded: one for a code, or for a code with what is part of a host function: the immediate, and registers of x87 and MMX instructions.</summary>
internal sealed unsafe class VectorOps
{
    private static readonly VectorOps[] engines = [new(VectorEngine.Auto), new(VectorEngine.Managed), new(VectorEngine.Host)];

    internal static VectorOps For(VectorEngine engine) => engines[(int)engine];

    /// <summary>Everything that distinguishes two host functions.</summary>
    private readonly record struct Key(Code Code, CodeSize CodeSize, bool Memory, Register Op0, Register Op1, byte Immediate, byte Second);

    private readonly VectorEngine engine;
    private readonly Dictionary<Key, nint> compiled = []; // gate; bounded by the memory for code
    private readonly nint[] shared = new nint[2 * ((int)Enum.GetValues<Code>().Max() + 1)]; // gate; register form and memory form of each code
    private readonly HostStubs stubs = new(); // gate
    private readonly Lock gate = new();

    private VectorOps(VectorEngine engine) => this.engine = engine;

    /// <summary>Null: neither the host nor C# can execute it.</summary>
    internal VectorOp* Get(in Instruction instruction)
    {
        lock (gate)
            return Compiled(instruction) is var op && op != null ? op : Shared(instruction);
    }

    private VectorOp* Compiled(in Instruction instruction)
    {
        if (engine == VectorEngine.Managed || !HostStubs.HostHas(instruction.Code))
            return null;
        VectorFlags flags = VectorTraits.Of(instruction.Code).Flags;
        bool named = HostStubs.UsesImage(flags);
        if (engine == VectorEngine.Auto && named && !IsApproximated(instruction.Mnemonic) && VectorTable.Instance[instruction.Code] != null)
            return null;
        var key = new Key(instruction.Code, instruction.CodeSize, HasMemory(instruction), named ? Operand(instruction, 0) : Register.None, named ? Operand(instruction, 1) : Register.None, Is4(instruction) ? (byte)0 : VectorTraits.Immediate(instruction), SecondImmediate(instruction));
        if (compiled.TryGetValue(key, out nint known))
            return (VectorOp*)known;
        void* code = stubs.Compile(instruction, flags);
        if (code == null)
            return null;
        VectorOp* op = Create(instruction);
        op->Host = (delegate* unmanaged[SuppressGCTransition]<CpuState*, byte*, nint, nint, nint, nint, void>)code;
        compiled[key] = (nint)op;
        return op;
    }

    private static bool IsApproximated(Mnemonic mnemonic) => mnemonic is Mnemonic.F2xm1 or Mnemonic.Fyl2x or Mnemonic.Fyl2xp1 or Mnemonic.Fptan or Mnemonic.Fpatan
        or Mnemonic.Fsin or Mnemonic.Fcos or Mnemonic.Fsincos;

    /// <summary>One for all instructions of a code with a register as r/m operand, one for those with memory.</summary>
    private VectorOp* Shared(in Instruction instruction)
    {
        ref nint op = ref shared[2 * (int)instruction.Code + (HasMemory(instruction) ? 1 : 0)];
        if (op == 0 && VectorTable.Instance[instruction.Code] != null)
            op = (nint)Create(instruction);
        return (VectorOp*)op;
    }

    private static bool HasMemory(in Instruction instruction)
    {
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) == OpKind.Memory)
                return true;
        }
        return false;
    }

    private static Register Operand(in Instruction instruction, int operand) =>
        operand < instruction.OpCount && instruction.GetOpKind(operand) == OpKind.Register && instruction.GetOpRegister(operand) is var r && !r.IsGPR() ? r : Register.None;

    /// <summary>0 for instructions without one: the decoder keeps it where a memory operand has its displacement.</summary>
    private static byte SecondImmediate(in Instruction instruction)
    {
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) == OpKind.Immediate8_2nd)
                return instruction.Immediate8_2nd;
        }
        return 0;
    }

    /// <summary>Host functions that were generated, for tests.</summary>
    internal int CompiledCount
    {
        get { lock (gate) return compiled.Count; }
    }

    /// <summary>The last operand is a register in the immediate byte.</summary>
    private static bool Is4(in Instruction instruction) => instruction.OpCount == 4 && instruction.GetOpKind(3) == OpKind.Register;

    private static VectorOp* Create(in Instruction instruction)
    {
        var op = (VectorOp*)NativeMemory.AllocZeroed((nuint)sizeof(VectorOp));
        op->Managed = VectorTable.Instance[instruction.Code];
        op->Code = instruction.Code;
        VectorTraits traits = VectorTraits.Of(instruction.Code);
        op->Flags = traits.Flags;
        // With a memory operand these have nothing to do with MMX registers.
        if (instruction.Code is Code.Cvtpi2ps_xmm_mmm64 or Code.Cvtpi2pd_xmm_mmm64 && HasMemory(instruction))
            op->Flags &= ~(VectorFlags.Mmx | VectorFlags.Waits);
        op->MemoryBytes = traits.MemoryBytes;
        op->Alignment = traits.Alignment;
        op->X87Opcode = traits.X87Opcode;
        return op;
    }
}
