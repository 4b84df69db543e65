namespace Kvm.Emulator.Vector;

/// <summary>The x87 registers in <see cref="CpuState.Fx"/>: tags, top of the stack, summary bits, initial state.</summary>
/// <remarks>
/// The image holds ST(i) in slot i, relative to the top of the stack; FTW there is abridged (bit r = physical register r is not empty).
/// SDM vol 1, "x87 FPU Status Register", "x87 FPU Tag Word", "x87 State" of the XSAVE feature set.
/// </remarks>
internal static unsafe class X87State
{
    internal const ushort InitialControl = 0x37f;
    /// <summary>FCW bits that can be written; bit 6 reads 1.</summary>
    private const ushort controlMask = 0x1f7f, controlFixed = 0x40;
    /// <summary>Exception summary and busy.</summary>
    internal const ushort Summary = 0x8080;
    internal const ushort OpcodeMask = 0x7ff;

    internal static ref ushort Control(CpuState* s) => ref *(ushort*)(s->Fx + VectorUnit.FxControl);
    internal static ref ushort Status(CpuState* s) => ref *(ushort*)(s->Fx + VectorUnit.FxStatus);
    internal static ref byte Tags(CpuState* s) => ref s->Fx[VectorUnit.FxTags];
    internal static ref ushort Opcode(CpuState* s) => ref *(ushort*)(s->Fx + VectorUnit.FxOpcode);
    internal static ref ulong InstructionPointer(CpuState* s) => ref *(ulong*)(s->Fx + VectorUnit.FxIp);
    internal static ref ulong DataPointer(CpuState* s) => ref *(ulong*)(s->Fx + VectorUnit.FxDp);
    internal static byte* St(CpuState* s, int i) => s->Fx + VectorUnit.FxSt + (i << 4);
    internal static int Top(CpuState* s) => Status(s) >> 11 & 7;

    /// <summary>An unmasked exception is pending.</summary>
    internal static bool Pending(CpuState* s) => (Status(s) & ~Control(s) & VectorUnit.X87Flags) != 0;

    /// <summary>ES and B say whether an unmasked exception is pending; they can't be written.</summary>
    internal static void UpdateSummary(CpuState* s) => Status(s) = (ushort)((Status(s) & ~Summary) | (Pending(s) ? Summary : 0));

    internal static void SetControl(CpuState* s, ushort value)
    {
        Control(s) = (ushort)((value & controlMask) | controlFixed);
        UpdateSummary(s);
    }

    /// <summary>Loads FSW: the registers stay where they are, the image turns with the top of the stack.</summary>
    internal static void SetStatus(CpuState* s, ushort value)
    {
        Turn(s, (value >> 11 & 7) - Top(s));
        Status(s) = value;
        UpdateSummary(s);
    }

    private static void Turn(CpuState* s, int by)
    {
        if (by == 0)
            return;
        byte* before = stackalloc byte[128];
        Buffer.MemoryCopy(St(s, 0), before, 128, 128);
        for (int i = 0; i < 8; i++)
            Buffer.MemoryCopy(before + ((i + by) & 7) * 16, St(s, i), 16, 16);
    }

    /// <summary>FNINIT: the data registers keep their contents.</summary>
    internal static void Initialize(CpuState* s)
    {
        SetStatus(s, 0);
        Control(s) = InitialControl;
        Tags(s) = 0;
        SetPointers(s, 0, 0, 0, 0, 0);
    }

    /// <summary>The initial configuration of the XSAVE feature set: as FNINIT, data registers zero.</summary>
    internal static void Clear(CpuState* s)
    {
        Initialize(s);
        new Span<byte>(St(s, 0), 128).Clear();
    }

    /// <summary>Differs from <see cref="Clear"/>.</summary>
    internal static bool InUse(CpuState* s)
        => Control(s) != InitialControl || Status(s) != 0 || Tags(s) != 0 || Opcode(s) != 0 || InstructionPointer(s) != 0 || DataPointer(s) != 0 || (s->FxCs | s->FxDs) != 0
            || new ReadOnlySpan<byte>(St(s, 0), 128).ContainsAnyExcept((byte)0);

    internal static void SetPointers(CpuState* s, ushort opcode, ulong instruction, ushort cs, ulong data, ushort ds)
    {
        Opcode(s) = (ushort)(opcode & OpcodeMask);
        InstructionPointer(s) = instruction;
        DataPointer(s) = data;
        s->FxCs = cs;
        s->FxDs = ds;
    }

    /// <summary>The tag word with two bits a register: 0 valid, 1 zero, 2 special, 3 empty.</summary>
    internal static ushort FullTags(CpuState* s)
    {
        int top = Top(s), tags = 0;
        for (int r = 0; r < 8; r++)
            tags |= ((Tags(s) >> r & 1) == 0 ? 3 : Class(St(s, (r - top) & 7))) << (r * 2);
        return (ushort)tags;
    }

    /// <summary>Only whether a register is empty is kept.</summary>
    internal static void SetFullTags(CpuState* s, ushort tags)
    {
        int abridged = 0;
        for (int r = 0; r < 8; r++)
            abridged |= ((tags >> (r * 2) & 3) == 3 ? 0 : 1) << r;
        Tags(s) = (byte)abridged;
    }

    private static int Class(byte* st)
    {
        ulong significand = *(ulong*)st;
        int exponent = *(ushort*)(st + 8) & 0x7fff;
        if (exponent == 0 && significand == 0)
            return 1;
        return exponent is not (0 or 0x7fff) && significand >> 63 != 0 ? 0 : 2;
    }
}
