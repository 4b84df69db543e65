using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Corpus;

/// <summary>
/// A program without an operating system that runs <see cref="ProtectedVector"/>s one after the other in 32-bit protected mode and writes a line of eight bytes for each to port E9.
/// It runs on the emulator and, to record what another processor does, in Bochs.
/// </summary>
/// <remarks>
/// Before each vector the descriptor tables, TSSs, stack and data are made anew; IRETD starts it. All exceptions go through task gates, so what the processor
/// saved in the interrupted task's TSS is the result, however broken the vector's own stack is. A vector that does nothing wrong ends at INT3.
/// </remarks>
internal static class ProtectedRunner
{
    // Where things are in the first MiB.
    public const uint Gdt = 0x20000, Idt = 0x21000, Tss = 0x22000, Ldt = 0x22800, Tss2 = 0x22c00, CaptureTss = 0x23000,
        RunnerStack = 0x30000, CaptureStack = 0x31000, Stack = 0x40000, Record = 0x50000, Variables = 0x51000, DataSegment = 0x60000, Code = 0x70000, Target = 0x70080;

    /// <summary>The image: runner, tables, vectors. Entered in 32-bit protected mode with flat segments.</summary>
    public const uint Image = 0x100000, Templates = Image + 0x6000, Vectors = Image + 0x8000;

    // Selectors of the template GDT; the four slots from Patch on are the vector's.
    public const ushort Code0 = 0x08, Data0 = 0x10, MainTss = 0x48, SecondTss = 0x50, SecondTss16 = 0x58, LdtSelector = 0x60, Conforming = 0x68, Data16 = 0x70, Code16 = 0x78,
        Patch = 0x80, Capture = 0x100;
    public const ushort GdtLimit = 0x1ff, IdtLimit = 0x1ff, TssLimit = 0x1ff;
    /// <summary>The interrupt vector whose gate comes from the test vector.</summary>
    public const int GateVector = 0x30;
    /// <summary>Bytes of the test stack, its top at Stack + StackOffset, and of the other memory that belongs to the result.</summary>
    public const int StackOffset = 0x80, StackBytes = 0x100;
    private const int LineBytes = 8;

    private const uint VectorPointer = Variables, Remaining = Variables + 4, Hash = Variables + 8, Number = Variables + 12, ErrorCode = Variables + 16, HasError = Variables + 20, OldTss = Variables + 24;
    private const uint GdtPointer = Templates + 0x600, IdtPointer = Templates + 0x608;

    /// <summary>What goes into the hash, in this order.</summary>
    public static readonly (string Name, uint Address, int Bytes)[] Regions =
    [
        ("exception", Number, 16), ("tss", Tss, 0x68), ("tss2", Tss2, 0x68), ("tss16", Tss2 + 0x100, 0x2c), ("gdt", Gdt, 0xa0), ("ldt", Ldt, 0x20), ("stack", Stack, StackBytes),
        ("data", DataSegment, 0x40),
    ];

    /// <summary>The whole image for these vectors. <paramref name="dump"/>: the bytes that are hashed are written out too, before the line.</summary>
    public static byte[] Build(IReadOnlyList<ProtectedVector> vectors, bool dump = false)
    {
        byte[] image = new byte[(int)(Vectors - Image) + (vectors.Count * ProtectedVector.Size)];
        PlaceRunner(image, (uint)vectors.Count, dump);
        TemplateTables().CopyTo(image, (int)(Templates - Image));
        for (int i = 0; i < vectors.Count; i++)
            vectors[i].Write(image.AsSpan((int)(Vectors - Image) + (i * ProtectedVector.Size), ProtectedVector.Size));
        return image;
    }

    private static ulong Descriptor(uint @base, uint limit, uint rights) => BareMachine.Segment(@base, limit, rights);

    /// <summary>GDT at 0, IDT at 0x200, pseudo-descriptors at 0x600.</summary>
    private static byte[] TemplateTables()
    {
        byte[] tables = new byte[0x610];
        void Put(int offset, ulong value) => BitConverter.TryWriteBytes(tables.AsSpan(offset), value);
        for (int dpl = 0; dpl < 4; dpl++)
        {
            Put(Code0 + (dpl * 16), Descriptor(0, uint.MaxValue, 0x409b | (uint)dpl << 5));
            Put(Data0 + (dpl * 16), Descriptor(0, uint.MaxValue, 0x4093 | (uint)dpl << 5));
        }
        Put(MainTss, Descriptor(Tss, TssLimit, 0x89));
        Put(SecondTss, Descriptor(Tss2, 0x67, 0x89 | 3 << 5));
        Put(SecondTss16, Descriptor(Tss2 + 0x100, 0x2b, 0x81 | 3 << 5));
        Put(LdtSelector, Descriptor(Ldt, 0x1f, 0x82));
        Put(Conforming, Descriptor(0, uint.MaxValue, 0x409f));
        Put(Data16, Descriptor(DataSegment, 0xff, 0xf3));
        Put(Code16, Descriptor(DataSegment, 0xffff, 0xfb));
        for (int i = 0; i < 32; i++)
        {
            Put(Capture + (i * 8), Descriptor(CaptureTss + ((uint)i * 0x80), 0x67, 0x89));
            Put(0x200 + (i * 8), BareMachine.Gate(SegmentRights.TaskGate, (ushort)(Capture + (i * 8)), 0, dpl: 3));
        }
        Put(0x600, GdtLimit | (ulong)Gdt << 16);
        Put(0x608, IdtLimit | (ulong)Idt << 16);
        return tables;
    }

    private const uint Loop = Image + 0x1000, Stubs = Image + 0x2000, CaptureCode = Image + 0x2400;

    private static void AssembleAt(byte[] image, uint address, Action<Assembler> write)
    {
        var a = new Assembler(32);
        write(a);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), address);
        stream.ToArray().CopyTo(image, (int)(address - Image));
    }

    private static void PlaceRunner(byte[] image, uint count, bool dump)
    {
        AssembleAt(image, Image, a =>
        {
            a.mov(al, BochsRecorder.Begin);
            a.@out(0xe9, al);
            a.cld();
            // Wherever a vector goes astray in low memory, it meets INT3.
            Fill(a, 0, 0xa0000, 0xcccc_cccc);
            // Interrupts that virtual-8086 programs handle themselves: 0CCC:CCCC.
            Fill(a, 0, 0x400, 0x0ccc_cccc);
            Fill(a, CaptureTss, 0x1000, 0);
            MakeCaptureTasks(a);
            a.mov(__dword_ptr[VectorPointer], Vectors);
            a.mov(__dword_ptr[Remaining], count);
            a.jmp(Loop);
        });
        AssembleAt(image, Loop, a =>
        {
            Label done = a.CreateLabel(), more = a.CreateLabel();
            // The task that captured the last result was entered with NT set.
            a.mov(eax, (uint)Data0);
            a.mov(ds, eax);
            a.mov(es, eax);
            a.mov(ss, eax);
            a.mov(esp, RunnerStack);
            a.push(2);
            a.popfd();
            a.cmp(__dword_ptr[Remaining], 0);
            a.je(done);
            SetUp(a);
            Start(a);
            a.Label(ref done);
            // Bochs buffers its output: what follows the results pushes them out.
            a.mov(ecx, 0x2000);
            a.Label(ref more);
            a.@out(0xe9, al);
            a.dec(ecx);
            a.jnz(more);
            a.cli();
            a.hlt();
        });
        for (uint i = 0; i < 32; i++)
        {
            uint number = i;
            AssembleAt(image, Stubs + (i * 16), a =>
            {
                a.mov(__dword_ptr[Number], number);
                a.jmp(CaptureCode);
            });
        }
        AssembleAt(image, CaptureCode, a =>
        {
            CaptureResult(a, dump);
            a.add(__dword_ptr[VectorPointer], ProtectedVector.Size);
            a.dec(__dword_ptr[Remaining]);
            a.jmp(Loop);
        });
    }

    private static void MakeCaptureTasks(Assembler a)
    {
        for (uint i = 0; i < 32; i++)
        {
            uint tss = CaptureTss + (i * 0x80);
            a.mov(__dword_ptr[tss + 0x20], Stubs + (i * 16));
            a.mov(__dword_ptr[tss + 0x24], 2);
            a.mov(__dword_ptr[tss + 0x38], CaptureStack);
            a.mov(__dword_ptr[tss + 0x4c], (uint)Code0);
            foreach (uint segment in (uint[])[0x48, 0x50, 0x54, 0x58, 0x5c])
                a.mov(__dword_ptr[tss + segment], (uint)Data0);
        }
    }

    private static void Copy(Assembler a, uint from, uint to, int bytes)
    {
        a.mov(esi, from);
        a.mov(edi, to);
        a.mov(ecx, bytes / 4);
        a.rep.movsd();
    }

    private static void Fill(Assembler a, uint to, int bytes, uint value)
    {
        a.mov(edi, to);
        a.mov(eax, value);
        a.mov(ecx, bytes / 4);
        a.rep.stosd();
    }

    /// <summary>Everything that a vector may change or bring along.</summary>
    private static void SetUp(Assembler a)
    {
        a.mov(esi, __dword_ptr[VectorPointer]);
        a.mov(edi, Record);
        a.mov(ecx, ProtectedVector.Size / 4);
        a.rep.movsd();
        Copy(a, Templates, Gdt, GdtLimit + 1);
        Copy(a, Templates + 0x200, Idt, IdtLimit + 1);
        Copy(a, Record + ProtectedVector.DescriptorsAt, Gdt + Patch, 32);
        Copy(a, Record + ProtectedVector.GateAt, Idt + (GateVector * 8), 8);
        // The LDT has the four descriptors in another order.
        Copy(a, Record + ProtectedVector.DescriptorsAt + 8, Ldt, 24);
        Copy(a, Record + ProtectedVector.DescriptorsAt, Ldt + 24, 8);
        Fill(a, Tss, TssLimit + 1, 0);
        Copy(a, Record + ProtectedVector.StacksAt, Tss + 4, 24);
        a.mov(eax, __dword_ptr[Record + ProtectedVector.MapAt]);
        a.mov(__dword_ptr[Tss + 0x64], eax);
        // Interrupt redirection and I/O permission bits that a map base of 0x88 finds.
        Fill(a, Tss + 0x68, 0x40, 0x5a3c_9669);
        a.mov(__byte_ptr[Tss + 0xa8], 0xff);
        a.mov(eax, __dword_ptr[Record + ProtectedVector.LinkAt]);
        a.mov(__word_ptr[Tss], ax);
        Copy(a, Record + ProtectedVector.SecondTssAt, Tss2, 0x68);
        Copy(a, Record + ProtectedVector.SecondTssAt + 0x68, Tss2 + 0x100, 0x2c);
        // Where targets without the base of their segment lie.
        Fill(a, 0, 0x400, 0x0ccc_cccc);
        Fill(a, 0xff00, 0x300, 0xcccc_cccc);
        Fill(a, Code, 0x100, 0xcccc_cccc);
        Copy(a, Record + ProtectedVector.CodeAt, Code, 16);
        Fill(a, Stack, StackBytes, 0);
        Copy(a, Record + ProtectedVector.StackAt, Stack + StackOffset, 48);
        Fill(a, DataSegment, 0x100, 0x1111_1111);
        Copy(a, Record + ProtectedVector.DataAt, DataSegment, 16);
        a.lgdt(__fword_ptr[GdtPointer]);
        a.lidt(__fword_ptr[IdtPointer]);
        a.mov(eax, (uint)MainTss);
        a.ltr(ax);
        a.mov(eax, (uint)LdtSelector);
        a.lldt(ax);
        a.mov(eax, __dword_ptr[Record + ProtectedVector.Cr4At]);
        a.mov(cr4, eax);
        a.mov(eax, __dword_ptr[Record + ProtectedVector.Cr0At]);
        a.mov(cr0, eax);
        foreach ((uint msr, uint offset) in ((uint, uint)[])[(0x174, 0), (0x175, 4), (0x176, 8)])
        {
            a.mov(ecx, msr);
            a.mov(eax, __dword_ptr[Record + ProtectedVector.SysenterAt + offset]);
            a.xor(edx, edx);
            a.wrmsr();
        }
    }

    /// <summary>Frame, segments, registers, IRETD. A frame to the same level has no stack: SS:ESP are loaded first and the frame is pushed there.</summary>
    private static void Start(Assembler a)
    {
        Label same = a.CreateLabel(), v86 = a.CreateLabel(), go = a.CreateLabel(), plain = a.CreateLabel();
        const uint frame = Record + ProtectedVector.FrameAt;
        a.mov(eax, __dword_ptr[Record + ProtectedVector.KindAt]);
        a.cmp(eax, (int)ProtectedVector.Start.Virtual8086);
        a.je(v86);
        a.cmp(eax, (int)ProtectedVector.Start.SameLevel);
        a.je(same);
        a.push(__dword_ptr[frame + 16]);
        a.push(__dword_ptr[frame + 12]);
        a.jmp(plain);
        a.Label(ref same);
        a.mov(ss, __word_ptr[frame + 16]);
        a.mov(esp, __dword_ptr[frame + 12]);
        a.Label(ref plain);
        a.push(__dword_ptr[frame + 8]);
        a.push(__dword_ptr[frame + 4]);
        a.push(__dword_ptr[frame]);
        a.mov(es, __word_ptr[frame + 20]);
        a.mov(fs, __word_ptr[frame + 28]);
        a.mov(gs, __word_ptr[frame + 32]);
        a.mov(ds, __word_ptr[frame + 24]);
        a.jmp(go);
        a.Label(ref v86);
        foreach (uint offset in (uint[])[32, 28, 24, 20, 16, 12, 8, 4, 0])
            a.push(__dword_ptr[frame + offset]);
        a.Label(ref go);
        // DS is the vector's now: CS is what still reads the record.
        const uint registers = Record + ProtectedVector.RegistersAt;
        a.mov(eax, __dword_ptr.cs[registers]);
        a.mov(ebx, __dword_ptr.cs[registers + 4]);
        a.mov(ecx, __dword_ptr.cs[registers + 8]);
        a.mov(edx, __dword_ptr.cs[registers + 12]);
        a.mov(esi, __dword_ptr.cs[registers + 16]);
        a.mov(edi, __dword_ptr.cs[registers + 20]);
        a.mov(ebp, __dword_ptr.cs[registers + 24]);
        a.iretd();
    }

    /// <summary>Vector number, error code, both TSSs and the memory that the vector may have changed go into a hash; the line is written out.</summary>
    private static void CaptureResult(Assembler a, bool dump)
    {
        Label noError = a.CreateLabel();
        a.xor(eax, eax);
        a.mov(cr4, eax);
        a.xor(eax, eax);
        a.xor(ebx, ebx);
        a.cmp(esp, CaptureStack);
        a.je(noError);
        a.pop(eax);
        a.inc(ebx);
        a.Label(ref noError);
        a.mov(__dword_ptr[ErrorCode], eax);
        a.mov(__dword_ptr[HasError], ebx);
        // The back link of this task names the interrupted one.
        a.mov(ebx, __dword_ptr[Number]);
        a.shl(ebx, 7);
        a.movzx(eax, __word_ptr[ebx + CaptureTss]);
        a.mov(__dword_ptr[OldTss], eax);
        a.mov(__dword_ptr[Hash], 0x811c_9dc5);
        foreach ((_, uint start, int bytes) in Regions)
            HashBytes(a, start, bytes, dump);
        foreach ((uint address, int shift) in ((uint, int)[])[(Number, 0), (HasError, 0), (ErrorCode, 0), (ErrorCode, 8), (Hash, 0), (Hash, 8), (Hash, 16), (Hash, 24)])
        {
            a.mov(eax, __dword_ptr[address]);
            if (shift != 0)
                a.shr(eax, (byte)shift);
            a.@out(0xe9, al);
        }
    }

    /// <summary>FNV-1a over memory.</summary>
    private static void HashBytes(Assembler a, uint from, int bytes, bool dump)
    {
        Label next = a.CreateLabel();
        a.mov(esi, from);
        a.mov(ecx, bytes);
        a.mov(edx, __dword_ptr[Hash]);
        a.Label(ref next);
        a.movzx(eax, __byte_ptr[esi]);
        if (dump)
            a.@out(0xe9, al);
        a.xor(edx, eax);
        a.imul(edx, edx, 0x0100_0193);
        a.inc(esi);
        a.dec(ecx);
        a.jnz(next);
        a.mov(__dword_ptr[Hash], edx);
    }

    /// <summary>
    /// Boot code at the top of a 64 KiB ROM: enters protected mode with flat segments and jumps to the image. <paramref name="diskSectors"/>: so much of the first
    /// disk is read to the image's place before that.
    /// </summary>
    public static byte[] Rom(int diskSectors = 0)
    {
        byte[] rom = new byte[0x10000];
        const uint romBase = 0xffff_0000, tables = romBase + 0x100;
        BitConverter.TryWriteBytes(rom.AsSpan(0x108), Descriptor(0, uint.MaxValue, 0x409b));
        BitConverter.TryWriteBytes(rom.AsSpan(0x110), Descriptor(0, uint.MaxValue, 0x4093));
        BitConverter.TryWriteBytes(rom.AsSpan(0x118), (ushort)0x17);
        BitConverter.TryWriteBytes(rom.AsSpan(0x11a), tables);
        var a = new Assembler(16);
        a.cli();
        a.cld();
        // o32 lgdt cs:[118]
        a.db(0x2e, 0x66, 0x0f, 0x01, 0x16, 0x18, 0x01);
        a.mov(eax, 0x11);
        a.mov(cr0, eax);
        a.db(0x66, 0xea);
        a.dd(romBase + 0x200);
        a.dw(Code0);
        Put(rom, 0, a, 0);
        var b = new Assembler(32);
        b.mov(eax, (uint)Data0);
        b.mov(ds, eax);
        b.mov(es, eax);
        b.mov(ss, eax);
        b.mov(fs, eax);
        b.mov(gs, eax);
        if (diskSectors != 0)
            ReadDisk(b, diskSectors);
        b.mov(eax, Image);
        b.jmp(eax);
        Put(rom, 0x200, b, romBase + 0x200);
        // jmp to the start of the segment
        new byte[] { 0xe9, 0x0d, 0x00 }.CopyTo(rom, 0xfff0);
        rom[0xffff] = 0xcc;
        return rom;
    }

    /// <summary>ATA, programmed I/O, sector by sector.</summary>
    private static void ReadDisk(Assembler a, int sectors)
    {
        Label next = a.CreateLabel(), wait = a.CreateLabel();
        // No interrupts: both controllers masked, and the disk's off.
        a.mov(al, 0xff);
        a.@out(0x21, al);
        a.@out(0xa1, al);
        a.mov(al, 2);
        a.mov(edx, 0x3f6);
        a.@out(dx, al);
        a.mov(edi, Image);
        a.xor(ebx, ebx);
        a.Label(ref next);
        void Out(int port, byte shift, int or = 0)
        {
            a.mov(eax, ebx);
            if (shift != 0)
                a.shr(eax, shift);
            if (or != 0)
            {
                a.and(eax, 0xf);
                a.or(eax, or);
            }
            a.mov(edx, port);
            a.@out(dx, al);
        }

        Out(0x1f6, 24, 0xe0);
        a.mov(al, 1);
        a.mov(edx, 0x1f2);
        a.@out(dx, al);
        Out(0x1f3, 0);
        Out(0x1f4, 8);
        Out(0x1f5, 16);
        a.mov(al, 0x20);
        a.mov(edx, 0x1f7);
        a.@out(dx, al);
        a.Label(ref wait);
        a.@in(al, dx);
        a.test(al, 8);
        a.jz(wait);
        a.mov(edx, 0x1f0);
        a.mov(ecx, 256);
        a.rep.insw();
        a.inc(ebx);
        a.cmp(ebx, sectors);
        a.jb(next);
    }

    private static void Put(byte[] rom, int offset, Assembler a, uint address)
    {
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), address);
        stream.ToArray().CopyTo(rom, offset);
    }

    /// <summary>Results of a run: what was written to port E9, a line a vector.</summary>
    public static CorpusLine[] Parse(ReadOnlySpan<byte> output)
    {
        var lines = new CorpusLine[output.Length / LineBytes];
        for (int i = 0; i < lines.Length; i++)
        {
            ReadOnlySpan<byte> line = output.Slice(i * LineBytes, LineBytes);
            lines[i] = new CorpusLine(line[0], line[1] != 0, BitConverter.ToUInt16(line[2..]), BitConverter.ToUInt32(line[4..]));
        }
        return lines;
    }
}

/// <summary>How a vector ended: exception, error code, hash of everything it left behind.</summary>
internal readonly record struct CorpusLine(byte Vector, bool HasError, ushort ErrorCode, uint Hash);
