using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.X87;

/// <summary>FXCH, FCMOVcc, FFREE, FFREEP, FINCSTP, FDECSTP and the instructions that do nothing.</summary>
/// <remarks>SDM vol 2A, the instructions' pages.</remarks>
internal static unsafe class X87Registers
{
    /// <summary>Empty registers are filled with the indefinite first when the exception is masked.</summary>
    internal static void Fxch(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        int i = op->Reg;
        if (x.IsEmpty(0) || x.IsEmpty(i))
        {
            if (!x.Underflow())
                return;
            if (x.IsEmpty(0))
                x.Set(0, Float80.Indefinite);
            if (x.IsEmpty(i))
                x.Set(i, Float80.Indefinite);
        }
        else
        {
            x.SetC1(false);
        }
        (x[0], x[i]) = (x[i], x[0]);
    }

    internal static void Fcmovb(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.CF, false);

    internal static void Fcmove(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.ZF, false);

    internal static void Fcmovbe(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.CF | Flags.ZF, false);

    internal static void Fcmovu(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.PF, false);

    internal static void Fcmovnb(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.CF, true);

    internal static void Fcmovne(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.ZF, true);

    internal static void Fcmovnbe(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.CF | Flags.ZF, true);

    internal static void Fcmovnu(CpuState* s, Op* op, byte* m) => Move(s, op, m, Flags.PF, true);

    /// <summary>The registers are looked at whether or not the condition holds.</summary>
    private static void Move(CpuState* s, Op* op, byte* m, ulong flags, bool clear)
    {
        var x = new X87Stack(s);
        if (x.IsEmpty(0) || x.IsEmpty(op->Reg))
        {
            if (x.Underflow())
                x.Set(0, Float80.Indefinite);
            return;
        }
        if ((*(ulong*)(m + VectorUnit.FlagsOffset) & flags) != 0 != clear)
            x[0] = x[op->Reg];
    }

    internal static void Ffree(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        x.Free(op->Reg);
    }

    /// <summary>FFREE, then a pop.</summary>
    internal static void Ffreep(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        x.Free(op->Reg);
        x.Pop();
    }

    internal static void Fincstp(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        x.Increment();
    }

    internal static void Fdecstp(CpuState* s, Op* op, byte* m)
    {
        var x = new X87Stack(s);
        x.SetC1(false);
        x.Decrement();
    }

    /// <summary>FNOP, and FENI, FDISI and FSETPM, which mean nothing since the 387.</summary>
    internal static void Nothing(CpuState* s, Op* op, byte* m)
    {
    }
}
