using System.Runtime.InteropServices;
using System.Text;
using Iced.Intel;
using Kvm.Emulator.Engine;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Runs the core of one instruction on two equal state blocks, by the host processor and in C#, and tells what differs afterwards.</summary>
/// <remarks>
/// Use: <see cref="Select"/> an instruction, then for each case fill <see cref="State"/> and <see cref="Area"/> (<see cref="Randomize"/>) and call <see cref="Run"/>.
/// Compared: general registers, the FXSAVE image without FOP, FIP, FDP, MXCSR_MASK and the bytes no register owns, bits 255:128 of YMM registers, what the instruction
/// writes of the operand area, and the arithmetic flags it writes. What the manuals leave open is equalized by <see cref="Tolerate"/> first.
/// </remarks>
internal sealed unsafe class CoreComparison : IDisposable
{
    /// <summary>Of the generator: each code's cases start from it and the code's number.</summary>
    internal const ulong Seed = 0x1dea_2026;
    private const ulong arithmetic = (ulong)(Flags.CF | Flags.PF | Flags.AF | Flags.ZF | Flags.SF | Flags.OF);

    /// <summary>Makes two results equal where a difference is allowed; <paramref name="before"/> is the state both started from.</summary>
    internal delegate void Tolerance(CpuState* before, CpuState* host, CpuState* managed, byte* hostArea, byte* managedArea);

    private static readonly CpuModel model = CpuModel.IntelSkylake
        .WithCpuid(1, 0, new CpuidLeaf(0, 0, uint.MaxValue, uint.MaxValue))
        .WithCpuid(7, 0, new CpuidLeaf(0, uint.MaxValue, uint.MaxValue, 0))
        .WithCpuid(0x80000001, 0, new CpuidLeaf(0, 0, uint.MaxValue, uint.MaxValue));

    private readonly InstructionDecoder hostDecoder = new(model, VectorEngine.Host), managedDecoder = new(model, VectorEngine.Managed);
    private readonly byte* memory;
    private readonly CpuState* host, managed;
    private readonly byte* hostArea, managedArea;
    private Op hostOp, managedOp;

    internal CoreComparison()
    {
        nuint state = ((nuint)sizeof(CpuState) + 63) & ~(nuint)63;
        memory = (byte*)NativeMemory.AlignedAlloc(3 * (state + VectorUnit.AreaSize), 64);
        new Span<byte>(memory, (int)(3 * (state + VectorUnit.AreaSize))).Clear();
        State = (CpuState*)memory;
        host = (CpuState*)(memory + state);
        managed = (CpuState*)(memory + 2 * state);
        Area = memory + 3 * state;
        hostArea = Area + VectorUnit.AreaSize;
        managedArea = hostArea + VectorUnit.AreaSize;
    }

    /// <summary>What the next case starts from.</summary>
    internal CpuState* State { get; }

    /// <summary>The operand area the next case starts from; arithmetic flags at <see cref="VectorUnit.FlagsOffset"/>.</summary>
    internal byte* Area { get; }

    /// <summary>What the C# core has left of the last case.</summary>
    internal CpuState* Managed => managed;

    internal Tolerance? Tolerate { get; set; }

    internal VectorFlags Traits { get; private set; }

    internal Instruction Selected { get; private set; }

    /// <summary>Cases for each of <paramref name="codes"/> instructions: <paramref name="usual"/>, or its share of KVM_TEST_CASES when that is more.</summary>
    internal static long Cases(long usual, int codes) =>
        long.TryParse(Environment.GetEnvironmentVariable("KVM_TEST_CASES"), out long all) ? Math.Max(usual, all / Math.Max(codes, 1)) : usual;

    /// <summary>False: the host cannot execute it (then there is nothing to compare with) or the C# core is missing.</summary>
    internal bool Select(in Instruction instruction)
    {
        Selected = instruction;
        var writer = new Bytes();
        Iced.Intel.Encoder.Create(64, writer).Encode(instruction, 0);
        fixed (byte* bytes = CollectionsMarshal.AsSpan(writer.List))
        {
            hostDecoder.Decode(bytes, writer.List.Count, 2, out hostOp);
            managedDecoder.Decode(bytes, writer.List.Count, 2, out managedOp);
        }
        if (hostOp.Code != instruction.Code || managedOp.Code != instruction.Code || VectorTable.Instance[instruction.Code] == null)
            return false;
        Traits = HostOf->Flags;
        return HostOf->Host != null;
    }

    private VectorOp* HostOf => (VectorOp*)hostOp.Imm;

    private VectorOp* ManagedOf => (VectorOp*)managedOp.Imm;

    /// <summary>Fills registers and operand area with numbers, without regard to what they mean; control words are left alone.</summary>
    internal void Randomize(ref CaseRandom random)
    {
        for (int i = 0; i < 16; i++)
            State->Gpr[i] = random.Next64();
        random.Fill(new Span<byte>(State->Fx + VectorUnit.FxXmm, 256));
        random.Fill(new Span<byte>(State->YmmHi, 256));
        for (int i = 0; i < 8; i++)
            random.Fill(new Span<byte>(State->Fx + VectorUnit.FxSt + 16 * i, 10));
        random.Fill(new Span<byte>(Area, VectorUnit.FlagsOffset));
        *(ulong*)(Area + VectorUnit.FlagsOffset) = (random.Next64() & arithmetic) | 2;
    }

    /// <summary>Runs both cores from <see cref="State"/> and <see cref="Area"/>; true: the results are the same.</summary>
    internal bool Run()
    {
        *host = *State;
        *managed = *State;
        Buffer.MemoryCopy(Area, hostArea, VectorUnit.AreaSize, VectorUnit.AreaSize);
        Buffer.MemoryCopy(Area, managedArea, VectorUnit.AreaSize, VectorUnit.AreaSize);
        Op op = hostOp;
        VectorUnit.Compute(host, &op, HostOf, hostArea);
        op = managedOp;
        ManagedOf->Managed(managed, &op, managedArea);
        if (Equal())
            return true;
        Tolerate?.Invoke(State, host, managed, hostArea, managedArea);
        return Equal();
    }

    /// <summary>Runs the C# core alone, and adds the x87 state, the memory operand and the flags it leaves to a digest (FNV-1a).</summary>
    internal ulong RunManaged(ulong digest)
    {
        *managed = *State;
        Buffer.MemoryCopy(Area, managedArea, VectorUnit.AreaSize, VectorUnit.AreaSize);
        Op op = managedOp;
        ManagedOf->Managed(managed, &op, managedArea);
        Ignore(managed, managedArea);
        digest = Add(digest, managed->Fx, VectorUnit.FxTags + 1);
        for (int i = 0; i < 8; i++)
            digest = Add(digest, managed->Fx + VectorUnit.FxSt + 16 * i, 10);
        digest = Add(digest, managedArea, ManagedOf->MemoryBytes);
        return Add(digest, managedArea + VectorUnit.FlagsOffset, 2);
    }

    /// <summary>Runs the C# core alone, and adds all that it can reach to a digest (FNV-1a of quadwords).</summary>
    internal ulong RunManagedWhole(ulong digest)
    {
        *managed = *State;
        Buffer.MemoryCopy(Area, managedArea, VectorUnit.AreaSize, VectorUnit.AreaSize);
        Op op = managedOp;
        ManagedOf->Managed(managed, &op, managedArea);
        Ignore(managed, managedArea);
        digest = AddQuadwords(digest, (byte*)managed->Gpr, 128);
        digest = AddQuadwords(digest, managed->Fx, 512);
        digest = AddQuadwords(digest, managed->YmmHi, 256);
        return AddQuadwords(digest, managedArea, VectorUnit.AreaSize);
    }

    private static ulong AddQuadwords(ulong digest, byte* bytes, int count)
    {
        for (int i = 0; i < count; i += 8)
            digest = (digest ^ *(ulong*)(bytes + i)) * 0x100000001b3;
        return digest;
    }

    private static ulong Add(ulong digest, byte* bytes, int count)
    {
        for (int i = 0; i < count; i++)
            digest = (digest ^ bytes[i]) * 0x100000001b3;
        return digest;
    }

    private bool Equal()
    {
        Ignore(host, hostArea);
        Ignore(managed, managedArea);
        return new ReadOnlySpan<byte>(host, sizeof(CpuState)).SequenceEqual(new ReadOnlySpan<byte>(managed, sizeof(CpuState)))
            && new ReadOnlySpan<byte>(hostArea, VectorUnit.AreaSize).SequenceEqual(new ReadOnlySpan<byte>(managedArea, VectorUnit.AreaSize));
    }

    /// <summary>Clears what is not compared.</summary>
    private void Ignore(CpuState* s, byte* area)
    {
        byte* fx = s->Fx;
        new Span<byte>(fx + VectorUnit.FxTags + 1, VectorUnit.FxMxcsr - VectorUnit.FxTags - 1).Clear();
        *(uint*)(fx + VectorUnit.FxMxcsr + 4) = 0;
        for (int i = 0; i < 8; i++)
            new Span<byte>(fx + VectorUnit.FxSt + 16 * i + 10, 6).Clear();
        new Span<byte>(fx + VectorUnit.FxXmm + 256, 512 - VectorUnit.FxXmm - 256).Clear();
        if ((Traits & VectorFlags.WritesMemory) == 0)
            new Span<byte>(area, VectorUnit.FlagsOffset).Clear();
        ulong flags = (Traits & VectorFlags.WritesFlags) != 0 ? *(ulong*)(area + VectorUnit.FlagsOffset) & arithmetic : 0;
        new Span<byte>(area + VectorUnit.FlagsOffset, VectorUnit.AreaSize - VectorUnit.FlagsOffset).Clear();
        *(ulong*)(area + VectorUnit.FlagsOffset) = flags;
    }

    /// <summary>Of the last case that differed: what it started from and every 16 bytes that differ.</summary>
    internal string Difference()
    {
        var text = new StringBuilder(Selected.ToString()).AppendLine();
        Line(text, "FCW FSW FTW", State->Fx, host->Fx, managed->Fx, VectorUnit.FxTags + 1, always: true);
        Line(text, "MXCSR", State->Fx + VectorUnit.FxMxcsr, host->Fx + VectorUnit.FxMxcsr, managed->Fx + VectorUnit.FxMxcsr, 4, always: true);
        for (int i = 0; i < 8; i++)
            Line(text, $"ST{i}", State->Fx + 32 + 16 * i, host->Fx + 32 + 16 * i, managed->Fx + 32 + 16 * i, 10, always: (Traits & (VectorFlags.X87 | VectorFlags.Mmx)) != 0);
        for (int i = 0; i < 16; i++)
        {
            Line(text, $"XMM{i}", VectorUnit.Xmm(State, i), VectorUnit.Xmm(host, i), VectorUnit.Xmm(managed, i), 16, Uses(i));
            Line(text, $"YMM{i}h", VectorUnit.YmmHigh(State, i), VectorUnit.YmmHigh(host, i), VectorUnit.YmmHigh(managed, i), 16, Uses(i) && (Traits & VectorFlags.Avx) != 0);
            Line(text, $"GPR{i}", (byte*)&State->Gpr[i], (byte*)&host->Gpr[i], (byte*)&managed->Gpr[i], 8, always: false);
        }
        int size = HostOf->MemoryBytes;
        Line(text, "memory", Area, hostArea, managedArea, size == 0 ? 16 : size, always: size != 0);
        const int flags = VectorUnit.FlagsOffset;
        Line(text, "flags", Area + flags, hostArea + flags, managedArea + flags, 2, always: (Traits & (VectorFlags.WritesFlags | VectorFlags.ReadsFlags)) != 0);
        return text.ToString();
    }

    private bool Uses(int register)
    {
        for (int i = 0; i < Selected.OpCount; i++)
        {
            if (Selected.GetOpKind(i) == Iced.Intel.OpKind.Register && Selected.GetOpRegister(i).IsVectorRegister() && Selected.GetOpRegister(i).GetNumber() == register)
                return true;
        }
        return false;
    }

    private static void Line(StringBuilder text, string name, byte* before, byte* host, byte* managed, int size, bool always)
    {
        var h = new ReadOnlySpan<byte>(host, size);
        var m = new ReadOnlySpan<byte>(managed, size);
        bool same = h.SequenceEqual(m);
        if (same && !always)
            return;
        text.Append("  ").Append(name.PadRight(12)).Append(Hex(new ReadOnlySpan<byte>(before, size)));
        if (!same)
            text.Append("\n    host      ").Append(Hex(h)).Append("\n    managed   ").Append(Hex(m));
        text.AppendLine();
    }

    /// <summary>Most significant byte first.</summary>
    private static string Hex(ReadOnlySpan<byte> bytes)
    {
        byte[] reversed = bytes.ToArray();
        Array.Reverse(reversed);
        return Convert.ToHexStringLower(reversed);
    }

    public void Dispose() => NativeMemory.AlignedFree(memory);

    private sealed class Bytes : CodeWriter
    {
        internal List<byte> List { get; } = [];

        public override void WriteByte(byte value) => List.Add(value);
    }
}

/// <summary>A small generator (SplitMix64) that is the same on every machine.</summary>
internal struct CaseRandom(ulong seed)
{
    private ulong state = seed;

    internal ulong Next64()
    {
        ulong z = state += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

    /// <summary>0 … <paramref name="below"/> - 1.</summary>
    internal int Next(int below) => (int)((Next64() >> 32) * (ulong)below >> 32);

    /// <summary>True once in <paramref name="of"/> times.</summary>
    internal bool One(int of) => Next(of) == 0;

    internal void Fill(Span<byte> bytes)
    {
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(bytes);
        foreach (ref ulong word in words)
            word = Next64();
        for (int i = words.Length * 8; i < bytes.Length; i++)
            bytes[i] = (byte)Next64();
    }
}
