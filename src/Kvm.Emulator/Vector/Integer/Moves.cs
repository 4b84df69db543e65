using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>Whole registers, and the low or high parts of them, between registers and memory. The names say what goes where; the FP types of the mnemonics mean nothing here.</summary>
internal static unsafe class Moves
{
    /// <summary>MOVAPS, MOVUPS, MOVDQA, MOVDQU, LDDQU, MOVNTDQA …: xmm, xmm/m128.</summary>
    internal static void Load(CpuState* s, Op* op, byte* m) => Vector128.Load(Lanes.Rm(s, op, m)).Store(VectorUnit.Xmm(s, op->Reg));

    internal static void Load128(CpuState* s, Op* op, byte* m) => Lanes.Put(s, op->Reg, Vector128.Load(Lanes.Rm(s, op, m)));

    internal static void Load256(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte> low = Vector128.Load(Lanes.Rm(s, op, m)), high = Vector128.Load(Lanes.RmHigh(s, op, m));
        Lanes.Put(s, op->Reg, low, high);
    }

    /// <summary>The same the other way, xmm/m128, xmm, and MOVNTPS, MOVNTPD, MOVNTDQ.</summary>
    internal static void Store(CpuState* s, Op* op, byte* m) => Vector128.Load(VectorUnit.Xmm(s, op->Reg)).Store(Lanes.Rm(s, op, m));

    internal static void Store128(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte> value = Vector128.Load(VectorUnit.Xmm(s, op->Reg));
        if (op->HasMemory)
            value.Store(m);
        else
            Lanes.Put(s, op->Rm, value);
    }

    internal static void Store256(CpuState* s, Op* op, byte* m)
    {
        Vector128.Load(VectorUnit.Xmm(s, op->Reg)).Store(Lanes.Rm(s, op, m));
        Vector128.Load(VectorUnit.YmmHigh(s, op->Reg)).Store(Lanes.RmHigh(s, op, m));
    }

    /// <summary>MOVSS xmm, xmm/m32: from memory the rest of the 128 bits becomes zero, from a register it stays.</summary>
    internal static void LoadSingle(CpuState* s, Op* op, byte* m)
    {
        if (op->HasMemory)
            Vector128.CreateScalar(*(uint*)m).Store((uint*)VectorUnit.Xmm(s, op->Reg));
        else
            *(uint*)VectorUnit.Xmm(s, op->Reg) = *(uint*)VectorUnit.Xmm(s, op->Rm);
    }

    /// <summary>MOVSD xmm, xmm/m64.</summary>
    internal static void LoadDouble(CpuState* s, Op* op, byte* m)
    {
        if (op->HasMemory)
            Vector128.CreateScalar(*(ulong*)m).Store((ulong*)VectorUnit.Xmm(s, op->Reg));
        else
            *(ulong*)VectorUnit.Xmm(s, op->Reg) = *(ulong*)VectorUnit.Xmm(s, op->Rm);
    }

    /// <summary>VMOVSS xmm, m32; VMOVD xmm, m32.</summary>
    internal static void LoadSingle128(CpuState* s, Op* op, byte* m) => Lanes.Put(s, op->Reg, Vector128.CreateScalar(*(uint*)m).AsByte());

    /// <summary>MOVQ xmm, xmm/m64: the high half becomes zero.</summary>
    internal static void LoadLow(CpuState* s, Op* op, byte* m) => Vector128.CreateScalar(*(ulong*)Lanes.Rm(s, op, m)).Store((ulong*)VectorUnit.Xmm(s, op->Reg));

    /// <summary>VMOVQ xmm, xmm/m64; VMOVSD xmm, m64.</summary>
    internal static void LoadLow128(CpuState* s, Op* op, byte* m) => Lanes.Put(s, op->Reg, Vector128.CreateScalar(*(ulong*)Lanes.Rm(s, op, m)).AsByte());

    /// <summary>MOVSS xmm/m32, xmm; MOVNTSS.</summary>
    internal static void StoreSingle(CpuState* s, Op* op, byte* m) => *(uint*)Lanes.Rm(s, op, m) = *(uint*)VectorUnit.Xmm(s, op->Reg);

    /// <summary>MOVSD xmm/m64, xmm; MOVNTSD; MOVLPS and MOVLPD to memory, VEX-encoded too.</summary>
    internal static void StoreDouble(CpuState* s, Op* op, byte* m) => *(ulong*)Lanes.Rm(s, op, m) = *(ulong*)VectorUnit.Xmm(s, op->Reg);

    /// <summary>MOVHPS and MOVHPD to memory, VEX-encoded too.</summary>
    internal static void StoreHigh(CpuState* s, Op* op, byte* m) => *(ulong*)m = *(ulong*)(VectorUnit.Xmm(s, op->Reg) + 8);

    /// <summary>MOVQ xmm/m64, xmm: a register's high half becomes zero.</summary>
    internal static void StoreLow(CpuState* s, Op* op, byte* m)
    {
        ulong value = *(ulong*)VectorUnit.Xmm(s, op->Reg);
        if (op->HasMemory)
            *(ulong*)m = value;
        else
            Vector128.CreateScalar(value).Store((ulong*)VectorUnit.Xmm(s, op->Rm));
    }

    /// <summary>VMOVQ xmm/m64, xmm.</summary>
    internal static void StoreLow128(CpuState* s, Op* op, byte* m)
    {
        ulong value = *(ulong*)VectorUnit.Xmm(s, op->Reg);
        if (op->HasMemory)
            *(ulong*)m = value;
        else
            Lanes.Put(s, op->Rm, Vector128.CreateScalar(value).AsByte());
    }

    /// <summary>VMOVSS and VMOVSD of registers, in the encoding that has the destination as rm.</summary>
    internal static void ToRm<T>(CpuState* s, Op* op, byte* m) where T : struct, ILane
        => Lanes.Put(s, op->Rm, T.Of(Vector128.Load(VectorUnit.Xmm(s, op->Imm2)), Vector128.Load(VectorUnit.Xmm(s, op->Reg)), 0));

    /// <summary>VZEROUPPER. Outside 64-bit mode registers 8 to 15 are not there to be changed.</summary>
    internal static void ZeroUpper(CpuState* s, Op* op, byte* m) => new Span<byte>(s->YmmHi, Registers(s) * 16).Clear();

    /// <summary>VZEROALL.</summary>
    internal static void ZeroAll(CpuState* s, Op* op, byte* m)
    {
        new Span<byte>(s->YmmHi, Registers(s) * 16).Clear();
        new Span<byte>(VectorUnit.Xmm(s, 0), Registers(s) * 16).Clear();
    }

    private static int Registers(CpuState* s) => ((CodeMode)s->Mode & CodeMode.SizeMask) == CodeMode.Code64 ? 16 : 8;
}

/// <summary>VMOVSS of registers: the lowest element from the second operand.</summary>
internal readonly struct InsertLowSingle : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => a.AsUInt32().WithElement(0, b.AsUInt32().ToScalar()).AsByte();
}

/// <summary>VMOVSD of registers; MOVLPS and MOVLPD from memory: the low half from the second operand.</summary>
internal readonly struct LowUnderHigh : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Create(b.GetLower(), a.GetUpper());
}

/// <summary>MOVHLPS: the low half from the second operand's high half.</summary>
internal readonly struct HighUnderHigh : ILane
{
    public static Vector128<byte> Of(Vector128<byte> a, Vector128<byte> b, int immediate) => Vector128.Create(b.GetUpper(), a.GetUpper());
}

/// <summary>INSERTPS: bits 7:6 choose the element of a register source, 5:4 its place, 3:0 elements to clear.</summary>
internal static unsafe class InsertSingle
{
    private static Vector128<byte> Of(CpuState* s, Op* op, byte* m, int first)
    {
        int immediate = VectorOp.Immediate(op);
        uint element = op->HasMemory ? *(uint*)m : ((uint*)VectorUnit.Xmm(s, op->Rm))[immediate >> 6];
        Vector128<byte> result = Vector128.Load(VectorUnit.Xmm(s, first));
        ((uint*)&result)[immediate >> 4 & 3] = element;
        return BlendSingles.Of(result, Vector128<byte>.Zero, immediate & 15);
    }

    internal static void Sse(CpuState* s, Op* op, byte* m) => Of(s, op, m, op->Reg).Store(VectorUnit.Xmm(s, op->Reg));

    internal static void Vex128(CpuState* s, Op* op, byte* m) => Lanes.Put(s, op->Reg, Of(s, op, m, op->Imm2));
}
