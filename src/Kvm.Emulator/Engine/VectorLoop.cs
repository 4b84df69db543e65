using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Engine;

/// <summary>The interpreter's loop for runs of SSE instructions: as <see cref="Interpreter"/>, in a method of its own so that neither grows beyond what the compiler optimizes.</summary>
/// <remarks>Floating-point arithmetic is <see cref="IVectorArithmetic"/>'s. What it and the software TLB don't serve is left to the instructions' handlers.</remarks>
internal static unsafe partial class VectorLoop
{
    /// <summary>Low bits of what <see cref="Run"/> returns, operations being aligned: what to do with the operation.</summary>
    internal const int Slowly = 1, Taken = 2;

    /// <summary>Executes from <paramref name="op"/> as far as it can, in other blocks too. Where it has come to: <see cref="CpuState.LoopBlock"/>, LoopBudget, BlockRip.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    internal static Op* Run(Processor cpu, Op* op, Block* block, ulong epoch, long remaining)
    {
        CpuState* s = cpu.State;
        s->LoopBlock = block;
        s->LoopBudget = remaining;
        s->LoopEpoch = epoch;
        s->LoopReady = 0;
        byte* xmm = s->Fx + VectorUnit.FxXmm;
        return cpu.HostArithmetic ? Run<HostArithmetic>(s, op, xmm, cpu.VectorArea) : Run<CheckedArithmetic>(s, op, xmm, cpu.VectorArea);
    }

    // Few locals, which stay in registers.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static Op* Run<T>(CpuState* s, Op* op, byte* x, byte* area) where T : struct, IVectorArithmetic
    {
        byte* p;
        ulong a, b;
        uint relation;
        while (true)
        {
            switch (op->Kind)
            {
                case OpKind.MovXX:
                    Vector128.Load(x + (nuint)op->RmSlot * 2).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.MovXM128Aligned:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    Vector128.Load(p).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.MovXM128:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow;
                    Vector128.Load(p).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.MovMX128Aligned:
                    p = Operand.FastWrite(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    Vector128.Load(x + (nuint)op->RegSlot * 2).Store(p); op++; continue;
                case OpKind.MovMX128:
                    p = Operand.FastWrite(s, op, 16); if (p == null) goto slow;
                    Vector128.Load(x + (nuint)op->RegSlot * 2).Store(p); op++; continue;
                case OpKind.MovXM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                    Vector128.CreateScalar(*(ulong*)p).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovXM32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                    Vector128.CreateScalar(*(uint*)p).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovMX64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto slow;
                    *(ulong*)p = *(ulong*)(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.MovMX32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto slow;
                    *(uint*)p = *(uint*)(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.MovXX64:
                    Vector128.Load((ulong*)(x + (nuint)op->RegSlot * 2)).WithElement(0, *(ulong*)(x + (nuint)op->RmSlot * 2)).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovXX32:
                    Vector128.Load((uint*)(x + (nuint)op->RegSlot * 2)).WithElement(0, *(uint*)(x + (nuint)op->RmSlot * 2)).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovqXX:
                    Vector128.CreateScalar(*(ulong*)(x + (nuint)op->RmSlot * 2)).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovXR32:
                    Vector128.CreateScalar(*(uint*)((byte*)s + op->RmSlot)).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovXR64:
                    Vector128.CreateScalar(*(ulong*)((byte*)s + op->RmSlot)).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovRX32:
                    *(ulong*)((byte*)s + op->RegSlot) = *(uint*)(x + (nuint)op->RmSlot * 2); op++; continue;
                case OpKind.MovRX64:
                    *(ulong*)((byte*)s + op->RegSlot) = *(ulong*)(x + (nuint)op->RmSlot * 2); op++; continue;
                case OpKind.MovhXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                    Vector128.Load((ulong*)(x + (nuint)op->RegSlot * 2)).WithElement(1, *(ulong*)p).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovhMX:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto slow;
                    *(ulong*)p = *(ulong*)((x + (nuint)op->RegSlot * 2) + 8); op++; continue;
                case OpKind.UnpcklpdXX:
                    Vector128.Load((ulong*)(x + (nuint)op->RegSlot * 2)).WithElement(1, *(ulong*)(x + (nuint)op->RmSlot * 2)).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.XorXX:
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) ^ Vector128.Load(x + (nuint)op->RmSlot * 2)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.XorXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) ^ Vector128.Load(p)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.AndXX:
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) & Vector128.Load(x + (nuint)op->RmSlot * 2)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.AndXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) & Vector128.Load(p)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.AndnXX:
                    Vector128.AndNot(Vector128.Load(x + (nuint)op->RmSlot * 2), Vector128.Load(x + (nuint)op->RegSlot * 2)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.AndnXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    Vector128.AndNot(Vector128.Load(p), Vector128.Load(x + (nuint)op->RegSlot * 2)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.OrXX:
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) | Vector128.Load(x + (nuint)op->RmSlot * 2)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.OrXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) | Vector128.Load(p)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.PmovmskbRX:
                    *(ulong*)((byte*)s + op->RegSlot) = Vector128.ExtractMostSignificantBits(Vector128.Load(x + (nuint)op->RmSlot * 2)); op++; continue;
                case OpKind.PaddbXX:
                    (Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)) + Vector128.Load((byte*)(x + (nuint)op->RmSlot * 2))).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PaddbXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)) + Vector128.Load((byte*)p)).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PadddXX:
                    (Vector128.Load((uint*)(x + (nuint)op->RegSlot * 2)) + Vector128.Load((uint*)(x + (nuint)op->RmSlot * 2))).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PadddXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load((uint*)(x + (nuint)op->RegSlot * 2)) + Vector128.Load((uint*)p)).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PaddqXX:
                    (Vector128.Load((ulong*)(x + (nuint)op->RegSlot * 2)) + Vector128.Load((ulong*)(x + (nuint)op->RmSlot * 2))).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PaddqXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load((ulong*)(x + (nuint)op->RegSlot * 2)) + Vector128.Load((ulong*)p)).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PsubbXX:
                    (Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)) - Vector128.Load((byte*)(x + (nuint)op->RmSlot * 2))).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PsubbXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)) - Vector128.Load((byte*)p)).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PsubdXX:
                    (Vector128.Load((uint*)(x + (nuint)op->RegSlot * 2)) - Vector128.Load((uint*)(x + (nuint)op->RmSlot * 2))).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PsubdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load((uint*)(x + (nuint)op->RegSlot * 2)) - Vector128.Load((uint*)p)).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PsubqXX:
                    (Vector128.Load((ulong*)(x + (nuint)op->RegSlot * 2)) - Vector128.Load((ulong*)(x + (nuint)op->RmSlot * 2))).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PsubqXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load((ulong*)(x + (nuint)op->RegSlot * 2)) - Vector128.Load((ulong*)p)).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PcmpeqbXX:
                    Vector128.Equals(Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)), Vector128.Load((byte*)(x + (nuint)op->RmSlot * 2))).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PcmpeqbXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    Vector128.Equals(Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)), Vector128.Load((byte*)p)).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PcmpeqdXX:
                    Vector128.Equals(Vector128.Load((uint*)(x + (nuint)op->RegSlot * 2)), Vector128.Load((uint*)(x + (nuint)op->RmSlot * 2))).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PcmpeqdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    Vector128.Equals(Vector128.Load((uint*)(x + (nuint)op->RegSlot * 2)), Vector128.Load((uint*)p)).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PminubXX:
                    Vector128.Min(Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)), Vector128.Load((byte*)(x + (nuint)op->RmSlot * 2))).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PminubXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    Vector128.Min(Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)), Vector128.Load((byte*)p)).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PmaxubXX:
                    Vector128.Max(Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)), Vector128.Load((byte*)(x + (nuint)op->RmSlot * 2))).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.PmaxubXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    Vector128.Max(Vector128.Load((byte*)(x + (nuint)op->RegSlot * 2)), Vector128.Load((byte*)p)).Store((byte*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.AddSdXX:
                    p = x + (nuint)op->RmSlot * 2; goto addSd;
                case OpKind.AddSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                addSd:
                    if (s->LoopReady == 0) goto prepare; if (!T.AddSd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.AddSsXX:
                    p = x + (nuint)op->RmSlot * 2; goto addSs;
                case OpKind.AddSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                addSs:
                    if (s->LoopReady == 0) goto prepare; if (!T.AddSs(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.SubSdXX:
                    p = x + (nuint)op->RmSlot * 2; goto subSd;
                case OpKind.SubSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                subSd:
                    if (s->LoopReady == 0) goto prepare; if (!T.SubSd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.SubSsXX:
                    p = x + (nuint)op->RmSlot * 2; goto subSs;
                case OpKind.SubSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                subSs:
                    if (s->LoopReady == 0) goto prepare; if (!T.SubSs(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.MulSdXX:
                    p = x + (nuint)op->RmSlot * 2; goto mulSd;
                case OpKind.MulSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                mulSd:
                    if (s->LoopReady == 0) goto prepare; if (!T.MulSd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.MulSsXX:
                    p = x + (nuint)op->RmSlot * 2; goto mulSs;
                case OpKind.MulSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                mulSs:
                    if (s->LoopReady == 0) goto prepare; if (!T.MulSs(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.DivSdXX:
                    p = x + (nuint)op->RmSlot * 2; goto divSd;
                case OpKind.DivSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                divSd:
                    if (s->LoopReady == 0) goto prepare; if (!T.DivSd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.DivSsXX:
                    p = x + (nuint)op->RmSlot * 2; goto divSs;
                case OpKind.DivSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                divSs:
                    if (s->LoopReady == 0) goto prepare; if (!T.DivSs(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.SqrtSdXX:
                    p = x + (nuint)op->RmSlot * 2; goto sqrtSd;
                case OpKind.SqrtSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                sqrtSd:
                    if (s->LoopReady == 0) goto prepare; if (!T.SqrtSd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.ComiSdXX:
                    p = x + (nuint)op->RmSlot * 2; goto comiSd;
                case OpKind.ComiSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                comiSd:
                    if (s->LoopReady == 0) goto prepare; relation = T.ComiSd(x + (nuint)op->RegSlot * 2, p); if (relation == 0) goto slow;
                    RecordComparison(s, relation); op++; continue;
                case OpKind.ComiSdXXJ:
                    p = x + (nuint)op->RmSlot * 2; goto comiSdJ;
                case OpKind.ComiSdXMJ:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                comiSdJ:
                    if (s->LoopReady == 0) goto prepare; relation = T.ComiSd(x + (nuint)op->RegSlot * 2, p); if (relation == 0) goto slow;
                    goto branch;
                case OpKind.ComiSsXX:
                    p = x + (nuint)op->RmSlot * 2; goto comiSs;
                case OpKind.ComiSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                comiSs:
                    if (s->LoopReady == 0) goto prepare; relation = T.ComiSs(x + (nuint)op->RegSlot * 2, p); if (relation == 0) goto slow;
                    RecordComparison(s, relation); op++; continue;
                case OpKind.ComiSsXXJ:
                    p = x + (nuint)op->RmSlot * 2; goto comiSsJ;
                case OpKind.ComiSsXMJ:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                comiSsJ:
                    if (s->LoopReady == 0) goto prepare; relation = T.ComiSs(x + (nuint)op->RegSlot * 2, p); if (relation == 0) goto slow;
                    goto branch;
                case OpKind.CvtSi32SdXR:
                    Vector128.Load((double*)(x + (nuint)op->RegSlot * 2)).WithElement(0, *(int*)((byte*)s + op->RmSlot)).Store((double*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.CvtSi32SdXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                    Vector128.Load((double*)(x + (nuint)op->RegSlot * 2)).WithElement(0, *(int*)p).Store((double*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.CvtSi64SdXR:
                    p = (byte*)s + op->RmSlot; goto cvtSi64Sd;
                case OpKind.CvtSi64SdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                cvtSi64Sd:
                    if (s->LoopReady == 0) goto prepare; if (!T.CvtSi64Sd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.CvtSi32SsXR:
                    p = (byte*)s + op->RmSlot; goto cvtSi32Ss;
                case OpKind.CvtSi32SsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                cvtSi32Ss:
                    if (s->LoopReady == 0) goto prepare; if (!T.CvtSi32Ss(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.CvttSdSi32RX:
                    p = x + (nuint)op->RmSlot * 2; goto cvttSdSi32;
                case OpKind.CvttSdSi32RM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                cvttSdSi32:
                    if (s->LoopReady == 0) goto prepare; if (!T.CvttSdSi32((byte*)s + op->RegSlot, p)) goto slow;
                    op++; continue;
                case OpKind.CvttSdSi64RX:
                    p = x + (nuint)op->RmSlot * 2; goto cvttSdSi64;
                case OpKind.CvttSdSi64RM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                cvttSdSi64:
                    if (s->LoopReady == 0) goto prepare; if (!T.CvttSdSi64((byte*)s + op->RegSlot, p)) goto slow;
                    op++; continue;
                case OpKind.CvttSsSi32RX:
                    p = x + (nuint)op->RmSlot * 2; goto cvttSsSi32;
                case OpKind.CvttSsSi32RM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                cvttSsSi32:
                    if (s->LoopReady == 0) goto prepare; if (!T.CvttSsSi32((byte*)s + op->RegSlot, p)) goto slow;
                    op++; continue;
                case OpKind.CvtSsSdXX:
                    p = x + (nuint)op->RmSlot * 2; goto cvtSsSd;
                case OpKind.CvtSsSdXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                cvtSsSd:
                    if (s->LoopReady == 0) goto prepare; if (!T.CvtSsSd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.CvtSdSsXX:
                    p = x + (nuint)op->RmSlot * 2; goto cvtSdSs;
                case OpKind.CvtSdSsXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                cvtSdSs:
                    if (s->LoopReady == 0) goto prepare; if (!T.CvtSdSs(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.AddPdXX:
                    p = x + (nuint)op->RmSlot * 2; goto addPd;
                case OpKind.AddPdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                addPd:
                    if (s->LoopReady == 0) goto prepare; if (!T.AddPd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.AddPsXX:
                    p = x + (nuint)op->RmSlot * 2; goto addPs;
                case OpKind.AddPsXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                addPs:
                    if (s->LoopReady == 0) goto prepare; if (!T.AddPs(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.SubPdXX:
                    p = x + (nuint)op->RmSlot * 2; goto subPd;
                case OpKind.SubPdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                subPd:
                    if (s->LoopReady == 0) goto prepare; if (!T.SubPd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.SubPsXX:
                    p = x + (nuint)op->RmSlot * 2; goto subPs;
                case OpKind.SubPsXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                subPs:
                    if (s->LoopReady == 0) goto prepare; if (!T.SubPs(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.MulPdXX:
                    p = x + (nuint)op->RmSlot * 2; goto mulPd;
                case OpKind.MulPdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                mulPd:
                    if (s->LoopReady == 0) goto prepare; if (!T.MulPd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.MulPsXX:
                    p = x + (nuint)op->RmSlot * 2; goto mulPs;
                case OpKind.MulPsXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                mulPs:
                    if (s->LoopReady == 0) goto prepare; if (!T.MulPs(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.DivPdXX:
                    p = x + (nuint)op->RmSlot * 2; goto divPd;
                case OpKind.DivPdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                divPd:
                    if (s->LoopReady == 0) goto prepare; if (!T.DivPd(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.DivPsXX:
                    p = x + (nuint)op->RmSlot * 2; goto divPs;
                case OpKind.DivPsXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                divPs:
                    if (s->LoopReady == 0) goto prepare; if (!T.DivPs(x + (nuint)op->RegSlot * 2, p)) goto slow;
                    op++; continue;
                case OpKind.VectorX:
                    if (s->LoopReady != 0 && VectorOp.Of(op)->Host == null) goto finish;
                    Compute(s, op, area); op++; continue;
                case OpKind.VectorFloatX:
                    if (!Masked(s)) goto slow; if (s->LoopReady != 0 && VectorOp.Of(op)->Host == null) goto finish;
                    Compute(s, op, area); op++; continue;
                case OpKind.VectorXM:
                    if (s->LoopReady != 0 && VectorOp.Of(op)->Host == null) goto finish; if (!ComputeFromMemory(s, op, area)) goto slow;
                    op++; continue;
                case OpKind.VectorMX:
                    if (s->LoopReady != 0 && VectorOp.Of(op)->Host == null) goto finish; if (!ComputeToMemory(s, op, area)) goto slow;
                    op++; continue;
                case OpKind.AddRI32NoFlagsInVector:
                    *(ulong*)((byte*)s + op->RegSlot) = (uint)(*(uint*)((byte*)s + op->RegSlot) + (uint)op->Imm); op++; continue;
                case OpKind.AddRI64NoFlagsInVector:
                    *(ulong*)((byte*)s + op->RegSlot) += op->Imm; op++; continue;
                case OpKind.AddRI32InVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; *(ulong*)((byte*)s + op->RegSlot) = (uint)(a + b); LazyFlags.Record(s, LazyOp.Add, a, b, (ulong)(int)(a + b)); op++; continue;
                case OpKind.AddRI64InVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; *(ulong*)((byte*)s + op->RegSlot) = a + b; LazyFlags.Record(s, LazyOp.Add, a, b, a + b); op++; continue;
                case OpKind.CmpRR32JEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a == b) goto taken;
                    op++; continue;
                case OpKind.CmpRR32JNEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a != b) goto taken;
                    op++; continue;
                case OpKind.CmpRI32JEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a == b) goto taken;
                    op++; continue;
                case OpKind.CmpRI32JNEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a != b) goto taken;
                    op++; continue;
                case OpKind.CmpRR64JNEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++;
                    if (a != b) goto taken;
                    op++; continue;
                case OpKind.CmpRI64JNEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++;
                    if (a != b) goto taken;
                    op++; continue;
                case OpKind.SubRI32JNEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; *(ulong*)((byte*)s + op->RegSlot) = (uint)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a != b) goto taken;
                    op++; continue;
                case OpKind.SubRI64JNEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; *(ulong*)((byte*)s + op->RegSlot) = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++;
                    if (a != b) goto taken;
                    op++; continue;
                case OpKind.DecR32JNEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)(int)(a - 1); *(ulong*)((byte*)s + op->RegSlot) = (uint)b; LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, b); op++;
                    if (b != 0) goto taken;
                    op++; continue;
                case OpKind.MovRR32InVector:
                    *(ulong*)((byte*)s + op->RegSlot) = *(uint*)((byte*)s + op->RmSlot); op++; continue;
                case OpKind.MovRR64InVector:
                    *(ulong*)((byte*)s + op->RegSlot) = *(ulong*)((byte*)s + op->RmSlot); op++; continue;
                case OpKind.MovRIInVector:
                    *(ulong*)((byte*)s + op->RegSlot) = op->Imm; op++; continue;
                case OpKind.MovRM32InVector:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow; *(ulong*)((byte*)s + op->RegSlot) = *(uint*)p; op++; continue;
                case OpKind.MovRM64InVector:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow; *(ulong*)((byte*)s + op->RegSlot) = *(ulong*)p; op++; continue;
                case OpKind.MovMR32InVector:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto slow; *(uint*)p = *(uint*)((byte*)s + op->RegSlot); op++; continue;
                case OpKind.MovMR64InVector:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto slow; *(ulong*)p = *(ulong*)((byte*)s + op->RegSlot); op++; continue;
                case OpKind.Lea64InVector:
                    *(ulong*)((byte*)s + op->RegSlot) = Operand.FastOffset(s, op); op++; continue;
                case OpKind.Movsx32To64RRInVector:
                    *(long*)((byte*)s + op->RegSlot) = *(int*)((byte*)s + op->RmSlot); op++; continue;
                case OpKind.AddRR32NoFlagsInVector:
                    *(ulong*)((byte*)s + op->RegSlot) = *(uint*)((byte*)s + op->RegSlot) + *(uint*)((byte*)s + op->RmSlot); op++; continue;
                case OpKind.AddRR64InVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); *(ulong*)((byte*)s + op->RegSlot) = a + b; LazyFlags.Record(s, LazyOp.Add, a, b, a + b); op++; continue;
                case OpKind.AddRR64NoFlagsInVector:
                    *(ulong*)((byte*)s + op->RegSlot) += *(ulong*)((byte*)s + op->RmSlot); op++; continue;
                case OpKind.SubRI64InVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; *(ulong*)((byte*)s + op->RegSlot) = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; continue;
                case OpKind.SubRI64NoFlagsInVector:
                    *(ulong*)((byte*)s + op->RegSlot) -= op->Imm; op++; continue;
                case OpKind.IncR64NoFlagsInVector:
                    ++*(ulong*)((byte*)s + op->RegSlot); op++; continue;
                case OpKind.IncR32NoFlagsInVector:
                    *(ulong*)((byte*)s + op->RegSlot) = *(uint*)((byte*)s + op->RegSlot) + 1; op++; continue;
                case OpKind.XorRR32NoFlagsInVector:
                    *(ulong*)((byte*)s + op->RegSlot) = *(uint*)((byte*)s + op->RegSlot) ^ *(uint*)((byte*)s + op->RmSlot); op++; continue;
                case OpKind.JmpInVector:
                    goto taken;
                case OpKind.CmpRR32JBInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if (a < b) goto taken; op++; continue;
                case OpKind.CmpRR32JAEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if (a >= b) goto taken; op++; continue;
                case OpKind.CmpRR32JBEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if (a <= b) goto taken; op++; continue;
                case OpKind.CmpRR32JAInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if (a > b) goto taken; op++; continue;
                case OpKind.CmpRR32JLInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if ((long)a < (long)b) goto taken; op++; continue;
                case OpKind.CmpRR32JGEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if ((long)a >= (long)b) goto taken; op++; continue;
                case OpKind.CmpRR32JLEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if ((long)a <= (long)b) goto taken; op++; continue;
                case OpKind.CmpRR32JGInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if ((long)a > (long)b) goto taken; op++; continue;
                case OpKind.CmpRR64JBInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a < b) goto taken; op++; continue;
                case OpKind.CmpRR64JAEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a >= b) goto taken; op++; continue;
                case OpKind.CmpRR64JBEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a <= b) goto taken; op++; continue;
                case OpKind.CmpRR64JAInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a > b) goto taken; op++; continue;
                case OpKind.CmpRR64JLInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if ((long)a < (long)b) goto taken; op++; continue;
                case OpKind.CmpRR64JGEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if ((long)a >= (long)b) goto taken; op++; continue;
                case OpKind.CmpRR64JLEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if ((long)a <= (long)b) goto taken; op++; continue;
                case OpKind.CmpRR64JGInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if ((long)a > (long)b) goto taken; op++; continue;
                case OpKind.CmpRI32JBInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if (a < b) goto taken; op++; continue;
                case OpKind.CmpRI32JAEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if (a >= b) goto taken; op++; continue;
                case OpKind.CmpRI32JBEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if (a <= b) goto taken; op++; continue;
                case OpKind.CmpRI32JAInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if (a > b) goto taken; op++; continue;
                case OpKind.CmpRI32JLInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if ((long)a < (long)b) goto taken; op++; continue;
                case OpKind.CmpRI32JGEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if ((long)a >= (long)b) goto taken; op++; continue;
                case OpKind.CmpRI32JLEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if ((long)a <= (long)b) goto taken; op++; continue;
                case OpKind.CmpRI32JGInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++; if ((long)a > (long)b) goto taken; op++; continue;
                case OpKind.CmpRI64JBInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a < b) goto taken; op++; continue;
                case OpKind.CmpRI64JAEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a >= b) goto taken; op++; continue;
                case OpKind.CmpRI64JBEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a <= b) goto taken; op++; continue;
                case OpKind.CmpRI64JAInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a > b) goto taken; op++; continue;
                case OpKind.CmpRI64JLInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if ((long)a < (long)b) goto taken; op++; continue;
                case OpKind.CmpRI64JGEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if ((long)a >= (long)b) goto taken; op++; continue;
                case OpKind.CmpRI64JLEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if ((long)a <= (long)b) goto taken; op++; continue;
                case OpKind.CmpRI64JGInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if ((long)a > (long)b) goto taken; op++; continue;
                case OpKind.CmpRR64JEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = *(ulong*)((byte*)s + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a == b) goto taken; op++; continue;
                case OpKind.CmpRI64JEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++; if (a == b) goto taken; op++; continue;
                case OpKind.TestRR32JEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot) & (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.RecordLogic(s, a); op++; if (a == 0) goto taken; op++; continue;
                case OpKind.TestRR32JNEInVector:
                    a = (ulong)*(int*)((byte*)s + op->RegSlot) & (ulong)*(int*)((byte*)s + op->RmSlot); LazyFlags.RecordLogic(s, a); op++; if (a != 0) goto taken; op++; continue;
                case OpKind.TestRR64JEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot) & *(ulong*)((byte*)s + op->RmSlot); LazyFlags.RecordLogic(s, a); op++; if (a == 0) goto taken; op++; continue;
                case OpKind.TestRR64JNEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot) & *(ulong*)((byte*)s + op->RmSlot); LazyFlags.RecordLogic(s, a); op++; if (a != 0) goto taken; op++; continue;
                case OpKind.DecR64JNEInVector:
                    a = *(ulong*)((byte*)s + op->RegSlot); *(ulong*)((byte*)s + op->RegSlot) = a - 1; LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, a - 1); op++; if (a != 1) goto taken; op++; continue;
                default:
                    goto leave;
            }

        branch:
            RecordComparison(s, relation);
            op++;
            if ((op->RmSlot & relation) != 0)
                goto taken;
            op++;
            continue;

        taken:
            // As in Interpreter, which does it again when it cannot be done here.
            p = (byte*)op->Handler;
            if (p != null && ((Block*)p)->Epoch == s->LoopEpoch && s->ExitRequest == 0)
            {
                a = (ulong)(op + 1) - (ulong)Block.Ops(s->LoopBlock) >> 6;
                if (s->LoopBudget - (long)a >= ((Block*)p)->OpCount && ((Block*)p)->Heat > 0)
                {
                    ((Block*)p)->Heat--;
                    s->LoopBudget -= (long)a;
                    s->LoopBlock = (Block*)p;
                    s->BlockRip = (s->BlockRip + (ulong)op->BlockDisp) & op->AddressMask;
                    op = Block.Ops((Block*)p);
                    continue;
                }
            }
            op = (Op*)((byte*)op + Taken);
            goto leave;

        prepare:
            if (!T.Begin(s))
                goto slow;
            s->LoopReady = 1;
            continue;

        finish:
            T.End(s);
            s->LoopReady = 0;
            continue;

        slow:
            op = (Op*)((byte*)op + Slowly);

        leave:
            if (s->LoopReady != 0)
                T.End(s);
            return op;
        }
    }
}
