using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>What an instruction does to one 128-bit lane. Most vector instructions do the same to each lane, so a 256-bit form is two of these and an MMX form the low half of one.</summary>
internal interface ILane
{
    /// <summary>The result.</summary>
    /// <param name="a">First source; of legacy encodings the destination. Means nothing where the instruction has one source.</param>
    /// <param name="b">Second, or only, source: what may be in memory. Bytes beyond a shorter memory operand are arbitrary.</param>
    /// <param name="immediate">Immediate byte.</param>
    static abstract Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate);

    /// <summary>How many bits of the immediate belong to each lane; 0 = all of them to every lane.</summary>
    static virtual int ImmediateBits => 0;
}
