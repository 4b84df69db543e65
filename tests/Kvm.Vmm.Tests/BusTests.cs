using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Tests;

public class BusTests
{
    private sealed class Recorder : IPortDevice, IMmioDevice
    {
        public List<string> Calls { get; } = [];

        public void Read(ushort port, Span<byte> data)
        {
            Calls.Add($"in {port:x} {data.Length}");
            data.Fill(0x11);
        }

        public void Write(ushort port, ReadOnlySpan<byte> data) => Calls.Add($"out {port:x} {Convert.ToHexString(data)}");

        public void Read(ulong offset, Span<byte> data)
        {
            Calls.Add($"read {offset:x} {data.Length}");
            data.Fill(0x22);
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data) => Calls.Add($"write {offset:x} {Convert.ToHexString(data)}");
    }

    [Fact]
    public void Port_access_reaches_its_owner_only()
    {
        var bus = new PortBus();
        var device = new Recorder();
        bus.Add(0x100, 2, device);
        byte[] data = new byte[2];
        bus.Read(0x101, data);
        data.Should().Equal(0x11, 0x11);
        bus.Write(0x100, [1, 2, 3, 4]);
        bus.Write(0x0ff, [5]);
        bus.Write(0x102, [5]);
        device.Calls.Should().Equal("in 101 2", "out 100 01020304");
    }

    [Fact]
    public void Unclaimed_port_reads_all_ones_and_is_reported()
    {
        var bus = new PortBus();
        var seen = new List<(ushort, int, bool)>();
        bus.Unclaimed = (port, size, write) => seen.Add((port, size, write));
        byte[] data = [1, 2, 3, 4];
        bus.Read(0xffff, data);
        data.Should().Equal(0xff, 0xff, 0xff, 0xff);
        bus.Write(0x80, [0]);
        seen.Should().Equal((0xffff, 4, false), (0x80, 1, true));
    }

    [Fact]
    public void Ports_have_one_owner()
    {
        var bus = new PortBus();
        bus.Add(0x100, 4, new Recorder());
        FluentActions.Invoking(() => bus.Add(0x103, 1, new Recorder())).Should().Throw<InvalidOperationException>().WithMessage("*0x103*");
        bus.Add(0x104, 1, new Recorder());
        FluentActions.Invoking(() => bus.Add(0xffff, 2, new Recorder())).Should().Throw<ArgumentOutOfRangeException>();
    }

    [Fact]
    public void Mmio_access_gets_the_offset()
    {
        var bus = new MmioBus();
        Recorder low = new(), high = new();
        bus.Add(0xfee00000, 0x1000, high);
        bus.Add(0xd0000, 0x10, low);
        byte[] data = new byte[4];
        bus.Read(0xfee00020, data);
        data.Should().Equal(0x22, 0x22, 0x22, 0x22);
        bus.Write(0xd000f, [7]);
        bus.Write(0xd0010, [8]);
        high.Calls.Should().Equal("read 20 4");
        low.Calls.Should().Equal("write F 07".ToLowerInvariant());
    }

    [Fact]
    public void Unclaimed_memory_reads_all_ones()
    {
        byte[] data = new byte[8];
        new MmioBus().Read(0x1234, data);
        data.Should().OnlyContain(b => b == 0xff);
    }

    [Theory]
    [InlineData(0x1000, 0x1000, false)]
    [InlineData(0x1fff, 1, false)]
    [InlineData(0x0fff, 2, false)]
    [InlineData(0x0fff, 1, true)]
    [InlineData(0x2000, 1, true)]
    public void Mmio_ranges_must_not_overlap(ulong first, ulong length, bool allowed)
    {
        var bus = new MmioBus();
        bus.Add(0x1000, 0x1000, new Recorder());
        Action add = () => bus.Add(first, length, new Recorder());
        if (allowed) add.Should().NotThrow();
        else add.Should().Throw<InvalidOperationException>();
    }
}
