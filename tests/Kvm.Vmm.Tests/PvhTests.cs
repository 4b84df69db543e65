using System.IO.Pipelines;
using System.Text;
using Iced.Intel;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Vmm.Acpi;
using Kvm.Vmm.Boot;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Vmm.Tests;

/// <summary>ELF kernels with a PVH entry point.</summary>
public class PvhTests
{
    private const uint Base = 0x400000;

    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void Kernel_gets_command_line_module_map_and_root_pointer(string kernel)
    {
        var output = new MemoryStream();
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 8 << 20, Output = PipeWriter.Create(output), Irqchip = false });
        byte[] image = Image(Program());
        PvhLoader.IsPvh(image).Should().BeTrue();
        pc.LoadPvh(image, " hello ", "module:xyz\0"u8.ToArray());
        pc.Run(TimeSpan.FromSeconds(20)).Reason.Should().Be(GuestStopReason.Halted);
        Encoding.ASCII.GetString(output.ToArray()).Should().Be("P hello module:xyzRSD PTR ");
        ulong info = pc.Vcpu.Regs.rbp;
        pc.Ram.Read<ulong>(info + 32).Should().Be(AcpiTables.RootPointer);
        ulong map = pc.Ram.Read<ulong>(info + 40);
        E820Entry[] expected = E820Entry.Map(pc.Ram);
        pc.Ram.Read<uint>(info + 48).Should().Be((uint)expected.Length);
        for (int i = 0; i < expected.Length; i++)
            (pc.Ram.Read<ulong>(map + 24 * (ulong)i), pc.Ram.Read<ulong>(map + 24 * (ulong)i + 8), pc.Ram.Read<uint>(map + 24 * (ulong)i + 16))
                .Should().Be((expected[i].Address, expected[i].Size, (uint)expected[i].Type));
    }

    [Theory]
    [InlineData(0, 5u)]      // the name's size
    [InlineData(8, 17u)]     // the type
    [InlineData(4, 0x1000u)] // the value's size: beyond the segment
    [InlineData(4, 2u)]
    [InlineData(12, 0u)]     // the name
    public void Other_notes_are_no_entry(int offset, uint value)
    {
        byte[] image = Image([0xf4]);
        BitConverter.TryWriteBytes(image.AsSpan(0xf00 + offset), value);
        PvhLoader.IsPvh(image).Should().BeFalse();
    }

    [Fact]
    public void What_does_not_fit_is_refused()
    {
        using KvmSystem kvm = Kernels.Open("intel");
        using var pc = new Pc(kvm, new PcOptions { Memory = 8 << 20, Irqchip = false });
        FluentActions.Invoking(() => pc.LoadPvh(Image([0xf4]), new string('x', 0x4000))).Should().Throw<BootException>().WithMessage("*command line*");
        FluentActions.Invoking(() => pc.LoadPvh(Image([0xf4]), "", new byte[5 << 20])).Should().Throw<BootException>().WithMessage("*initrd*memory*");
        FluentActions.Invoking(() => pc.LoadPvh(MultibootTests.Elf([0xf4]), "")).Should().Throw<BootException>().WithMessage("*no PVH entry*");
    }

    /// <summary>Prints 'P' if the structure is there, the command line, the first module, and the first eight bytes of the root pointer.</summary>
    private static byte[] Program()
    {
        var c = new Assembler(32);
        Label bad = c.CreateLabel(), print = c.CreateLabel();
        c.mov(ebp, ebx);
        c.mov(esp, (int)Base);
        c.mov(edx, 0x3f8);
        c.cmp(__dword_ptr[ebx], 0x336ec578);
        c.jne(bad);
        c.mov(al, (sbyte)'P');
        c.@out(dx, al);
        c.mov(esi, __dword_ptr[ebx + 24]);
        c.call(print);
        c.mov(esi, __dword_ptr[ebx + 16]);
        c.mov(esi, __dword_ptr[esi]);
        c.call(print);
        c.mov(esi, __dword_ptr[ebx + 32]);
        c.mov(ecx, 8);
        c.rep.outsb();
        c.Label(ref bad);
        c.cli();
        c.hlt();
        return MultibootTests.WithPrint(c, print);
    }

    /// <summary>The multiboot ELF with a second program header: a note at 0xf00.</summary>
    private static byte[] Image(byte[] program)
    {
        byte[] file = MultibootTests.Elf(program);
        Array.Clear(file, 0x1000, 12); // no multiboot header
        file[44] = 2;
        Put(84, 4); // PT_NOTE
        Put(88, 0xf00);
        Put(100, 20);
        Put(104, 20);
        Put(0xf00, 4);
        Put(0xf04, 4);
        Put(0xf08, 18);
        "Xen\0"u8.CopyTo(file.AsSpan(0xf0c));
        Put(0xf10, Base + 0x100);
        return file;

        void Put(int at, uint value) => BitConverter.TryWriteBytes(file.AsSpan(at), value);
    }
}
