using System.Runtime.InteropServices;

namespace Kvm.Emulator.Engine;

/// <summary>A decoded run of instructions that lies in one physical page: header, then the operations, then a copy of the bytes they were decoded from.</summary>
/// <remarks>
/// Lives in the arena of its <see cref="CodeCache"/> until that is reset as a whole: a block that was killed stays readable, so links to it need only look at <see cref="Epoch"/>.
/// </remarks>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct Block
{
    /// <summary>Size of the header; operations start at a cache line.</summary>
    internal const int HeaderSize = 128;
    /// <summary>Operations in one block at most.</summary>
    internal const int MaximumOps = 64;

    /// <summary>Host address of the first byte: with <see cref="Mode"/> the key.</summary>
    internal byte* Code;
    /// <summary>CodeMode bits, and <see cref="SingleInstruction"/>.</summary>
    internal uint Mode;
    internal ushort OpCount;
    internal ushort ByteLength;
    /// <summary>The bytes were overwritten or the cache was flushed: leave it and never enter it again.</summary>
    internal byte Dead;
    /// <summary>The only instruction goes on in the next linear page, <see cref="SecondPage"/>.</summary>
    internal byte CrossesPage;
    /// <summary>The bytes were last found unchanged in this epoch of the cache (<see cref="CodeCache.Epoch"/>); 0 when dead.</summary>
    internal ulong Epoch;
    internal Block* HashNext;
    internal Block* PageNext;
    /// <summary>Next block of the page that the instruction runs into.</summary>
    internal Block* SecondPageNext;
    /// <summary>Physical address of the first byte's page.</summary>
    internal ulong Page;
    internal ulong SecondPage;
    internal byte* SecondCode;
    /// <summary>Both pages were RAM at <see cref="PhysicalMemory.Epoch"/>: before another epoch <see cref="Code"/> may not be read.</summary>
    internal uint MemoryEpoch;
    /// <summary>Executions left until it is worth translating; negative: it is.</summary>
    internal int Heat;
    /// <summary>Its translations to host code, one for each address it is executed at.</summary>
    internal Native.Translation* Native;
    /// <summary>Arithmetic flags that its code reads before it writes them, as far as known ; <see cref="FlagsUnknown"/>.</summary>
    internal byte FlagsIn;

    /// <summary>Each memory operand is checked on its own, because those that could be checked together were in different pages, so many times.</summary>
    internal byte Separate, Crossings;

    internal const byte FlagsUnknown = 0xff;

    /// <summary>Bit of <see cref="Mode"/>: a block of one instruction, for single-stepping and exact budgets.</summary>
    internal const uint SingleInstruction = 0x8000_0000;

    internal readonly int FirstLength => CrossesPage != 0 ? 4096 - (int)((ulong)Code & 0xfff) : ByteLength;

    internal static Op* Ops(Block* block) => (Op*)((byte*)block + HeaderSize);
    /// <summary>The bytes it was decoded from.</summary>
    internal static byte* Copy(Block* block) => (byte*)(Ops(block) + block->OpCount + 1);
}

/// <summary>A physical page that this processor has decoded code from.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct CodePage
{
    internal ulong Page;
    internal CodePage* HashNext;
    internal CodePage* AllNext;
    /// <summary>Blocks that start in the page (through PageNext), and instructions that run into it from the page before (through SecondPageNext).</summary>
    internal Block* Blocks;
    internal Block* Incoming;
    /// <summary>64-byte granules that hold decoded bytes.</summary>
    internal ulong Granules;
    /// <summary>Slow stores to the page since its code was last forgotten.</summary>
    internal int Writes;
    /// <summary>Counted in <see cref="CodePages"/>.</summary>
    internal int Registered;
}
