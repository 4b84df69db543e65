using System.Security.Cryptography;

namespace Kvm.Emulator.Engine;

/// <summary>MOV (general registers and memory), MOVZX MOVSX MOVSXD, LEA, XLAT, CMOVcc, SETcc, XCHG, XADD, CMPXCHG, flag moves, RDRAND.</summary>
internal static unsafe class Data
{
    internal static ExecStatus MovRmReg<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.WriteRm<TW>(cpu, op, TW.Load(Operand.Reg(cpu.State, op))) ? ExecStatus.Next : ExecStatus.Fault;

    internal static ExecStatus MovRegRm<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong value))
            return ExecStatus.Fault;
        TW.StoreRegister(Operand.Reg(cpu.State, op), value);
        return ExecStatus.Next;
    }

    internal static ExecStatus MovRmImm<TW>(Processor cpu, Op* op) where TW : struct, IWidth
        => Operand.WriteRm<TW>(cpu, op, op->Imm) ? ExecStatus.Next : ExecStatus.Fault;

    /// <summary>Destination width TD, source width TS.</summary>
    internal static ExecStatus Movzx<TD, TS>(Processor cpu, Op* op) where TD : struct, IWidth where TS : struct, IWidth
    {
        if (!Operand.ReadRm<TS>(cpu, op, out ulong value))
            return ExecStatus.Fault;
        TD.StoreRegister(Operand.Reg(cpu.State, op), value);
        return ExecStatus.Next;
    }

    internal static ExecStatus Movsx<TD, TS>(Processor cpu, Op* op) where TD : struct, IWidth where TS : struct, IWidth
    {
        if (!Operand.ReadRm<TS>(cpu, op, out ulong value))
            return ExecStatus.Fault;
        TD.StoreRegister(Operand.Reg(cpu.State, op), TS.Sign(value));
        return ExecStatus.Next;
    }

    internal static ExecStatus Lea<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        TW.StoreRegister(Operand.Reg(cpu.State, op), cpu.EffectiveAddress(op));
        return ExecStatus.Next;
    }

    internal static ExecStatus Xlat(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        if (!cpu.Mmu.Read(op->Segment, (s->Gpr[3] + (byte)s->Gpr[0]) & op->AddressMask, 1, out ulong value))
            return ExecStatus.Fault;
        *(byte*)&s->Gpr[0] = (byte)value;
        return ExecStatus.Next;
    }

    /// <summary>CMOVcc: the source is read whatever the condition; a 32-bit destination is zero-extended either way.</summary>
    internal static ExecStatus Cmov<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        if (!Operand.ReadRm<TW>(cpu, op, out ulong value))
            return ExecStatus.Fault;
        byte* p = Operand.Reg(cpu.State, op);
        TW.StoreRegister(p, LazyFlags.Condition(cpu.State, op->Imm2) ? value : TW.Load(p));
        return ExecStatus.Next;
    }

    internal static ExecStatus Setcc(Processor cpu, Op* op)
        => Operand.WriteRm<W8>(cpu, op, LazyFlags.Condition(cpu.State, op->Imm2) ? 1UL : 0) ? ExecStatus.Next : ExecStatus.Fault;

    // ---- exchanges ----
    /// <summary>XCHG r/m, reg: with memory always locked.</summary>
    internal static ExecStatus Xchg<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        byte* reg = Operand.Reg(cpu.State, op);
        ulong b = TW.Load(reg), a;
        if (!op->HasMemory)
        {
            byte* rm = Operand.Rm(cpu.State, op);
            a = TW.Load(rm);
            TW.StoreRegister(rm, b);
            TW.StoreRegister(reg, a);
            return ExecStatus.Next;
        }
        if (!ReadModifyWrite.Open<TW>(cpu, op, out ReadModifyWrite access, out a))
            return ExecStatus.Fault;
        if (access.Pointer != null)
            a = TW.Zero(TW.Exchange(access.Pointer, b));
        else if (!access.Commit<TW>(b))
            return ExecStatus.Fault;
        TW.StoreRegister(reg, a);
        return ExecStatus.Next;
    }

    internal static ExecStatus Xadd<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        byte* reg = Operand.Reg(s, op);
        ulong b = TW.LoadSigned(reg), a, r;
        if (!op->HasMemory)
        {
            byte* rm = Operand.Rm(s, op);
            a = TW.LoadSigned(rm);
            r = TW.Sign(a + b);
            TW.StoreRegister(reg, a);
            TW.StoreRegister(rm, r);
        }
        else
        {
            if (!ReadModifyWrite.Open<TW>(cpu, op, out ReadModifyWrite access, out a))
                return ExecStatus.Fault;
            a = TW.Sign(a);
            r = TW.Sign(a + b);
            if ((op->Prefixes & OpPrefixes.Lock) != 0 && access.Pointer != null)
            {
                ulong seen;
                while ((seen = TW.Sign(TW.CompareExchange(access.Pointer, r, a))) != a)
                {
                    a = seen;
                    r = TW.Sign(a + b);
                }
            }
            else if (!access.Commit<TW>(r))
                return ExecStatus.Fault;
            TW.StoreRegister(reg, a);
        }
        LazyFlags.Record(s, LazyOp.Add, a, b, r);
        return ExecStatus.Next;
    }

    /// <summary>CMPXCHG: a memory destination is written back even when the comparison fails.</summary>
    internal static ExecStatus Cmpxchg<TW>(Processor cpu, Op* op) where TW : struct, IWidth
    {
        CpuState* s = cpu.State;
        ulong accumulator = TW.Zero(s->Gpr[0]), b = TW.Load(Operand.Reg(s, op)), a;
        if (!op->HasMemory)
        {
            byte* rm = Operand.Rm(s, op);
            a = TW.Load(rm);
            if (a == accumulator)
                TW.StoreRegister(rm, b);
            else
                TW.StoreRegister(&s->Gpr[0], a);
        }
        else
        {
            if (!ReadModifyWrite.Open<TW>(cpu, op, out ReadModifyWrite access, out a))
                return ExecStatus.Fault;
            if ((op->Prefixes & OpPrefixes.Lock) != 0 && access.Pointer != null)
                a = TW.Zero(TW.CompareExchange(access.Pointer, b, accumulator));
            else if (!access.Commit<TW>(a == accumulator ? b : a))
                return ExecStatus.Fault;
            if (a != accumulator)
                TW.StoreRegister(&s->Gpr[0], a);
        }
        ulong left = TW.Sign(accumulator), right = TW.Sign(a);
        LazyFlags.Record(s, LazyOp.Sub, left, right, TW.Sign(left - right));
        return ExecStatus.Next;
    }

    internal static ExecStatus Cmpxchg8b(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        ulong expected = s->Gpr[2] << 32 | (uint)s->Gpr[0], replacement = s->Gpr[1] << 32 | (uint)s->Gpr[3];
        if (!ReadModifyWrite.Open<W64>(cpu, op, out ReadModifyWrite access, out ulong a))
            return ExecStatus.Fault;
        if ((op->Prefixes & OpPrefixes.Lock) != 0 && access.Pointer != null)
            a = W64.CompareExchange(access.Pointer, replacement, expected);
        else if (!access.Commit<W64>(a == expected ? replacement : a))
            return ExecStatus.Fault;
        if (a != expected)
        {
            s->Gpr[0] = (uint)a;
            s->Gpr[2] = a >> 32;
        }
        LazyFlags.Set(s, LazyFlags.ZF, a == expected ? LazyFlags.ZF : 0);
        return ExecStatus.Next;
    }

    private static readonly Lock Wide = new();

    /// <summary>CMPXCHG16B: #GP when not 16-byte aligned.</summary>
    /// <remarks>Atomic among CMPXCHG16B instructions; the managed runtime offers no 128-bit compare-exchange against other stores. DIVERGES: D-ENGINE-1</remarks>
    internal static ExecStatus Cmpxchg16b(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        ulong offset = cpu.EffectiveAddress(op);
        if (!cpu.Mmu.CheckedLinear(op->Segment, offset, 16, AccessKind.ReadWrite, out ulong linear))
            return ExecStatus.Fault;
        if ((linear & 15) != 0)
            return cpu.Raise(Fault.Gp());
        lock (Wide)
        {
            ulong* p = (ulong*)cpu.Mmu.TranslateForRmw(op->Segment, offset, 16, out RmwFailure failure);
            if (p == null && failure == RmwFailure.Fault)
                return ExecStatus.Fault;
            ulong low, high;
            if (p != null)
                (low, high) = (p[0], p[1]);
            else if (!cpu.Mmu.Read(op->Segment, offset, 8, out low) || !cpu.Mmu.Read(op->Segment, offset + 8, 8, out high))
                return ExecStatus.Fault;
            bool equal = low == s->Gpr[0] && high == s->Gpr[2];
            ulong newLow = equal ? s->Gpr[3] : low, newHigh = equal ? s->Gpr[1] : high;
            if (p != null)
                (p[0], p[1]) = (newLow, newHigh);
            else if (!cpu.Mmu.Write(op->Segment, offset, 8, newLow) || !cpu.Mmu.Write(op->Segment, offset + 8, 8, newHigh))
                return ExecStatus.Fault;
            if (!equal)
                (s->Gpr[0], s->Gpr[2]) = (low, high);
            LazyFlags.Set(s, LazyFlags.ZF, equal ? LazyFlags.ZF : 0);
        }
        return ExecStatus.Next;
    }

    // ---- flags ----
    internal static ExecStatus Clc(Processor cpu, Op* op) { LazyFlags.Set(cpu.State, LazyFlags.CF, 0); return ExecStatus.Next; }
    internal static ExecStatus Stc(Processor cpu, Op* op) { LazyFlags.Set(cpu.State, LazyFlags.CF, LazyFlags.CF); return ExecStatus.Next; }
    internal static ExecStatus Cmc(Processor cpu, Op* op) { LazyFlags.Set(cpu.State, LazyFlags.CF, LazyFlags.Carry(cpu.State) ^ 1); return ExecStatus.Next; }
    internal static ExecStatus Cld(Processor cpu, Op* op) { cpu.State->Rflags &= ~0x400UL; return ExecStatus.Next; }
    internal static ExecStatus Std(Processor cpu, Op* op) { cpu.State->Rflags |= 0x400; return ExecStatus.Next; }

    internal static ExecStatus Lahf(Processor cpu, Op* op)
    {
        ((byte*)&cpu.State->Gpr[0])[1] = (byte)(LazyFlags.Arithmetic(cpu.State) & 0xff | 2);
        return ExecStatus.Next;
    }

    internal static ExecStatus Sahf(Processor cpu, Op* op)
    {
        LazyFlags.Set(cpu.State, LazyFlags.All & 0xff, cpu.State->Gpr[0] >> 8);
        return ExecStatus.Next;
    }

    internal static ExecStatus Salc(Processor cpu, Op* op) { *(byte*)&cpu.State->Gpr[0] = (byte)(0 - LazyFlags.Carry(cpu.State)); return ExecStatus.Next; }

    // ---- nothing, and things that look like it ----
    internal static ExecStatus Nop(Processor cpu, Op* op) => ExecStatus.Next;
    internal static ExecStatus Ud(Processor cpu, Op* op) => cpu.RaiseUd();
    internal static ExecStatus Gp(Processor cpu, Op* op) => cpu.RaiseGp();

    internal static ExecStatus Pause(Processor cpu, Op* op)
    {
        if (cpu.NonRoot is { } guest && guest.Pause(op->Length))
            return ExecStatus.Switched;
        Thread.SpinWait(1);
        return ExecStatus.Next;
    }

    internal static ExecStatus Fence(Processor cpu, Op* op)
    {
        Interlocked.MemoryBarrier();
        return ExecStatus.Next;
    }

    /// <summary>CLFLUSH CLFLUSHOPT CLWB: checked as a byte read.</summary>
    internal static ExecStatus CacheLine(Processor cpu, Op* op) => Operand.Read<W8>(cpu, op, out _) ? ExecStatus.Next : ExecStatus.Fault;

    // What the engine does not execute faults as on a processor whose operating system has switched the unit off: with #NM while CR0 asks for it, else #UD.
    private const ulong Emulation = 4, TaskSwitched = 8, OsFxsr = 1UL << 9, OsXsave = 1UL << 18;

    internal static ExecStatus X87(Processor cpu, Op* op) => (cpu.State->Cr0 & (Emulation | TaskSwitched)) != 0 ? cpu.Raise(new Fault(Fault.NM)) : cpu.RaiseUd();
    internal static ExecStatus Mmx(Processor cpu, Op* op) => Unit(cpu, (cpu.State->Cr0 & Emulation) == 0);
    internal static ExecStatus Sse(Processor cpu, Op* op) => Unit(cpu, (cpu.State->Cr0 & Emulation) == 0 && (cpu.State->Cr4 & OsFxsr) != 0);
    internal static ExecStatus Avx(Processor cpu, Op* op) => Unit(cpu, (cpu.State->Cr4 & OsXsave) != 0);

    private static ExecStatus Unit(Processor cpu, bool enabled) => enabled && (cpu.State->Cr0 & TaskSwitched) != 0 ? cpu.Raise(new Fault(Fault.NM)) : cpu.RaiseUd();

    /// <summary>CLZERO: clears the cache line that rAX addresses in DS or the overriding segment.</summary>
    /// <remarks>APM vol 3, "CLZERO".</remarks>
    internal static ExecStatus Clzero(Processor cpu, Op* op)
    {
        const int line = 64;
        ulong address = Processor.WrapAddress(op, cpu.State->Gpr[0]) & ~(line - 1UL);
        if (!cpu.Mmu.CheckedLinear(op->Segment, address, 8, AccessKind.Write, out ulong linear) || !cpu.Mmu.ProbeWrite(linear, line))
            return ExecStatus.Fault;
        for (int i = 0; i < line; i += 8)
        {
            if (!cpu.Mmu.Write(op->Segment, address + (ulong)i, 8, 0))
                return ExecStatus.Fault;
        }
        return ExecStatus.Next;
    }

    internal static ExecStatus Rdrand<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Random<TW>(cpu, op, seed: false);
    internal static ExecStatus Rdseed<TW>(Processor cpu, Op* op) where TW : struct, IWidth => Random<TW>(cpu, op, seed: true);

    private static ExecStatus Random<TW>(Processor cpu, Op* op, bool seed) where TW : struct, IWidth
    {
        if (cpu.NonRoot is { } guest && guest.Rdrand(op->Length, seed, op->Rm, (byte)TW.Size))
            return ExecStatus.Switched;
        ulong value;
        RandomNumberGenerator.Fill(new Span<byte>(&value, sizeof(ulong)));
        TW.StoreRegister(Operand.Rm(cpu.State, op), value);
        LazyFlags.Set(cpu.State, LazyFlags.All, LazyFlags.CF);
        return ExecStatus.Next;
    }
}
