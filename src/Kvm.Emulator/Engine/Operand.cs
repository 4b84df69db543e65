using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

/// <summary>Access to the operands of a decoded instruction: registers by slot, memory through the software TLB or, when that misses, the Mmu.</summary>
/// <remarks>
/// Values wider than a byte are read and written with single host accesses, which gives x86's atomicity on naturally aligned data.
/// A false or null answer means that a fault is pending and nothing has changed.
/// </remarks>
internal static unsafe class Operand
{
    internal const ulong PageMask = ~0xfffUL;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* Reg(CpuState* s, Op* op) => (byte*)s + op->RegSlot;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* Rm(CpuState* s, Op* op) => (byte*)s + op->RmSlot;

    /// <summary>The effective address of an operand on the fast path.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static ulong FastOffset(CpuState* s, Op* op)
        => (*(ulong*)((byte*)s + op->BaseSlot) + (*(ulong*)((byte*)s + op->IndexSlot) << op->Scale) + (ulong)op->BlockDisp) & op->AddressMask;

    /// <summary>The entry a linear address maps to.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static TlbEntry* Entry(CpuState* s, ulong linear) => (TlbEntry*)((byte*)s->Tlb + ((linear >> 7) & ((TlbEntry.Entries - 1) << 5)));

    /// <summary>Host pointer of a readable operand, null when the TLB does not give one (or the operand's segment needs checks).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* FastRead(CpuState* s, Op* op, uint size)
    {
        ulong linear = FastOffset(s, op) + *(ulong*)((byte*)s + op->SegmentSlot);
        TlbEntry* entry = Entry(s, linear);
        return entry->ReadTag == ((linear + (size - 1)) & PageMask) ? (byte*)(linear + entry->Addend) : null;
    }

    /// <summary>Host pointer of a writable operand, null when the TLB does not give one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* FastWrite(CpuState* s, Op* op, uint size)
    {
        ulong linear = FastOffset(s, op) + *(ulong*)((byte*)s + op->SegmentSlot);
        TlbEntry* entry = Entry(s, linear);
        return entry->WriteTag == ((linear + (size - 1)) & PageMask) ? (byte*)(linear + entry->Addend) : null;
    }

    /// <summary>Eight bytes of stack in 64-bit code.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* FastStackRead(CpuState* s, ulong linear)
    {
        TlbEntry* entry = Entry(s, linear);
        return entry->ReadTag == ((linear + 7) & PageMask) ? (byte*)(linear + entry->Addend) : null;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* FastStackWrite(CpuState* s, ulong linear)
    {
        TlbEntry* entry = Entry(s, linear);
        return entry->WriteTag == ((linear + 7) & PageMask) ? (byte*)(linear + entry->Addend) : null;
    }

    /// <summary>Pointer to the operand's bytes for reading: in guest memory, or a copy in <see cref="CpuState.Scratch"/>. Null: fault pending. RIP must be set.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    internal static byte* SlowRead(Processor cpu, Op* op, int size)
    {
        if (!cpu.Mmu.Read(op->Segment, cpu.EffectiveAddress(op), size, out ulong value))
            return null;
        cpu.State->Scratch[0] = value;
        return (byte*)&cpu.State->Scratch[0];
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    internal static bool SlowWrite(Processor cpu, Op* op, int size, ulong value) => cpu.Mmu.Write(op->Segment, cpu.EffectiveAddress(op), size, value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool Read<TW>(Processor cpu, Op* op, out ulong value) where TW : struct, IWidth
    {
        byte* p = FastRead(cpu.State, op, (uint)TW.Size);
        if (p == null)
            p = SlowRead(cpu, op, TW.Size);
        if (p == null)
        {
            value = 0;
            return false;
        }
        value = TW.Load(p);
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool Write<TW>(Processor cpu, Op* op, ulong value) where TW : struct, IWidth
    {
        byte* p = FastWrite(cpu.State, op, (uint)TW.Size);
        if (p == null)
            return SlowWrite(cpu, op, TW.Size, value);
        TW.Store(p, value);
        return true;
    }

    /// <summary>The r/m operand, register or memory, zero-extended.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool ReadRm<TW>(Processor cpu, Op* op, out ulong value) where TW : struct, IWidth
    {
        if (op->HasMemory)
            return Read<TW>(cpu, op, out value);
        value = TW.Load(Rm(cpu.State, op));
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool WriteRm<TW>(Processor cpu, Op* op, ulong value) where TW : struct, IWidth
    {
        if (op->HasMemory)
            return Write<TW>(cpu, op, value);
        TW.StoreRegister(Rm(cpu.State, op), value);
        return true;
    }
}
