namespace Kvm.Emulator.Vector;

/// <summary>How an XSAVE area is laid out and its x87 pointers are stored.</summary>
/// <param name="Wide">With REX.W: 64-bit x87 instruction and operand pointers instead of 32-bit ones with selectors.</param>
/// <param name="Registers">XMM and YMM registers that exist: 16 in 64-bit mode, 8 outside.</param>
internal readonly record struct XsaveFormat(bool Wide, int Registers);

/// <summary>State components to and from the parts of an XSAVE area.</summary>
/// <remarks>SDM vol 1, chapter "Managing State Using the XSAVE Feature Set": "Legacy Region of an XSAVE Area", "x87 State", "SSE State", "AVX State", "PKRU State".</remarks>
internal static unsafe class XsaveImage
{
    internal const int X87Head = 24, MxcsrOffset = 24, StOffset = 32, XmmOffset = 160, XmmEnd = 416, HeaderOffset = 512;

    /// <summary>Components that are not in their initial configuration. AMD's processors count x87 always.</summary>
    internal static ulong InUse(Processor cpu, int registers)
    {
        CpuState* s = cpu.State;
        ulong inUse = cpu.Fpu.Amd || X87State.InUse(s) ? FpuTraits.X87 : 0;
        if (cpu.MxcsrValue != Processor.MxcsrInitial || new ReadOnlySpan<byte>(VectorUnit.Xmm(s, 0), registers * 16).ContainsAnyExcept((byte)0))
            inUse |= FpuTraits.Sse;
        if (new ReadOnlySpan<byte>(s->YmmHi, registers * 16).ContainsAnyExcept((byte)0))
            inUse |= FpuTraits.Avx;
        return s->Pkru != 0 ? inUse | FpuTraits.Pkru : inUse;
    }

    /// <summary>x87: control words, pointers, data registers.</summary>
    internal static bool StoreX87<TArea>(Processor cpu, in TArea area, XsaveFormat format) where TArea : IXsaveArea
    {
        CpuState* s = cpu.State;
        byte* head = stackalloc byte[X87Head];
        new Span<byte>(head, X87Head).Clear();
        *(ushort*)head = X87State.Control(s);
        *(ushort*)(head + 2) = X87State.Status(s);
        head[4] = X87State.Tags(s);
        int size = X87Head;
        if (cpu.Fpu.Pointers == ErrorPointers.Always || (X87State.Status(s) & X87State.Summary) != 0)
        {
            *(ushort*)(head + 6) = X87State.Opcode(s);
            StorePointer(head + 8, X87State.InstructionPointer(s), s->FxCs);
            StorePointer(head + 16, X87State.DataPointer(s), s->FxDs);
        }
        else if (cpu.Fpu.Pointers == ErrorPointers.OnlyPending)
        {
            size = 6;
        }
        return area.Write(0, head, size) && area.Write(StOffset, X87State.St(s, 0), 128);

        void StorePointer(byte* at, ulong offset, ushort selector)
            => *(ulong*)at = format.Wide ? offset : (uint)offset | (cpu.Fpu.Selectors ? (ulong)selector << 32 : 0);
    }

    internal static bool StoreMxcsr<TArea>(Processor cpu, in TArea area) where TArea : IXsaveArea
    {
        ulong value = cpu.MxcsrValue | (ulong)cpu.Fpu.MxcsrMask << 32;
        return area.Write(MxcsrOffset, (byte*)&value, 8);
    }

    internal static bool StoreXmm<TArea>(Processor cpu, in TArea area, int registers) where TArea : IXsaveArea
        => area.Write(XmmOffset, VectorUnit.Xmm(cpu.State, 0), registers * 16);

    /// <summary>x87 from the first 160 bytes of an area.</summary>
    internal static void LoadX87(Processor cpu, byte* legacy, XsaveFormat format)
    {
        CpuState* s = cpu.State;
        for (int i = 0; i < 8; i++)
        {
            byte* st = X87State.St(s, i);
            Buffer.MemoryCopy(legacy + StOffset + i * 16, st, 10, 10);
            new Span<byte>(st + 10, 6).Clear();
        }
        X87State.Status(s) = *(ushort*)(legacy + 2);
        X87State.SetControl(s, *(ushort*)legacy);
        X87State.Tags(s) = legacy[4];
        if (cpu.Fpu.Pointers == ErrorPointers.OnlyPending && (X87State.Status(s) & X87State.Summary) == 0)
            return;
        ulong ip = *(ulong*)(legacy + 8), dp = *(ulong*)(legacy + 16);
        ushort opcode = *(ushort*)(legacy + 6);
        if (format.Wide)
            X87State.SetPointers(s, opcode, ip, 0, dp, 0);
        else
            X87State.SetPointers(s, opcode, (uint)ip, (ushort)(ip >> 32), (uint)dp, (ushort)(dp >> 32));
    }

    internal static void LoadXmm(Processor cpu, byte* from, int registers) => Buffer.MemoryCopy(from, VectorUnit.Xmm(cpu.State, 0), registers * 16, registers * 16);

    internal static void ClearXmm(Processor cpu, int registers) => new Span<byte>(VectorUnit.Xmm(cpu.State, 0), registers * 16).Clear();
}
