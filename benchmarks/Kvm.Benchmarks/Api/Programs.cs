using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Benchmarks.Api;

/// <summary>The guests' programs.</summary>
internal static class Programs
{
    /// <summary>Where 16-bit programs stand.</summary>
    public const ulong Code = 0x1000;

    /// <summary>16-bit: one OUT after the other.</summary>
    public static byte[] OutLoop() => Assemble(16, Code, static a =>
    {
        Label again = a.CreateLabel();
        a.mov(dx, 0xe9);
        a.Label(ref again);
        a.@out(dx, al);
        a.jmp(again);
    });

    /// <summary>16-bit: 1,000 turns with a CPUID each, or without, and one OUT.</summary>
    public static byte[] CpuidLoop(bool cpuid) => Assemble(16, Code, a =>
    {
        Label outer = a.CreateLabel(), inner = a.CreateLabel();
        a.Label(ref outer);
        a.mov(si, 1000);
        a.Label(ref inner);
        a.xor(eax, eax);
        a.xor(ecx, ecx);
        if (cpuid) a.cpuid();
        a.dec(si);
        a.jne(inner);
        a.mov(dx, 0xe9);
        a.@out(dx, al);
        a.jmp(outer);
    });

    /// <summary>32-bit: a byte written every <paramref name="stride"/> bytes of [0, <paramref name="end"/>), an OUT after each <paramref name="piece"/> bytes, and one to another port at the end.</summary>
    public static byte[] WriteLoop(ulong at, ulong end, uint stride, uint piece) => Assemble(32, at, a =>
    {
        Label again = a.CreateLabel(), pass = a.CreateLabel(), next = a.CreateLabel();
        a.Label(ref pass);
        a.xor(edi, edi);
        a.mov(ebx, piece);
        a.mov(ecx, (uint)((end + stride - 1) / stride));
        a.Label(ref again);
        a.mov(__byte_ptr[edi], cl);
        a.add(edi, stride);
        a.cmp(edi, ebx);
        a.jb(next);
        a.@out(0x80, al);
        a.add(ebx, piece);
        a.Label(ref next);
        a.dec(ecx);
        a.jne(again);
        a.@out(0x81, al);
        a.jmp(pass);
    });

    private static byte[] Assemble(int bits, ulong at, Action<Assembler> program)
    {
        var assembler = new Assembler(bits);
        program(assembler);
        using var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), at);
        return stream.ToArray();
    }
}
