using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector.Integer;

/// <summary>PTEST, VTESTPS, VTESTPD: ZF = nothing of the second operand is in the first, CF = all of it is; the other flags become 0.</summary>
/// <remarks><typeparamref name="T"/> is the element whose signs are looked at; <see cref="UInt128"/> = all bits.</remarks>
internal static unsafe class Tests<T> where T : unmanaged
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<byte> Examined() => sizeof(T) switch
    {
        4 => Vector128.Create(0x8000_0000u).AsByte(),
        8 => Vector128.Create(1UL << 63).AsByte(),
        _ => Vector128<byte>.AllBitsSet,
    };

    private static void PutFlags(byte* m, Vector128<byte> both, Vector128<byte> second) =>
        *(ulong*)(m + VectorUnit.FlagsOffset) = ((both & Examined()) == Vector128<byte>.Zero ? (ulong)Flags.ZF : 0) | ((second & Examined()) == Vector128<byte>.Zero ? (ulong)Flags.CF : 0);

    internal static void Lane(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte> a = Vector128.Load(VectorUnit.Xmm(s, op->Reg)), b = Vector128.Load(Lanes.Rm(s, op, m));
        PutFlags(m, a & b, Vector128.AndNot(b, a));
    }

    internal static void Lanes256(CpuState* s, Op* op, byte* m)
    {
        Vector128<byte> a = Vector128.Load(VectorUnit.Xmm(s, op->Reg)), b = Vector128.Load(Lanes.Rm(s, op, m));
        Vector128<byte> c = Vector128.Load(VectorUnit.YmmHigh(s, op->Reg)), d = Vector128.Load(Lanes.RmHigh(s, op, m));
        PutFlags(m, (a & b) | (c & d), Vector128.AndNot(b, a) | Vector128.AndNot(d, c));
    }
}
