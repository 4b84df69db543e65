using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Benchmarks.Engine;

/// <summary>A guest program in flat 64-bit code that measures one kind of work. It writes 'S' to port E9 when it begins, 'E' when it ends, then halts.</summary>
/// <remarks>The same bytes run here and on other emulators. Scratch memory: <see cref="Data"/> and the megabytes behind it; the stack is set by the loader.</remarks>
internal sealed partial record EngineKernel(string Name, string What, Action<Assembler, uint> Body, uint Scale)
{
    /// <summary>Where programs are loaded.</summary>
    internal const ulong CodeBase = 0x20000;
    internal const ulong Data = 0x200000;

    internal static IReadOnlyList<EngineKernel> All { get; } =
    [
        new("alu", "collatz steps and xorshift", Alu, 400_000),
        new("crc", "CRC-32 by table, with rotates", Crc, 4_000),
        new("mem", "copy by words, then strlen", Memory, 3_000),
        new("fib", "recursive fibonacci", Fibonacci, 35),
        new("sieve", "sieve of Eratosthenes", Sieve, 12),
        new("ind", "indirect jumps through a table", Indirect, 8_000_000),
        new("mandel", "Mandelbrot set in SSE2 doubles", Mandelbrot, 320),
        new("saxpy", "packed singles, from and to memory", Saxpy, 400_000),
        new("copy", "copy and strlen with SSE2", Copy, 12_000),
        new("sha256", "SHA-256 compression, integer", Sha256, 60_000),
        new("rep", "rep movsq and stosb of 32 KiB", Rep, 40_000),
    ];

    internal static EngineKernel Get(string name) => All.First(k => k.Name == name);

    /// <summary>The program's bytes for <see cref="CodeBase"/>. <paramref name="divisor"/> shortens it.</summary>
    internal byte[] Assemble(uint divisor = 1)
    {
        var a = new Assembler(64);
        a.mov(al, (int)'S');
        a.@out(0xe9, al);
        Body(a, Name == "fib" ? Scale : Math.Max(1, Scale / divisor));
        a.mov(al, (int)'E');
        a.@out(0xe9, al);
        var forever = a.CreateLabel();
        a.Label(ref forever);
        a.cli();
        a.hlt();
        a.jmp(forever);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), CodeBase);
        return stream.ToArray();
    }

    private static void Alu(Assembler a, uint count)
    {
        Label outer = a.CreateLabel(), collatz = a.CreateLabel(), odd = a.CreateLabel(), next = a.CreateLabel();
        a.mov(r8d, count);
        a.mov(rbx, 0x9E3779B97F4A7C15UL);
        a.xor(r9d, r9d);
        a.Label(ref outer);
        // xorshift64
        a.mov(rax, rbx);
        a.shl(rax, 13);
        a.xor(rbx, rax);
        a.mov(rax, rbx);
        a.shr(rax, 7);
        a.xor(rbx, rax);
        a.mov(rax, rbx);
        a.shl(rax, 17);
        a.xor(rbx, rax);
        a.mov(eax, ebx);
        a.and(eax, 0xffff);
        a.or(eax, 1);
        a.Label(ref collatz);
        a.inc(r9);
        a.cmp(eax, 1);
        a.je(next);
        a.test(al, 1);
        a.jne(odd);
        a.shr(eax, 1);
        a.jmp(collatz);
        a.Label(ref odd);
        a.lea(eax, __[rax + rax * 2 + 1]);
        a.jmp(collatz);
        a.Label(ref next);
        a.dec(r8d);
        a.jnz(outer);
    }

    private static void Crc(Assembler a, uint count)
    {
        Label table = a.CreateLabel(), bit = a.CreateLabel(), skip = a.CreateLabel(), pass = a.CreateLabel(), each = a.CreateLabel(), fill = a.CreateLabel();
        a.mov(rdi, Data);
        a.xor(ecx, ecx);
        a.Label(ref table);
        a.mov(eax, ecx);
        a.mov(edx, 8);
        a.Label(ref bit);
        a.shr(eax, 1);
        a.jnc(skip);
        a.xor(eax, unchecked((int)0xEDB88320));
        a.Label(ref skip);
        a.dec(edx);
        a.jnz(bit);
        a.mov(__dword_ptr[rdi + rcx * 4], eax);
        a.inc(ecx);
        a.cmp(ecx, 256);
        a.jb(table);
        a.lea(rsi, __[rdi + 0x1000]);
        a.xor(ecx, ecx);
        a.Label(ref fill);
        a.mov(__byte_ptr[rsi + rcx], cl);
        a.inc(ecx);
        a.cmp(ecx, 16384);
        a.jb(fill);
        a.mov(r8d, count);
        a.mov(eax, -1);
        a.Label(ref pass);
        a.xor(ecx, ecx);
        a.Label(ref each);
        a.movzx(edx, __byte_ptr[rsi + rcx]);
        a.xor(dl, al);
        a.movzx(edx, dl);
        a.shr(eax, 8);
        a.xor(eax, __dword_ptr[rdi + rdx * 4]);
        a.rol(eax, 5);
        a.ror(eax, 5);
        a.inc(ecx);
        a.cmp(ecx, 16384);
        a.jb(each);
        a.dec(r8d);
        a.jnz(pass);
    }

    private static void Memory(Assembler a, uint count)
    {
        Label pass = a.CreateLabel(), copy = a.CreateLabel(), length = a.CreateLabel(), fill = a.CreateLabel();
        a.mov(rsi, Data);
        a.mov(rdi, Data + 0x10000);
        a.xor(ecx, ecx);
        a.mov(rax, 0x4142434445464748UL);
        a.Label(ref fill);
        a.mov(__qword_ptr[rsi + rcx * 8], rax);
        a.inc(ecx);
        a.cmp(ecx, 4096);
        a.jb(fill);
        a.mov(__byte_ptr[rsi + 32767], 0);
        a.mov(r8d, count);
        a.Label(ref pass);
        a.xor(ecx, ecx);
        a.Label(ref copy);
        a.mov(rax, __qword_ptr[rsi + rcx * 8]);
        a.mov(rdx, __qword_ptr[rsi + rcx * 8 + 8]);
        a.mov(__qword_ptr[rdi + rcx * 8], rax);
        a.mov(__qword_ptr[rdi + rcx * 8 + 8], rdx);
        a.add(rcx, 2);
        a.cmp(rcx, 4096);
        a.jb(copy);
        a.mov(rbx, rdi);
        a.Label(ref length);
        a.movzx(eax, __byte_ptr[rbx]);
        a.inc(rbx);
        a.test(al, al);
        a.jne(length);
        a.dec(r8d);
        a.jnz(pass);
    }

    private static void Fibonacci(Assembler a, uint n)
    {
        Label fib = a.CreateLabel(), small = a.CreateLabel(), done = a.CreateLabel();
        a.mov(edi, n);
        a.call(fib);
        a.jmp(done);
        a.Label(ref fib);
        a.cmp(edi, 2);
        a.jb(small);
        a.push(rbx);
        a.push(rdi);
        a.dec(edi);
        a.call(fib);
        a.mov(rbx, rax);
        a.pop(rdi);
        a.sub(edi, 2);
        a.call(fib);
        a.add(rax, rbx);
        a.pop(rbx);
        a.ret();
        a.Label(ref small);
        a.mov(eax, edi);
        a.ret();
        a.Label(ref done);
    }

    private static void Sieve(Assembler a, uint count)
    {
        const int limit = 1 << 20;
        Label pass = a.CreateLabel(), clear = a.CreateLabel(), outer = a.CreateLabel(), inner = a.CreateLabel(), next = a.CreateLabel();
        a.mov(rdi, Data);
        a.mov(r8d, count);
        a.Label(ref pass);
        a.xor(ecx, ecx);
        a.Label(ref clear);
        a.mov(__qword_ptr[rdi + rcx], 0x01010101);
        a.add(rcx, 8);
        a.cmp(rcx, limit);
        a.jb(clear);
        a.mov(ebx, 2);
        a.xor(r9d, r9d);
        a.Label(ref outer);
        a.cmp(__byte_ptr[rdi + rbx], 0);
        a.je(next);
        a.inc(r9d);
        a.lea(rcx, __[rbx + rbx]);
        a.cmp(rcx, limit);
        a.jae(next);
        a.Label(ref inner);
        a.mov(__byte_ptr[rdi + rcx], 0);
        a.add(rcx, rbx);
        a.cmp(rcx, limit);
        a.jb(inner);
        a.Label(ref next);
        a.inc(ebx);
        a.cmp(ebx, limit);
        a.jb(outer);
        a.dec(r8d);
        a.jnz(pass);
    }

    private static void Indirect(Assembler a, uint count)
    {
        Label loop = a.CreateLabel(), join = a.CreateLabel(), done = a.CreateLabel();
        var targets = Enumerable.Range(0, 8).Select(_ => a.CreateLabel()).ToArray();
        a.mov(rdi, Data);
        for (int i = 0; i < targets.Length; i++)
        {
            a.lea(rax, __[targets[i]]);
            a.mov(__qword_ptr[rdi + i * 8], rax);
        }
        a.mov(r8d, count);
        a.mov(ebx, 12345);
        a.Label(ref loop);
        a.imul(rbx, rbx, 1103515245);
        a.add(rbx, 12345);
        a.mov(rax, rbx);
        a.shr(rax, 16);
        a.and(eax, 7);
        a.jmp(__qword_ptr[rdi + rax * 8]);
        for (int i = 0; i < targets.Length; i++)
        {
            a.Label(ref targets[i]);
            a.add(rdx, i * 3);
            a.xor(rdx, rbx);
            a.jmp(join);
        }
        a.Label(ref join);
        a.dec(r8d);
        a.jnz(loop);
        a.jmp(done);
        a.Label(ref done);
    }
}
