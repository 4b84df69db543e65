using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Engine;

/// <summary>The interpreter's loop for runs of SSE instructions: as <see cref="Interpreter"/>, in a method of its own so that neither grows beyond what the compiler optimizes.</summary>
/// <remarks>
/// Arithmetic is the host's, as long as MXCSR has its default controls and inexactness has been noted before, and operands and results are normal numbers or zeros:
/// then the result is the architectural one and no exception is raised that MXCSR does not show already. The rest is left to the instruction's handler.
/// </remarks>
internal static unsafe class VectorLoop
{
    /// <summary>Low bits of what <see cref="Run"/> returns, operations being aligned: what to do with the operation.</summary>
    internal const int Slowly = 1, Taken = 2;

    /// <summary>Executes from <paramref name="op"/> as far as it can.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static Op* Run(CpuState* s, Op* op, byte* area)
    {
        byte* sb = (byte*)s, x = s->Fx + VectorUnit.FxXmm;
        bool usable = FastFloat.Usable(s);
        byte* p, q;
        double d;
        float f;
        ulong a, b;
        int relation;
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
                    Vector128.CreateScalar(*(uint*)(sb + op->RmSlot)).Store((uint*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovXR64:
                    Vector128.CreateScalar(*(ulong*)(sb + op->RmSlot)).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovRX32:
                    *(ulong*)(sb + op->RegSlot) = *(uint*)(x + (nuint)op->RmSlot * 2); op++; continue;
                case OpKind.MovRX64:
                    *(ulong*)(sb + op->RegSlot) = *(ulong*)(x + (nuint)op->RmSlot * 2); op++; continue;
                case OpKind.MovhXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                    Vector128.Load((ulong*)(x + (nuint)op->RegSlot * 2)).WithElement(1, *(ulong*)p).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.MovhMX:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto slow;
                    *(ulong*)p = *(ulong*)((x + (nuint)op->RegSlot * 2) + 8); op++; continue;
                case OpKind.UnpcklpdXX:
                    Vector128.Load((ulong*)(x + (nuint)op->RegSlot * 2)).WithElement(1, *(ulong*)(x + (nuint)op->RmSlot * 2)).Store((ulong*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.XorXX:
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) ^ Vector128.Load((x + (nuint)op->RmSlot * 2))).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.XorXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) ^ Vector128.Load(p)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.AndXX:
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) & Vector128.Load((x + (nuint)op->RmSlot * 2))).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.AndXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) & Vector128.Load(p)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.AndnXX:
                    Vector128.AndNot(Vector128.Load((x + (nuint)op->RmSlot * 2)), Vector128.Load(x + (nuint)op->RegSlot * 2)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.AndnXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    Vector128.AndNot(Vector128.Load(p), Vector128.Load(x + (nuint)op->RegSlot * 2)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.OrXX:
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) | Vector128.Load((x + (nuint)op->RmSlot * 2))).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.OrXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                    (Vector128.Load(x + (nuint)op->RegSlot * 2) | Vector128.Load(p)).Store(x + (nuint)op->RegSlot * 2); op++; continue;
                case OpKind.AddSdXX:
                    p = (x + (nuint)op->RmSlot * 2);
                    goto addSd;
                case OpKind.AddSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                addSd:
                    q = (x + (nuint)op->RegSlot * 2); d = *(double*)q + *(double*)p; goto sumDouble;
                case OpKind.AddSsXX:
                    p = (x + (nuint)op->RmSlot * 2);
                    goto addSs;
                case OpKind.AddSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                addSs:
                    q = (x + (nuint)op->RegSlot * 2); f = *(float*)q + *(float*)p; goto sumFloat;
                case OpKind.SubSdXX:
                    p = (x + (nuint)op->RmSlot * 2);
                    goto subSd;
                case OpKind.SubSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                subSd:
                    q = (x + (nuint)op->RegSlot * 2); d = *(double*)q - *(double*)p; goto sumDouble;
                case OpKind.SubSsXX:
                    p = (x + (nuint)op->RmSlot * 2);
                    goto subSs;
                case OpKind.SubSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                subSs:
                    q = (x + (nuint)op->RegSlot * 2); f = *(float*)q - *(float*)p; goto sumFloat;
                case OpKind.MulSdXX:
                    p = (x + (nuint)op->RmSlot * 2);
                    goto mulSd;
                case OpKind.MulSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                mulSd:
                    q = (x + (nuint)op->RegSlot * 2); d = *(double*)q * *(double*)p; goto productDouble;
                case OpKind.MulSsXX:
                    p = (x + (nuint)op->RmSlot * 2);
                    goto mulSs;
                case OpKind.MulSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                mulSs:
                    q = (x + (nuint)op->RegSlot * 2); f = *(float*)q * *(float*)p; goto productFloat;
                case OpKind.DivSdXX:
                    p = (x + (nuint)op->RmSlot * 2);
                    goto divSd;
                case OpKind.DivSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                divSd:
                    q = (x + (nuint)op->RegSlot * 2); d = *(double*)q / *(double*)p; goto quotientDouble;
                case OpKind.DivSsXX:
                    p = (x + (nuint)op->RmSlot * 2);
                    goto divSs;
                case OpKind.DivSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                divSs:
                    q = (x + (nuint)op->RegSlot * 2); f = *(float*)q / *(float*)p; goto quotientFloat;
                case OpKind.SqrtSdXX:
                    p = (x + (nuint)op->RmSlot * 2); goto sqrtSd;
                case OpKind.SqrtSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                sqrtSd:
                    q = (x + (nuint)op->RegSlot * 2); d = Math.Sqrt(*(double*)p); a = b = *(ulong*)p; goto checkSumDouble;
                case OpKind.ComiSdXX:
                    p = (x + (nuint)op->RmSlot * 2); goto comiSd;
                case OpKind.ComiSdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                comiSd:
                    relation = FastFloat.CompareDouble((x + (nuint)op->RegSlot * 2), p); if (relation < 0) goto slow;
                    FastFloat.RecordComparison(s, relation); op++; continue;
                case OpKind.ComiSdXXJ:
                    p = (x + (nuint)op->RmSlot * 2); goto comiSdJ;
                case OpKind.ComiSdXMJ:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                comiSdJ:
                    relation = FastFloat.CompareDouble((x + (nuint)op->RegSlot * 2), p); if (relation < 0) goto slow;
                    goto branch;
                case OpKind.ComiSsXX:
                    p = (x + (nuint)op->RmSlot * 2); goto comiSs;
                case OpKind.ComiSsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                comiSs:
                    relation = FastFloat.CompareFloat((x + (nuint)op->RegSlot * 2), p); if (relation < 0) goto slow;
                    FastFloat.RecordComparison(s, relation); op++; continue;
                case OpKind.ComiSsXXJ:
                    p = (x + (nuint)op->RmSlot * 2); goto comiSsJ;
                case OpKind.ComiSsXMJ:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                comiSsJ:
                    relation = FastFloat.CompareFloat((x + (nuint)op->RegSlot * 2), p); if (relation < 0) goto slow;
                    goto branch;
                case OpKind.CvtSi32SdXR:
                    Vector128.Load((double*)(x + (nuint)op->RegSlot * 2)).WithElement(0, *(int*)(sb + op->RmSlot)).Store((double*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.CvtSi32SdXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                    Vector128.Load((double*)(x + (nuint)op->RegSlot * 2)).WithElement(0, *(int*)p).Store((double*)(x + (nuint)op->RegSlot * 2)); op++; continue;
                case OpKind.CvtSi64SdXR:
                    p = (sb + op->RmSlot); goto cvtSi64Sd;
                case OpKind.CvtSi64SdXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                cvtSi64Sd:
                    if (!FastFloat.DoubleFromInt64((x + (nuint)op->RegSlot * 2), p, usable)) goto slow;
                    op++; continue;
                case OpKind.CvtSi32SsXR:
                    p = (sb + op->RmSlot); goto cvtSi32Ss;
                case OpKind.CvtSi32SsXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                cvtSi32Ss:
                    if (!FastFloat.SingleFromInt32((x + (nuint)op->RegSlot * 2), p, usable)) goto slow;
                    op++; continue;
                case OpKind.CvttSdSi32RX:
                    p = (x + (nuint)op->RmSlot * 2); goto cvttSdSi32;
                case OpKind.CvttSdSi32RM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                cvttSdSi32:
                    if (!FastFloat.TruncateToInt32((sb + op->RegSlot), p, usable)) goto slow;
                    op++; continue;
                case OpKind.CvttSdSi64RX:
                    p = (x + (nuint)op->RmSlot * 2); goto cvttSdSi64;
                case OpKind.CvttSdSi64RM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                cvttSdSi64:
                    if (!FastFloat.TruncateToInt64((sb + op->RegSlot), p, usable)) goto slow;
                    op++; continue;
                case OpKind.CvttSsSi32RX:
                    p = (x + (nuint)op->RmSlot * 2); goto cvttSsSi32;
                case OpKind.CvttSsSi32RM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                cvttSsSi32:
                    if (!FastFloat.TruncateSingleToInt32((sb + op->RegSlot), p, usable)) goto slow;
                    op++; continue;
                case OpKind.CvtSsSdXX:
                    p = (x + (nuint)op->RmSlot * 2); goto cvtSsSd;
                case OpKind.CvtSsSdXM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto slow;
                cvtSsSd:
                    if (!FastFloat.SingleToDouble((x + (nuint)op->RegSlot * 2), p)) goto slow;
                    op++; continue;
                case OpKind.CvtSdSsXX:
                    p = (x + (nuint)op->RmSlot * 2); goto cvtSdSs;
                case OpKind.CvtSdSsXM:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto slow;
                cvtSdSs:
                    if (!FastFloat.DoubleToSingle((x + (nuint)op->RegSlot * 2), p, usable)) goto slow;
                    op++; continue;
                case OpKind.AddPdXX:
                    p = (x + (nuint)op->RmSlot * 2); goto addPd;
                case OpKind.AddPdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                addPd:
                    if (!usable || !FastFloat.Add<double>((x + (nuint)op->RegSlot * 2), p)) goto slow;
                    op++; continue;
                case OpKind.AddPsXX:
                    p = (x + (nuint)op->RmSlot * 2); goto addPs;
                case OpKind.AddPsXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                addPs:
                    if (!usable || !FastFloat.Add<float>((x + (nuint)op->RegSlot * 2), p)) goto slow;
                    op++; continue;
                case OpKind.SubPdXX:
                    p = (x + (nuint)op->RmSlot * 2); goto subPd;
                case OpKind.SubPdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                subPd:
                    if (!usable || !FastFloat.Subtract<double>((x + (nuint)op->RegSlot * 2), p)) goto slow;
                    op++; continue;
                case OpKind.SubPsXX:
                    p = (x + (nuint)op->RmSlot * 2); goto subPs;
                case OpKind.SubPsXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                subPs:
                    if (!usable || !FastFloat.Subtract<float>((x + (nuint)op->RegSlot * 2), p)) goto slow;
                    op++; continue;
                case OpKind.MulPdXX:
                    p = (x + (nuint)op->RmSlot * 2); goto mulPd;
                case OpKind.MulPdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                mulPd:
                    if (!usable || !FastFloat.Multiply<double>((x + (nuint)op->RegSlot * 2), p)) goto slow;
                    op++; continue;
                case OpKind.MulPsXX:
                    p = (x + (nuint)op->RmSlot * 2); goto mulPs;
                case OpKind.MulPsXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                mulPs:
                    if (!usable || !FastFloat.Multiply<float>((x + (nuint)op->RegSlot * 2), p)) goto slow;
                    op++; continue;
                case OpKind.DivPdXX:
                    p = (x + (nuint)op->RmSlot * 2); goto divPd;
                case OpKind.DivPdXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                divPd:
                    if (!usable || !FastFloat.Divide<double>((x + (nuint)op->RegSlot * 2), p)) goto slow;
                    op++; continue;
                case OpKind.DivPsXX:
                    p = (x + (nuint)op->RmSlot * 2); goto divPs;
                case OpKind.DivPsXM:
                    p = Operand.FastRead(s, op, 16); if (p == null) goto slow; if (((nuint)p & 15) != 0) goto slow;
                divPs:
                    if (!usable || !FastFloat.Divide<float>((x + (nuint)op->RegSlot * 2), p)) goto slow;
                    op++; continue;
                case OpKind.VectorX:
                    FastFloat.Compute(s, op, area); op++; continue;
                case OpKind.VectorFloatX:
                    if (!FastFloat.Masked(s)) goto slow;
                    FastFloat.Compute(s, op, area); usable = FastFloat.Usable(s); op++; continue;
                case OpKind.VectorXM:
                    if (!FastFloat.ComputeFromMemory(s, op, area)) goto slow;
                    usable = FastFloat.Usable(s); op++; continue;
                case OpKind.VectorMX:
                    if (!FastFloat.ComputeToMemory(s, op, area)) goto slow;
                    op++; continue;
                case OpKind.AddRI32NoFlagsInVector:
                    *(ulong*)(sb + op->RegSlot) = (uint)(*(uint*)(sb + op->RegSlot) + (uint)op->Imm); op++; continue;
                case OpKind.AddRI64NoFlagsInVector:
                    *(ulong*)(sb + op->RegSlot) += op->Imm; op++; continue;
                case OpKind.AddRI32InVector:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; *(ulong*)(sb + op->RegSlot) = (uint)(a + b); LazyFlags.Record(s, LazyOp.Add, a, b, (ulong)(int)(a + b)); op++; continue;
                case OpKind.AddRI64InVector:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; *(ulong*)(sb + op->RegSlot) = a + b; LazyFlags.Record(s, LazyOp.Add, a, b, a + b); op++; continue;
                case OpKind.CmpRR32JEInVector:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a == b) return (Op*)((byte*)op + Taken);
                    op++; continue;
                case OpKind.CmpRR32JNEInVector:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a != b) return (Op*)((byte*)op + Taken);
                    op++; continue;
                case OpKind.CmpRI32JEInVector:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a == b) return (Op*)((byte*)op + Taken);
                    op++; continue;
                case OpKind.CmpRI32JNEInVector:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a != b) return (Op*)((byte*)op + Taken);
                    op++; continue;
                case OpKind.CmpRR64JNEInVector:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++;
                    if (a != b) return (Op*)((byte*)op + Taken);
                    op++; continue;
                case OpKind.CmpRI64JNEInVector:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++;
                    if (a != b) return (Op*)((byte*)op + Taken);
                    op++; continue;
                case OpKind.SubRI32JNEInVector:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; *(ulong*)(sb + op->RegSlot) = (uint)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, (ulong)(int)(a - b)); op++;
                    if (a != b) return (Op*)((byte*)op + Taken);
                    op++; continue;
                case OpKind.SubRI64JNEInVector:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; *(ulong*)(sb + op->RegSlot) = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, a - b); op++;
                    if (a != b) return (Op*)((byte*)op + Taken);
                    op++; continue;
                case OpKind.DecR32JNEInVector:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)(int)(a - 1); *(ulong*)(sb + op->RegSlot) = (uint)b; LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, b); op++;
                    if (b != 0) return (Op*)((byte*)op + Taken);
                    op++; continue;
                default:
                    return op;
            }

        sumDouble:
            a = *(ulong*)q;
            b = *(ulong*)p;
        checkSumDouble:
            // A zero minus one wraps around to the largest number: denormal operands are those below. Denormal sums are exact.
            if (!usable || (a << 1) - 1 < FastFloat.DenormalDouble || (b << 1) - 1 < FastFloat.DenormalDouble || BitConverter.DoubleToUInt64Bits(d) << 1 >= FastFloat.InfiniteDouble)
                goto slow;
            Vector128.Load((double*)q).WithElement(0, d).Store((double*)q);
            op++;
            continue;

        sumFloat:
            if (!usable || (*(uint*)q << 1) - 1 < FastFloat.DenormalSingle || (*(uint*)p << 1) - 1 < FastFloat.DenormalSingle || BitConverter.SingleToUInt32Bits(f) << 1 >= FastFloat.InfiniteSingle)
                goto slow;
            Vector128.Load((float*)q).WithElement(0, f).Store((float*)q);
            op++;
            continue;

        productDouble:
            // The smallest normal number may have been rounded up to, from tiny. Zero is exact when a factor is.
            a = *(ulong*)q;
            b = *(ulong*)p;
            if (!usable || (a << 1) - 1 < FastFloat.DenormalDouble || (b << 1) - 1 < FastFloat.DenormalDouble
                || ((BitConverter.DoubleToUInt64Bits(d) << 1) - FastFloat.TinyDouble >= FastFloat.InfiniteDouble - FastFloat.TinyDouble && (d != 0 || (a << 1 != 0 && b << 1 != 0))))
                goto slow;
            Vector128.Load((double*)q).WithElement(0, d).Store((double*)q);
            op++;
            continue;

        productFloat:
            if (!usable || (*(uint*)q << 1) - 1 < FastFloat.DenormalSingle || (*(uint*)p << 1) - 1 < FastFloat.DenormalSingle
                || ((BitConverter.SingleToUInt32Bits(f) << 1) - FastFloat.TinySingle >= FastFloat.InfiniteSingle - FastFloat.TinySingle && (f != 0 || (*(uint*)q << 1 != 0 && *(uint*)p << 1 != 0))))
                goto slow;
            Vector128.Load((float*)q).WithElement(0, f).Store((float*)q);
            op++;
            continue;

        quotientDouble:
            if (!usable || (*(ulong*)q << 1) - 1 < FastFloat.DenormalDouble || (*(ulong*)p << 1) - 1 < FastFloat.DenormalDouble
                || (BitConverter.DoubleToUInt64Bits(d) << 1) - FastFloat.TinyDouble >= FastFloat.InfiniteDouble - FastFloat.TinyDouble)
                goto slow;
            Vector128.Load((double*)q).WithElement(0, d).Store((double*)q);
            op++;
            continue;

        quotientFloat:
            if (!usable || (*(uint*)q << 1) - 1 < FastFloat.DenormalSingle || (*(uint*)p << 1) - 1 < FastFloat.DenormalSingle
                || (BitConverter.SingleToUInt32Bits(f) << 1) - FastFloat.TinySingle >= FastFloat.InfiniteSingle - FastFloat.TinySingle)
                goto slow;
            Vector128.Load((float*)q).WithElement(0, f).Store((float*)q);
            op++;
            continue;

        branch:
            FastFloat.RecordComparison(s, relation);
            op++;
            if (FastFloat.Condition(op->Kind, relation))
                return (Op*)((byte*)op + Taken);
            op++;
            continue;

        slow:
            return (Op*)((byte*)op + Slowly);
        }
    }
}
