using System.IO.Pipelines;
using System.Text;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Vmm.Boot;

namespace Kvm.Vmm.Tests;

public class LinuxLoaderTests
{
    public static IEnumerable<object[]> KernelsAndEntries =>
        from kernel in Kernels.Names
        from LinuxEntry entry in Enum.GetValues<LinuxEntry>()
        select new object[] { kernel, entry };

    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(KernelsAndEntries))]
    public void Every_entry_point_is_reached_with_its_protocol(string kernel, LinuxEntry entry)
    {
        var output = new MemoryStream();
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 16 << 20, Output = PipeWriter.Create(output), Irqchip = false });
        pc.LoadLinux(BzImage.Parse(FakeKernel.Build()), entry, " quiet panic=1");
        GuestStop stop = pc.Run(TimeSpan.FromSeconds(20));
        string expected = entry switch { LinuxEntry.Real16 => "R4", LinuxEntry.Protected32 => "P4", _ => "L4" } + " quiet panic=1";
        Encoding.ASCII.GetString(output.ToArray()).Should().Be(expected, "the guest ended: {0}", stop);
        stop.Reason.Should().Be(GuestStopReason.Halted);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Initrd_lies_at_the_top_page_aligned_and_the_zero_page_names_it(string kernel)
    {
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 16 << 20 });
        byte[] initrd = [.. Enumerable.Range(0, 5000).Select(i => (byte)i)];
        pc.LoadLinux(BzImage.Parse(FakeKernel.Build()), LinuxEntry.Long64, "", initrd);
        uint address = pc.Ram.Read<uint>(0x7000 + 0x218);
        address.Should().Be((16 << 20) - 0x2000);
        pc.Ram.Read<uint>(0x7000 + 0x21c).Should().Be(5000);
        pc.Ram.At(address, 5000).ToArray().Should().Equal(initrd);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Zero_page_holds_header_map_and_command_line(string kernel)
    {
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 16 << 20 });
        BzImage image = BzImage.Parse(FakeKernel.Build());
        pc.LoadLinux(image, LinuxEntry.Protected32, "x=1");
        pc.Ram.At(0x7000 + 0x1f1, 15).ToArray().Should().Equal(image.Header[..15].ToArray());
        pc.Ram.Read<byte>(0x7000 + 0x210).Should().Be(0xff);
        pc.Ram.Read<byte>(0x7000 + 0x1e8).Should().Be(4);
        pc.Ram.Read<ulong>(0x7000 + 0x2d0).Should().Be(0);
        pc.Ram.Read<ulong>(0x7000 + 0x2d0 + 8).Should().Be(0x9fc00);
        pc.Ram.Read<ulong>(0x7000 + 0x2d0 + 60).Should().Be(0x100000);
        pc.Ram.Read<ulong>(0x7000 + 0x2d0 + 68).Should().Be((16 << 20) - 0x100000);
        uint line = pc.Ram.Read<uint>(0x7000 + 0x228);
        pc.Ram.At(line, 4).ToArray().Should().Equal("x=1\0"u8.ToArray());
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void What_does_not_fit_is_refused_with_the_reason(string kernel)
    {
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 4 << 20 });
        BzImage image = BzImage.Parse(FakeKernel.Build());
        FluentActions.Invoking(() => pc.LoadLinux(image, LinuxEntry.Long64, new string('x', 2048))).Should().Throw<BootException>().WithMessage("*2048*2047*");
        FluentActions.Invoking(() => pc.LoadLinux(image, LinuxEntry.Long64, new string('x', 2047))).Should().NotThrow();
        FluentActions.Invoking(() => pc.LoadLinux(image, LinuxEntry.Long64, "", new byte[3 << 20])).Should().Throw<BootException>().WithMessage("*initrd*memory*");
        using var small = new Pc(kvm, new PcOptions { Memory = 2 << 20 });
        FluentActions.Invoking(() => small.LoadLinux(image, LinuxEntry.Long64, "")).Should().Throw<BootException>().WithMessage("*memory*");
    }
}
