namespace Kvm.Emulator.Vector;

/// <summary>The memory of an FXSAVE or XSAVE area. False: a fault or an exit is pending.</summary>
internal unsafe interface IXsaveArea
{
    bool Read(int offset, byte* to, int size);
    bool Write(int offset, byte* from, int size);
}

/// <summary>The memory operand of an instruction stream; its header and what comes before are within the segment. Writes only after <see cref="WideMemory.CanWrite"/>.</summary>
internal readonly unsafe struct GuestXsaveArea(Processor cpu, Engine.Op* op, ulong linear) : IXsaveArea
{
    /// <remarks>How far a restored area extends is known only from its header.</remarks>
    public bool Read(int offset, byte* to, int size)
        => (offset < FpuTraits.HeaderEnd || cpu.Mmu.CheckedLinear(op->Segment, cpu.EffectiveAddress(op) + (ulong)(offset + size - 1), 1, AccessKind.Read, out _))
            && WideMemory.Read(cpu, linear + (ulong)offset, to, size);

    public bool Write(int offset, byte* from, int size) => WideMemory.Write(cpu, linear + (ulong)offset, from, size);
}

/// <summary>Memory of kernel code that executes the instruction by a call.</summary>
internal readonly unsafe struct HostXsaveArea(byte* area) : IXsaveArea
{
    public bool Read(int offset, byte* to, int size)
    {
        Buffer.MemoryCopy(area + offset, to, size, size);
        return true;
    }

    public bool Write(int offset, byte* from, int size)
    {
        Buffer.MemoryCopy(from, area + offset, size, size);
        return true;
    }
}
