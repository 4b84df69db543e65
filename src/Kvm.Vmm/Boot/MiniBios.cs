using System.Runtime.InteropServices;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Vmm.Boot;

/// <summary>
/// The BIOS services that a boot loader's or kernel's real-mode code asks for: memory size and map, teletype output, and polite refusals. Runs as guest code at F000:0000.
/// </summary>
/// <remarks>Ralf Brown's Interrupt List for the calls; ACPI specification, "INT 15H, E820H - Query System Address Map".</remarks>
public static class MiniBios
{
    /// <summary>Where the memory map lies in the BIOS segment.</summary>
    private const ushort MapOffset = 0x8000;

    /// <summary>80×25 colour, one serial port, no floppy.</summary>
    private const ushort Equipment = 0x0220;

    private const uint Smap = 0x534d4150;
    private const ushort ConventionalKb = (ushort)(RealModeMemory.EbdaStart / 1024);

    /// <summary>Writes the code, the memory map, the interrupt vector table and the BIOS data area.</summary>
    public static void Install(GuestRam ram)
    {
        E820Entry[] map = E820Entry.Map(ram);
        ram.Write(RealModeMemory.Bios + MapOffset, MemoryMarshal.AsBytes(map.AsSpan()));

        var c = new Assembler(16);
        var vectors = new Dictionary<int, Label>();
        Label ignore = EmitReturns(c, out Label succeed, out Label fail, out Label refuse);
        vectors[0x00] = vectors[0x06] = vectors[0x0d] = EmitDeadEnd(c);
        vectors[0x10] = EmitVideo(c, ignore);
        vectors[0x11] = EmitAnswer(c, Equipment);
        vectors[0x12] = EmitAnswer(c, ConventionalKb);
        vectors[0x13] = vectors[0x1a] = refuse;
        vectors[0x15] = EmitSystem(c, ram, map.Length, succeed, fail);
        vectors[0x16] = EmitKeyboard(c);

        using var code = new MemoryStream();
        AssemblerResult result = c.Assemble(new StreamCodeWriter(code), 0, BlockEncoderOptions.ReturnNewInstructionOffsets);
        ram.Write(RealModeMemory.Bios, code.ToArray());

        for (int vector = 0; vector < 256; vector++)
        {
            Label handler = vectors.GetValueOrDefault(vector, ignore);
            uint far = (uint)(RealModeMemory.Bios >> 4 << 16) | (uint)result.GetLabelRIP(handler);
            ram.Write((ulong)vector * 4, far);
        }

        ram.Write(0x400, Devices.Serial16550.Com1);
        ram.Write(0x410, Equipment);
        ram.Write(0x40e, (ushort)(RealModeMemory.EbdaStart >> 4));
        ram.Write(0x413, ConventionalKb);
        ram.Write(0x449, (byte)3);   // video mode
        ram.Write(0x44a, (ushort)80); // columns
        ram.Write(0x484, (byte)24);  // rows - 1
        ram.Write(0x485, (ushort)16); // character height
    }

    /// <summary>The ways back: untouched; carry clear; carry set; carry set with AH = 86h, "not supported".</summary>
    private static Label EmitReturns(Assembler c, out Label succeed, out Label fail, out Label refuse)
    {
        Label ignore = c.CreateLabel();
        succeed = c.CreateLabel();
        fail = c.CreateLabel();
        refuse = c.CreateLabel();

        c.Label(ref ignore);
        c.iret();

        c.Label(ref succeed); // the caller's flags: [bp] saved bp, ip, cs, flags
        c.push(bp);
        c.mov(bp, sp);
        c.and(__byte_ptr[bp + 6], -2);
        c.pop(bp);
        c.iret();

        c.Label(ref refuse);
        c.mov(ah, 0x86);
        c.Label(ref fail);
        c.push(bp);
        c.mov(bp, sp);
        c.or(__byte_ptr[bp + 6], 1);
        c.pop(bp);
        c.iret();
        return ignore;
    }

    /// <summary>Exceptions: returning would repeat them for ever.</summary>
    private static Label EmitDeadEnd(Assembler c)
    {
        Label start = c.CreateLabel();
        c.Label(ref start);
        c.cli();
        c.hlt();
        c.jmp(start);
        return start;
    }

    private static Label EmitAnswer(Assembler c, ushort value)
    {
        Label start = c.CreateLabel();
        c.Label(ref start);
        c.mov(ax, value);
        c.iret();
        return start;
    }

    /// <summary>INT 10h: teletype goes to the debug console; there is an 80×25 text mode and nothing else.</summary>
    private static Label EmitVideo(Assembler c, Label ignore)
    {
        Label start = c.CreateLabel(), notTeletype = c.CreateLabel(), notMode = c.CreateLabel();
        c.Label(ref start);
        c.cmp(ah, 0x0e);
        c.jne(notTeletype);
        c.@out(0xe9, al);
        c.iret();

        c.Label(ref notTeletype);
        c.cmp(ah, 0x0f); // get mode
        c.jne(notMode);
        c.mov(ax, 0x5003); // 80 columns, mode 3
        c.mov(bh, 0);
        c.iret();

        c.Label(ref notMode);
        c.cmp(ah, 0x03); // get cursor
        c.jne(ignore);
        c.mov(cx, 0x0607);
        c.xor(dx, dx);
        c.iret();
        return start;
    }

    /// <summary>INT 16h: no key was pressed, none is held.</summary>
    private static Label EmitKeyboard(Assembler c)
    {
        Label start = c.CreateLabel();
        c.Label(ref start);
        c.xor(ax, ax);
        c.push(bp);
        c.mov(bp, sp);
        c.or(__byte_ptr[bp + 6], 0x40); // ZF: none waiting
        c.pop(bp);
        c.iret();
        return start;
    }

    /// <summary>INT 15h: E820h, E801h, 88h, and A20, which is always open.</summary>
    private static Label EmitSystem(Assembler c, GuestRam ram, int entries, Label succeed, Label fail)
    {
        Label start = c.CreateLabel(), notMap = c.CreateLabel(), notSize = c.CreateLabel(), notExtended = c.CreateLabel(), unsupported = c.CreateLabel();
        uint above1M = (uint)Math.Min((ram.LowSize - 0x100000) / 1024, 0x3c00); // KiB, to 16 MiB
        uint above16M = ram.LowSize > 0x1000000 ? (uint)Math.Min((ram.LowSize - 0x1000000) / 0x10000, 0xffff) : 0; // 64 KiB units

        c.Label(ref start);
        c.cmp(ax, 0xe820);
        c.jne(notMap);
        c.cmp(edx, Smap);
        c.jne(unsupported);
        c.cmp(ebx, entries);
        c.jae(unsupported);
        c.cmp(ecx, 20);
        c.jb(unsupported);
        c.push(ds);
        c.push(si);
        c.push(di);
        c.push(cs);
        c.pop(ds);
        c.imul(si, bx, 20);
        c.add(si, MapOffset);
        c.mov(cx, 10);
        c.cld();
        c.rep.movsw();
        c.pop(di);
        c.pop(si);
        c.pop(ds);
        c.mov(eax, Smap);
        c.mov(ecx, 20);
        c.inc(ebx);
        c.cmp(ebx, entries);
        c.jb(succeed);
        c.xor(ebx, ebx); // that was the last one
        c.jmp(succeed);

        c.Label(ref notMap);
        c.cmp(ax, 0xe801);
        c.jne(notSize);
        c.mov(ax, (ushort)above1M);
        c.mov(bx, (ushort)above16M);
        c.mov(cx, ax);
        c.mov(dx, bx);
        c.jmp(succeed);

        c.Label(ref notSize);
        c.cmp(ah, 0x88);
        c.jne(notExtended);
        c.mov(ax, (ushort)Math.Min((ram.LowSize - 0x100000) / 1024, 0xffff));
        c.jmp(succeed);

        c.Label(ref notExtended);
        c.cmp(ax, 0x2401); // enable A20
        c.je(succeed);
        c.Label(ref unsupported);
        c.mov(ah, 0x86);
        c.jmp(fail);
        return start;
    }
}
