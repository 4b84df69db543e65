using Kvm.Vmm.Boot;

namespace Kvm.Vmm.Tests;

public class BzImageTests
{
    [Fact]
    public void Header_is_read()
    {
        BzImage image = BzImage.Parse(FakeKernel.Build());
        image.Version.Should().Be(0x020f);
        image.SetupSize.Should().Be(5 * 512);
        image.Kernel.Length.Should().Be(0x1000);
        image.Has64BitEntry.Should().BeTrue();
        image.Relocatable.Should().BeTrue();
        image.PreferredAddress.Should().Be(0x200000);
        image.KernelVersion.Should().Be("9.9-fake");
        image.Header.Length.Should().Be(0x270 - 0x1f1);
    }

    [Fact]
    public void Setup_sectors_of_0_mean_4()
    {
        byte[] file = FakeKernel.Build();
        file[0x1f1] = 0;
        BzImage.Parse(file).SetupSize.Should().Be(5 * 512);
    }

    public static TheoryData<string, int, byte, string> Broken => new()
    {
        { "boot signature", 0x1fe, 0, "*HdrS*" },
        { "magic", 0x202, (byte)'X', "*HdrS*" },
        { "old protocol", 0x207, 1, "*older*" },
        { "zImage", 0x211, 0, "*zImage*" },
    };

    [Theory, MemberData(nameof(Broken))]
    public void Broken_image_is_named(string what, int offset, byte value, string message)
    {
        byte[] file = FakeKernel.Build();
        file[offset] = value;
        FluentActions.Invoking(() => BzImage.Parse(file)).Should().Throw<BootException>(what).WithMessage(message);
    }

    [Fact]
    public void Cut_off_image_is_named()
    {
        byte[] file = FakeKernel.Build();
        FluentActions.Invoking(() => BzImage.Parse(file.AsMemory(0, 100))).Should().Throw<BootException>().WithMessage("*100 bytes*");
        FluentActions.Invoking(() => BzImage.Parse(file.AsMemory(0, 2560))).Should().Throw<BootException>().WithMessage("*cut off*");
        FluentActions.Invoking(() => BzImage.Parse(file.AsMemory(0, 2561))).Should().NotThrow();
    }
}
