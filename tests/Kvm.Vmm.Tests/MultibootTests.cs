using System.Buffers.Binary;
using System.IO.Pipelines;
using System.Text;
using Iced.Intel;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Vmm.Boot;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Vmm.Tests;

public class MultibootTests
{
    private const uint Base = 0x400000;

    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void Elf_image_gets_magic_command_line_and_module(string kernel) =>
        Run(kernel, Elf(Program())).Should().Be("M hello module:xyz");

    [SkippableTheory, MemberData(nameof(All))]
    public void Image_with_addresses_in_its_header_is_loaded_by_them(string kernel) =>
        Run(kernel, Flat(Program())).Should().Be("M hello module:xyz");

    [Fact]
    public void File_without_header_is_refused()
    {
        MultibootLoader.IsMultiboot(new byte[8192]).Should().BeFalse();
        byte[] image = Flat(Program());
        MultibootLoader.IsMultiboot(image).Should().BeTrue();
        image[8]++; // the checksum
        MultibootLoader.IsMultiboot(image).Should().BeFalse();
    }

    [Theory]
    [InlineData(4, 9, "*ELF*")]     // class: neither 32 nor 64
    [InlineData(18, 0x28, "*processor*")] // Arm
    [InlineData(28, 0xff, "*outside*")] // program headers
    public void Broken_elf_is_refused(int offset, byte value, string message)
    {
        byte[] image = Elf(Program());
        image[offset] = value;
        if (offset == 4) image[0] = 0;
        if (offset == 28) image[29] = 0xff;
        FluentActions.Invoking(() => ElfImage.Parse(image)).Should().Throw<BootException>().WithMessage(message);
    }

    /// <summary>Prints 'M' if EAX is the magic, then the command line, then the module.</summary>
    private static byte[] Program()
    {
        var c = new Assembler(32);
        Label bad = c.CreateLabel(), print = c.CreateLabel();
        c.mov(edx, 0x3f8);
        c.cmp(eax, 0x2badb002);
        c.jne(bad);
        c.mov(al, (sbyte)'M');
        c.@out(dx, al);
        c.mov(esi, __dword_ptr[ebx + 16]);
        c.call(print);
        c.mov(ecx, __dword_ptr[ebx + 24]);
        c.mov(esi, __dword_ptr[ecx]);
        c.call(print);
        c.Label(ref bad);
        c.cli();
        c.hlt();
        return WithPrint(c, print);
    }

    /// <summary>The program with what it calls at <paramref name="print"/>: the text at ESI goes to the port in DX.</summary>
    internal static byte[] WithPrint(Assembler c, Label print)
    {
        Label done = c.CreateLabel();
        c.Label(ref print);
        c.lodsb();
        c.test(al, al);
        c.je(done);
        c.@out(dx, al);
        c.jmp(print);
        c.Label(ref done);
        c.ret();
        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), Base + 0x100);
        return code.ToArray();
    }

    internal static byte[] Flat(byte[] program)
    {
        var file = new byte[0x1000];
        Header(file, 0, 1 << 16);
        U32(file, 12, Base);
        U32(file, 16, Base);
        U32(file, 20, 0);
        U32(file, 24, 0);
        U32(file, 28, Base + 0x100);
        program.CopyTo(file, 0x100);
        return file;
    }

    internal static byte[] Elf(byte[] program)
    {
        var file = new byte[0x2000];
        new byte[] { 0x7f, (byte)'E', (byte)'L', (byte)'F', 1, 1, 1 }.CopyTo(file, 0);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(16), 2);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(18), 3);
        U32(file, 24, 0xc0000100); // the entry is linear; physical memory is elsewhere
        U32(file, 28, 52);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(42), 32);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(44), 1);
        U32(file, 52, 1);
        U32(file, 56, 0x1000);
        U32(file, 60, 0xc0000000);
        U32(file, 64, Base);
        U32(file, 68, 0x800);
        U32(file, 72, 0x1000);
        Header(file, 0x1000, 0);
        program.CopyTo(file, 0x1100);
        return file;
    }

    private static void Header(byte[] file, int at, uint flags)
    {
        U32(file, at, 0x1badb002);
        U32(file, at + 4, flags);
        U32(file, at + 8, unchecked(0u - 0x1badb002 - flags));
    }

    private static void U32(byte[] file, int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at), value);

    private static string Run(string kernel, byte[] image)
    {
        var output = new MemoryStream();
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 8 << 20, Output = PipeWriter.Create(output), Irqchip = false });
        pc.LoadMultiboot(image, " hello ", "module:xyz\0"u8.ToArray());
        pc.Run(TimeSpan.FromSeconds(20)).Reason.Should().Be(GuestStopReason.Halted);
        return Encoding.ASCII.GetString(output.ToArray());
    }
}
