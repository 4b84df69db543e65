using System.Buffers.Binary;
using System.Text;
using Iced.Intel;
using Kvm.Vmm.Boot;
using static Iced.Intel.AssemblerRegisters;

namespace LinuxHello;

/// <summary>The first process: prints a line and the kernel's release, then restarts the machine. No C library: four system calls.</summary>
public static class HelloInit
{
    private const uint LoadAddress = 0x400000;
    private const int Headers = 64 + 56; // ELF header, one program header
    private const int SysWrite = 1, SysUname = 63, SysReboot = 169;
    private const uint RebootMagic1 = 0xfee1dead, RebootMagic2 = 672274793, RebootRestart = 0x01234567;
    private const int ReleaseOffset = 2 * 65; // struct new_utsname: sysname, nodename, release

    /// <summary>An initramfs with nothing but /init.</summary>
    public static byte[] FileSystem() => new Initramfs().AddFile("init", Elf(Assemble())).ToArray();

    private static byte[] Assemble()
    {
        var c = new Assembler(bitness: 64);
        Label print = c.CreateLabel(), hello = c.CreateLabel(), newline = c.CreateLabel();
        c.lea(rsi, __[hello]);
        c.call(print);
        c.sub(rsp, 512);
        c.mov(rdi, rsp);
        c.mov(eax, SysUname);
        c.syscall();
        c.lea(rsi, __[rsp + ReleaseOffset]);
        c.call(print);
        c.lea(rsi, __[newline]);
        c.call(print);
        c.mov(edi, RebootMagic1);
        c.mov(esi, RebootMagic2);
        c.mov(edx, RebootRestart);
        c.mov(eax, SysReboot);
        c.syscall();

        c.Label(ref print); // the zero-terminated text at RSI, to standard output
        Label next = c.CreateLabel(), measured = c.CreateLabel();
        c.xor(edx, edx);
        c.Label(ref next);
        c.cmp(__byte_ptr[rsi + rdx], 0);
        c.je(measured);
        c.inc(edx);
        c.jmp(next);
        c.Label(ref measured);
        c.mov(edi, 1);
        c.mov(eax, SysWrite);
        c.syscall();
        c.ret();

        c.Label(ref hello);
        c.db(Encoding.ASCII.GetBytes("hello from user space on Linux \0"));
        c.Label(ref newline);
        c.db(Encoding.ASCII.GetBytes("\n\0"));

        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), LoadAddress + Headers);
        return code.ToArray();
    }

    /// <summary>An executable of one segment: the headers and the code behind them.</summary>
    private static byte[] Elf(byte[] code)
    {
        var file = new byte[Headers + code.Length];
        Span<byte> header = file, segment = header[64..];
        "\x7f"u8.CopyTo(header);
        "ELF"u8.CopyTo(header[1..]);
        header[4] = 2; // 64-bit
        header[5] = 1; // little-endian
        header[6] = 1; // version
        BinaryPrimitives.WriteUInt16LittleEndian(header[16..], 2);  // executable
        BinaryPrimitives.WriteUInt16LittleEndian(header[18..], 62); // x86-64
        BinaryPrimitives.WriteUInt32LittleEndian(header[20..], 1);
        BinaryPrimitives.WriteUInt64LittleEndian(header[24..], LoadAddress + Headers); // entry
        BinaryPrimitives.WriteUInt64LittleEndian(header[32..], 64); // program headers
        BinaryPrimitives.WriteUInt16LittleEndian(header[52..], 64);
        BinaryPrimitives.WriteUInt16LittleEndian(header[54..], 56);
        BinaryPrimitives.WriteUInt16LittleEndian(header[56..], 1);

        BinaryPrimitives.WriteUInt32LittleEndian(segment, 1);      // to be loaded
        BinaryPrimitives.WriteUInt32LittleEndian(segment[4..], 5); // readable, executable
        BinaryPrimitives.WriteUInt64LittleEndian(segment[16..], LoadAddress);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[24..], LoadAddress);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[32..], (ulong)file.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[40..], (ulong)file.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[48..], 0x1000);
        code.CopyTo(header[Headers..]);
        return file;
    }
}
