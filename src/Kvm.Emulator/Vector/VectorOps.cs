using System.Runtime.InteropServices;
using Iced.Intel;

namespace Kvm.Emulator.Vector;

/// <summary>Who computes vector and x87 instructions.</summary>
public enum VectorEngine
{
    /// <summary>The host processor where it can, C# elsewhere.</summary>
    Auto,
    /// <summary>C# always, also where the host could: the results are the same.</summary>
    Managed,
}

/// <summary>The <see cref="VectorOp"/> of each instruction that has been decoded, one per distinct instruction (registers and immediate included).</summary>
internal sealed unsafe class VectorOps
{
    private static readonly VectorOps host = new(VectorEngine.Auto), managed = new(VectorEngine.Managed);

    internal static VectorOps For(VectorEngine engine) => engine == VectorEngine.Managed ? managed : host;

    /// <summary>Everything that distinguishes two instructions for a core, but for the address of the memory operand.</summary>
    private readonly record struct Key(Code Code, Register Op0, Register Op1, Register Op2, Register Op3, byte Immediate, byte Second);

    private readonly VectorEngine engine;
    private readonly Dictionary<Key, nint> compiled = []; // gate; bounded by the memory for code
    private readonly nint[] shared = new nint[(int)Enum.GetValues<Code>().Max() + 1]; // gate
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
        if (engine != VectorEngine.Auto || !HostStubs.HostHas(instruction.Code))
            return null;
        var key = new Key(instruction.Code, Operand(instruction, 0), Operand(instruction, 1), Operand(instruction, 2), Operand(instruction, 3), VectorTraits.Immediate(instruction), instruction.Immediate8_2nd);
        if (compiled.TryGetValue(key, out nint known))
            return (VectorOp*)known;
        void* code = stubs.Compile(instruction, VectorTraits.Flags(instruction));
        if (code == null)
            return null;
        VectorOp* op = Create(instruction);
        op->Host = (delegate* unmanaged[SuppressGCTransition]<CpuState*, byte*, void>)code;
        compiled[key] = (nint)op;
        return op;
    }

    /// <summary>One for all instructions of a code.</summary>
    private VectorOp* Shared(in Instruction instruction)
    {
        ref nint op = ref shared[(int)instruction.Code];
        if (op == 0 && VectorTable.Instance[instruction.Code] != null)
            op = (nint)Create(instruction);
        return (VectorOp*)op;
    }

    private static Register Operand(in Instruction instruction, int operand) =>
        operand < instruction.OpCount && instruction.GetOpKind(operand) == OpKind.Register ? instruction.GetOpRegister(operand) : Register.None;

    private static VectorOp* Create(in Instruction instruction)
    {
        var op = (VectorOp*)NativeMemory.AllocZeroed((nuint)sizeof(VectorOp));
        op->Managed = VectorTable.Instance[instruction.Code];
        op->Code = instruction.Code;
        op->Flags = VectorTraits.Flags(instruction);
        op->MemoryBytes = VectorTraits.MemoryBytes(instruction);
        op->Alignment = VectorTraits.Alignment(instruction);
        op->X87Opcode = VectorTraits.X87Opcode(instruction);
        return op;
    }
}
