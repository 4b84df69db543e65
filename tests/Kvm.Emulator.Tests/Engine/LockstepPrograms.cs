using System.Globalization;
using Iced.Intel;
using Kvm.Emulator.Tests.Differential;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>Random programs with a loop, branches, calls, stack use, faults and stores into their own code, for two engines to execute in lock-step.</summary>
/// <remarks>R15 points to data and stays, [RSP] counts the loop's turns. Undefined flags are defined again before anything reads them; AF is not read.</remarks>
internal sealed class LockstepPrograms(Random random, bool definedFlags)
{
    private const ulong arithmetic = 0x8c5;
    internal const int Data = (int)GuestMachine.DataBase + 0x800;

    private static readonly Code[] forms = [.. CaseGeneration.Forms.Where(InstructionDifferential.HostRuns).Where(Usable)];
    private static readonly Code[] integer = [.. forms.Where(static c => c.CpuidFeatures() is [CpuidFeature.INTEL8086 or CpuidFeature.INTEL186 or CpuidFeature.INTEL386 or CpuidFeature.X64 or CpuidFeature.CMOV, ..])];

    private readonly CaseGenerator generator = new(random);
    private readonly List<Label> functions = [];
    private readonly List<Label> patched = [];

    private static bool Usable(Code code) => code.Mnemonic() is not (Mnemonic.Lahf or Mnemonic.Sahf or Mnemonic.Pushf or Mnemonic.Pushfq or Mnemonic.Popf or Mnemonic.Popfq
        or Mnemonic.Div or Mnemonic.Idiv or Mnemonic.Bsf or Mnemonic.Bsr or Mnemonic.Enter or Mnemonic.Leave or Mnemonic.Rdpkru or Mnemonic.Wrpkru)
        && (!code.IsStringInstruction()) && code.ToOpCode().OpCount > 0;

    /// <summary>The program, and behind it, in other pages, its functions.</summary>
    internal byte[] Make(int turns)
    {
        var a = new Assembler(64);
        Label top = a.CreateLabel();
        for (int i = 0; i < 3; i++)
            functions.Add(a.CreateLabel());
        for (int i = 0; i < 2; i++)
            patched.Add(a.CreateLabel());
        a.push(turns);
        a.Label(ref top);
        Body(a, random.Next(5, 40), 2);
        a.dec(__qword_ptr[rsp]);
        a.jnz(top);
        a.hlt();
        for (int i = 0; i < functions.Count; i++)
        {
            if (random.Next(2) == 0)
                a.db(new byte[random.Next(0x800)]);
            Label function = functions[i];
            a.Label(ref function);
            functions[i] = function;
            Body(a, random.Next(1, 8), 0);
            if (i < patched.Count)
            {
                Label target = patched[i];
                a.Label(ref target);
                a.mov(edx, 1000);
            }
            a.ret();
        }
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), GuestMachine.CodeBase);
        return stream.ToArray();
    }

    private void Body(Assembler a, int count, int depth)
    {
        for (int i = 0; i < count; i++)
        {
            switch (random.Next(depth > 0 ? 24 : 16))
            {
                case < 15:
                    One(a);
                    break;
                case 15:
                    a.cmp(rax, random.Next(100));
                    break;
                case 16:
                    Skip(a, depth);
                    break;
                case 17:
                    a.call(functions[random.Next(functions.Count)]);
                    break;
                case 18:
                    a.lea(r14, __[functions[random.Next(functions.Count)]]);
                    a.call(r14);
                    break;
                case 19:
                    Stack(a, depth);
                    break;
                case 20:
                    Divide(a);
                    break;
                case 21 when random.Next(4) == 0:
                    a.lea(rbx, __[patched[random.Next(patched.Count)]]);
                    a.mov(__dword_ptr[rbx + 1], ecx);
                    break;
                case 22 when random.Next(20) == 0:
                    a.mov(rax, __qword_ptr[0x4000_0000]);
                    break;
                default:
                    Indexed(a);
                    break;
            }
        }
    }

    private void Skip(Assembler a, int depth)
    {
        Label over = a.CreateLabel();
        Instruction branch = Instruction.CreateBranch(Code.Jo_rel32_64 + random.Next(16), 0);
        if (depth == 0 || branch.Code == Code.INVALID)
            return;
        switch (random.Next(6))
        {
            case 0: a.jz(over); break;
            case 1: a.jb(over); break;
            case 2: a.jle(over); break;
            case 3: a.jo(over); break;
            case 4: a.jns(over); break;
            default: a.jp(over); break;
        }
        Body(a, random.Next(1, 6), depth - 1);
        a.Label(ref over);
        a.nop();
    }

    private void Stack(Assembler a, int depth)
    {
        AssemblerRegister64[] registers = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r12, r13, r14];
        AssemblerRegister64 first = registers[random.Next(registers.Length)], second = registers[random.Next(registers.Length)];
        a.push(first);
        if (random.Next(3) == 0)
            a.push(__qword_ptr[r15 + random.Next(64)]);
        else
            a.push(random.Next(-5, 5));
        Body(a, random.Next(0, 3), depth - 1);
        if (random.Next(4) == 0)
        {
            a.mov(rbp, rsp);
            a.push(rbp);
            a.leave();
            a.lea(rsp, rsp - 8);
        }
        a.pop(second == rsp ? rdi : second);
        a.pop(first == rsp ? rsi : first);
    }

    private void Divide(Assembler a)
    {
        // Mostly quotients that fit; the rest end in #DE.
        bool fits = random.Next(40) != 0;
        int which = random.Next(4);
        if (fits && which is 0 or 3)
            a.xor(edx, edx);
        else if (fits && which == 2)
            a.cdq();
        else if (fits)
            a.cqo();
        if (fits)
        {
            a.or(rbx, 1);
            a.mov(r13, random.Next(2, 1000) * (random.Next(2) * 2 - 1));
            a.mov(ecx, random.Next(2, 1000));
            a.or(__dword_ptr[r15 + 8], 1);
        }
        switch (which)
        {
            case 0: a.div(rbx); break;
            case 1: a.idiv(r13); break;
            case 2: a.idiv(ecx); break;
            default: a.div(__dword_ptr[r15 + 8]); break;
        }
        a.cmp(rax, rdx);
    }

    /// <summary>Addresses of every shape.</summary>
    private void Indexed(Assembler a)
    {
        a.movzx(esi, cl);
        a.movzx(r13d, dl);
        switch (random.Next(10))
        {
            case 0: a.add(rax, __qword_ptr[r15 + rsi * 8 - 0x40]); break;
            case 1: a.mov(__dword_ptr[r15 + r13 * 4 + 3], eax); break;
            case 2: a.mov(r14, __qword_ptr[r13 + Data]); break;
            case 3: a.adc(__word_ptr[rsi + Data + 0x7f0], ax); break;
            case 4: a.mov(r13b, __byte_ptr[rsi * 2 + Data]); break;
            case 5: a.xor(__qword_ptr[Data + 0x7fc], r13); break;
            case 6: a.sub(r9, __qword_ptr.fs[rsi + 0x10]); break;
            case 7: a.mov(__qword_ptr.fs[0x18], r14); break;
            case 8: a.mov(edi, __dword_ptr[esi + Data + 0x80]); break;
            default: a.cmove(r14, __qword_ptr[r15 + r13]); break;
        }
    }

    private void One(Assembler a)
    {
        Code[] from = definedFlags || random.Next(2) == 0 ? integer : forms;
        for (int tries = 0; tries < 50; tries++)
        {
            if (generator.Encode(from[random.Next(from.Length)], out Instruction instruction) is not { } bytes || Undefined.Everything(instruction))
                continue;
            bool memory = Enumerable.Range(0, instruction.OpCount).Any(k => instruction.GetOpKind(k) == OpKind.Memory);
            if (instruction.Mnemonic is Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc && memory && instruction.Op1Kind == OpKind.Register)
                continue;
            // Now and then #GP ends the program.
            if (memory && VectorTraits.IsVector(instruction.Code) && instruction.MemoryDisplacement64 % 32 != 0 && random.Next(30) != 0)
                continue;
            ulong undefined = Undefined.Flags(instruction) & arithmetic;
            if (definedFlags && undefined != 0)
                continue;
            a.db(bytes);
            if (undefined != 0)
                a.cmp(rbx, random.Next(100));
            return;
        }
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{forms.Length} forms, {integer.Length} of integers");
}
