using Iced.Intel;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>Simpler programs than a given one: fewer instructions, plainer operands, less in registers, flags and memory. FsCheck takes the first that still fails, and goes on from there.</summary>
/// <param name="advance">The program behind its first n instructions, with the state they leave; null when that cannot be told.</param>
internal sealed unsafe class ProgramShrinker(Func<ProgramCase, int, ProgramCase?> advance)
{
    internal IEnumerable<ProgramCase> Shrink(ProgramCase c)
        => FewerInstructions(c).Concat(NoVectors(c)).Concat(LessMemory(c)).Concat(PlainerRegisters(c)).Concat(PlainerFlags(c)).Concat(PlainerOperands(c)).Concat(PlainerVectors(c));

    // Large pieces first; what comes before a failing instruction is best left out by starting with what it leaves behind.
    private IEnumerable<ProgramCase> FewerInstructions(ProgramCase c)
    {
        int n = c.Code.Count;
        for (int size = n / 2; size > 0; size /= 2)
        {
            if (advance(c, size) is { } behind)
                yield return behind;
            for (int at = 0; at + size <= n; at += size)
                yield return c.With([.. c.Code.Take(at), .. c.Code.Skip(at + size)]);
        }
    }

    private static IEnumerable<ProgramCase> LessMemory(ProgramCase c)
    {
        for (int size = ProgramCase.DataSize; size >= 8; size /= 2)
        {
            size &= ~7;
            for (int at = 0; at < ProgramCase.DataSize; at += size)
            {
                int length = Math.Min(size, ProgramCase.DataSize - at);
                if (!c.Data.AsSpan(at, length).ContainsAnyExcept((byte)0))
                    continue;
                byte[] data = [.. c.Data];
                data.AsSpan(at, length).Clear();
                yield return c.With(data);
            }
        }
        for (int at = 0; at < ProgramCase.DataSize; at += 8)
        {
            foreach (ulong value in Plainer(BitConverter.ToUInt64(c.Data, at)))
            {
                byte[] data = [.. c.Data];
                BitConverter.TryWriteBytes(data.AsSpan(at), value);
                yield return c.With(data);
            }
        }
    }

    private static IEnumerable<ProgramCase> PlainerRegisters(ProgramCase c)
    {
        for (int r = 0; r < 15; r++)
        {
            foreach (ulong value in Plainer(Register(c.State, r)))
                yield return c.With(WithRegister(c.State, r, value));
        }
    }

    private static ulong Register(HostState s, int r) => s.Gpr[r];

    private static HostState WithRegister(HostState s, int r, ulong value)
    {
        s.Gpr[r] = value;
        return s;
    }

    /// <summary>Numerically smaller, so that shrinking ends.</summary>
    private static IEnumerable<ulong> Plainer(ulong value)
        => new ulong[] { 0, 1, (byte)value, (uint)value, value >> 32, value >> 8, value >> 1, value & (value - 1) }.Where(v => v < value).Distinct();

    private static IEnumerable<ProgramCase> PlainerFlags(ProgramCase c)
    {
        const ulong always = 0x202;
        if (c.State.Rflags != always)
            yield return c.With(WithFlags(c.State, always));
        for (int bit = 0; bit < 12; bit++)
        {
            ulong flag = 1UL << bit;
            if ((c.State.Rflags & ~always & flag) != 0)
                yield return c.With(WithFlags(c.State, c.State.Rflags & ~flag));
        }
    }

    private static HostState WithFlags(HostState s, ulong rflags)
    {
        s.Rflags = rflags;
        return s;
    }

    // ---- operands ----
    private static IEnumerable<ProgramCase> PlainerOperands(ProgramCase c)
    {
        for (int n = 0; n < c.Code.Count; n++)
        {
            foreach ((Instruction plainer, HostState state) in PlainerOperands(c.Decode(n), c.State))
            {
                if (Encode(plainer) is { } bytes && !bytes.AsSpan().SequenceEqual(c.Code[n]))
                    yield return c.With([.. c.Code.Take(n), bytes, .. c.Code.Skip(n + 1)]).With(state);
            }
        }
    }

    private static IEnumerable<(Instruction, HostState)> PlainerOperands(Instruction i, HostState state)
    {
        if (i.MemoryBase == Iced.Intel.Register.R15 && i.MemoryDisplacement64 != 0)
        {
            foreach (ulong displacement in Plainer(i.MemoryDisplacement64))
            {
                Instruction nearer = i;
                nearer.MemoryDisplacement64 = displacement;
                yield return (nearer, state);
            }
        }
        for (int n = 0; n < i.OpCount; n++)
        {
            if (i.GetOpKind(n) is >= OpKind.Immediate8 and <= OpKind.Immediate32to64)
            {
                foreach (ulong value in Plainer(i.GetImmediate(n)))
                {
                    Instruction smaller = i;
                    smaller.SetImmediate(n, (long)value);
                    yield return (smaller, state);
                }
            }
            else if (i.GetOpKind(n) == OpKind.Register && Lower(i.GetOpRegister(n)) is { } lower)
            {
                Instruction first = i;
                first.SetOpRegister(n, lower);
                yield return (first, state);
                // Together with what the register holds.
                Register from = i.GetOpRegister(n);
                if (from.IsGPR() && Register(state, from.GetNumber()) != 0 && Register(state, lower.GetNumber()) == 0)
                    yield return (first, WithRegister(WithRegister(state, lower.GetNumber(), Register(state, from.GetNumber())), from.GetNumber(), 0));
            }
        }
    }

    /// <summary>The register before this one in its class; RSP's place is passed over, and high bytes stay what they are.</summary>
    private static Register? Lower(Register r)
    {
        if (r.IsGPR8() || !(r.IsGPR() || r.IsVectorRegister()) || r.GetNumber() == 0)
            return null;
        return r - (r.IsGPR() && r.GetNumber() == 5 ? 2 : 1);
    }

    private sealed class ByteList : CodeWriter
    {
        internal readonly List<byte> Bytes = [];

        public override void WriteByte(byte value) => Bytes.Add(value);
    }

    private static byte[]? Encode(Instruction instruction)
    {
        var bytes = new ByteList();
        return Encoder.Create(64, bytes).TryEncode(instruction, 0x10000, out _, out _) ? [.. bytes.Bytes] : null;
    }

    // ---- x87 and vectors ----
    private static IEnumerable<ProgramCase> NoVectors(ProgramCase c)
        => new[] { WithoutVectors(c.State), Initial(WithoutVectors(c.State)) }.Where(s => Differs(s, c.State)).Select(c.With);

    private static IEnumerable<ProgramCase> PlainerVectors(ProgramCase c)
        => Enumerable.Range(0, 24 + 16).Select(i => Without(c.State, i)).Where(s => Differs(s, c.State)).Select(c.With);

    private static HostState WithoutVectors(HostState s)
    {
        new Span<byte>(s.YmmHi, 256).Clear();
        new Span<byte>(s.Fx + 32, 384).Clear();
        return s;
    }

    /// <summary>FCW, FSW, FTW and MXCSR as FNINIT and reset leave them.</summary>
    private static HostState Initial(HostState s)
    {
        *(ushort*)s.Fx = 0x37f;
        *(ushort*)(s.Fx + 2) = 0;
        s.Fx[4] = 0;
        *(uint*)(s.Fx + 24) = 0x1f80;
        return s;
    }

    /// <summary>ST0 to ST7, XMM0 to XMM15, then the upper halves of YMM0 to YMM15.</summary>
    private static HostState Without(HostState s, int register)
    {
        new Span<byte>(register < 24 ? s.Fx + 32 + register * 16 : s.YmmHi + (register - 24) * 16, 16).Clear();
        return s;
    }

    private static bool Differs(HostState a, HostState b)
        => !new ReadOnlySpan<byte>(a.Fx, 512).SequenceEqual(new ReadOnlySpan<byte>(b.Fx, 512)) || !new ReadOnlySpan<byte>(a.YmmHi, 256).SequenceEqual(new ReadOnlySpan<byte>(b.YmmHi, 256));
}
