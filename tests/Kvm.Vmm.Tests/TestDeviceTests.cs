using Kvm.Vmm.Bus;
using Kvm.Vmm.Devices;

namespace Kvm.Vmm.Tests;

public class TestDeviceTests
{
    private readonly PortBus _ports = new();
    private readonly MmioBus _mmio = new();
    private readonly List<(uint, bool)> _lines = [];

    public TestDeviceTests() => new TestDevice((gsi, level) => _lines.Add((gsi, level))).AddTo(_ports, _mmio);

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    public void Scratch_port_remembers_what_was_written(int width)
    {
        byte[] written = [.. Enumerable.Range(1, width).Select(i => (byte)(i * 0x11))];
        _ports.Write(0xe0, written);
        var read = new byte[width];
        _ports.Read(0xe0, read);
        read.Should().Equal(written);
    }

    [Fact]
    public void Line_ports_drive_their_lines()
    {
        _ports.Write(0x2004, [1]);
        _ports.Write(0x2017, [0]);
        _lines.Should().Equal((4u, true), (23u, false));
    }

    /// <summary>The page stays what it was; the kernel loses its mapping, which only its counters show.</summary>
    [Theory]
    [InlineData(0x200123u)]
    [InlineData(0xfffff000u)] // no RAM: nothing happens
    public void Flush_port_takes_a_page_away_and_gives_it_back(uint address)
    {
        using var kvm = Kvm.Client.KvmSystem.Open(Kvm.Client.KvmBackend.Model());
        using var pc = new Pc(kvm, new PcOptions { Memory = 4 << 20 });
        pc.Ram.Write(0x200123, 0x5a);
        pc.Ports.Write(TestDevice.FlushPort, BitConverter.GetBytes(address));
        pc.Ram.Read<byte>(0x200123).Should().Be(0x5a);
        pc.Ram.Write(0x200124, (byte)1);
    }

    [Fact]
    public void Mmio_is_memory()
    {
        _mmio.Write(0xff000010, [1, 2, 3, 4, 5, 6, 7, 8]);
        var read = new byte[4];
        _mmio.Read(0xff000012, read);
        read.Should().Equal(3, 4, 5, 6);
    }

    [Fact]
    public void Firmware_configuration_answers_signature_cpus_and_zeroes()
    {
        var fwCfg = new FwCfg(64 << 20, 3);
        Item(fwCfg, 0, 5).Should().Equal("QEMU\0"u8.ToArray());
        Item(fwCfg, 5, 2).Should().Equal(3, 0);
        Item(fwCfg, 3, 8).Should().Equal(0, 0, 0, 4, 0, 0, 0, 0);
        Item(fwCfg, 0x1234, 2).Should().Equal(0, 0);
    }

    private static byte[] Item(FwCfg fwCfg, ushort key, int count)
    {
        fwCfg.Write(0x510, BitConverter.GetBytes(key));
        var data = new byte[count];
        for (int i = 0; i < count; i++) fwCfg.Read(0x511, data.AsSpan(i, 1));
        return data;
    }
}
