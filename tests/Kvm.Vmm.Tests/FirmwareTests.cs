using System.IO.Pipelines;
using System.Text;
using Iced.Intel;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Devices;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Vmm.Tests;

/// <summary>Firmware of a page or two: from the reset vector into protected mode, with its own ROM and a flash for variables.</summary>
public class FirmwareTests
{
    private const int RomSize = 64 << 10, FlashSize = 2 * CfiFlash.BlockSize;
    private const uint Rom = 0xffff0000, Flash = Rom - FlashSize;

    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void Rom_is_at_4_GiB_and_below_1_MiB_and_cannot_be_written(string kernel)
    {
        (GuestStop stop, string output, _) = Run(kernel, c =>
        {
            c.mov(edi, unchecked((int)(Rom + 0x100)));
            Print(c, __byte_ptr[edi]);
            c.mov(__byte_ptr[edi], (sbyte)'x'); // lost
            Print(c, __byte_ptr[edi]);
            c.mov(edi, 0xf0100); // the copy is RAM
            Print(c, __byte_ptr[edi]);
            c.mov(__byte_ptr[edi], (sbyte)'y');
            Print(c, __byte_ptr[edi]);
        });
        output.Should().Be("RRRy", "{0}", stop);
        stop.Reason.Should().Be(GuestStopReason.Halted);
    }

    /// <summary>As firmware looks for a flash: after Clear Status and Read Status, a ROM gives its byte, RAM the command, a flash its status.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void Flash_gives_its_status_then_its_array_again(string kernel)
    {
        (GuestStop stop, string output, byte[] flash) = Run(kernel, c =>
        {
            c.mov(edi, unchecked((int)Flash));
            Print(c, __byte_ptr[edi]);
            c.mov(__byte_ptr[edi], 0x50);
            c.mov(__byte_ptr[edi], 0x70);
            c.mov(al, __byte_ptr[edi]); // 0: nothing done yet
            c.add(al, (sbyte)'0');
            c.@out(dx, al);
            c.mov(__byte_ptr[edi], -1);
            Print(c, __byte_ptr[edi]);
        });
        output.Should().Be("V0V", "{0}", stop);
        flash[0].Should().Be((byte)'V', "commands are not data");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Flash_is_erased_by_the_block_and_programmed_by_the_byte(string kernel)
    {
        var kept = new byte[FlashSize];
        (GuestStop stop, string output, byte[] flash) = Run(kernel, c =>
        {
            c.mov(edi, unchecked((int)(Flash + CfiFlash.BlockSize + 5)));
            c.mov(__byte_ptr[edi], 0x20);
            c.mov(__byte_ptr[edi], unchecked((sbyte)0xd0));
            foreach ((char value, int at) in new[] { ('O', 0), ('K', 1), ('C', 1) })
            {
                c.mov(__byte_ptr[edi + at], 0x10);
                c.mov(__byte_ptr[edi + at], (sbyte)value);
            }

            c.mov(__byte_ptr[edi], -1);
            Print(c, __byte_ptr[edi]);
            Print(c, __byte_ptr[edi + 1]);
        }, (offset, data) => data.CopyTo(kept.AsSpan((int)offset)));
        output.Should().Be("OC", "{0}", stop);
        ('K' & 'C').Should().Be('C', "programming only clears bits");
        flash[..CfiFlash.BlockSize].Should().OnlyContain(b => b == 'V', "the other block is as it was");
        flash[(CfiFlash.BlockSize + 7)..].Should().OnlyContain(b => b == 0xff);
        kept[CfiFlash.BlockSize..].Should().Equal(flash[CfiFlash.BlockSize..], "whoever keeps the content was told all of it");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Wrong_erase_sequence_is_told_and_erases_nothing(string kernel)
    {
        (GuestStop stop, string output, byte[] flash) = Run(kernel, c =>
        {
            c.mov(edi, unchecked((int)Flash));
            c.mov(__byte_ptr[edi], 0x50);
            c.mov(__byte_ptr[edi], 0x20);
            c.mov(__byte_ptr[edi], 0x11);
            c.mov(al, __byte_ptr[edi]);
            c.@out(dx, al);
            c.mov(__byte_ptr[edi], 0x50);
            c.mov(__byte_ptr[edi], 0x90);
            c.mov(al, __byte_ptr[edi]); // the maker
            c.@out(dx, al);
        });
        output.Should().Be("0?", "{0}: sequence error is bits 4 and 5; 0x89 is no ASCII", stop);
        flash.Should().OnlyContain(b => b == 'V');
    }

    [Theory]
    [InlineData(0)]
    [InlineData(60 << 10)]
    [InlineData((64 << 10) + 1)]
    [InlineData((16 << 20) + 4096)]
    public void Image_of_a_wrong_size_is_none(int size)
    {
        var bytes = new byte[size];
        bytes.AsSpan().Fill(0x90);
        new Action(() => FirmwareImage.Parse(bytes)).Should().Throw<BootException>().WithMessage("not a firmware image: *");
    }

    [Theory]
    [InlineData(0x00)]
    [InlineData(0xff)]
    public void Image_without_a_reset_vector_is_none(byte fill)
    {
        var bytes = new byte[RomSize];
        bytes.AsSpan().Fill(fill);
        bytes[0] = 1;
        new Action(() => FirmwareImage.Parse(bytes)).Should().Throw<BootException>().WithMessage("*blank*");
        bytes[^1] = 1;
        FirmwareImage.Parse(bytes).Address.Should().Be(Rom);
    }

    [Fact]
    public void Variables_are_whole_blocks_and_fit()
    {
        using KvmSystem kvm = Kernels.Open("intel");
        using var pc = new Pc(kvm, new PcOptions { Memory = 4 << 20 });
        FirmwareImage image = FirmwareImage.Parse(Image(c => c.hlt()));
        pc.Invoking(p => p.LoadFirmware(image, new byte[100])).Should().Throw<BootException>().WithMessage("*multiple of 4096*");
        pc.Invoking(p => p.LoadFirmware(image, new byte[16 << 20])).Should().Throw<BootException>().WithMessage("*16 MiB*");
    }

    private static void Print(Assembler c, AssemblerMemoryOperand what)
    {
        c.mov(al, what);
        c.@out(dx, al);
    }

    private static (GuestStop Stop, string Output, byte[] Flash) Run(string kernel, Action<Assembler> body, FlashWriter? writer = null)
    {
        byte[] image = Image(body), flash = new byte[FlashSize];
        flash.AsSpan().Fill((byte)'V');
        using KvmSystem kvm = Kernels.Open(kernel);
        var pipe = new Pipe();
        using var pc = new Pc(kvm, new PcOptions { Memory = 4 << 20, Output = pipe.Writer, Irqchip = false }); // so that HLT ends it
        CfiFlash? device = pc.LoadFirmware(FirmwareImage.Parse(image), flash, writer);
        GuestStop stop = pc.Run(TimeSpan.FromSeconds(60));
        string output = pipe.Reader.TryRead(out ReadResult result) ? Encoding.ASCII.GetString(result.Buffer) : "";
        return (stop, output, device!.Content.ToArray());
    }

    /// <summary>64 KiB: code at its start, its reset vector jumps there, byte 0x100 holds an R.</summary>
    private static byte[] Image(Action<Assembler> body)
    {
        const int Code = 0x200, Gdt = 0x110, GdtPointer = 0x108;
        var image = new byte[RomSize];
        image[0x100] = (byte)'R';
        BitConverter.GetBytes(0x00cf9b000000ffffUL).CopyTo(image, Gdt + 8);
        BitConverter.GetBytes(0x00cf93000000ffffUL).CopyTo(image, Gdt + 16);
        BitConverter.GetBytes((ushort)23).CopyTo(image, GdtPointer);
        BitConverter.GetBytes(Rom + Gdt).CopyTo(image, GdtPointer + 2);

        // At f000:0000, base ffff0000: to protected mode.
        byte[] start =
        [
            0x2e, 0x66, 0x0f, 0x01, 0x16, GdtPointer & 0xff, GdtPointer >> 8, // lgdt cs:[GdtPointer]
            0x0f, 0x20, 0xc0, // mov eax, cr0
            0x0c, 0x01, // or al, 1
            0x0f, 0x22, 0xc0, // mov cr0, eax
            0x66, 0xea, Code & 0xff, Code >> 8, 0xff, 0xff, 0x08, 0x00, // jmp 8:ffff0200
        ];
        start.CopyTo(image, 0);
        new byte[] { 0xe9, 0x0d, 0x00 }.CopyTo(image, RomSize - 16); // jmp to the image's start: fff3 + 0d = 0000

        var c = new Assembler(32);
        c.mov(eax, 16);
        c.mov(ds, eax);
        c.mov(dx, Serial16550.Com1);
        body(c);
        c.cli();
        c.hlt();
        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), Rom + Code);
        code.ToArray().CopyTo(image, Code);
        return image;
    }
}
