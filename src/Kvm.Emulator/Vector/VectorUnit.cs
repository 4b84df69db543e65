using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>
/// Executes x87, MMX, SSE and AVX instructions: availability checks and pending exceptions first, then the memory operand is fetched (or found writable),
/// then the core computes on the state block alone and can't fault, then SIMD exceptions are looked at, then memory is written.
/// </summary>
/// <remarks>
/// SDM vol 2A, "Exceptions" classes of SSE and VEX instructions; vol 1, "x87 FPU Exception Handling in Software", "SIMD Floating-Point Exceptions".
/// A core gets the operand area: the memory operand in its first bytes, 64-byte aligned, <see cref="AreaSize"/> bytes in all.
/// </remarks>
internal static unsafe class VectorUnit
{
    /// <summary>Where cores leave RFLAGS.</summary>
    internal const int FlagsOffset = 0xe8;
    /// <summary>Scratch word of generated code.</summary>
    internal const int HostMxcsrOffset = 0xf0;
    internal const int AreaSize = 0x100;

    internal const int FxControl = 0, FxStatus = 2, FxTags = 4, FxOpcode = 6, FxIp = 8, FxDp = 16, FxMxcsr = 24, FxSt = 32, FxXmm = 160;
    internal const uint MxcsrMasks = 0x1f80, MxcsrFlags = 0x3f, X87Flags = 0x3f;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* Xmm(CpuState* s, int n) => s->Fx + FxXmm + (n << 4);

    /// <summary>Bits 255:128 of YMM n.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static byte* YmmHigh(CpuState* s, int n) => s->YmmHi + (n << 4);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static ref uint Mxcsr(CpuState* s) => ref *(uint*)(s->Fx + FxMxcsr);

    /// <summary>The handler of every instruction that has a <see cref="VectorOp"/>.</summary>
    internal static ExecStatus Execute(Processor cpu, Op* op)
    {
        CpuState* s = cpu.State;
        VectorOp* v = VectorOp.Of(op);
        VectorFlags flags = v->Flags;
        if (!Available(cpu, s, flags))
            return ExecStatus.Fault;
        byte* area = cpu.VectorArea;
        byte* target = null;
        if (op->HasMemory && v->MemoryBytes != 0 && !Fetch(cpu, op, v, area, ref target))
            return ExecStatus.Fault;
        if ((flags & VectorFlags.ReadsFlags) != 0)
            *(ulong*)(area + FlagsOffset) = (cpu.Rflags & Flags.Status) | Flags.Fixed1 | Flags.IF;
        if ((flags & VectorFlags.Float) != 0 && (Mxcsr(s) & MxcsrMasks) != MxcsrMasks)
        {
            if (!ComputeUnmasked(cpu, s, op, v, area))
                return ExecStatus.Fault;
        }
        else
        {
            Compute(s, op, v, area);
        }
        if ((flags & VectorFlags.WritesFlags) != 0)
            cpu.Rflags = (cpu.Rflags & ~Flags.Status) | (*(ulong*)(area + FlagsOffset) & Flags.Status);
        if ((flags & VectorFlags.X87) != 0)
            NotePointers(cpu, s, op, v);
        if ((flags & VectorFlags.WritesMemory) != 0 && op->HasMemory && !((flags & VectorFlags.X87) != 0 && Unstored(s)))
            return Store(cpu, op, v, area, target) ? ExecStatus.Next : ExecStatus.Fault;
        return ExecStatus.Next;
    }

    /// <summary>An x87 store met an unmasked exception for which memory is left alone; none was pending before.</summary>
    private static bool Unstored(CpuState* s)
    {
        const int exceptions = 0x19; // IE, OE, UE
        return (*(ushort*)(s->Fx + FxStatus) & ~*(ushort*)(s->Fx + FxControl) & exceptions) != 0;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Compute(CpuState* s, Op* op, VectorOp* v, byte* area)
    {
        if (v->Host != null)
            v->Host(s, area, op->Reg << 4, op->Rm << 4, op->Imm2 << 4, op->Width << 4);
        else
            v->Managed(s, op, area);
    }

    /// <summary>
    /// Some SIMD exception is unmasked: computed in C#, where one that is raised does no harm; it takes everything back but the flags. Which flags come with it
    /// depends on the masks (<see cref="Float.FloatContext"/>), so the host, which must have all of them set, could not tell.
    /// </summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool ComputeUnmasked(Processor cpu, CpuState* s, Op* op, VectorOp* v, byte* area)
    {
        uint before = Mxcsr(s);
        byte* saved = stackalloc byte[fxAndYmm];
        Save(s, saved);
        ulong gpr = op->Reg < 16 ? s->Gpr[op->Reg] : 0;
        Mxcsr(s) = before & ~MxcsrFlags;
        v->Managed(s, op, area);
        uint raised = Mxcsr(s) & MxcsrFlags;
        Mxcsr(s) = before | raised;
        if ((raised & ~(before >> 7)) == 0)
            return true;
        Restore(s, saved);
        if ((v->Flags & VectorFlags.Mmx) != 0)
            BeginMmx(s);
        if (op->Reg < 16)
            s->Gpr[op->Reg] = gpr;
        Mxcsr(s) = before | raised;
        if ((s->Cr4 & Cr4.OSXMMEXCPT) != 0)
            cpu.Raise(new Fault(Fault.XM));
        else
            cpu.RaiseUd();
        return false;
    }

    /// <summary>What every MMX instruction does to the x87 state first: the top of the stack is 0 and no register is empty.</summary>
    internal static void BeginMmx(CpuState* s)
    {
        ResetTop(s);
        s->Fx[FxTags] = 0xff;
    }

    /// <summary>The top of the stack becomes register 0. The registers stay; the image, which is relative to the top, turns.</summary>
    internal static void ResetTop(CpuState* s)
    {
        int top = *(ushort*)(s->Fx + FxStatus) >> 11 & 7;
        byte* before = stackalloc byte[128];
        Buffer.MemoryCopy(s->Fx + FxSt, before, 128, 128);
        for (int i = 0; i < 8; i++)
            Buffer.MemoryCopy(before + ((i - top) & 7) * 16, s->Fx + FxSt + i * 16, 16, 16);
        *(ushort*)(s->Fx + FxStatus) &= 0xc7ff;
    }

    private const int fxAndYmm = 512 + 256;

    private static void Save(CpuState* s, byte* to)
    {
        Buffer.MemoryCopy(s->Fx, to, 512, 512);
        Buffer.MemoryCopy(s->YmmHi, to + 512, 256, 256);
    }

    private static void Restore(CpuState* s, byte* from)
    {
        Buffer.MemoryCopy(from, s->Fx, 512, 512);
        Buffer.MemoryCopy(from + 512, s->YmmHi, 256, 256);
    }

    /// <summary>False: #UD, #NM or #MF is pending.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool Available(Processor cpu, CpuState* s, VectorFlags flags)
    {
        const ulong off = Cr0.EM | Cr0.TS;
        if ((s->Cr0 & off) == 0 && (flags & (VectorFlags.Avx | VectorFlags.Waits)) == 0 && ((flags & VectorFlags.Sse) == 0 || (s->Cr4 & Cr4.OSFXSR) != 0))
            return true;
        return AvailableSlow(cpu, s, flags);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool AvailableSlow(Processor cpu, CpuState* s, VectorFlags flags)
    {
        bool undefined = (flags & VectorFlags.Avx) != 0
            ? (s->Cr0 & Cr0.PE) == 0 || (s->Rflags & Flags.VM) != 0 || (s->Cr4 & Cr4.OSXSAVE) == 0 || (s->Xcr0 & 6) != 6
            : ((flags & (VectorFlags.Mmx | VectorFlags.Sse)) != 0 && (s->Cr0 & Cr0.EM) != 0) || ((flags & VectorFlags.Sse) != 0 && (s->Cr4 & Cr4.OSFXSR) == 0);
        if (undefined)
        {
            cpu.RaiseUd();
            return false;
        }
        if ((s->Cr0 & Cr0.TS) != 0 || ((flags & VectorFlags.X87) != 0 && (s->Cr0 & Cr0.EM) != 0))
        {
            cpu.Raise(new Fault(Fault.NM));
            return false;
        }
        return (flags & VectorFlags.Waits) == 0 || !ExceptionPending(cpu, s);
    }

    /// <summary>
    /// #MF for an unmasked x87 exception that was left behind, found as the processor finds it: in the flags, not in the summary bit. With CR0.NE clear it would
    /// signal FERR#, which nothing here is wired to; #MF is what such a machine's interrupt 13 would be made into.
    /// </summary>
    internal static bool ExceptionPending(Processor cpu, CpuState* s)
    {
        if ((*(ushort*)(s->Fx + FxStatus) & ~*(ushort*)(s->Fx + FxControl) & X87Flags) == 0)
            return false;
        cpu.Raise(new Fault(Fault.MF));
        return true;
    }

    /// <summary>The memory operand into the area, or, for stores, the certainty that it can be written: <paramref name="target"/> is its place when that is simple.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool Fetch(Processor cpu, Op* op, VectorOp* v, byte* area, ref byte* target)
    {
        CpuState* s = cpu.State;
        uint size = v->MemoryBytes;
        if ((v->Flags & VectorFlags.WritesMemory) != 0)
        {
            target = Operand.FastWrite(s, op, size);
            if (target == null || ((ulong)target & (v->Alignment - 1u)) != 0)
                return FetchSlow(cpu, op, v, area, ref target);
            if ((v->Flags & VectorFlags.ReadsMemory) != 0)
                Copy(target, area, size);
            return true;
        }
        byte* p = Operand.FastRead(s, op, size);
        if (p == null || ((ulong)p & (v->Alignment - 1u)) != 0)
            return FetchSlow(cpu, op, v, area, ref target);
        Copy(p, area, size);
        return true;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool FetchSlow(Processor cpu, Op* op, VectorOp* v, byte* area, ref byte* target)
    {
        target = null;
        bool write = (v->Flags & VectorFlags.WritesMemory) != 0;
        int size = v->MemoryBytes;
        ulong address = cpu.EffectiveAddress(op);
        if (!cpu.Mmu.CheckedLinear(op->Segment, address, Math.Min(size, 8), write ? AccessKind.Write : AccessKind.Read, out ulong linear))
            return false;
        if ((linear & (v->Alignment - 1u)) != 0 && ((v->Flags & VectorFlags.AlignedMove) != 0 || cpu.State->MxcsrHigh == 0)
            && ((v->Flags & VectorFlags.UnalignedOnAmd) == 0 || cpu.Model.Vendor != CpuVendor.Amd))
        {
            cpu.RaiseGp();
            return false;
        }
        if (write && !cpu.Mmu.ProbeWrite(linear, size))
            return false;
        if (write && (v->Flags & VectorFlags.ReadsMemory) == 0)
            return true;
        for (int i = 0; i < size; i += 8)
        {
            int part = Part(size - i);
            if (!cpu.Mmu.Read(op->Segment, Processor.WrapAddress(op, address + (ulong)i), part, out ulong value))
                return false;
            WritePart(area + i, value, part);
        }
        return true;
    }

    private static bool Store(Processor cpu, Op* op, VectorOp* v, byte* area, byte* target)
    {
        if (target != null)
        {
            Copy(area, target, v->MemoryBytes);
            return true;
        }
        ulong address = cpu.EffectiveAddress(op);
        for (int i = 0; i < v->MemoryBytes; i += 8)
        {
            int part = Part(v->MemoryBytes - i);
            if (!cpu.Mmu.Write(op->Segment, Processor.WrapAddress(op, address + (ulong)i), part, ReadPart(area + i, part)))
                return false;
        }
        return true;
    }

    /// <summary>What is left after whole quadwords is 1, 2 or 4 bytes: no operand has another size (m80 is 8 + 2).</summary>
    private static int Part(int left) => left >= 8 ? 8 : left;

    private static void WritePart(byte* at, ulong value, int size)
    {
        switch (size)
        {
            case 1: *at = (byte)value; break;
            case 2: *(ushort*)at = (ushort)value; break;
            case 4: *(uint*)at = (uint)value; break;
            default: *(ulong*)at = value; break;
        }
    }

    private static ulong ReadPart(byte* at, int size) => size switch { 1 => *at, 2 => *(ushort*)at, 4 => *(uint*)at, _ => *(ulong*)at };

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Copy(byte* from, byte* to, uint size)
    {
        switch (size)
        {
            case 4: *(uint*)to = *(uint*)from; break;
            case 8: *(ulong*)to = *(ulong*)from; break;
            case 16: *(System.Runtime.Intrinsics.Vector128<byte>*)to = *(System.Runtime.Intrinsics.Vector128<byte>*)from; break;
            case 32: *(System.Runtime.Intrinsics.Vector256<byte>*)to = *(System.Runtime.Intrinsics.Vector256<byte>*)from; break;
            default: Unsafe.CopyBlockUnaligned(to, from, size); break;
        }
    }

    /// <summary>FIP, FDP, FOP, FCS, FDS of a non-control x87 instruction; without a memory operand FDP stays.</summary>
    private static void NotePointers(Processor cpu, CpuState* s, Op* op, VectorOp* v)
    {
        *(ulong*)(s->Fx + FxIp) = s->Rip;
        *(ushort*)(s->Fx + FxOpcode) = v->X87Opcode;
        s->FxCs = s->Segs[(int)Seg.CS].Selector;
        if (!op->HasMemory)
            return;
        *(ulong*)(s->Fx + FxDp) = cpu.EffectiveAddress(op);
        s->FxDs = s->Segs[(int)op->Segment].Selector;
    }
}
