using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>FLDENV, FNSTENV, FNSAVE, FRSTOR.</summary>
/// <remarks>SDM vol 1, "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE": four layouts, by operand size and by protected or real-address (and virtual-8086) mode.</remarks>
internal static unsafe class X87Environment
{
    private const int maxSize = 28 + 80;

    internal static ExecStatus Fnstenv(Processor cpu, Op* op)
    {
        if (!cpu.X87Available(waits: false) || !Store(cpu, op, withRegisters: false))
            return ExecStatus.Fault;
        X87State.SetControl(cpu.State, (ushort)(X87State.Control(cpu.State) | VectorUnit.X87Flags));
        return ExecStatus.Next;
    }

    internal static ExecStatus Fnsave(Processor cpu, Op* op)
    {
        if (!cpu.X87Available(waits: false) || !Store(cpu, op, withRegisters: true))
            return ExecStatus.Fault;
        X87State.Initialize(cpu.State);
        return ExecStatus.Next;
    }

    internal static ExecStatus Fldenv(Processor cpu, Op* op) => Load(cpu, op, withRegisters: false);
    internal static ExecStatus Frstor(Processor cpu, Op* op) => Load(cpu, op, withRegisters: true);

    /// <summary>Bytes of one field: 2 in the 14-byte layouts, 4 in the 28-byte ones.</summary>
    private static int FieldSize(Op* op) => op->Code is Code.Fldenv_m14byte or Code.Fnstenv_m14byte or Code.Fnsave_m94byte or Code.Frstor_m94byte ? 2 : 4;

    private static bool Store(Processor cpu, Op* op, bool withRegisters)
    {
        CpuState* s = cpu.State;
        int field = FieldSize(op), size = 7 * field + (withRegisters ? 80 : 0);
        if (!WideMemory.Linear(cpu, op, cpu.EffectiveAddress(op), size, AccessKind.Write, out ulong linear, checkAlignment: (ulong)field) || !WideMemory.CanWrite(cpu, linear, size))
            return false;
        byte* image = stackalloc byte[maxSize];
        (ushort cs, ushort ds) = cpu.Fpu.Selectors ? (s->FxCs, s->FxDs) : ((ushort)0, (ushort)0);
        ulong ip = X87State.InstructionPointer(s), dp = X87State.DataPointer(s);
        uint opcode = X87State.Opcode(s);
        bool real = RealFormat(cpu);
        if (real)
        {
            ip = (uint)(ip + ((ulong)cs << 4));
            dp = (uint)(dp + ((ulong)ds << 4));
        }
        if (field == 4)
        {
            uint* e = (uint*)image;
            const uint reserved = 0xffff_0000;
            (e[0], e[1], e[2]) = (reserved | X87State.Control(s), reserved | X87State.Status(s), reserved | X87State.FullTags(s));
            (e[3], e[4], e[5], e[6]) = real
                ? (reserved | (ushort)ip, (uint)(ip & 0xffff_0000) >> 4 | opcode, reserved | (ushort)dp, (uint)(dp & 0xffff_0000) >> 4)
                : ((uint)ip, opcode << 16 | cs, (uint)dp, reserved | ds);
        }
        else
        {
            ushort* e = (ushort*)image;
            (e[0], e[1], e[2]) = (X87State.Control(s), X87State.Status(s), X87State.FullTags(s));
            (e[3], e[4], e[5], e[6]) = real
                ? ((ushort)ip, (ushort)((uint)(ip & 0xf_0000) >> 4 | opcode), (ushort)dp, (ushort)((uint)(dp & 0xf_0000) >> 4))
                : ((ushort)ip, cs, (ushort)dp, ds);
        }
        for (int i = 0; withRegisters && i < 8; i++)
            Buffer.MemoryCopy(X87State.St(s, i), image + 7 * field + 10 * i, 10, 10);
        return WideMemory.Write(cpu, linear, image, size);
    }

    private static ExecStatus Load(Processor cpu, Op* op, bool withRegisters)
    {
        if (!cpu.X87Available(waits: true))
            return ExecStatus.Fault;
        CpuState* s = cpu.State;
        int field = FieldSize(op), size = 7 * field + (withRegisters ? 80 : 0);
        byte* image = stackalloc byte[maxSize];
        if (!WideMemory.Linear(cpu, op, cpu.EffectiveAddress(op), size, AccessKind.Read, out ulong linear, checkAlignment: (ulong)field) || !WideMemory.Read(cpu, linear, image, size))
            return ExecStatus.Fault;
        uint* e = stackalloc uint[7];
        for (int i = 0; i < 7; i++)
            e[i] = field == 4 ? ((uint*)image)[i] : ((ushort*)image)[i];
        X87State.SetControl(s, (ushort)e[0]);
        X87State.SetStatus(s, (ushort)e[1]);
        X87State.SetFullTags(s, (ushort)e[2]);
        if (RealFormat(cpu))
            X87State.SetPointers(s, (ushort)e[4], (e[4] & 0x0fff_f000) << 4 | (ushort)e[3], 0, (e[6] & 0x0fff_f000) << 4 | (ushort)e[5], 0);
        else
            X87State.SetPointers(s, field == 4 ? (ushort)(e[4] >> 16) : (ushort)0, e[3], (ushort)e[4], e[5], (ushort)e[6]);
        for (int i = 0; withRegisters && i < 8; i++)
        {
            byte* st = X87State.St(s, i);
            new Span<byte>(st, 16).Clear();
            Buffer.MemoryCopy(image + 7 * field + 10 * i, st, 10, 10);
        }
        return ExecStatus.Next;
    }

    private static bool RealFormat(Processor cpu) => !cpu.ProtectedMode || cpu.Virtual8086;
}
