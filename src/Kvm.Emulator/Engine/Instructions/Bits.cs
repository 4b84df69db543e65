using System.Buffers.Binary;
using System.Numerics;

namespace Kvm.Emulator.Engine;

/// <summary>What a bit-test instruction does with the bit.</summary>
internal interface IBitAction
{
    static abstract bool Writes { get; }
    static abstract ulong Apply(ulong value, ulong mask);
}

internal readonly struct BtAction : IBitAction
{
    public static bool Writes => false;
    public static ulong Apply(ulong value, ulong mask) => value;
}

internal readonly struct BtsAction : IBitAction
{
    public static bool Writes => true;
    public static ulong Apply(ulong value, ulong mask) => value | mask;
}

internal readonly struct BtrAction : IBitAction
{
    public static bool Writes => true;
    public static ulong Apply(ulong value, ulong mask) => value & ~mask;
}

internal readonly struct BtcAction : IBitAction
{
    public static bool Writes => true;
    public static ulong Apply(ulong value, ulong mask) => value ^ mask;
}

/// <summary>BT BTS BTR BTC, bit scans and counts, BMI1, BMI2, CRC32, BSWAP, MOVBE.</summary>
internal static unsafe class Bits
{
    /// <summary>BTx r/m, imm8.</summary>
    internal static ExecStatus TestImm<TW, TAction>(Processor cpu, Op* op) where TW : struct, IWidth where TAction : struct, IBitAction
    {
        int bit = (int)op->Imm & (TW.Bits - 1);
        return op->HasMemory ? TestMemory<TW, TAction>(cpu, op, cpu.EffectiveAddress(op), bit) : TestRegister<TW, TAction>(cpu.State, op, bit);
    }

    /// <summary>BTx r/m, reg: in memory the register is a signed bit index into a string of bits.</summary>
    internal static ExecStatus TestReg<TW, TAction>(Processor cpu, Op* op) where TW : struct, IWidth where TAction : struct, IBitAction
    {
        ulong index = TW.LoadSigned(Operand.Reg(cpu.State, op));
        int bit = (int)index & (TW.Bits - 1);
        if (!op->HasMemory)
            return TestRegister<TW, TAction>(cpu.State, op, bit);
        ulong offset = (cpu.EffectiveAddress(op) + OperandSize.BitStringOffset(index, TW.Size)) & op->AddressMask;
        return TestMemory<TW, TAction>(cpu, op, offset, bit);
    }

    private static ExecStatus TestRegister<TW, TAction>(CpuState* s, Op* op, int bit) where TW : struct, IWidth where TAction : struct, IBitAction
    {
        ulong a = TW.Load(Operand.Rm(s, op));
        if (TAction.Writes)
            TW.StoreRegister(Operand.Rm(s, op), TAction.Apply(a, 1UL << bit));
        LazyFlags.Set(s, LazyFlags.CF, a >> bit & 1);
        return ExecStatus.Next;
    }

    private static ExecStatus TestMemory<TW, TAction>(Processor cpu, Op* op, ulong offset, int bit) where TW : struct, IWidth where TAction : struct, IBitAction
    {
        ulong a;
        if (!TAction.Writes)
        {
            if (!cpu.Mmu.Read(op->Segment, offset, TW.Size, out a))
                return ExecStatus.Fault;
        }
        else
        {
            ReadModifyWrite access = default;
            if (!access.OpenAt(cpu, op, offset, TW.Size, out a))
                return ExecStatus.Fault;
            ulong mask = 1UL << bit;
            if ((op->Prefixes & OpPrefixes.Lock) != 0 && access.Pointer != null)
            {
                ulong seen;
                while ((seen = TW.CompareExchange(access.Pointer, TAction.Apply(a, mask), a)) != a)
                    a = seen;
            }
            else if (!access.Commit<TW>(TAction.Apply(a, mask)))
                return ExecStatus.Fault;
        }
        LazyFlags.Set(cpu.State, LazyFlags.CF, a >> bit & 1);
        return ExecStatus.Next;
    }

    /// <summary>BSF: the destination keeps its value when the source is zero.</summary>
    internal static ExecStatus Bsf<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Scan<TW>(cpu, op, forward: true);
    internal static ExecStatus Bsr<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Scan<TW>(cpu, op, forward: false);

    private static ExecStatus Scan<TW>(Processor cpu, Op* op, bool forward) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong a))
            return ExecStatus.Fault;
        if (a != 0)
            TW.StoreRegister(Operand.Reg(cpu.State, op), (ulong)(forward ? BitOperations.TrailingZeroCount(a) : BitOperations.Log2(a)));
        LazyFlags.Set(cpu.State, LazyFlags.ZF, a == 0 ? LazyFlags.ZF : 0);
        return ExecStatus.Next;
    }

    internal static ExecStatus Tzcnt<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Count<TW>(cpu, op, trailing: true);
    internal static ExecStatus Lzcnt<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Count<TW>(cpu, op, trailing: false);

    private static ExecStatus Count<TW>(Processor cpu, Op* op, bool trailing) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong a))
            return ExecStatus.Fault;
        int r = a == 0 ? TW.Bits : trailing ? BitOperations.TrailingZeroCount(a) : BitOperations.LeadingZeroCount(a) - (64 - TW.Bits);
        TW.StoreRegister(Operand.Reg(cpu.State, op), (ulong)r);
        LazyFlags.Set(cpu.State, LazyFlags.CF | LazyFlags.ZF, (a == 0 ? LazyFlags.CF : 0) | (r == 0 ? LazyFlags.ZF : 0));
        return ExecStatus.Next;
    }

    internal static ExecStatus Popcnt<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong a))
            return ExecStatus.Fault;
        TW.StoreRegister(Operand.Reg(cpu.State, op), (ulong)BitOperations.PopCount(a));
        LazyFlags.Set(cpu.State, LazyFlags.All, a == 0 ? LazyFlags.ZF : 0);
        return ExecStatus.Next;
    }

    // ---- BMI1 ----
    // PF and AF are undefined after these.
    private static ExecStatus Result<TW>(CpuState* s, byte* destination, ulong r, ulong carry) where TW : struct, IWidth
    {
        r = TW.Zero(r);
        TW.StoreRegister(destination, r);
        LazyFlags.Set(s, LazyFlags.All, carry | (r == 0 ? LazyFlags.ZF : 0) | (r >> (TW.Bits - 1)) << 7);
        return ExecStatus.Next;
    }

    private static byte* Vvvv(CpuState* s, Op* op) => (byte*)&s->Gpr[op->Imm2];

    internal static ExecStatus Andn<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.ReadRm<TW>(cpu, op, out ulong a) ? Result<TW>(cpu.State, Operand.Reg(cpu.State, op), ~TW.Load(Vvvv(cpu.State, op)) & a, 0) : ExecStatus.Fault;

    internal static ExecStatus Blsr<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.ReadRm<TW>(cpu, op, out ulong a) ? Result<TW>(cpu.State, Vvvv(cpu.State, op), (a - 1) & a, a == 0 ? 1UL : 0) : ExecStatus.Fault;

    internal static ExecStatus Blsmsk<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.ReadRm<TW>(cpu, op, out ulong a) ? Result<TW>(cpu.State, Vvvv(cpu.State, op), (a - 1) ^ a, a == 0 ? 1UL : 0) : ExecStatus.Fault;

    internal static ExecStatus Blsi<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.ReadRm<TW>(cpu, op, out ulong a) ? Result<TW>(cpu.State, Vvvv(cpu.State, op), (0 - a) & a, a != 0 ? 1UL : 0) : ExecStatus.Fault;

    internal static ExecStatus Bextr<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong a))
            return ExecStatus.Fault;
        ulong control = cpu.State->Gpr[op->Imm2];
        int start = (byte)control, length = (byte)(control >> 8);
        ulong r = start >= TW.Bits ? 0 : a >> start;
        if (length < 64)
            r &= (1UL << length) - 1;
        return Result<TW>(cpu.State, Operand.Reg(cpu.State, op), r, 0);
    }

    // ---- BMI2 ----
    internal static ExecStatus Bzhi<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong a))
            return ExecStatus.Fault;
        int index = (byte)cpu.State->Gpr[op->Imm2];
        return Result<TW>(cpu.State, Operand.Reg(cpu.State, op), index < TW.Bits ? a & ((1UL << index) - 1) : a, index >= TW.Bits ? 1UL : 0);
    }

    internal static ExecStatus Pdep<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong mask))
            return ExecStatus.Fault;
        ulong source = TW.Load(Vvvv(cpu.State, op)), r = 0;
        for (; mask != 0; mask &= mask - 1, source >>= 1)
            if ((source & 1) != 0)
                r |= mask & (0 - mask);
        TW.StoreRegister(Operand.Reg(cpu.State, op), r);
        return ExecStatus.Next;
    }

    internal static ExecStatus Pext<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong mask))
            return ExecStatus.Fault;
        ulong source = TW.Load(Vvvv(cpu.State, op)), r = 0;
        for (int i = 0; mask != 0; mask &= mask - 1, i++)
            if ((source & mask & (0 - mask)) != 0)
                r |= 1UL << i;
        TW.StoreRegister(Operand.Reg(cpu.State, op), r);
        return ExecStatus.Next;
    }

    /// <summary>CRC32 r32, r/m of width TW (CRC-32C, as SSE4.2 has it).</summary>
    internal static ExecStatus Crc32<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong data))
            return ExecStatus.Fault;
        uint crc = (uint)cpu.State->Gpr[op->Reg];
        crc = TW.Size switch
        {
            1 => BitOperations.Crc32C(crc, (byte)data),
            2 => BitOperations.Crc32C(crc, (ushort)data),
            4 => BitOperations.Crc32C(crc, (uint)data),
            _ => BitOperations.Crc32C(crc, data),
        };
        cpu.State->Gpr[op->Reg] = crc;
        return ExecStatus.Next;
    }

    internal static ExecStatus Bswap16(Processor cpu, Op* op) { *(ushort*)Operand.Reg(cpu.State, op) = 0; return ExecStatus.Next; }
    internal static ExecStatus Bswap32(Processor cpu, Op* op) { ulong* p = &cpu.State->Gpr[op->Reg]; *p = BinaryPrimitives.ReverseEndianness((uint)*p); return ExecStatus.Next; }
    internal static ExecStatus Bswap64(Processor cpu, Op* op) { ulong* p = &cpu.State->Gpr[op->Reg]; *p = BinaryPrimitives.ReverseEndianness(*p); return ExecStatus.Next; }

    private static ulong Reverse<TW>(ulong value) where TW : struct, IWidth => BinaryPrimitives.ReverseEndianness(value) >> (64 - TW.Bits);

    internal static ExecStatus MovbeLoad<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.Read<TW>(cpu, op, out ulong value))
            return ExecStatus.Fault;
        TW.StoreRegister(Operand.Reg(cpu.State, op), Reverse<TW>(value));
        return ExecStatus.Next;
    }

    internal static ExecStatus MovbeStore<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.Write<TW>(cpu, op, Reverse<TW>(TW.Load(Operand.Reg(cpu.State, op)))) ? ExecStatus.Next : ExecStatus.Fault;
}
