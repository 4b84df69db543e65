using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using Kvm.Emulator.Engine;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Native;

/// <summary>Turns a decoded block into host code.</summary>
/// <remarks>
/// <para>
/// Code of a block: a look at <see cref="Translation.Word"/> and the budget; its instructions, each with its memory operand replaced by the host address that the software
/// TLB gives (<c>Translator.Memory.cs</c>); behind them what is rarely executed, mostly exits. What is left of a block behind an instruction that isn't translated
/// is the interpreter's.
/// </para>
/// <para>
/// The arithmetic flags are in the host's EFLAGS or in State->NativeFlags (<see cref="FlagsPlace"/>); between blocks, and wherever the code is left, they are in the latter,
/// if anybody can look at them.
/// </para>
/// </remarks>
internal sealed unsafe partial class Translator
{
    private readonly Processor cpu;
    private readonly CpuState* s;
    private readonly NativeEngine engine;
    private readonly bool strict, vectorUnit;
    private readonly Emitter e;
    private readonly Encoder encoder;
    private readonly InstructionInfoFactory infoFactory = new();
    private readonly Instruction[] instructions = new Instruction[Block.MaximumOps];
    private readonly Treatment[] treatments = new Treatment[Block.MaximumOps];

    // The block in work.
    private Block* block;
    private Translation* translation;
    private ulong rip;
    private int translated;
    /// <summary>64-bit code; otherwise it is 32-bit code with flat segments.</summary>
    private bool code64;

    internal Translator(Processor cpu, NativeEngine engine, CodeMemory memory, bool strict)
    {
        this.cpu = cpu;
        this.engine = engine;
        this.strict = strict;
        s = cpu.State;
        vectorUnit = cpu.Machine.VectorEngine != VectorEngine.Managed;
        e = new Emitter(memory.ToExecutable);
        encoder = Encoder.Create(64, e);
    }

    /// <summary>
    /// Writes the code of <paramref name="b"/>, executed at <paramref name="at"/>, from <paramref name="code"/> on, and moves that behind it.
    /// False: there is nothing to gain.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal bool Translate(Block* b, ulong at, Translation* to, ref byte* code)
    {
        block = b;
        rip = at;
        translation = to;
        e.At = (byte*)(((ulong)code + 15) & ~15UL);
        byte* start = e.At;
        exitCount = 0;
        translated = Classify();
        if (translated == 0)
            return false;
        Liveness();
        DescribeAccesses();
        to->Entry = e.Executable;
        to->Block = b;
        to->Rip = at;
        place = FlagsPlace.Saved;
        Head();
        int i = 0;
        bool open = true;
        while (i < translated && open)
        {
            Op* op = Block.Ops(b) + i;
            byte* before = e.At;
            int exits = exitCount;
            FlagsPlace flags = place;
            (byte, long, long, bool) known = (knownBase, knownLow, knownHigh, knownWrite);
            if (!One(i, op, out open))
            {
                e.At = before;
                exitCount = exits;
                place = flags;
                (knownBase, knownLow, knownHigh, knownWrite) = known;
                translated = i;
                break;
            }
            FollowKnown(i);
            i++;
        }
        if (translated == 0)
            return false;
        if (open)
            End(i);
        Exits();
        code = e.At;
        return true;
    }

    /// <summary>What becomes of each instruction; the number of those before the first that the interpreter must execute.</summary>
    private int Classify()
    {
        byte* bytes = Block.Copy(block);
        int codeSize = (int)(block->Mode & (uint)CodeMode.SizeMask);
        code64 = codeSize == (int)CodeMode.Code64;
        vectors = 0;
        for (int i = 0; i < block->OpCount; i++)
        {
            Op* op = Block.Ops(block) + i;
            if (op->Code == Code.INVALID)
                return i;
            engine.Decoder.Decode(bytes + op->BlockOffset, op->Length, codeSize, out instructions[i]);
            if (instructions[i].Code != op->Code)
                return i;
            treatments[i] = code64 || Suits32(op) ? TreatmentOf(op, instructions[i]) : Treatment.None;
            if (treatments[i] == Treatment.None)
                return i;
            if (treatments[i] == Treatment.Vector)
                vectors = Math.Max(vectors, (VectorOp.Of(op)->Flags & VectorFlags.Avx) != 0 ? Trampolines.WholeVectors : Trampolines.LowVectors);
        }
        return block->OpCount;
    }

    private Treatment TreatmentOf(Op* op, in Instruction instruction)
    {
        if (OpcodeTable.Instance[op->Code].Handler == null)
            return VectorTreatment(op);
        return InstructionShape.Of(instruction, infoFactory).Treatment;
    }

    /// <summary>In 32-bit code the segments that the mode says are flat need no base and no limit.</summary>
    private static bool Suits32(Op* op) => !op->HasMemory || (op->AddressWidth == 4 && op->Segment is Seg.ES or Seg.SS or Seg.DS);

    /// <summary>Vector instructions that the host executes with its own registers.</summary>
    private Treatment VectorTreatment(Op* op)
    {
        VectorOp* v = VectorOp.Of(op);
        const VectorFlags others = VectorFlags.X87 | VectorFlags.Mmx | VectorFlags.Waits;
        if (!vectorUnit || (v->Flags & others) != 0 || (v->Host == null && !(v->Code == Code.VEX_Vzeroupper && Avx.IsSupported)))
            return Treatment.None;
        CodeMode needed = (v->Flags & VectorFlags.Avx) != 0 ? CodeMode.Avx : (v->Flags & VectorFlags.Sse) != 0 ? CodeMode.Sse : 0;
        return needed != 0 && (block->Mode & (uint)needed) != 0 ? Treatment.Vector : Treatment.None;
    }

    private bool One(int i, Op* op, out bool open)
    {
        open = true;
        switch (treatments[i])
        {
            case Treatment.Nothing:
                return true;
            case Treatment.Same:
            case Treatment.Vector:
                return Same(i, op);
            case Treatment.Lea:
                return Lea(i, op);
            case Treatment.Push:
                return Push(i, op);
            case Treatment.Pop:
                return Pop(i, op);
            case Treatment.Leave:
                return Leave(i);
            case Treatment.Divide:
            case Treatment.DivideSigned:
                return Divide(i, op);
            case Treatment.Branch:
                return Branch(i, op);
            default:
                open = false;
                return Transfer(i, op);
        }
    }

    /// <summary>The budget's share of the whole block is taken at its head; who leaves it earlier gives back the rest.</summary>
    private void Head()
    {
        e.Near(true, 0x8b, HostRegister.R14, &s->ExitRequest);
        e.Near(true, 0x3b, HostRegister.R14, &translation->Word);
        Exit(e.JumpIf(Emitter.NotEqual), ExitKind.Head, 0);
        AddToBudget(-block->OpCount);
        Exit(e.JumpIf(Emitter.Sign), ExitKind.Head, 1);
        if (vectors == 0)
            return;
        e.Near(false, 0x80, 7, &s->NativeVectors, 1);
        e.Byte(vectors);
        byte* loaded = e.JumpIf(Emitter.NotCarry);
        int site = engine.AddSite(new Site { Block = block, Rip = rip, Kind = ExitKind.Interpret });
        e.MoveImmediate(HostRegister.R15, (ulong)site);
        // LEA R14, [RIP + 5]: behind the jump.
        e.Byte(0x4c);
        e.Byte(0x8d);
        e.Byte(0x35);
        e.Int(5);
        e.JumpTo(vectors == Trampolines.WholeVectors ? engine.LoadWholeVectors : engine.LoadVectors);
        e.Here(loaded);
    }

    private void AddToBudget(int instructions)
    {
        if (instructions == 0)
            return;
        e.Near(true, 0x83, 0, &s->NativeBudget, 1);
        e.Byte(instructions);
    }

    /// <summary>Behind the last instruction: the next block, or the interpreter for what isn't translated.</summary>
    private void End(int next)
    {
        if (next == block->OpCount)
        {
            ulong following = code64 ? rip + block->ByteLength : (uint)(rip + block->ByteLength);
            SaveFlags(LiveInto(following));
            Edge(following, 0);
            return;
        }
        SaveFlags(AllFlags);
        LeaveTo(InterpretSite(next, ExitKind.Interpret));
    }
}
