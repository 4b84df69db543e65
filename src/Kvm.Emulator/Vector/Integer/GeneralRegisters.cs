using System.Numerics;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>Data between vector and general registers (or memory): MOVD, MOVQ, PINSR, PEXTR, MOVMSK. Elements written to a general register are zero-extended to all of it.</summary>
/// <remarks><typeparamref name="T"/> is the element that memory has and that is moved; register operands have at least 32 bits.</remarks>
internal static unsafe class Element<T> where T : unmanaged, IBinaryInteger<T>
{
    private const int Bytes = 16;

    private static T Rm(CpuState* s, Op* op, byte* m) => op->HasMemory ? *(T*)m : T.CreateTruncating(s->Gpr[op->Rm]);

    private static void PutRm(CpuState* s, Op* op, byte* m, T value)
    {
        if (op->HasMemory)
            *(T*)m = value;
        else
            s->Gpr[op->Rm] = ulong.CreateTruncating(value);
    }

    /// <summary>MOVD, MOVQ xmm, r/m.</summary>
    internal static void Load(CpuState* s, Op* op, byte* m) => Vector128.CreateScalar(ulong.CreateTruncating(Rm(s, op, m))).Store((ulong*)VectorUnit.Xmm(s, op->Reg));

    internal static void Load128(CpuState* s, Op* op, byte* m) => Lanes.Put(s, op->Reg, Vector128.CreateScalar(ulong.CreateTruncating(Rm(s, op, m))).AsByte());

    internal static void LoadMmx(CpuState* s, Op* op, byte* m)
    {
        MmxLanes.Enter(s);
        MmxLanes.Put(s, op->Reg, ulong.CreateTruncating(Rm(s, op, m)));
    }

    /// <summary>MOVD, MOVQ r/m, xmm, VEX-encoded too.</summary>
    internal static void Store(CpuState* s, Op* op, byte* m) => PutRm(s, op, m, *(T*)VectorUnit.Xmm(s, op->Reg));

    internal static void StoreMmx(CpuState* s, Op* op, byte* m)
    {
        MmxLanes.Enter(s);
        PutRm(s, op, m, T.CreateTruncating(MmxLanes.Register(s, op->Reg)));
    }

    private static int Index(Op* op) => VectorOp.Immediate(op) & (Bytes / sizeof(T) - 1);

    /// <summary>PINSR xmm, r/m, imm8.</summary>
    internal static void Insert(CpuState* s, Op* op, byte* m) => ((T*)VectorUnit.Xmm(s, op->Reg))[Index(op)] = Rm(s, op, m);

    internal static void Insert128(CpuState* s, Op* op, byte* m)
    {
        T element = Rm(s, op, m);
        Lanes.Put(s, op->Reg, Vector128.Load(VectorUnit.Xmm(s, op->Imm2)));
        ((T*)VectorUnit.Xmm(s, op->Reg))[Index(op)] = element;
    }

    /// <summary>PEXTR, EXTRACTPS r/m, xmm, imm8, VEX-encoded too.</summary>
    internal static void Extract(CpuState* s, Op* op, byte* m) => PutRm(s, op, m, ((T*)VectorUnit.Xmm(s, op->Reg))[Index(op)]);

    /// <summary>PEXTRW r, xmm, imm8 in its first encoding, which has the general register as reg.</summary>
    internal static void ExtractToReg(CpuState* s, Op* op, byte* m) => s->Gpr[op->Reg] = ulong.CreateTruncating(((T*)VectorUnit.Xmm(s, op->Rm))[Index(op)]);

    /// <summary>PINSRW mm, r/m, imm8.</summary>
    internal static void InsertMmx(CpuState* s, Op* op, byte* m)
    {
        MmxLanes.Enter(s);
        ulong value = MmxLanes.Register(s, op->Reg);
        ((T*)&value)[VectorOp.Immediate(op) & (8 / sizeof(T) - 1)] = Rm(s, op, m);
        MmxLanes.Put(s, op->Reg, value);
    }

    /// <summary>PEXTRW r, mm, imm8.</summary>
    internal static void ExtractMmx(CpuState* s, Op* op, byte* m)
    {
        MmxLanes.Enter(s);
        ulong value = MmxLanes.Register(s, op->Rm);
        s->Gpr[op->Reg] = ulong.CreateTruncating(((T*)&value)[VectorOp.Immediate(op) & (8 / sizeof(T) - 1)]);
    }

    /// <summary>PMOVMSKB, MOVMSKPS, MOVMSKPD: the signs of all elements.</summary>
    internal static void Signs(CpuState* s, Op* op, byte* m) => s->Gpr[op->Reg] = Vector128.Load((T*)VectorUnit.Xmm(s, op->Rm)).ExtractMostSignificantBits();

    internal static void Signs256(CpuState* s, Op* op, byte* m)
    {
        uint low = Vector128.Load((T*)VectorUnit.Xmm(s, op->Rm)).ExtractMostSignificantBits(), high = Vector128.Load((T*)VectorUnit.YmmHigh(s, op->Rm)).ExtractMostSignificantBits();
        s->Gpr[op->Reg] = low | high << Bytes / sizeof(T);
    }
}

/// <summary>MMX moves that are not one element's.</summary>
internal static unsafe class MmxMoves
{
    /// <summary>MOVQ mm, mm/m64.</summary>
    internal static void Load(CpuState* s, Op* op, byte* m)
    {
        MmxLanes.Enter(s);
        MmxLanes.Put(s, op->Reg, MmxLanes.Rm(s, op, m));
    }

    /// <summary>MOVQ mm/m64, mm; MOVNTQ.</summary>
    internal static void Store(CpuState* s, Op* op, byte* m)
    {
        MmxLanes.Enter(s);
        ulong value = MmxLanes.Register(s, op->Reg);
        if (op->HasMemory)
            *(ulong*)m = value;
        else
            MmxLanes.Put(s, op->Rm, value);
    }

    /// <summary>PMOVMSKB r, mm.</summary>
    internal static void Signs(CpuState* s, Op* op, byte* m)
    {
        MmxLanes.Enter(s);
        s->Gpr[op->Reg] = Vector128.CreateScalar(MmxLanes.Register(s, op->Rm)).AsByte().ExtractMostSignificantBits();
    }

    /// <summary>MOVQ2DQ xmm, mm.</summary>
    internal static void ToXmm(CpuState* s, Op* op, byte* m)
    {
        MmxLanes.Enter(s);
        Vector128.CreateScalar(MmxLanes.Register(s, op->Rm)).Store((ulong*)VectorUnit.Xmm(s, op->Reg));
    }

    /// <summary>MOVDQ2Q mm, xmm.</summary>
    internal static void FromXmm(CpuState* s, Op* op, byte* m)
    {
        MmxLanes.Enter(s);
        MmxLanes.Put(s, op->Reg, *(ulong*)VectorUnit.Xmm(s, op->Rm));
    }
}
