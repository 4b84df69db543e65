namespace Kvm.Tool.Tests;

public class MemorySizeTests
{
    [Theory]
    [InlineData("512M", 512UL << 20)]
    [InlineData("2g", 2UL << 30)]
    [InlineData("64k", 64UL << 10)]
    [InlineData("1T", 1UL << 40)]
    [InlineData("4096", 4096UL)]
    [InlineData("4503599627370496", 1UL << 52)]
    public void Sizes_are_read(string text, ulong bytes)
    {
        MemorySize.TryParse(text, out ulong parsed).Should().BeTrue();
        parsed.Should().Be(bytes);
    }

    [Theory]
    [InlineData("")]
    [InlineData("M")]
    [InlineData("0")]
    [InlineData("-1M")]
    [InlineData("+1M")]
    [InlineData(" 1M")]
    [InlineData("1P")]
    [InlineData("1.5G")]
    [InlineData("1MB")]
    [InlineData("4503599627370497")]
    [InlineData("99999999999999G")]
    public void Nonsense_is_no_size(string text) => MemorySize.TryParse(text, out _).Should().BeFalse();

    [Theory]
    [InlineData("4M", true)]
    [InlineData("4095K", false)]
    [InlineData("4100K", true)]
    [InlineData("4194305", false)]
    [InlineData("2048T", true)]
    [InlineData("2049T", false)]
    public void A_guest_has_4M_to_2048T_in_whole_pages(string text, bool accepted)
    {
        MemorySize.Parse(text, out string error).HasValue.Should().Be(accepted);
        (error.Length == 0).Should().Be(accepted);
    }

    [Theory]
    [InlineData(512UL << 20, "512M")]
    [InlineData(1536UL << 20, "1536M")]
    [InlineData(2UL << 30, "2G")]
    [InlineData(4096UL, "4K")]
    [InlineData(1UL << 50, "1024T")]
    public void Shown_as_people_write_it(ulong bytes, string text) => new MemorySize(bytes).ToString().Should().Be(text);
}
