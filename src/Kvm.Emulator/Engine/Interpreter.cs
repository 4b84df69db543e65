using System.Numerics;
using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

/// <summary>The interpreter: executes a block and those it leads to until something needs the run loop.</summary>
/// <remarks>
/// One switch over decoded operations is the fastest dispatch the runtime offers. Cases hold the common instructions with 8-, 32- and 64-bit operands,
/// as far as registers and the software TLB serve them; whatever a case cannot do it leaves to the instruction's handler (<c>goto default</c>),
/// which starts from scratch. A case therefore changes nothing before it is sure to succeed.
/// The locals are shared by all cases on purpose: the compiler tracks a limited number. Names of cases: see <see cref="OpKind"/>.
/// </remarks>
internal static unsafe partial class Interpreter
{
    /// <summary>
    /// Executes from <paramref name="block"/>, which is at State->Rip, taking completed instructions off <paramref name="budget"/>.
    /// Jumped: RIP is at the next instruction, look it up. Otherwise as a handler's status, RIP as <see cref="ExecStatus"/> says (advanced for NextEndBlock).
    /// </summary>
    /// <remarks>
    /// <paramref name="first"/> is the operation to begin with, at State->Rip; the budget counts from the beginning of the block all the same. A block that is worth
    /// translating ends the run: Jumped, it is at State->Rip.
    /// </remarks>
    internal static ExecStatus Execute(Processor cpu, CodeCache cache, Block* block, ref long budget, int first = 0)
    {
        CpuState* s = cpu.State;
        byte* sb = (byte*)s;
        Op* op = Block.Ops(block) + first;
        ulong blockRip = s->Rip - op->BlockOffset, nextRip;
        long remaining = budget;
        Block* next;
        ExecStatus status;
        ulong a, b, r, linear, epoch = cache.Epoch;
        byte* p;
        s->BlockRip = blockRip;
        while (true)
        {
            switch (op->Kind)
            {
                case OpKind.AddRR8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a + b);
                    *(sb + op->RegSlot) = (byte)r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddRI8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a + b); *(sb + op->RegSlot) = (byte)r;
                    LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddRM8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; b = (ulong)*(sbyte*)p; a = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a + b); *(sb + op->RegSlot) = (byte)r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddMR8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a + b); *p = (byte)r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddMI8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = op->Imm; r = (ulong)(sbyte)(a + b);
                    *p = (byte)r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddRR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a + b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddRR32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a + b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.AddRI32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a + b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddRI32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a + b); *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.AddRM32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; b = (ulong)*(int*)p; a = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a + b); *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddMR32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a + b); *(uint*)p = (uint)r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddMI32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = op->Imm; r = (ulong)(int)(a + b);
                    *(uint*)p = (uint)r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a + b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddRR64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a + b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.AddRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a + b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddRI64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a + b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.AddRM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; b = *(ulong*)p; a = *(ulong*)(sb + op->RegSlot); r = a + b;
                    *(ulong*)(sb + op->RegSlot) = r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddMR64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = *(ulong*)(sb + op->RegSlot); r = a + b;
                    *(ulong*)p = r; LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.AddMI64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = op->Imm; r = a + b; *(ulong*)p = r;
                    LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; continue;
                case OpKind.SubRR8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a - b);
                    *(sb + op->RegSlot) = (byte)r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubRI8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a - b); *(sb + op->RegSlot) = (byte)r;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubRM8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; b = (ulong)*(sbyte*)p; a = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a - b); *(sb + op->RegSlot) = (byte)r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubMR8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a - b); *p = (byte)r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubMI8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = op->Imm; r = (ulong)(sbyte)(a - b);
                    *p = (byte)r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubRR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubRR32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.SubRI32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubRI32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.SubRM32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; b = (ulong)*(int*)p; a = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a - b); *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubMR32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a - b); *(uint*)p = (uint)r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubMI32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = op->Imm; r = (ulong)(int)(a - b);
                    *(uint*)p = (uint)r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubRR64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.SubRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubRI64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.SubRM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; b = *(ulong*)p; a = *(ulong*)(sb + op->RegSlot); r = a - b;
                    *(ulong*)(sb + op->RegSlot) = r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubMR64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = *(ulong*)(sb + op->RegSlot); r = a - b;
                    *(ulong*)p = r; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.SubMI64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = op->Imm; r = a - b; *(ulong*)p = r;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpRR8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpRI8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    continue;
                case OpKind.CmpRM8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; b = (ulong)*(sbyte*)p; a = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpMR8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpMI8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = op->Imm; r = (ulong)(sbyte)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpRR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpRI32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    continue;
                case OpKind.CmpRM32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; b = (ulong)*(int*)p; a = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpMR32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpMI32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = op->Imm; r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    continue;
                case OpKind.CmpRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpRM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; b = *(ulong*)p; a = *(ulong*)(sb + op->RegSlot); r = a - b;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpMR64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = *(ulong*)(sb + op->RegSlot); r = a - b;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.CmpMI64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = op->Imm; r = a - b;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; continue;
                case OpKind.AndRR8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a & b);
                    *(sb + op->RegSlot) = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndRI8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a & b); *(sb + op->RegSlot) = (byte)r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndRM8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; b = (ulong)*(sbyte*)p; a = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a & b); *(sb + op->RegSlot) = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndMR8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a & b); *p = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndMI8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = op->Imm; r = (ulong)(sbyte)(a & b);
                    *p = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndRR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a & b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndRR32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a & b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.AndRI32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a & b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndRI32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a & b); *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.AndRM32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; b = (ulong)*(int*)p; a = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a & b); *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndMR32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a & b); *(uint*)p = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndMI32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = op->Imm; r = (ulong)(int)(a & b);
                    *(uint*)p = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a & b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndRR64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a & b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.AndRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a & b; *(ulong*)(sb + op->RegSlot) = r; LazyFlags.RecordLogic(s, r); op++;
                    continue;
                case OpKind.AndRI64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a & b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.AndRM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; b = *(ulong*)p; a = *(ulong*)(sb + op->RegSlot); r = a & b;
                    *(ulong*)(sb + op->RegSlot) = r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndMR64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = *(ulong*)(sb + op->RegSlot); r = a & b;
                    *(ulong*)p = r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.AndMI64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = op->Imm; r = a & b; *(ulong*)p = r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrRR8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a | b);
                    *(sb + op->RegSlot) = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrRI8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a | b); *(sb + op->RegSlot) = (byte)r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrRM8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; b = (ulong)*(sbyte*)p; a = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a | b); *(sb + op->RegSlot) = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrMR8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a | b); *p = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrMI8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = op->Imm; r = (ulong)(sbyte)(a | b);
                    *p = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrRR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a | b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrRR32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a | b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.OrRI32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a | b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrRI32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a | b); *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.OrRM32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; b = (ulong)*(int*)p; a = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a | b); *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrMR32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a | b); *(uint*)p = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrMI32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = op->Imm; r = (ulong)(int)(a | b);
                    *(uint*)p = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a | b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrRR64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a | b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.OrRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a | b; *(ulong*)(sb + op->RegSlot) = r; LazyFlags.RecordLogic(s, r); op++;
                    continue;
                case OpKind.OrRI64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a | b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.OrRM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; b = *(ulong*)p; a = *(ulong*)(sb + op->RegSlot); r = a | b;
                    *(ulong*)(sb + op->RegSlot) = r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrMR64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = *(ulong*)(sb + op->RegSlot); r = a | b;
                    *(ulong*)p = r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.OrMI64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = op->Imm; r = a | b; *(ulong*)p = r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorRR8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a ^ b);
                    *(sb + op->RegSlot) = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorRI8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a ^ b); *(sb + op->RegSlot) = (byte)r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorRM8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; b = (ulong)*(sbyte*)p; a = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a ^ b); *(sb + op->RegSlot) = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorMR8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a ^ b); *p = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorMI8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = op->Imm; r = (ulong)(sbyte)(a ^ b);
                    *p = (byte)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorRR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a ^ b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorRR32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a ^ b);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.XorRI32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a ^ b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorRI32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a ^ b); *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.XorRM32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; b = (ulong)*(int*)p; a = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a ^ b); *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorMR32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a ^ b); *(uint*)p = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorMI32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = op->Imm; r = (ulong)(int)(a ^ b);
                    *(uint*)p = (uint)r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a ^ b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorRR64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a ^ b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.XorRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a ^ b; *(ulong*)(sb + op->RegSlot) = r; LazyFlags.RecordLogic(s, r); op++;
                    continue;
                case OpKind.XorRI64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a ^ b; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.XorRM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; b = *(ulong*)p; a = *(ulong*)(sb + op->RegSlot); r = a ^ b;
                    *(ulong*)(sb + op->RegSlot) = r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorMR64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = *(ulong*)(sb + op->RegSlot); r = a ^ b;
                    *(ulong*)p = r; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.XorMI64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = op->Imm; r = a ^ b; *(ulong*)p = r;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestRR8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a & b);
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestRI8:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a & b); LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestMR8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = (ulong)*(sbyte*)(sb + op->RegSlot);
                    r = (ulong)(sbyte)(a & b); LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestMI8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; a = (ulong)*(sbyte*)p; b = op->Imm; r = (ulong)(sbyte)(a & b);
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestRR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a & b); LazyFlags.RecordLogic(s, r);
                    op++; continue;
                case OpKind.TestRI32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a & b); LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestMR32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = (ulong)*(int*)(sb + op->RegSlot);
                    r = (ulong)(int)(a & b); LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestMI32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; a = (ulong)*(int*)p; b = op->Imm; r = (ulong)(int)(a & b);
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a & b; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a & b; LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestMR64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = *(ulong*)(sb + op->RegSlot); r = a & b;
                    LazyFlags.RecordLogic(s, r); op++; continue;
                case OpKind.TestMI64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; a = *(ulong*)p; b = op->Imm; r = a & b; LazyFlags.RecordLogic(s, r);
                    op++; continue;
                case OpKind.AdcRR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a + b + LazyFlags.Carry(s));
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Adc, a, b, r); op++; continue;
                case OpKind.AdcRI32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a + b + LazyFlags.Carry(s));
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Adc, a, b, r); op++; continue;
                case OpKind.AdcRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a + b + LazyFlags.Carry(s); *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Adc, a, b, r); op++; continue;
                case OpKind.AdcRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a + b + LazyFlags.Carry(s); *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Adc, a, b, r); op++; continue;
                case OpKind.SbbRR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b - LazyFlags.Carry(s));
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Sbb, a, b, r); op++; continue;
                case OpKind.SbbRI32:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b - LazyFlags.Carry(s));
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Sbb, a, b, r); op++; continue;
                case OpKind.SbbRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b - LazyFlags.Carry(s); *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Sbb, a, b, r); op++; continue;
                case OpKind.SbbRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b - LazyFlags.Carry(s); *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Sbb, a, b, r); op++; continue;
                case OpKind.IncR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); r = (ulong)(int)(a + 1); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Inc, LazyFlags.Carry(s), a, r); op++; continue;
                case OpKind.IncR32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); r = (ulong)(int)(a + 1); *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.IncR64:
                    a = *(ulong*)(sb + op->RegSlot); r = a + 1; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Inc, LazyFlags.Carry(s), a, r); op++; continue;
                case OpKind.IncR64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); r = a + 1; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.DecR32:
                    a = (ulong)*(int*)(sb + op->RegSlot); r = (ulong)(int)(a - 1); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, r); op++; continue;
                case OpKind.DecR32NoFlags:
                    a = (ulong)*(int*)(sb + op->RegSlot); r = (ulong)(int)(a - 1); *(ulong*)(sb + op->RegSlot) = (uint)r; op++; continue;
                case OpKind.DecR64:
                    a = *(ulong*)(sb + op->RegSlot); r = a - 1; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, r); op++; continue;
                case OpKind.DecR64NoFlags:
                    a = *(ulong*)(sb + op->RegSlot); r = a - 1; *(ulong*)(sb + op->RegSlot) = r; op++; continue;
                case OpKind.NegR32:
                    b = (ulong)*(int*)(sb + op->RegSlot); r = (ulong)(int)(0 - b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Sub, 0, b, r); op++; continue;
                case OpKind.NotR32:
                    *(ulong*)(sb + op->RegSlot) = ~*(uint*)(sb + op->RegSlot); op++; continue;
                case OpKind.NegR64:
                    b = *(ulong*)(sb + op->RegSlot); r = 0 - b; *(ulong*)(sb + op->RegSlot) = r; LazyFlags.Record(s, LazyOp.Sub, 0, b, r); op++;
                    continue;
                case OpKind.NotR64:
                    *(ulong*)(sb + op->RegSlot) = ~*(ulong*)(sb + op->RegSlot); op++; continue;
                case OpKind.ShlRI32:
                    a = *(uint*)(sb + op->RegSlot); b = (ulong)(int)(a << ((int)op->Imm - 1)); r = (ulong)(int)(b << 1);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Shl, b, 0, r); op++; continue;
                case OpKind.ShrRI32:
                    a = *(uint*)(sb + op->RegSlot) >> ((int)op->Imm - 1); r = a >> 1; *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Shr, (ulong)(int)(a), 0, r); op++; continue;
                case OpKind.SarRI32:
                    a = (ulong)((long)*(int*)(sb + op->RegSlot) >> ((int)op->Imm - 1)); r = (ulong)((long)a >> 1);
                    *(ulong*)(sb + op->RegSlot) = (uint)r; LazyFlags.Record(s, LazyOp.Sar, a, 0, r); op++; continue;
                case OpKind.ShlRI32NoFlags:
                    *(ulong*)(sb + op->RegSlot) = *(uint*)(sb + op->RegSlot) << (int)op->Imm; op++; continue;
                case OpKind.ShrRI32NoFlags:
                    *(ulong*)(sb + op->RegSlot) = *(uint*)(sb + op->RegSlot) >> (int)op->Imm; op++; continue;
                case OpKind.RolRI32:
                    r = BitOperations.RotateLeft(*(uint*)(sb + op->RegSlot), (int)op->Imm); *(ulong*)(sb + op->RegSlot) = r; b = r & 1;
                    b |= (b ^ r >> 31) << 11; LazyFlags.Resolve(s); s->Rflags = s->Rflags & ~(LazyFlags.CF | LazyFlags.OF) | b; op++; continue;
                case OpKind.RolRI32NoFlags:
                    *(ulong*)(sb + op->RegSlot) = BitOperations.RotateLeft(*(uint*)(sb + op->RegSlot), (int)op->Imm); op++; continue;
                case OpKind.RorRI32:
                    r = BitOperations.RotateRight(*(uint*)(sb + op->RegSlot), (int)op->Imm); *(ulong*)(sb + op->RegSlot) = r; b = r >> 31;
                    b |= ((r >> 30 ^ b) & 1) << 11; LazyFlags.Resolve(s); s->Rflags = s->Rflags & ~(LazyFlags.CF | LazyFlags.OF) | b; op++; continue;
                case OpKind.RorRI32NoFlags:
                    *(ulong*)(sb + op->RegSlot) = BitOperations.RotateRight(*(uint*)(sb + op->RegSlot), (int)op->Imm); op++; continue;
                case OpKind.ShlRI64:
                    a = *(ulong*)(sb + op->RegSlot); b = a << ((int)op->Imm - 1); r = b << 1; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Shl, b, 0, r); op++; continue;
                case OpKind.ShrRI64:
                    a = *(ulong*)(sb + op->RegSlot) >> ((int)op->Imm - 1); r = a >> 1; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Shr, a, 0, r); op++; continue;
                case OpKind.SarRI64:
                    a = (ulong)((long)*(long*)(sb + op->RegSlot) >> ((int)op->Imm - 1)); r = (ulong)((long)a >> 1); *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Sar, a, 0, r); op++; continue;
                case OpKind.ShlRI64NoFlags:
                    *(ulong*)(sb + op->RegSlot) = *(ulong*)(sb + op->RegSlot) << (int)op->Imm; op++; continue;
                case OpKind.ShrRI64NoFlags:
                    *(ulong*)(sb + op->RegSlot) = *(ulong*)(sb + op->RegSlot) >> (int)op->Imm; op++; continue;
                case OpKind.RolRI64:
                    r = BitOperations.RotateLeft(*(ulong*)(sb + op->RegSlot), (int)op->Imm); *(ulong*)(sb + op->RegSlot) = r; b = r & 1;
                    b |= (b ^ r >> 63) << 11; LazyFlags.Resolve(s); s->Rflags = s->Rflags & ~(LazyFlags.CF | LazyFlags.OF) | b; op++; continue;
                case OpKind.RolRI64NoFlags:
                    *(ulong*)(sb + op->RegSlot) = BitOperations.RotateLeft(*(ulong*)(sb + op->RegSlot), (int)op->Imm); op++; continue;
                case OpKind.RorRI64:
                    r = BitOperations.RotateRight(*(ulong*)(sb + op->RegSlot), (int)op->Imm); *(ulong*)(sb + op->RegSlot) = r; b = r >> 63;
                    b |= ((r >> 62 ^ b) & 1) << 11; LazyFlags.Resolve(s); s->Rflags = s->Rflags & ~(LazyFlags.CF | LazyFlags.OF) | b; op++; continue;
                case OpKind.RorRI64NoFlags:
                    *(ulong*)(sb + op->RegSlot) = BitOperations.RotateRight(*(ulong*)(sb + op->RegSlot), (int)op->Imm); op++; continue;
                case OpKind.ImulRR64:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); goto multiply;
                case OpKind.ImulRRI64:
                    a = *(ulong*)(sb + op->RmSlot); b = op->Imm; goto multiply;
                case OpKind.MovRR32:
                    *(ulong*)(sb + op->RegSlot) = *(uint*)(sb + op->RmSlot); op++; continue;
                case OpKind.MovRR64:
                    *(ulong*)(sb + op->RegSlot) = *(ulong*)(sb + op->RmSlot); op++; continue;
                case OpKind.MovRI:
                    *(ulong*)(sb + op->RegSlot) = op->Imm; op++; continue;
                case OpKind.MovRM8:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; *(sb + op->RegSlot) = *p; op++; continue;
                case OpKind.MovMR8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; *(byte*)p = *(byte*)(sb + op->RegSlot); op++; continue;
                case OpKind.MovMI8:
                    p = Operand.FastWrite(s, op, 1); if (p == null) goto default; *(byte*)p = (byte)op->Imm; op++; continue;
                case OpKind.MovRM16:
                    p = Operand.FastRead(s, op, 2); if (p == null) goto default; *(ushort*)(sb + op->RegSlot) = *(ushort*)p; op++; continue;
                case OpKind.MovMR16:
                    p = Operand.FastWrite(s, op, 2); if (p == null) goto default; *(ushort*)p = *(ushort*)(sb + op->RegSlot); op++; continue;
                case OpKind.MovMI16:
                    p = Operand.FastWrite(s, op, 2); if (p == null) goto default; *(ushort*)p = (ushort)op->Imm; op++; continue;
                case OpKind.MovRM32:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; *(ulong*)(sb + op->RegSlot) = *(uint*)p; op++; continue;
                case OpKind.MovMR32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; *(uint*)p = *(uint*)(sb + op->RegSlot); op++; continue;
                case OpKind.MovMI32:
                    p = Operand.FastWrite(s, op, 4); if (p == null) goto default; *(uint*)p = (uint)op->Imm; op++; continue;
                case OpKind.MovRM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; *(ulong*)(sb + op->RegSlot) = *(ulong*)p; op++; continue;
                case OpKind.MovMR64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; *(ulong*)p = *(ulong*)(sb + op->RegSlot); op++; continue;
                case OpKind.MovMI64:
                    p = Operand.FastWrite(s, op, 8); if (p == null) goto default; *(ulong*)p = (ulong)op->Imm; op++; continue;
                case OpKind.MovRR8:
                    *(sb + op->RegSlot) = *(sb + op->RmSlot); op++; continue;
                case OpKind.Movzx8RR:
                    *(ulong*)(sb + op->RegSlot) = *(byte*)(sb + op->RmSlot); op++; continue;
                case OpKind.Movzx8RM:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; *(ulong*)(sb + op->RegSlot) = *(byte*)p; op++; continue;
                case OpKind.Movzx16RR:
                    *(ulong*)(sb + op->RegSlot) = *(ushort*)(sb + op->RmSlot); op++; continue;
                case OpKind.Movzx16RM:
                    p = Operand.FastRead(s, op, 2); if (p == null) goto default; *(ulong*)(sb + op->RegSlot) = *(ushort*)p; op++; continue;
                case OpKind.Movsx8To64RR:
                    *(ulong*)(sb + op->RegSlot) = (ulong)*(sbyte*)(sb + op->RmSlot); op++; continue;
                case OpKind.Movsx8To64RM:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; *(ulong*)(sb + op->RegSlot) = (ulong)*(sbyte*)p; op++; continue;
                case OpKind.Movsx16To64RR:
                    *(ulong*)(sb + op->RegSlot) = (ulong)*(short*)(sb + op->RmSlot); op++; continue;
                case OpKind.Movsx16To64RM:
                    p = Operand.FastRead(s, op, 2); if (p == null) goto default; *(ulong*)(sb + op->RegSlot) = (ulong)*(short*)p; op++; continue;
                case OpKind.Movsx32To64RR:
                    *(ulong*)(sb + op->RegSlot) = (ulong)*(int*)(sb + op->RmSlot); op++; continue;
                case OpKind.Movsx32To64RM:
                    p = Operand.FastRead(s, op, 4); if (p == null) goto default; *(ulong*)(sb + op->RegSlot) = (ulong)*(int*)p; op++; continue;
                case OpKind.Movsx8To32RR:
                    *(ulong*)(sb + op->RegSlot) = (uint)*(sbyte*)(sb + op->RmSlot); op++; continue;
                case OpKind.Movsx8To32RM:
                    p = Operand.FastRead(s, op, 1); if (p == null) goto default; *(ulong*)(sb + op->RegSlot) = (uint)*(sbyte*)p; op++; continue;
                case OpKind.Movsx16To32RR:
                    *(ulong*)(sb + op->RegSlot) = (uint)*(short*)(sb + op->RmSlot); op++; continue;
                case OpKind.Movsx16To32RM:
                    p = Operand.FastRead(s, op, 2); if (p == null) goto default; *(ulong*)(sb + op->RegSlot) = (uint)*(short*)p; op++; continue;
                case OpKind.Lea64:
                    *(ulong*)(sb + op->RegSlot) = Operand.FastOffset(s, op); op++; continue;
                case OpKind.Lea32:
                    *(ulong*)(sb + op->RegSlot) = (uint)Operand.FastOffset(s, op); op++; continue;
                case OpKind.CmovRR32:
                    *(ulong*)(sb + op->RegSlot) = LazyFlags.Condition(s, op->Imm2) ? *(uint*)(sb + op->RmSlot) : *(uint*)(sb + op->RegSlot); op++;
                    continue;
                case OpKind.CmovRR64:
                    *(ulong*)(sb + op->RegSlot) = LazyFlags.Condition(s, op->Imm2) ? *(ulong*)(sb + op->RmSlot) : *(ulong*)(sb + op->RegSlot); op++;
                    continue;
                case OpKind.SetccR:
                    *(sb + op->RmSlot) = LazyFlags.Condition(s, op->Imm2) ? (byte)1 : (byte)0; op++; continue;
                case OpKind.Nop:
                    op++; continue;
                case OpKind.PushR64:
                    linear = s->Gpr[4] - 8; p = Operand.FastStackWrite(s, linear); if (p == null) goto default;
                    *(ulong*)p = *(ulong*)(sb + op->RmSlot); s->Gpr[4] = linear; op++; continue;
                case OpKind.PushI64:
                    linear = s->Gpr[4] - 8; p = Operand.FastStackWrite(s, linear); if (p == null) goto default; *(ulong*)p = op->Imm;
                    s->Gpr[4] = linear; op++; continue;
                case OpKind.PopR64:
                    linear = s->Gpr[4]; p = Operand.FastStackRead(s, linear); if (p == null) goto default; s->Gpr[4] = linear + 8;
                    *(ulong*)(sb + op->RmSlot) = *(ulong*)p; op++; continue;
                case OpKind.Leave64:
                    linear = s->Gpr[5]; p = Operand.FastStackRead(s, linear); if (p == null) goto default; s->Gpr[4] = linear + 8;
                    s->Gpr[5] = *(ulong*)p; op++; continue;
                case OpKind.Leave:
                    nextRip = (blockRip + (ulong)op->BlockDisp) & op->AddressMask; goto unknownSuccessor;
                case OpKind.JO:
                    if (LazyFlags.Condition(s, 0)) goto taken; op++; continue;
                case OpKind.JNO:
                    if (LazyFlags.Condition(s, 1)) goto taken; op++; continue;
                case OpKind.JB:
                    if (s->LazyOp == LazyOp.Sub ? s->LazySrc1 < s->LazySrc2 : LazyFlags.Condition(s, 2)) goto taken; op++; continue;
                case OpKind.JAE:
                    if (s->LazyOp == LazyOp.Sub ? s->LazySrc1 >= s->LazySrc2 : LazyFlags.Condition(s, 3)) goto taken; op++; continue;
                case OpKind.JE:
                    if (s->LazyOp != LazyOp.None ? s->LazyResult == 0 : (s->Rflags & LazyFlags.ZF) != 0) goto taken; op++; continue;
                case OpKind.JNE:
                    if (s->LazyOp != LazyOp.None ? s->LazyResult != 0 : (s->Rflags & LazyFlags.ZF) == 0) goto taken; op++; continue;
                case OpKind.JBE:
                    if (s->LazyOp == LazyOp.Sub ? s->LazySrc1 <= s->LazySrc2 : LazyFlags.Condition(s, 6)) goto taken; op++; continue;
                case OpKind.JA:
                    if (s->LazyOp == LazyOp.Sub ? s->LazySrc1 > s->LazySrc2 : LazyFlags.Condition(s, 7)) goto taken; op++; continue;
                case OpKind.JS:
                    if (s->LazyOp != LazyOp.None ? (long)s->LazyResult < 0 : (s->Rflags & LazyFlags.SF) != 0) goto taken; op++; continue;
                case OpKind.JNS:
                    if (s->LazyOp != LazyOp.None ? (long)s->LazyResult >= 0 : (s->Rflags & LazyFlags.SF) == 0) goto taken; op++; continue;
                case OpKind.JP:
                    if (LazyFlags.Condition(s, 10)) goto taken; op++; continue;
                case OpKind.JNP:
                    if (LazyFlags.Condition(s, 11)) goto taken; op++; continue;
                case OpKind.JL:
                    if (s->LazyOp == LazyOp.Sub ? (long)s->LazySrc1 < (long)s->LazySrc2 : LazyFlags.Condition(s, 12)) goto taken; op++; continue;
                case OpKind.JGE:
                    if (s->LazyOp == LazyOp.Sub ? (long)s->LazySrc1 >= (long)s->LazySrc2 : LazyFlags.Condition(s, 13)) goto taken; op++; continue;
                case OpKind.JLE:
                    if (s->LazyOp == LazyOp.Sub ? (long)s->LazySrc1 <= (long)s->LazySrc2 : LazyFlags.Condition(s, 14)) goto taken; op++; continue;
                case OpKind.JG:
                    if (s->LazyOp == LazyOp.Sub ? (long)s->LazySrc1 > (long)s->LazySrc2 : LazyFlags.Condition(s, 15)) goto taken; op++; continue;
                case OpKind.Jmp:
                    goto taken;
                case OpKind.Call64:
                    linear = s->Gpr[4] - 8; p = Operand.FastStackWrite(s, linear); nextRip = (blockRip + (ulong)op->BlockDisp) & op->AddressMask;
                    next = (Block*)op->Handler; if (next == null || next->Epoch != epoch) next = Link(cache, s, block, op, blockRip, nextRip);
                    if (p == null || next == null) goto callSlowly; *(ulong*)p = blockRip + op->BlockOffset + op->Length; s->Gpr[4] = linear;
                    goto enter;
                case OpKind.Ret64:
                    linear = s->Gpr[4]; p = Operand.FastStackRead(s, linear); if (p == null) goto default; nextRip = *(ulong*)p;
                    next = cache.FindFast64(s, nextRip); if (next == null) goto default; s->Gpr[4] = linear + 8 + op->Imm; goto enter;
                case OpKind.JmpR64:
                    nextRip = *(ulong*)(sb + op->RmSlot); next = cache.FindFast64(s, nextRip); if (next == null) goto default; goto enter;
                case OpKind.JmpM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; nextRip = *(ulong*)p; next = cache.FindFast64(s, nextRip);
                    if (next == null) goto default; goto enter;
                case OpKind.CallR64:
                    nextRip = *(ulong*)(sb + op->RmSlot); next = cache.FindFast64(s, nextRip); linear = s->Gpr[4] - 8;
                    p = Operand.FastStackWrite(s, linear); if (next == null || p == null) goto default;
                    *(ulong*)p = blockRip + op->BlockOffset + op->Length; s->Gpr[4] = linear; goto enter;
                case OpKind.CallM64:
                    p = Operand.FastRead(s, op, 8); if (p == null) goto default; nextRip = *(ulong*)p; next = cache.FindFast64(s, nextRip);
                    linear = s->Gpr[4] - 8; p = Operand.FastStackWrite(s, linear); if (next == null || p == null) goto default;
                    *(ulong*)p = blockRip + op->BlockOffset + op->Length; s->Gpr[4] = linear; goto enter;
                case OpKind.CmpRR8JE:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a == b) goto taken; op++; continue;
                case OpKind.CmpRR8JNE:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a != b) goto taken; op++; continue;
                case OpKind.CmpRI8JE:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a == b) goto taken; op++; continue;
                case OpKind.CmpRI8JNE:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a != b) goto taken; op++; continue;
                case OpKind.TestRR8JE:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a & b);
                    LazyFlags.RecordLogic(s, r); op++; if (r == 0) goto taken; op++; continue;
                case OpKind.TestRR8JNE:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = (ulong)*(sbyte*)(sb + op->RmSlot); r = (ulong)(sbyte)(a & b);
                    LazyFlags.RecordLogic(s, r); op++; if (r != 0) goto taken; op++; continue;
                case OpKind.TestRI8JE:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a & b); LazyFlags.RecordLogic(s, r); op++;
                    if (r == 0) goto taken; op++; continue;
                case OpKind.TestRI8JNE:
                    a = (ulong)*(sbyte*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(sbyte)(a & b); LazyFlags.RecordLogic(s, r); op++;
                    if (r != 0) goto taken; op++; continue;
                case OpKind.CmpRR32JB:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a < b) goto taken; op++; continue;
                case OpKind.CmpRR32JAE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a >= b) goto taken; op++; continue;
                case OpKind.CmpRR32JE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a == b) goto taken; op++; continue;
                case OpKind.CmpRR32JNE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a != b) goto taken; op++; continue;
                case OpKind.CmpRR32JBE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a <= b) goto taken; op++; continue;
                case OpKind.CmpRR32JA:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a > b) goto taken; op++; continue;
                case OpKind.CmpRR32JL:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if ((long)a < (long)b) goto taken; op++; continue;
                case OpKind.CmpRR32JGE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if ((long)a >= (long)b) goto taken; op++; continue;
                case OpKind.CmpRR32JLE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if ((long)a <= (long)b) goto taken; op++; continue;
                case OpKind.CmpRR32JG:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a - b);
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if ((long)a > (long)b) goto taken; op++; continue;
                case OpKind.CmpRI32JB:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a < b) goto taken; op++; continue;
                case OpKind.CmpRI32JAE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a >= b) goto taken; op++; continue;
                case OpKind.CmpRI32JE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a == b) goto taken; op++; continue;
                case OpKind.CmpRI32JNE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a != b) goto taken; op++; continue;
                case OpKind.CmpRI32JBE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a <= b) goto taken; op++; continue;
                case OpKind.CmpRI32JA:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a > b) goto taken; op++; continue;
                case OpKind.CmpRI32JL:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a < (long)b) goto taken; op++; continue;
                case OpKind.CmpRI32JGE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a >= (long)b) goto taken; op++; continue;
                case OpKind.CmpRI32JLE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a <= (long)b) goto taken; op++; continue;
                case OpKind.CmpRI32JG:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a > (long)b) goto taken; op++; continue;
                case OpKind.TestRR32JE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a & b); LazyFlags.RecordLogic(s, r);
                    op++; if (r == 0) goto taken; op++; continue;
                case OpKind.TestRR32JNE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a & b); LazyFlags.RecordLogic(s, r);
                    op++; if (r != 0) goto taken; op++; continue;
                case OpKind.TestRR32JS:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a & b); LazyFlags.RecordLogic(s, r);
                    op++; if ((long)r < 0) goto taken; op++; continue;
                case OpKind.TestRR32JNS:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = (ulong)*(int*)(sb + op->RmSlot); r = (ulong)(int)(a & b); LazyFlags.RecordLogic(s, r);
                    op++; if ((long)r >= 0) goto taken; op++; continue;
                case OpKind.TestRI32JE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a & b); LazyFlags.RecordLogic(s, r); op++;
                    if (r == 0) goto taken; op++; continue;
                case OpKind.TestRI32JNE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a & b); LazyFlags.RecordLogic(s, r); op++;
                    if (r != 0) goto taken; op++; continue;
                case OpKind.CmpRR64JB:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a < b) goto taken; op++; continue;
                case OpKind.CmpRR64JAE:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a >= b) goto taken; op++; continue;
                case OpKind.CmpRR64JE:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a == b) goto taken; op++; continue;
                case OpKind.CmpRR64JNE:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a != b) goto taken; op++; continue;
                case OpKind.CmpRR64JBE:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a <= b) goto taken; op++; continue;
                case OpKind.CmpRR64JA:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if (a > b) goto taken; op++; continue;
                case OpKind.CmpRR64JL:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a < (long)b) goto taken; op++; continue;
                case OpKind.CmpRR64JGE:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a >= (long)b) goto taken; op++; continue;
                case OpKind.CmpRR64JLE:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a <= (long)b) goto taken; op++; continue;
                case OpKind.CmpRR64JG:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a > (long)b) goto taken; op++; continue;
                case OpKind.CmpRI64JB:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a < b) goto taken;
                    op++; continue;
                case OpKind.CmpRI64JAE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a >= b) goto taken;
                    op++; continue;
                case OpKind.CmpRI64JE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a == b) goto taken;
                    op++; continue;
                case OpKind.CmpRI64JNE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a != b) goto taken;
                    op++; continue;
                case OpKind.CmpRI64JBE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a <= b) goto taken;
                    op++; continue;
                case OpKind.CmpRI64JA:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (a > b) goto taken;
                    op++; continue;
                case OpKind.CmpRI64JL:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a < (long)b) goto taken; op++; continue;
                case OpKind.CmpRI64JGE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a >= (long)b) goto taken; op++; continue;
                case OpKind.CmpRI64JLE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a <= (long)b) goto taken; op++; continue;
                case OpKind.CmpRI64JG:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++;
                    if ((long)a > (long)b) goto taken; op++; continue;
                case OpKind.TestRR64JE:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a & b; LazyFlags.RecordLogic(s, r); op++;
                    if (r == 0) goto taken; op++; continue;
                case OpKind.TestRR64JNE:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a & b; LazyFlags.RecordLogic(s, r); op++;
                    if (r != 0) goto taken; op++; continue;
                case OpKind.TestRR64JS:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a & b; LazyFlags.RecordLogic(s, r); op++;
                    if ((long)r < 0) goto taken; op++; continue;
                case OpKind.TestRR64JNS:
                    a = *(ulong*)(sb + op->RegSlot); b = *(ulong*)(sb + op->RmSlot); r = a & b; LazyFlags.RecordLogic(s, r); op++;
                    if ((long)r >= 0) goto taken; op++; continue;
                case OpKind.TestRI64JE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a & b; LazyFlags.RecordLogic(s, r); op++; if (r == 0) goto taken; op++;
                    continue;
                case OpKind.TestRI64JNE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a & b; LazyFlags.RecordLogic(s, r); op++; if (r != 0) goto taken; op++;
                    continue;
                case OpKind.DecR32JE:
                    a = (ulong)*(int*)(sb + op->RegSlot); r = (ulong)(int)(a - 1); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, r); op++; if (r == 0) goto taken; op++; continue;
                case OpKind.DecR32JNE:
                    a = (ulong)*(int*)(sb + op->RegSlot); r = (ulong)(int)(a - 1); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, r); op++; if (r != 0) goto taken; op++; continue;
                case OpKind.DecR64JE:
                    a = *(ulong*)(sb + op->RegSlot); r = a - 1; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, r); op++; if (r == 0) goto taken; op++; continue;
                case OpKind.DecR64JNE:
                    a = *(ulong*)(sb + op->RegSlot); r = a - 1; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Dec, LazyFlags.Carry(s), a, r); op++; if (r != 0) goto taken; op++; continue;
                case OpKind.SubRI32JE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (r == 0) goto taken; op++; continue;
                case OpKind.SubRI32JNE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a - b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (r != 0) goto taken; op++; continue;
                case OpKind.SubRI64JE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (r == 0) goto taken; op++; continue;
                case OpKind.SubRI64JNE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a - b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Sub, a, b, r); op++; if (r != 0) goto taken; op++; continue;
                case OpKind.AddRI32JE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a + b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; if (r == 0) goto taken; op++; continue;
                case OpKind.AddRI32JNE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a + b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; if (r != 0) goto taken; op++; continue;
                case OpKind.AddRI64JE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a + b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; if (r == 0) goto taken; op++; continue;
                case OpKind.AddRI64JNE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a + b; *(ulong*)(sb + op->RegSlot) = r;
                    LazyFlags.Record(s, LazyOp.Add, a, b, r); op++; if (r != 0) goto taken; op++; continue;
                case OpKind.AndRI32JE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a & b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.RecordLogic(s, r); op++; if (r == 0) goto taken; op++; continue;
                case OpKind.AndRI32JNE:
                    a = (ulong)*(int*)(sb + op->RegSlot); b = op->Imm; r = (ulong)(int)(a & b); *(ulong*)(sb + op->RegSlot) = (uint)r;
                    LazyFlags.RecordLogic(s, r); op++; if (r != 0) goto taken; op++; continue;
                case OpKind.AndRI64JE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a & b; *(ulong*)(sb + op->RegSlot) = r; LazyFlags.RecordLogic(s, r); op++;
                    if (r == 0) goto taken; op++; continue;
                case OpKind.AndRI64JNE:
                    a = *(ulong*)(sb + op->RegSlot); b = op->Imm; r = a & b; *(ulong*)(sb + op->RegSlot) = r; LazyFlags.RecordLogic(s, r); op++;
                    if (r != 0) goto taken; op++; continue;
                case OpKind.EndOfBlock:
                    nextRip = (blockRip + (ulong)op->BlockDisp) & op->AddressMask;
                    next = (Block*)op->Handler;
                    if (next == null || next->Epoch != epoch)
                    {
                        next = Link(cache, s, block, op, blockRip, nextRip);
                        if (next == null)
                            goto unknownSuccessor;
                    }
                    op--;
                    goto enter;
                default:
                    if (op->Kind >= OpKind.MovXX)
                    {
                        op = VectorLoop.Run(cpu, op, block, epoch, remaining);
                        block = s->LoopBlock;
                        blockRip = s->BlockRip;
                        remaining = s->LoopBudget;
                        if (((nuint)op & (VectorLoop.Slowly | VectorLoop.Taken)) == 0)
                            continue;
                        if (((nuint)op & VectorLoop.Taken) != 0)
                        {
                            op = (Op*)((byte*)op - VectorLoop.Taken);
                            goto taken;
                        }
                        op = (Op*)((byte*)op - VectorLoop.Slowly);
                    }
                    s->Rip = blockRip + op->BlockOffset;
                    status = op->Handler(cpu, op);
                    if (status != ExecStatus.Next)
                        goto left;
                    op++;
                    if ((block->Dead | (s->ExitRequest & (uint)ExitRequests.Trap)) != 0)
                        goto dead;
                    continue;
            }

        multiply:
            {
                long high = Math.BigMul((long)a, (long)b, out long low);
                r = (ulong)low;
                *(ulong*)(sb + op->RegSlot) = r;
                LazyFlags.Record(s, LazyOp.Mul, high != low >> 63 ? 1UL : 0, 0, r);
                op++;
                continue;
            }

        taken:
            nextRip = (blockRip + (ulong)op->BlockDisp) & op->AddressMask;
            next = (Block*)op->Handler;
            if (next == null || next->Epoch != epoch)
            {
                next = Link(cache, s, block, op, blockRip, nextRip);
                if (next == null)
                {
                    if (!ControlFlow.TargetAllowed(s, nextRip))
                    {
                        s->Rip = blockRip + op->BlockOffset;
                        status = cpu.RaiseGp();
                        goto left;
                    }
                    op++;
                    goto unknownSuccessor;
                }
            }

        enter:
            remaining -= (long)((ulong)(op + 1) - (ulong)Block.Ops(block)) >> 6;
            if ((s->ExitRequest != 0) | (remaining < next->OpCount) | (--next->Heat < 0))
            {
                s->Rip = nextRip;
                break;
            }
            block = next;
            blockRip = nextRip;
            s->BlockRip = nextRip;
            op = Block.Ops(next);
            continue;

        callSlowly:
            // A call without a known successor, or whose push needs the Mmu.
            s->Rip = blockRip + op->BlockOffset;
            status = ControlFlow.Call(cpu, op);

        left:
            remaining -= (long)((ulong)op - (ulong)Block.Ops(block)) >> 6;
            if (status is not (ExecStatus.Fault or ExecStatus.Again))
                remaining--;
            else
                cpu.PendingLength = op->Length;
            if (status == ExecStatus.NextEndBlock)
                s->Rip = (s->Rip + op->Length) & RipMask(s);
            budget = remaining;
            return status;

        dead:
            nextRip = (blockRip + op->BlockOffset) & RipMask(s);

        unknownSuccessor:
            remaining -= (long)((ulong)op - (ulong)Block.Ops(block)) >> 6;
            s->Rip = nextRip;
            break;
        }
        budget = remaining;
        return ExecStatus.Jumped;
    }

    private static ulong RipMask(CpuState* s)
        => (s->Mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64 ? ulong.MaxValue : uint.MaxValue;

    /// <summary>Finds a successor and, when it lies in the same page, remembers it in the operation. Null: not decoded or not mapped yet.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Block* Link(CodeCache cache, CpuState* s, Block* block, Op* op, ulong blockRip, ulong nextRip)
    {
        Block* next = cache.FindFast(s, nextRip);
        // The same linear page is the same physical page for as long as the block is entered at all. Segment bases and limits may change, so only flat code is linked.
        bool flat = (s->Mode & ((uint)CodeMode.Flat)) != 0 || (s->Mode & (uint)CodeMode.SizeMask) == (uint)CodeMode.Code64;
        if (next != null && flat && (nextRip ^ blockRip) >> 12 == 0 && (block->Mode & Block.SingleInstruction) == 0)
            op->Handler = (delegate*<Processor, Op*, ExecStatus>)next;
        return next;
    }
}
