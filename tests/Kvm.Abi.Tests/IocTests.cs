using static Kvm.Abi.Uapi;

namespace Kvm.Abi.Tests;

/// <summary>_IOC packs direction, size, type and number into 32 bits.</summary>
public class IocTests
{
    [Theory]
    [InlineData(0u, 0xaeu, 0x41u, 0u, 0x0000ae41u)]
    [InlineData(1u, 0xaeu, 0x46u, 32u, 0x4020ae46u)]
    [InlineData(2u, 0xaeu, 0x81u, 144u, 0x8090ae81u)]
    [InlineData(3u, 0xaeu, 0x02u, 4u, 0xc004ae02u)]
    [InlineData(3u, 0xffu, 0xffu, 0x3fffu, 0xffffffffu)]
    [Trait("Seed", "S4-15")]
    public void Packs_dir_30_size_16_type_8_nr_0(uint dir, uint type, uint nr, uint size, uint request)
    {
        _IOC(dir, type, nr, size).Should().Be(request);
        _IOC_DIR(request).Should().Be(dir);
        _IOC_TYPE(request).Should().Be(type);
        _IOC_NR(request).Should().Be(nr);
        _IOC_SIZE(request).Should().Be(size);
    }
}
