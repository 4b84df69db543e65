using System.Numerics;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>PMOVSX and PMOVZX: the low elements of a source, wider. Signed <typeparamref name="TFrom"/> extends signs.</summary>
internal static unsafe class Widening<TFrom, TTo> where TFrom : unmanaged, IBinaryInteger<TFrom> where TTo : unmanaged, IBinaryInteger<TTo>
{
    private static Vector128<byte> Of(TFrom* from)
    {
        Vector128<byte> result = default;
        for (int i = 0; i < 16 / sizeof(TTo); i++)
            ((TTo*)&result)[i] = TTo.CreateTruncating(from[i]);
        return result;
    }

    internal static void Sse(CpuState* s, Op* op, byte* m) => Of((TFrom*)Lanes.Rm(s, op, m)).Store(VectorUnit.Xmm(s, op->Reg));

    internal static void Vex128(CpuState* s, Op* op, byte* m) => Lanes.Put(s, op->Reg, Of((TFrom*)Lanes.Rm(s, op, m)));

    internal static void Vex256(CpuState* s, Op* op, byte* m)
    {
        var from = (TFrom*)Lanes.Rm(s, op, m);
        Vector128<byte> low = Of(from), high = Of(from + 16 / sizeof(TTo));
        Lanes.Put(s, op->Reg, low, high);
    }
}
