using System.Diagnostics;
using System.Globalization;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Benchmarks.Engine;

/// <summary>Runs the same kernels on Bochs: a floppy whose boot sector enters long mode and jumps to the kernel's bytes. Bochs prints what is written to port E9.</summary>
internal static class BochsRun
{
    private const uint PageTables = 0x4000;
    private const int Sectors = 16;

    /// <summary>CPU seconds of Bochs between 'S' and 'E'.</summary>
    internal static double Once(EngineKernel kernel, string bochs = "bochs")
    {
        string directory = Directory.CreateTempSubdirectory("engine-bochs").FullName;
        try
        {
            string image = Path.Combine(directory, "floppy.img"), configuration = Path.Combine(directory, "bochsrc"), commands = Path.Combine(directory, "commands");
            File.WriteAllBytes(image, Image(kernel.Assemble()));
            File.WriteAllText(configuration, Configuration(image, Path.Combine(directory, "log")));
            File.WriteAllText(commands, "c\n");
            var start = new ProcessStartInfo(bochs) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true, WorkingDirectory = directory };
            foreach (string argument in (string[])["-q", "-f", configuration, "-rc", commands])
                start.ArgumentList.Add(argument);
            using Process process = Process.Start(start) ?? throw new InvalidOperationException("cannot start " + bochs);
            process.ErrorDataReceived += (_, _) => { };
            process.BeginErrorReadLine();
            try
            {
                return Measure(process);
            }
            finally
            {
                process.Kill();
                process.WaitForExit();
            }
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    // Bochs' own messages contain both letters; the boot sector's byte 1 comes before the guest's.
    internal static double Measure(Process process)
    {
        Stream output = process.StandardOutput.BaseStream;
        double begin = 0;
        bool booted = false;
        while (true)
        {
            int c = output.ReadByte();
            if (c < 0)
                throw new InvalidOperationException("Bochs ended before the kernel did");
            if (c == 1)
                booted = true;
            else if (booted && c == 'S')
                begin = CpuSeconds(process.Id);
            else if (booted && c == 'E')
                return CpuSeconds(process.Id) - begin;
        }
    }

    /// <summary>User and system time of a process, from /proc (resolution 10 ms).</summary>
    private static double CpuSeconds(int process)
    {
        string stat = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{process}/stat"));
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return (long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture)) / 100.0;
    }

    private static string Configuration(string image, string log) => $"""
        display_library: rfb, options="timeout=0"
        cpu: model=corei7_skylake_x, count=1, ips=1000000000, reset_on_triple_fault=0
        megs: 32
        romimage: file=/usr/share/bochs/BIOS-bochs-latest
        vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
        floppya: 1_44="{image}", status=inserted
        boot: floppy
        clock: sync=none
        port_e9_hack: enabled=1
        log: {log}
        panic: action=fatal
        error: action=ignore
        info: action=ignore
        debug: action=ignore
        speaker: enabled=0
        sound: driver=dummy

        """;

    internal static byte[] Image(byte[] program)
    {
        if (program.Length > Sectors * 512)
            throw new ArgumentException("the program does not fit");
        byte[] image = new byte[1440 * 1024];
        BootSector().CopyTo(image, 0);
        image[510] = 0x55;
        image[511] = 0xaa;
        program.CopyTo(image, 512);
        return image;
    }

    private static byte[] BootSector()
    {
        const int controls = 0x620, eferLme = 0x100; // PAE, OSFXSR, OSXMMEXCPT
        const uint sectorBase = 0x7c00, pointerOffset = 0x198, gdtOffset = 0x1a0, entryOffset = 0x1c0;
        var a = new Assembler(16);
        Label fill = a.CreateLabel();
        a.cli();
        a.xor(ax, ax);
        a.mov(ds, ax);
        a.mov(es, ax);
        a.mov(ss, ax);
        a.mov(sp, 0x7c00);
        a.mov(ax, (short)(EngineKernel.CodeBase >> 4));
        a.mov(es, ax);
        a.xor(bx, bx);
        a.mov(ax, 0x0200 | Sectors);
        a.mov(cx, 2);
        a.xor(dx, dx);
        a.@int(0x13);
        a.xor(ax, ax);
        a.mov(es, ax);
        // Page tables: 16 MiB one to one.
        a.mov(edi, PageTables);
        a.mov(ecx, 0x3000 / 4);
        a.xor(eax, eax);
        a.cld();
        a.rep.stosd();
        a.mov(__dword_ptr[(int)PageTables], (int)(PageTables + 0x1003));
        a.mov(edi, PageTables + 0x1000);
        a.mov(__dword_ptr[edi], (int)(PageTables + 0x2003));
        a.mov(edi, PageTables + 0x2000);
        a.mov(eax, 0x83);
        a.mov(ecx, 8);
        a.Label(ref fill);
        a.mov(__dword_ptr[edi], eax);
        a.add(edi, 8);
        a.add(eax, 0x200000);
        a.dec(ecx);
        a.jnz(fill);
        a.mov(eax, PageTables);
        a.mov(cr3, eax);
        a.mov(eax, cr4);
        a.or(eax, controls);
        a.mov(cr4, eax);
        a.mov(ecx, 0xc0000080);
        a.rdmsr();
        a.or(eax, eferLme);
        a.wrmsr();
        // lgdt [pointer]
        a.db(0x0f, 0x01, 0x16);
        a.dw((ushort)(sectorBase + pointerOffset));
        a.mov(eax, cr0);
        a.or(eax, unchecked((int)0x80000001));
        a.mov(cr0, eax);
        a.mov(al, 1);
        a.@out(0xe9, al);
        // A 32-bit far jump to the 64-bit code segment.
        a.db(0x66, 0xea);
        a.dd(sectorBase + entryOffset);
        a.dw(8);
        byte[] sector = new byte[512];
        Place(a, sectorBase, sector, 0);
        BitConverter.TryWriteBytes(sector.AsSpan((int)pointerOffset), (ushort)23);
        BitConverter.TryWriteBytes(sector.AsSpan((int)pointerOffset + 2), sectorBase + gdtOffset);
        BitConverter.TryWriteBytes(sector.AsSpan((int)gdtOffset + 8), 0x00af9b000000ffffUL);
        BitConverter.TryWriteBytes(sector.AsSpan((int)gdtOffset + 16), 0x00cf93000000ffffUL);
        var entry = new Assembler(64);
        entry.mov(eax, 16);
        entry.mov(ss, eax);
        entry.mov(ds, eax);
        entry.mov(es, eax);
        entry.mov(esp, 0x1f000);
        entry.mov(eax, (uint)EngineKernel.CodeBase);
        entry.jmp(rax);
        Place(entry, sectorBase + entryOffset, sector, (int)entryOffset);
        return sector;
    }

    private static void Place(Assembler a, uint address, byte[] sector, int offset)
    {
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), address);
        stream.ToArray().CopyTo(sector, offset);
    }
}
