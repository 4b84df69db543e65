using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>As <see cref="LockstepPrograms"/>, in 32-bit code with flat segments: EBP points to data and stays, [ESP] counts the loop's turns.</summary>
internal sealed class LockstepPrograms32(Random random)
{
    private static readonly AssemblerRegister32[] registers = [eax, ecx, edx, ebx, esi, edi];
    private static readonly AssemblerRegister16[] words = [ax, cx, dx, bx, si, di];
    private static readonly AssemblerRegister8[] bytes = [al, cl, dl, bl, ah, ch, dh, bh];
    private Label function;

    /// <summary>INC EAX; RET.</summary>
    internal const int Subroutine = (int)GuestMachine.CodeBase + 0x7000;

    internal byte[] Make(int turns)
    {
        var a = new Assembler(32);
        function = a.CreateLabel();
        Label top = a.CreateLabel();
        a.push(turns);
        a.Label(ref top);
        Body(a, random.Next(5, 40), 2);
        a.dec(__dword_ptr[esp]);
        a.jnz(top);
        a.hlt();
        if (random.Next(2) == 0)
            a.db(new byte[random.Next(0x1800)]);
        a.Label(ref function);
        Body(a, random.Next(1, 8), 0);
        if (random.Next(2) == 0)
            a.ret();
        else
        {
            a.pop(edi);
            a.push(edi);
            a.ret(0);
        }
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), GuestMachine.CodeBase);
        return stream.ToArray();
    }

    private AssemblerRegister32 R => registers[random.Next(registers.Length)];
    private AssemblerRegister16 W => words[random.Next(words.Length)];
    private AssemblerRegister8 B => bytes[random.Next(bytes.Length)];
    private int Offset => random.Next(8) == 0 ? 0x7fc + random.Next(8) : random.Next(0x100);

    private void Body(Assembler a, int count, int depth)
    {
        for (int i = 0; i < count; i++)
        {
            switch (random.Next(depth > 0 ? 30 : 24))
            {
                case 0: a.add(R, R); break;
                case 1: a.adc(R, random.Next(1000)); break;
                case 2: a.sub(B, bl); break;
                case 3: a.xor(R, __dword_ptr[ebp + Offset]); break;
                case 4: a.and(__dword_ptr[ebp + Offset], R); break;
                case 5: a.cmp(__word_ptr[ebp + Offset], W); break;
                case 6: a.mov(R, __dword_ptr[ebp + Offset]); break;
                case 7: a.mov(__byte_ptr[ebp + Offset], random.Next(4) is var n ? bytes[n] : al); break;
                case 8: a.movzx(R, B); break;
                case 9: a.movsx(R, __word_ptr[ebp + Offset]); break;
                case 10: a.lea(R, __dword_ptr[R + R * 4 + random.Next(1000)]); break;
                case 11: a.inc(R); break;
                case 12: a.dec(W); break;
                case 13: a.shl(R, (byte)random.Next(32)); a.cmp(eax, 5); break;
                case 14: a.setl(B); break;
                case 15: a.cmovb(R, R); break;
                case 16: a.imul(R, R); a.test(eax, eax); break;
                case 17:
                    a.movzx(esi, cl);
                    a.mov(R, __dword_ptr[ebp + esi * 4]);
                    break;
                case 18:
                    a.movzx(edi, dl);
                    a.sbb(__dword_ptr[edi * 2 + LockstepPrograms.Data], eax);
                    break;
                case 19: a.xchg(__dword_ptr[ebp + random.Next(32) * 4], R); break;
                case 20: a.@lock.add(__dword_ptr[ebp + Offset], R); break;
                case 21: a.movd(xmm1, R); a.paddd(xmm0, xmm1); a.movd(R, xmm0); break;
                case 22: a.movups(xmm2, __xmmword_ptr[ebp + Offset]); a.movss(__dword_ptr[ebp + Offset], xmm2); break;
                case 23: a.neg(R); break;
                case 24: a.call(function); break;
                case 25:
                    a.push(R);
                    a.push(__dword_ptr[ebp + Offset]);
                    a.push(random.Next(-100, 100));
                    Body(a, random.Next(3), 0);
                    a.pop(R);
                    a.pop(R);
                    a.pop(R);
                    break;
                case 26:
                    a.push(ebp);
                    a.mov(ebp, esp);
                    a.sub(esp, 0x20);
                    a.mov(__dword_ptr[ebp - 4], R);
                    a.leave();
                    break;
                case 27:
                    a.mov(R, __dword_ptr.fs[Offset]);
                    break;
                case 28:
                    a.mov(ebx, Subroutine);
                    a.call(ebx);
                    break;
                default:
                    Label over = a.CreateLabel();
                    switch (random.Next(4))
                    {
                        case 0: a.jz(over); break;
                        case 1: a.jg(over); break;
                        case 2: a.jae(over); break;
                        default: a.js(over); break;
                    }
                    Body(a, random.Next(1, 5), depth - 1);
                    a.Label(ref over);
                    a.nop();
                    break;
            }
        }
    }
}
