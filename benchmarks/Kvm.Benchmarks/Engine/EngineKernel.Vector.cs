using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Benchmarks.Engine;

/// <summary>Kernels with SSE, and two that are all registers and all memory.</summary>
internal sealed partial record EngineKernel
{
    // What gcc -O2 makes of the usual three loops: 320 points a row, 1,000 iterations at most.
    private static void Mandelbrot(Assembler a, uint rows)
    {
        const int width = 320, iterations = 1000;
        Label row = a.CreateLabel(), point = a.CreateLabel(), step = a.CreateLabel(), inside = a.CreateLabel(), full = a.CreateLabel(), next = a.CreateLabel(), done = a.CreateLabel();
        void Constant(AssemblerRegisterXMM register, double value)
        {
            a.mov(rax, BitConverter.DoubleToInt64Bits(value));
            a.mov(__qword_ptr[rdi], rax);
            a.movsd(register, __qword_ptr[rdi]);
        }
        a.mov(rdi, Data);
        Constant(xmm9, 4);
        Constant(xmm10, -2);
        Constant(xmm1, -1.5);
        Constant(xmm2, 3.0 / width);
        a.xor(r8d, r8d);
        a.xor(esi, esi);
        a.Label(ref row);
        a.pxor(xmm8, xmm8);
        a.cvtsi2sd(xmm8, r8d);
        a.mulsd(xmm8, xmm2);
        a.addsd(xmm8, xmm1);
        a.xor(ecx, ecx);
        a.Label(ref point);
        a.pxor(xmm7, xmm7);
        a.cvtsi2sd(xmm7, ecx);
        a.mulsd(xmm7, xmm2);
        a.addsd(xmm7, xmm10);
        a.pxor(xmm3, xmm3);
        a.xor(eax, eax);
        a.movapd(xmm0, xmm3);
        a.jmp(inside);
        a.Label(ref step);
        a.addsd(xmm0, xmm0);
        a.subsd(xmm4, xmm5);
        a.add(eax, 1);
        a.mulsd(xmm3, xmm0);
        a.movapd(xmm0, xmm4);
        a.addsd(xmm0, xmm7);
        a.addsd(xmm3, xmm8);
        a.cmp(eax, iterations);
        a.je(full);
        a.Label(ref inside);
        a.movapd(xmm4, xmm0);
        a.movapd(xmm5, xmm3);
        a.mulsd(xmm4, xmm0);
        a.mulsd(xmm5, xmm3);
        a.movapd(xmm6, xmm4);
        a.addsd(xmm6, xmm5);
        a.comisd(xmm6, xmm9);
        a.jbe(step);
        a.add(esi, eax);
        a.Label(ref next);
        a.add(ecx, 1);
        a.cmp(ecx, width);
        a.jne(point);
        a.add(r8d, 1);
        a.cmp(r8d, rows);
        a.jne(row);
        a.jmp(done);
        a.Label(ref full);
        a.add(esi, iterations);
        a.jmp(next);
        a.Label(ref done);
    }

    // y = a x + y for 4,096 singles.
    private static void Saxpy(Assembler a, uint count)
    {
        const int bytes = 16384;
        Label fill = a.CreateLabel(), pass = a.CreateLabel(), each = a.CreateLabel();
        a.mov(rsi, Data);
        a.lea(rdi, __[rsi + bytes]);
        a.mov(__dword_ptr[rsi], BitConverter.SingleToInt32Bits(1.0001f));
        a.movss(xmm7, __dword_ptr[rsi]);
        a.shufps(xmm7, xmm7, 0);
        a.xor(ecx, ecx);
        a.Label(ref fill);
        a.cvtsi2ss(xmm0, ecx);
        a.movss(__dword_ptr[rsi + rcx], xmm0);
        a.movss(__dword_ptr[rdi + rcx], xmm0);
        a.add(ecx, 4);
        a.cmp(ecx, bytes);
        a.jne(fill);
        a.mov(r8d, count / 20);
        a.Label(ref pass);
        a.xor(ecx, ecx);
        a.Label(ref each);
        a.movaps(xmm0, __xmmword_ptr[rsi + rcx]);
        a.mulps(xmm0, xmm7);
        a.addps(xmm0, __xmmword_ptr[rdi + rcx]);
        a.movaps(__xmmword_ptr[rdi + rcx], xmm0);
        a.add(rcx, 16);
        a.cmp(rcx, bytes);
        a.jne(each);
        a.sub(r8d, 1);
        a.jne(pass);
    }

    // As C libraries copy and measure: four registers at a time, 32 KiB; then 16 bytes at a time for the zero at its end.
    private static void Copy(Assembler a, uint count)
    {
        const int bytes = 32768;
        Label fill = a.CreateLabel(), pass = a.CreateLabel(), each = a.CreateLabel(), length = a.CreateLabel();
        a.mov(rsi, Data);
        a.lea(rdi, __[rsi + bytes]);
        a.xor(ecx, ecx);
        a.mov(rax, 0x4142434445464748UL);
        a.Label(ref fill);
        a.mov(__qword_ptr[rsi + rcx], rax);
        a.add(rcx, 8);
        a.cmp(rcx, bytes);
        a.jne(fill);
        a.mov(__byte_ptr[rsi + bytes - 1], 0);
        a.mov(r8d, count);
        a.Label(ref pass);
        a.xor(ecx, ecx);
        a.Label(ref each);
        a.movdqu(xmm0, __xmmword_ptr[rsi + rcx]);
        a.movdqu(xmm1, __xmmword_ptr[rsi + rcx + 16]);
        a.movdqu(xmm2, __xmmword_ptr[rsi + rcx + 32]);
        a.movdqu(xmm3, __xmmword_ptr[rsi + rcx + 48]);
        a.movdqa(__xmmword_ptr[rdi + rcx], xmm0);
        a.movdqa(__xmmword_ptr[rdi + rcx + 16], xmm1);
        a.movdqa(__xmmword_ptr[rdi + rcx + 32], xmm2);
        a.movdqa(__xmmword_ptr[rdi + rcx + 48], xmm3);
        a.add(rcx, 64);
        a.cmp(rcx, bytes);
        a.jne(each);
        a.mov(rbx, rdi);
        a.pxor(xmm0, xmm0);
        a.Label(ref length);
        a.movdqa(xmm1, __xmmword_ptr[rbx]);
        a.pcmpeqb(xmm1, xmm0);
        a.pmovmskb(eax, xmm1);
        a.add(rbx, 16);
        a.test(eax, eax);
        a.je(length);
        a.sub(r8d, 1);
        a.jne(pass);
    }

    // FIPS 180-4 on one block again and again: constants and schedule in memory, eight rounds without moving the working variables.
    private static void Sha256(Assembler a, uint count)
    {
        const int schedule = 0x200, state = 0x100;
        Label pass = a.CreateLabel(), expand = a.CreateLabel(), round = a.CreateLabel();
        uint[] roots = [.. Primes(64).Select(p => Fraction(Math.Cbrt(p)))], initial = [.. Primes(8).Select(p => Fraction(Math.Sqrt(p)))];
        a.mov(rdi, Data);
        for (int i = 0; i < 64; i++)
            a.mov(__dword_ptr[rdi + i * 4], roots[i]);
        for (int i = 0; i < 8; i++)
            a.mov(__dword_ptr[rdi + state + i * 4], initial[i]);
        for (int i = 0; i < 16; i++)
            a.mov(__dword_ptr[rdi + schedule + i * 4], 0x01020304U * (uint)i);
        AssemblerRegister32[] v = [r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d];
        a.mov(rsi, count);
        a.Label(ref pass);
        a.mov(ecx, 16);
        a.Label(ref expand);
        a.mov(eax, __dword_ptr[rdi + rcx * 4 + schedule - 60]);
        Mix(a, eax, edx, ebx, 7, 18, 3, shiftLast: true);
        a.mov(ebp, edx);
        a.mov(eax, __dword_ptr[rdi + rcx * 4 + schedule - 8]);
        Mix(a, eax, edx, ebx, 17, 19, 10, shiftLast: true);
        a.add(edx, ebp);
        a.add(edx, __dword_ptr[rdi + rcx * 4 + schedule - 64]);
        a.add(edx, __dword_ptr[rdi + rcx * 4 + schedule - 28]);
        a.mov(__dword_ptr[rdi + rcx * 4 + schedule], edx);
        a.add(ecx, 1);
        a.cmp(ecx, 64);
        a.jne(expand);
        for (int i = 0; i < 8; i++)
            a.mov(v[i], __dword_ptr[rdi + state + i * 4]);
        a.xor(ecx, ecx);
        a.Label(ref round);
        for (int i = 0; i < 8; i++)
            Round(a, [.. Enumerable.Range(0, 8).Select(n => v[(n - i) & 7])], i * 4, schedule);
        a.add(ecx, 8);
        a.cmp(ecx, 64);
        a.jne(round);
        for (int i = 0; i < 8; i++)
            a.add(__dword_ptr[rdi + state + i * 4], v[i]);
        a.sub(rsi, 1);
        a.jne(pass);
    }

    /// <summary>Two rotations and a third or a shift of x, exclusive-ored into the sum.</summary>
    private static void Mix(Assembler a, AssemblerRegister32 x, AssemblerRegister32 sum, AssemblerRegister32 scratch, byte first, byte second, byte third, bool shiftLast)
    {
        a.mov(sum, x);
        a.ror(sum, first);
        a.mov(scratch, x);
        a.ror(scratch, second);
        a.xor(sum, scratch);
        a.mov(scratch, x);
        if (shiftLast)
            a.shr(scratch, third);
        else
            a.ror(scratch, third);
        a.xor(sum, scratch);
    }

    private static void Round(Assembler a, AssemblerRegister32[] v, int offset, int schedule)
    {
        (AssemblerRegister32 va, AssemblerRegister32 vb, AssemblerRegister32 vc, AssemblerRegister32 ve, AssemblerRegister32 vf, AssemblerRegister32 vg, AssemblerRegister32 vh) = (v[0], v[1], v[2], v[4], v[5], v[6], v[7]);
        Mix(a, ve, edx, ebx, 6, 11, 25, shiftLast: false);
        a.add(vh, edx);
        a.mov(eax, vf);
        a.xor(eax, vg);
        a.and(eax, ve);
        a.xor(eax, vg);
        a.add(vh, eax);
        a.add(vh, __dword_ptr[rdi + rcx * 4 + offset]);
        a.add(vh, __dword_ptr[rdi + rcx * 4 + schedule + offset]);
        a.add(v[3], vh);
        Mix(a, va, edx, ebx, 2, 13, 22, shiftLast: false);
        a.add(vh, edx);
        a.mov(eax, va);
        a.or(eax, vb);
        a.and(eax, vc);
        a.mov(edx, va);
        a.and(edx, vb);
        a.or(eax, edx);
        a.add(vh, eax);
    }

    private static IEnumerable<int> Primes(int count) => Enumerable.Range(2, 400).Where(n => Enumerable.Range(2, n - 2).All(d => n % d != 0)).Take(count);

    private static uint Fraction(double value) => (uint)((value - Math.Floor(value)) * 4294967296.0);

    private static void Rep(Assembler a, uint count)
    {
        Label pass = a.CreateLabel();
        a.mov(r8d, count);
        a.cld();
        a.Label(ref pass);
        a.mov(rsi, Data);
        a.mov(rdi, Data + 0x10000);
        a.mov(ecx, 4096);
        a.rep.movsq();
        a.mov(rdi, Data);
        a.mov(ecx, 32768);
        a.mov(al, 0x5a);
        a.rep.stosb();
        a.sub(r8d, 1);
        a.jne(pass);
    }
}
