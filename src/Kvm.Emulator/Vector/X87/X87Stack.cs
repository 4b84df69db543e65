using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Vector.X87;

/// <summary>The register stack, status word and tags of a state block, as the cores of x87 instructions use them.</summary>
/// <remarks>
/// The image keeps registers relative to the top of the stack (slot i is ST(i)), tags per physical register: pushing and popping move all eight slots.
/// Responses to exceptions that are not masked are given here, since the unit's exception is only reported by a later instruction.
/// DIVERGES: D-ENGINE-7, condition codes and unmasked responses are AMD's where processors differ.
/// </remarks>
internal readonly unsafe struct X87Stack(CpuState* state)
{
    private const ushort summary = 0x80, busy = 0x8000, c0 = 0x100, c1 = 0x200, c2 = 0x400, c3 = 0x4000, conditions = c0 | c1 | c2 | c3;
    private const int topShift = 11;
    private readonly byte* fx = state->Fx;

    internal ref ushort Control => ref *(ushort*)(fx + VectorUnit.FxControl);

    internal ref ushort Status => ref *(ushort*)(fx + VectorUnit.FxStatus);

    private ref byte Tags => ref fx[VectorUnit.FxTags];

    internal FloatContext Context => new(Control);

    private int Top => Status >> topShift & 7;

    internal ref Float80 this[int i]
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => ref *(Float80*)(fx + VectorUnit.FxSt + (i << 4));
    }

    internal Unpacked Operand(int i) => Unpacked.Of(this[i]);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool IsEmpty(int i) => (Tags >> (Top + i & 7) & 1) == 0;

    /// <summary>Writes a register and tags it as full.</summary>
    internal void Set(int i, in Float80 value)
    {
        this[i] = value;
        Tags |= (byte)(1 << (Top + i & 7));
    }

    internal void Free(int i) => Tags &= (byte)~(1 << (Top + i & 7));

    private void MoveTop(int by) => Status = (ushort)((Status & ~(7 << topShift)) | (Top + by & 7) << topShift);

    /// <summary>The register above becomes ST(0), whatever it holds.</summary>
    internal void Decrement()
    {
        var slots = (Vector128<byte>*)(fx + VectorUnit.FxSt);
        Vector128<byte> last = slots[7];
        for (int i = 7; i > 0; i--)
            slots[i] = slots[i - 1];
        slots[0] = last;
        MoveTop(-1);
    }

    /// <summary>ST(1) becomes ST(0), tags stay.</summary>
    internal void Increment()
    {
        var slots = (Vector128<byte>*)(fx + VectorUnit.FxSt);
        Vector128<byte> first = slots[0];
        for (int i = 0; i < 7; i++)
            slots[i] = slots[i + 1];
        slots[7] = first;
        MoveTop(1);
    }

    internal void Pop()
    {
        Free(0);
        Increment();
    }

    internal void Pop(int count)
    {
        for (int i = 0; i < count; i++)
            Pop();
    }

    internal void Push(Float80 value)
    {
        Decrement();
        Set(0, value);
    }

    /// <summary>There is no room for a push.</summary>
    internal bool IsFull => !IsEmpty(7);

    /// <summary>The rounding direction of the last operation, or the kind of a stack fault.</summary>
    internal void SetC1(bool value) => Status = (ushort)(value ? Status | c1 : Status & ~c1);

    internal bool C1 => (Status & c1) != 0;

    internal void SetC2(bool value) => Status = (ushort)(value ? Status | c2 : Status & ~c2);

    internal void SetConditions(bool c3Value, bool c2Value, bool c1Value, bool c0Value) =>
        Status = (ushort)((Status & ~conditions) | (c3Value ? c3 : 0) | (c2Value ? c2 : 0) | (c1Value ? c1 : 0) | (c0Value ? c0 : 0));

    /// <summary>Sets flags, and the summary if one of them is not masked; true: all are masked.</summary>
    private bool Raise(X87Exceptions exceptions)
    {
        Status |= (ushort)exceptions;
        if ((exceptions & ~(X87Exceptions)Control & X87Exceptions.All) == 0)
            return true;
        Status |= summary | busy;
        return false;
    }

    /// <summary>A register that should be full is empty; true: masked, the indefinite takes the place of the result.</summary>
    internal bool Underflow()
    {
        SetC1(false);
        return Raise(X87Exceptions.Invalid | X87Exceptions.StackFault);
    }

    /// <summary>A register that should be empty is full; true: masked.</summary>
    internal bool Overflow()
    {
        SetC1(true);
        return Raise(X87Exceptions.Invalid | X87Exceptions.StackFault);
    }

    /// <summary>Notes what an operation has raised; false: it has no result.</summary>
    internal bool Commit(in FloatContext c)
    {
        bool stopped = c.Stopped;
        SetC1(c.RoundedUp && !stopped);
        if (c.Raised == X87Exceptions.None)
            return true;
        Raise(stopped ? c.Raised & X87Exceptions.PreComputation : c.Raised);
        return !stopped;
    }

    /// <summary>The same for a result in memory: unmasked overflow and underflow leave it unwritten too.</summary>
    internal bool CommitStore(in FloatContext c) =>
        Commit(c) && (c.Raised & ~c.Masks & (X87Exceptions.Overflow | X87Exceptions.Underflow)) == 0;
}
