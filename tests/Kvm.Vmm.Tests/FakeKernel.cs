using System.Buffers.Binary;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Vmm.Tests;

/// <summary>A bzImage whose entry points print a letter each, then the command line, then halt.</summary>
internal static class FakeKernel
{
    private const int SetupSectors = 4;
    private const uint Preferred = 0x200000;

    public static byte[] Build()
    {
        var file = new byte[(SetupSectors + 1) * 512 + 0x1000];
        Span<byte> header = file;
        header[0x1f1] = SetupSectors;
        BinaryPrimitives.WriteUInt16LittleEndian(header[0x1fe..], 0xaa55);
        header[0x200] = 0xeb; // jmp over the header
        header[0x201] = 0x6e; // header ends at 0x270
        BinaryPrimitives.WriteUInt32LittleEndian(header[0x202..], 0x53726448); // "HdrS"
        BinaryPrimitives.WriteUInt16LittleEndian(header[0x206..], 0x020f);
        BinaryPrimitives.WriteUInt16LittleEndian(header[0x20e..], 0x380 - 0x200);
        header[0x211] = 0x01; // loaded high
        BinaryPrimitives.WriteUInt32LittleEndian(header[0x214..], 0x100000);
        BinaryPrimitives.WriteUInt32LittleEndian(header[0x22c..], 0x7fffffff);
        BinaryPrimitives.WriteUInt32LittleEndian(header[0x230..], 0x200000);
        header[0x234] = 1; // relocatable
        BinaryPrimitives.WriteUInt16LittleEndian(header[0x236..], 1); // 64-bit entry
        BinaryPrimitives.WriteUInt32LittleEndian(header[0x238..], 2047);
        BinaryPrimitives.WriteUInt64LittleEndian(header[0x258..], Preferred);
        BinaryPrimitives.WriteUInt32LittleEndian(header[0x260..], 0x10000);
        "9.9-fake"u8.CopyTo(header[0x380..]);
        Real16().CopyTo(header[0x270..]);
        Protected32().CopyTo(header[((SetupSectors + 1) * 512)..]);
        Long64().CopyTo(header[((SetupSectors + 1) * 512 + 0x200)..]);
        return file;
    }

    /// <summary>At CS:0x70 with CS = DS + 0x20: asks the BIOS for its map, prints 'R' and the number of entries, then the command line.</summary>
    private static byte[] Real16()
    {
        var c = new Assembler(16);
        Label again = c.CreateLabel(), next = c.CreateLabel(), done = c.CreateLabel(), fail = c.CreateLabel();
        c.xor(ebx, ebx);
        c.xor(bp, bp);
        c.push(ds);
        c.pop(es);
        c.mov(di, 0x4000);
        c.Label(ref again);
        c.mov(eax, 0xe820);
        c.mov(edx, 0x534d4150);
        c.mov(ecx, 20);
        c.@int(0x15);
        c.jc(fail);
        c.inc(bp);
        c.test(ebx, ebx);
        c.jne(again);
        c.mov(dx, 0x3f8);
        c.mov(al, (sbyte)'R');
        c.@out(dx, al);
        c.mov(ax, bp);
        c.add(al, (sbyte)'0');
        c.@out(dx, al);
        c.mov(eax, __dword_ptr[0x228]); // command line, linear: the segment's own
        c.sub(eax, 0x90000);
        c.mov(si, ax);
        c.Label(ref next);
        c.lodsb();
        c.test(al, al);
        c.je(done);
        c.@out(dx, al);
        c.jmp(next);
        c.Label(ref fail);
        c.mov(dx, 0x3f8);
        c.mov(al, (sbyte)'!');
        c.@out(dx, al);
        c.Label(ref done);
        c.hlt();
        return Bytes(c, 0x70);
    }

    private static byte[] Protected32()
    {
        var c = new Assembler(32);
        Label next = c.CreateLabel(), done = c.CreateLabel();
        c.mov(edx, 0x3f8);
        c.mov(al, (sbyte)'P');
        c.@out(dx, al);
        c.mov(al, __byte_ptr[esi + 0x1e8]); // e820 entries
        c.add(al, (sbyte)'0');
        c.@out(dx, al);
        c.mov(esi, __dword_ptr[esi + 0x228]);
        c.Label(ref next);
        c.lodsb();
        c.test(al, al);
        c.je(done);
        c.@out(dx, al);
        c.jmp(next);
        c.Label(ref done);
        c.hlt();
        return Bytes(c, 0x100000);
    }

    private static byte[] Long64()
    {
        var c = new Assembler(64);
        Label next = c.CreateLabel(), done = c.CreateLabel();
        c.mov(edx, 0x3f8);
        c.mov(al, (sbyte)'L');
        c.@out(dx, al);
        c.mov(al, __byte_ptr[rsi + 0x1e8]);
        c.add(al, (sbyte)'0');
        c.@out(dx, al);
        c.mov(esi, __dword_ptr[rsi + 0x228]);
        c.Label(ref next);
        c.lodsb();
        c.test(al, al);
        c.je(done);
        c.@out(dx, al);
        c.jmp(next);
        c.Label(ref done);
        c.hlt();
        return Bytes(c, Preferred + 0x200);
    }

    private static byte[] Bytes(Assembler c, ulong address)
    {
        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), address);
        return code.ToArray();
    }
}
