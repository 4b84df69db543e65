using Iced.Intel;

namespace Kvm.Emulator.Native;

/// <summary>What the native engine of a processor has done.</summary>
internal sealed class NativeStatistics
{
    private readonly ulong[] interpreted = new ulong[(int)Enum.GetValues<Code>().Max() + 1];

    /// <summary>Exits from generated code, by <see cref="ExitKind"/>.</summary>
    internal readonly ulong[] Exits = new ulong[Enum.GetValues<ExitKind>().Length];

    internal ulong Blocks { get; private set; }
    internal ulong Instructions { get; private set; }
    internal ulong Bytes { get; private set; }
    /// <summary>Blocks that begin with an instruction that isn't translated.</summary>
    internal ulong Refused { get; set; }

    internal void Translated(int instructions, ulong bytes)
    {
        Blocks++;
        Instructions += (ulong)instructions;
        Bytes += bytes;
    }

    internal void Interpreted(Code code) => interpreted[(int)code]++;

    /// <summary>Instructions that generated code was left for, most frequent first: not translated, or without an entry in the TLB.</summary>
    internal IEnumerable<(Code Code, ulong Count)> LeftFor()
        => interpreted.Select((count, code) => ((Code)code, count)).Where(e => e.count != 0).OrderByDescending(e => e.count);
}
