using Kvm.Vmm.Devices;

namespace Kvm.Vmm.Tests;

public class Pic8259Tests
{
    private readonly Pic8259 _pic = new();

    public Pic8259Tests()
    {
        Initialize(Pic8259.MasterPort, vector: 0x20, cascade: 4);
        Initialize(Pic8259.SlavePort, vector: 0x28, cascade: 2);
    }

    [Fact]
    public void Masked_after_power_up()
    {
        var fresh = new Pic8259();
        fresh.SetLine(0, true);
        fresh.Pending.Should().BeFalse();
    }

    [Theory]
    [InlineData(0, 0x20)]
    [InlineData(7, 0x27)]
    [InlineData(8, 0x28)]
    [InlineData(15, 0x2f)]
    public void Line_gives_its_vector(int line, byte vector)
    {
        _pic.SetLine(line, true);
        _pic.Pending.Should().BeTrue();
        _pic.Acknowledge().Should().Be(vector);
        _pic.Pending.Should().BeFalse();
    }

    [Fact]
    public void Edge_counts_once_and_again_after_a_new_edge()
    {
        Pulse(4);
        _pic.SetLine(4, true);
        _pic.Acknowledge();
        Out(0x20, 0x20);
        _pic.Pending.Should().BeFalse("the line is still high, but that is no edge");
        _pic.SetLine(4, false);
        _pic.SetLine(4, true);
        _pic.Pending.Should().BeTrue();
    }

    [Fact]
    public void Level_line_asks_again_until_it_falls()
    {
        Out(Pic8259.EdgeLevelPort, 0xff);
        In(Pic8259.EdgeLevelPort).Should().Be(0xf8, "lines 0, 1 and 2 are always edges");
        _pic.SetLine(5, true);
        _pic.Acknowledge();
        Out(0x20, 0x20);
        _pic.Pending.Should().BeTrue();
        _pic.SetLine(5, false);
        _pic.Pending.Should().BeFalse();
    }

    [Fact]
    public void Lower_priority_waits_for_the_end_of_interrupt()
    {
        Pulse(3);
        _pic.Acknowledge().Should().Be(0x23);
        Pulse(5);
        _pic.Pending.Should().BeFalse();
        Pulse(1);
        _pic.Acknowledge().Should().Be(0x21, "a higher priority interrupts");
        Out(0x20, 0x20);
        _pic.Pending.Should().BeFalse();
        Out(0x20, 0x20);
        _pic.Acknowledge().Should().Be(0x25);
    }

    [Fact]
    public void Slave_needs_both_ends_of_interrupt()
    {
        Pulse(9);
        _pic.Acknowledge().Should().Be(0x29);
        Pulse(10);
        _pic.Pending.Should().BeFalse();
        Out(0xa0, 0x20);
        _pic.Pending.Should().BeFalse("the master still serves the cascade line");
        Out(0x20, 0x20);
        _pic.Acknowledge().Should().Be(0x2a);
    }

    /// <summary>Linux's probe_8259A: the mask register reads back.</summary>
    [Fact]
    public void Mask_reads_back_and_masks()
    {
        Out(0x21, 0xfb);
        In(0x21).Should().Be(0xfb);
        Pulse(0);
        _pic.Pending.Should().BeFalse();
        Out(0x21, 0x00);
    }

    [Fact]
    public void Request_and_in_service_registers_are_selected()
    {
        _pic.SetLine(6, true);
        In(0x20).Should().Be(0x40);
        _pic.Acknowledge();
        In(0x20).Should().Be(0x00);
        Out(0x20, 0x0b);
        In(0x20).Should().Be(0x40);
        Out(0x20, 0x0a);
        In(0x20).Should().Be(0x00);
    }

    [Fact]
    public void Acknowledge_of_nothing_is_the_spurious_vector()
    {
        _pic.SetLine(4, true);
        _pic.SetLine(4, false);
        _pic.Acknowledge().Should().Be(0x27);
        Out(0x20, 0x0b);
        In(0x20).Should().Be(0x00, "a spurious interrupt is not in service");
    }

    [Fact]
    public void Automatic_end_of_interrupt_keeps_nothing_in_service()
    {
        Initialize(Pic8259.MasterPort, 0x20, 4, icw4: 0x03);
        Pulse(0);
        _pic.Acknowledge();
        Pulse(7);
        _pic.Acknowledge().Should().Be(0x27);
    }

    [Fact]
    public void Rotation_gives_the_served_line_the_lowest_priority()
    {
        Pulse(0);
        _pic.Acknowledge();
        Out(0x20, 0xa0); // rotate on non-specific EOI
        _pic.SetLine(0, false);
        _pic.SetLine(0, true);
        _pic.SetLine(1, true);
        _pic.Acknowledge().Should().Be(0x21);
    }

    private void Initialize(ushort port, byte vector, byte cascade, byte icw4 = 0x01)
    {
        Out(port, 0x11);
        Out((ushort)(port + 1), vector);
        Out((ushort)(port + 1), cascade);
        Out((ushort)(port + 1), icw4);
    }

    private void Pulse(int line)
    {
        _pic.SetLine(line, false);
        _pic.SetLine(line, true);
    }

    private void Out(ushort port, byte value) => _pic.Write(port, [value]);

    private byte In(ushort port)
    {
        Span<byte> data = [0xff];
        _pic.Read(port, data);
        return data[0];
    }
}
