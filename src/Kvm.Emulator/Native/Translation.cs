using System.Runtime.InteropServices;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Native;

/// <summary>A block as host code, for one address that it is executed at. Lives near the code until all translations are dropped together.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct Translation
{
    /// <summary>
    /// What <see cref="CpuState.ExitRequest"/> and <see cref="CpuState.CodeEpoch"/>, read as one word, must be for the code to be entered: nobody wants anything, and the
    /// bytes have been compared in this epoch. <see cref="Dead"/>: never again.
    /// </summary>
    internal ulong Word;
    internal ulong Rip;
    /// <summary>Where the code is executed.</summary>
    internal byte* Entry;
    internal Block* Block;
    internal Translation* Next;

    internal const ulong Dead = ulong.MaxValue;

    internal static ulong Valid(ulong epoch) => (ulong)(uint)epoch << 32;

    /// <summary>The block's translations are not entered again.</summary>
    internal static void Retire(Block* block)
    {
        for (Translation* t = block->Native; t != null; t = t->Next)
            t->Word = Dead;
        block->Native = null;
    }
}

/// <summary>How generated code is left.</summary>
internal enum ExitKind : byte
{
    /// <summary>At the beginning of a block that may not be entered as it is.</summary>
    Head,
    /// <summary>Before an operation that is not translated, or whose memory operand the TLB doesn't serve.</summary>
    Interpret,
    /// <summary>As Interpret, before an indirect branch whose target the jump cache doesn't know: it is in State->NativeTarget.</summary>
    Indirect,
    /// <summary>A branch within the page to a block that is not translated yet: it can be connected.</summary>
    Link,
    /// <summary>A branch to another page: through the jump cache.</summary>
    FarLink,
}

/// <summary>A place where generated code is left.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct Site
{
    internal Block* Block;
    /// <summary>Of Head and Interpret where the guest is, of links where it goes.</summary>
    internal ulong Rip;
    /// <summary>Link: the displacement of the branch, where it is written.</summary>
    internal byte* Patch;
    internal ushort Op;
    internal ExitKind Kind;
    /// <summary>Interpret: the operands that one check was for, when it was for several: a guest register, and the bytes from there.</summary>
    internal byte Base;
    internal int Low, Length;
}
