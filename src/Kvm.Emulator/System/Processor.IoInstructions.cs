using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>IN, OUT, INS, OUTS and the I/O permission bitmap.</summary>
/// <remarks>SDM vol 1, "I/O Protection Mechanism"; permission faults come before VM exits (vol 3C, "Relative Priority of Faults and VM Exits").</remarks>
public sealed unsafe partial class Processor
{
    internal static ExecStatus InImmediate(Processor cpu, Op* op) => cpu.PortIo(op, (byte)op->Imm, read: true, immediate: true);
    internal static ExecStatus InDx(Processor cpu, Op* op) => cpu.PortIo(op, (ushort)cpu.State->Gpr[2], read: true, immediate: false);
    internal static ExecStatus OutImmediate(Processor cpu, Op* op) => cpu.PortIo(op, (byte)op->Imm, read: false, immediate: true);
    internal static ExecStatus OutDx(Processor cpu, Op* op) => cpu.PortIo(op, (ushort)cpu.State->Gpr[2], read: false, immediate: false);

    private ExecStatus PortIo(Op* op, ushort port, bool read, bool immediate)
    {
        int size = PortWidth(op);
        if (!CheckPortAccess(port, size))
            return ExecStatus.Fault;
        if (NonRoot is { } guest && guest.Io(op->Length, new IoAccess(port, (byte)size, read, false, false, immediate, op->AddressWidth, op->Segment, 0)))
            return ExecStatus.Switched;
        if (read)
            WriteRegister(0, size, Machine.Bus.ReadPort(port, size));
        else
            Machine.Bus.WritePort(port, size, (uint)Truncate(State->Gpr[0], size) & (size == 1 ? 0xffu : uint.MaxValue));
        CheckIoBreakpoints(port, size);
        return ExecStatus.Next;
    }

    /// <summary>Ports have no 64-bit accesses.</summary>
    private static int PortWidth(Op* op) => op->Width == 8 ? 4 : op->Width;

    /// <summary>CPL above IOPL (or virtual-8086 mode) needs clear bits in the TSS's I/O map for every port of the access.</summary>
    private bool CheckPortAccess(ushort port, int size)
    {
        if (!ProtectedMode || (!Virtual8086 && State->Cpl <= Iopl))
            return true;
        ref SegmentCache tr = ref Segment(Seg.TR);
        bool tss32 = !tr.Unusable && (tr.Type & 8) != 0;
        if (!tss32 || tr.Limit < 0x67)
            return Deny();
        if (!Mmu.ReadLinear(tr.Base + 0x66, 2, out ulong map, supervisor: true))
            return false;
        ulong offset = map + (ulong)(port >> 3);
        // Two bytes are always read, so the map ends with a byte of ones.
        if (offset + 1 > tr.Limit)
            return Deny();
        if (!Mmu.ReadLinear(tr.Base + offset, 2, out ulong bits, supervisor: true))
            return false;
        return (bits >> (port & 7) & ((1UL << size) - 1)) == 0 || Deny();
    }

    private bool Deny()
    {
        Raise(Fault.Gp());
        return false;
    }

    internal static ExecStatus Ins(Processor cpu, Op* op) => cpu.StringIo(op, read: true);
    internal static ExecStatus Outs(Processor cpu, Op* op) => cpu.StringIo(op, read: false);

    private ExecStatus StringIo(Op* op, bool read)
    {
        CpuState* s = State;
        int size = PortWidth(op);
        ushort port = (ushort)s->Gpr[2];
        ulong mask = op->AddressWidth switch { 2 => 0xffffUL, 4 => uint.MaxValue, _ => ulong.MaxValue };
        bool repeat = (op->Prefixes & (OpPrefixes.Rep | OpPrefixes.Repne)) != 0;
        byte index = read ? (byte)7 : (byte)6;
        Seg segment = read ? Seg.ES : op->Segment;
        if (!CheckPortAccess(port, size))
            return ExecStatus.Fault;
        if (NonRoot is { } guest)
        {
            ulong offset = s->Gpr[index] & mask;
            ulong linear = Code64 ? (segment >= Seg.FS ? Segment(segment).Base : 0) + offset : (uint)(Segment(segment).Base + offset);
            if (guest.Io(op->Length, new IoAccess(port, (byte)size, read, true, repeat, false, op->AddressWidth, segment, linear)))
                return ExecStatus.Switched;
        }
        // Intercepts come before the count is looked at: REP with a count of zero exits too.
        if (repeat && (s->Gpr[1] & mask) == 0)
            return ExecStatus.Next;
        ulong step = (s->Rflags & Flags.DF) != 0 ? (ulong)-size : (ulong)size;
        // A long transfer lets the run loop look up now and then.
        for (int turn = 4096; ; turn--)
        {
            if (!TransferElement(segment, s->Gpr[index] & mask, port, size, read))
                return ExecStatus.Fault;
            s->Gpr[index] = Advance(s->Gpr[index], step, mask);
            CheckIoBreakpoints(port, size);
            if (!repeat)
                return ExecStatus.Next;
            s->Gpr[1] = Advance(s->Gpr[1], ulong.MaxValue, mask);
            if ((s->Gpr[1] & mask) == 0)
                return ExecStatus.Next;
            if (turn == 0 || Volatile.Read(ref s->ExitRequest) != 0)
                return ExecStatus.Again;
        }
    }

    private bool TransferElement(Seg segment, ulong offset, ushort port, int size, bool read)
    {
        if (!read)
        {
            if (!Mmu.Read(segment, offset, size, out ulong value))
                return false;
            Machine.Bus.WritePort(port, size, (uint)value);
            return true;
        }
        // The destination is checked before the port is read: a faulting INS must not lose the device's data.
        if (!Mmu.CheckedLinear(segment, offset, size, AccessKind.Write, out ulong linear) || !Mmu.ProbeWrite(linear, size))
            return false;
        return Mmu.Write(segment, offset, size, Machine.Bus.ReadPort(port, size));
    }

    /// <summary>Adds within the address size: 16-bit keeps the upper register, 32-bit clears it.</summary>
    private static ulong Advance(ulong register, ulong step, ulong mask)
        => mask == 0xffff ? (register & ~0xffffUL) | ((register + step) & 0xffff) : (register + step) & mask;
}
