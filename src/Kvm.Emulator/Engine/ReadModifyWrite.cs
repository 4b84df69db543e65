using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

/// <summary>A memory operand that is read and then written. The permission to write is checked before anything else happens.</summary>
internal unsafe ref struct ReadModifyWrite
{
    /// <summary>Host pointer to modify in place; null when <see cref="Commit"/> goes through Mmu.Write.</summary>
    internal byte* Pointer;
    private Processor cpu;
    private Op* op;
    private ulong offset;
    private bool held;

    /// <summary>Locked accesses that have no single host pointer (across pages, devices) are atomic only among themselves. DIVERGES: D-ENGINE-2</summary>
    private static readonly Lock BusLock = new();

    /// <summary>Opens the operand and reads it. False: fault pending.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool Open<TW>(Processor cpu, Op* op, out ReadModifyWrite access, out ulong value) where TW : struct, IWidth
    {
        access = default;
        byte* p = Operand.FastWrite(cpu.State, op, (uint)TW.Size);
        if (p == null)
            return access.OpenAt(cpu, op, cpu.EffectiveAddress(op), TW.Size, out value);
        access.Pointer = p;
        value = TW.Load(p);
        return true;
    }

    /// <summary>As Open, at an offset that is not the operand's effective address (bit strings).</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    internal bool OpenAt(Processor processor, Op* operation, ulong at, int size, out ulong value)
    {
        cpu = processor;
        op = operation;
        offset = at;
        value = 0;
        Pointer = cpu.Mmu.TranslateForRmw(op->Segment, offset, size, out RmwFailure failure);
        if (Pointer != null)
        {
            value = size switch { 1 => *Pointer, 2 => *(ushort*)Pointer, 4 => *(uint*)Pointer, _ => *(ulong*)Pointer };
            return true;
        }
        if (failure == RmwFailure.Fault)
            return false;
        if ((op->Prefixes & OpPrefixes.Lock) != 0)
        {
            BusLock.Enter();
            held = true;
        }
        if (cpu.Mmu.Read(op->Segment, offset, size, out value))
            return true;
        Release();
        return false;
    }

    /// <summary>Writes the new value where the old one came from. False: fault pending.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool Commit<TW>(ulong value) where TW : struct, IWidth
    {
        if (Pointer == null)
            return CommitSlow(TW.Size, value);
        TW.Store(Pointer, value);
        return true;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private bool CommitSlow(int size, ulong value)
    {
        bool done = cpu.Mmu.Write(op->Segment, offset, size, value);
        Release();
        return done;
    }

    /// <summary>Ends an access that writes nothing.</summary>
    internal void Release()
    {
        if (held)
            BusLock.Exit();
        held = false;
    }
}
