using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>256-bit instructions that move data across lanes, and broadcasts.</summary>
internal static unsafe class Permutes
{
    private static void Gather(CpuState* s, Op* op, byte* m, Vector128<byte>* pair)
    {
        pair[0] = Vector128.Load(Lanes.Rm(s, op, m));
        pair[1] = Vector128.Load(Lanes.RmHigh(s, op, m));
    }

    /// <summary>VPERMQ, VPERMPD.</summary>
    [SkipLocalsInit]
    internal static void Quadwords(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte>* pair = stackalloc Vector128<byte>[2];
        Gather(s, op, m, pair);
        ulong* p = (ulong*)pair;
        int immediate = VectorOp.Immediate(op);
        Lanes.Put(s, op->Reg, Vector128.Create(p[immediate & 3], p[immediate >> 2 & 3]).AsByte(), Vector128.Create(p[immediate >> 4 & 3], p[immediate >> 6]).AsByte());
    }

    /// <summary>VPERMD, VPERMPS: the first source has the indexes.</summary>
    [SkipLocalsInit]
    internal static void Doublewords(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte>* pair = stackalloc Vector128<byte>[2];
        Gather(s, op, m, pair);
        uint* p = (uint*)pair, low = (uint*)VectorUnit.Xmm(s, op->Imm2), high = (uint*)VectorUnit.YmmHigh(s, op->Imm2);
        Lanes.Put(s, op->Reg, Vector128.Create(p[low[0] & 7], p[low[1] & 7], p[low[2] & 7], p[low[3] & 7]).AsByte(),
            Vector128.Create(p[high[0] & 7], p[high[1] & 7], p[high[2] & 7], p[high[3] & 7]).AsByte());
    }

    /// <summary>VPERM2F128, VPERM2I128: each half from any of the four source halves, or zero.</summary>
    [SkipLocalsInit]
    internal static void Halves(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte>* four = stackalloc Vector128<byte>[4];
        four[0] = Vector128.Load(VectorUnit.Xmm(s, op->Imm2));
        four[1] = Vector128.Load(VectorUnit.YmmHigh(s, op->Imm2));
        Gather(s, op, m, four + 2);
        int immediate = VectorOp.Immediate(op);
        Lanes.Put(s, op->Reg, (immediate & 8) != 0 ? Vector128<byte>.Zero : four[immediate & 3], (immediate & 0x80) != 0 ? Vector128<byte>.Zero : four[immediate >> 4 & 3]);
    }

    /// <summary>VINSERTF128, VINSERTI128.</summary>
    internal static void InsertHalf(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte> value = Vector128.Load(Lanes.Rm(s, op, m));
        if ((VectorOp.Immediate(op) & 1) == 0)
            Lanes.Put(s, op->Reg, value, Vector128.Load(VectorUnit.YmmHigh(s, op->Imm2)));
        else
            Lanes.Put(s, op->Reg, Vector128.Load(VectorUnit.Xmm(s, op->Imm2)), value);
    }

    /// <summary>VEXTRACTF128, VEXTRACTI128.</summary>
    internal static void ExtractHalf(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte> value = Vector128.Load((VectorOp.Immediate(op) & 1) == 0 ? VectorUnit.Xmm(s, op->Reg) : VectorUnit.YmmHigh(s, op->Reg));
        if (op->HasMemory)
            value.Store(m);
        else
            Lanes.Put(s, op->Rm, value);
    }

    /// <summary>VBROADCASTSS, VBROADCASTSD, VPBROADCAST by element type.</summary>
    internal static void Broadcast128<T>(CpuState* s, Op* op, byte* m) where T : unmanaged
        => Lanes.Put(s, op->Reg, Vector128.Create(*(T*)Lanes.Rm(s, op, m)).AsByte());

    internal static void Broadcast256<T>(CpuState* s, Op* op, byte* m) where T : unmanaged
    {
        var all = Vector128.Create(*(T*)Lanes.Rm(s, op, m)).AsByte();
        Lanes.Put(s, op->Reg, all, all);
    }

    /// <summary>VBROADCASTF128, VBROADCASTI128.</summary>
    internal static void BroadcastHalf(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte> half = Vector128.Load(m);
        Lanes.Put(s, op->Reg, half, half);
    }
}
