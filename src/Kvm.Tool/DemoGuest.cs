using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Tool;

/// <summary>The embedded guest: 16-bit code that asks CPUID whose processor it is on, adds two numbers, prints both, and halts.</summary>
internal static class DemoGuest
{
    public const ushort Start = 0x1000;
    private const ushort SerialPort = 0x3f8;

    private static uint Text(string four) => (uint)(four[0] | (four[1] << 8) | (four[2] << 16) | (four[3] << 24));

    public static byte[] Assemble()
    {
        var c = new Assembler(bitness: 16);
        Label print4 = c.CreateLabel(), next = c.CreateLabel();

        c.xor(eax, eax);
        c.cpuid(); // the vendor's name in EBX, EDX, ECX
        c.mov(esi, ecx);
        c.mov(edi, edx);
        c.mov(eax, ebx);
        c.call(print4);
        c.mov(eax, edi);
        c.call(print4);
        c.mov(eax, esi);
        c.call(print4);

        c.mov(eax, Text(": 2+"));
        c.call(print4);
        c.mov(eax, Text("2 = "));
        c.call(print4);
        c.mov(al, 2);
        c.mov(bl, 2);
        c.add(al, bl);
        c.add(al, (sbyte)'0');
        c.mov(dx, SerialPort);
        c.@out(dx, al);
        c.mov(al, (sbyte)'\n');
        c.@out(dx, al);
        c.hlt();

        c.Label(ref print4); // the four characters in EAX, lowest byte first
        c.mov(dx, SerialPort);
        c.mov(cx, 4);
        c.Label(ref next);
        c.@out(dx, al);
        c.shr(eax, 8);
        c.loop(next);
        c.ret();

        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), Start);
        return code.ToArray();
    }
}
