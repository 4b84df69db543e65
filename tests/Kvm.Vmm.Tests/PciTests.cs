using Kvm.Vmm.Bus;
using Kvm.Vmm.Devices;
using Kvm.Vmm.Pci;

namespace Kvm.Vmm.Tests;

/// <summary>The PCI bus of the PC, as configuration mechanism #1 shows it, and its power management.</summary>
public class PciTests
{
    private readonly StopSignal _stop = new();
    private readonly ManualTime _time = new();
    private readonly PortBus _ports = new();
    private readonly PciConfig _pci = new();
    private readonly PowerManagement _power;

    public PciTests()
    {
        _power = new PowerManagement(_ports, _stop, _time);
        _ports.Add(PciConfig.Address, 1, _pci);
        _ports.Add(PciConfig.Data, 4, _pci);
        _pci.Add(0, 0, new HostBridge());
        _pci.Add(1, 0, new IsaBridge());
        _pci.Add(1, 3, _power);
    }

    [Fact]
    public void Functions_are_found_by_their_ids()
    {
        Config(0, 0, 0x00).Should().Be(0x12378086);
        Config(0, 0, 0x08).Should().Be(0x06000002, "a host bridge");
        Config(0, 0, 0x2c).Should().Be(0x11001af4, "by which firmware knows virtual machines");
        Config(1, 0, 0x00).Should().Be(0x70008086);
        Config(1, 3, 0x00).Should().Be(0x71138086);
        Config(1, 1, 0x00).Should().Be(0xffffffff, "nobody");
        Config(2, 0, 0x00).Should().Be(0xffffffff);
    }

    /// <summary>Software looks for functions 1 to 7 only where the header type says so.</summary>
    [Fact]
    public void Only_a_device_with_further_functions_says_so()
    {
        (Config(1, 0, 0x0c) >> 16 & 0xff).Should().Be(0x80);
        (Config(0, 0, 0x0c) >> 16 & 0xff).Should().Be(0x00);
    }

    [Fact]
    public void Other_buses_and_a_cleared_enable_bit_reach_nobody()
    {
        Out32(PciConfig.Address, 0x80010000);
        In32(PciConfig.Data).Should().Be(0xffffffff, "bus 1");
        Out32(PciConfig.Address, 0x00000000);
        In32(PciConfig.Data).Should().Be(0xffffffff, "no configuration cycle");
    }

    [Fact]
    public void Bytes_and_words_of_a_register_have_ports_of_their_own()
    {
        Out32(PciConfig.Address, 0x80000000);
        Span<byte> word = stackalloc byte[2];
        _ports.Read(PciConfig.Data + 2, word);
        word.ToArray().Should().Equal(0x37, 0x12);
        Span<byte> one = stackalloc byte[1];
        _ports.Read(PciConfig.Data + 1, one);
        one[0].Should().Be(0x80);
    }

    [Fact]
    public void Only_writable_bits_change()
    {
        Config(0, 0, 0x00, 0xffffffff);
        Config(0, 0, 0x00).Should().Be(0x12378086);
        Config(0, 0, 0x04, 0xffffffff);
        (Config(0, 0, 0x04) & 0xffff).Should().Be(0x0507);
        Config(0, 0, 0x58, 0xffffffff);
        Config(0, 0, 0x58).Should().Be(0x33333000, "PAM0 has bits 4 and 5 only, PAM1 and 2 have four each");
        Config(1, 0, 0x60).Should().Be(0x80808080, "no line is routed");
        Config(1, 0, 0x60, 0x0b0a0b0a);
        Config(1, 0, 0x60).Should().Be(0x0b0a0b0a);
    }

    [Fact]
    public void A_function_number_is_given_once() =>
        new Action(() => _pci.Add(1, 3, new HostBridge())).Should().Throw<InvalidOperationException>();

    [Fact]
    public void Power_management_is_where_the_firmware_puts_it()
    {
        In32(0x608).Should().Be(0xffffffff, "not decoded yet");
        Config(1, 3, 0x40, 0x00000600);
        In32(0x608).Should().Be(0xffffffff, "not enabled yet");
        Config(1, 3, 0x80, 1);
        In32(0x608).Should().Be(0);
        Config(1, 3, 0x40, 0x0000b000);
        In32(0x608).Should().Be(0xffffffff, "it moved");
        In32(0xb008).Should().Be(0);
        Config(1, 3, 0x40).Should().Be(0xb001, "an I/O address");
        Config(1, 3, 0x80, 0);
        In32(0xb008).Should().Be(0xffffffff);
    }

    /// <summary>A guest may put the registers where other devices are; those keep their ports.</summary>
    [Theory]
    [InlineData(0x0cc0u)]
    [InlineData(0x0080u)]
    public void Registers_on_top_of_another_device_are_lost(uint address)
    {
        Config(1, 3, 0x80, 1);
        Config(1, 3, 0x40, address);
        Config(0, 0, 0x00).Should().Be(0x12378086, "the configuration ports still answer");
        Config(1, 3, 0x40, 0x600);
        In32(0x608).Should().Be(0);
    }

    [Fact]
    public void Timer_counts_3579545_a_second_in_24_bits()
    {
        Decode();
        _time.Advance(TimeSpan.FromSeconds(1));
        In32(0x608).Should().Be(3_579_545);
        _time.Advance(TimeSpan.FromSeconds(4));
        In32(0x608).Should().Be(5 * 3_579_545 - (1 << 24));
    }

    [Fact]
    public void Soft_off_switches_off_and_other_sleep_types_do_nothing()
    {
        Decode();
        Out16(0x604, 0x2000 | 1 << 10);
        _stop.Stop.Should().BeNull("type 1 is suspend to RAM");
        Out16(0x604, 0x0000);
        _stop.Stop.Should().BeNull("not without the enable bit");
        Out16(0x604, 0x2000);
        _stop.Stop!.Reason.Should().Be(GuestStopReason.PowerOff);
    }

    [Fact]
    public void Acpi_is_switched_on_and_off_through_the_apm_port()
    {
        Decode();
        Out16(0x604, 0x0001);
        (In32(0x604) & 1).Should().Be(0, "software cannot set SCI_EN itself");
        _ports.Write(PowerManagement.ApmPort, [0xf1]);
        (In32(0x604) & 1).Should().Be(1);
        Out16(0x604, 0x1c00);
        (In32(0x604) & 0xffff).Should().Be(0x1c01, "and not clear it either");
        _ports.Write(PowerManagement.ApmPort, [0xf0]);
        (In32(0x604) & 1).Should().Be(0);
    }

    private void Decode()
    {
        Config(1, 3, 0x40, 0x600);
        Config(1, 3, 0x80, 1);
    }

    private uint Config(int device, int function, int register)
    {
        Out32(PciConfig.Address, 0x80000000 | (uint)device << 11 | (uint)function << 8 | (uint)register);
        return In32(PciConfig.Data);
    }

    private void Config(int device, int function, int register, uint value)
    {
        Out32(PciConfig.Address, 0x80000000 | (uint)device << 11 | (uint)function << 8 | (uint)register);
        Out32(PciConfig.Data, value);
    }

    private void Out32(ushort port, uint value) => _ports.Write(port, BitConverter.GetBytes(value));

    private void Out16(ushort port, ushort value) => _ports.Write(port, BitConverter.GetBytes(value));

    private uint In32(ushort port)
    {
        var data = new byte[4];
        _ports.Read(port, data);
        return BitConverter.ToUInt32(data);
    }
}
