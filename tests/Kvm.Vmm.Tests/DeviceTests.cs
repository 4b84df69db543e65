using Kvm.Vmm.Bus;
using Kvm.Vmm.Devices;

namespace Kvm.Vmm.Tests;

public class DeviceTests
{
    private readonly StopSignal _stop = new();

    /// <summary>A clock that stands where the test puts it.</summary>
    private sealed class Clock(DateTimeOffset now) : TimeProvider
    {
        public DateTimeOffset Now { get; set; } = now;

        public override DateTimeOffset GetUtcNow() => Now;
    }

    private readonly Clock _clock = new(new DateTimeOffset(2024, 2, 29, 23, 58, 59, TimeSpan.Zero));

    [Theory]
    [InlineData(new byte[] { 0 }, 1)]
    [InlineData(new byte[] { 0x10 }, 33)]
    [InlineData(new byte[] { 0x34, 0x12 }, 0x2469)]
    [InlineData(new byte[] { 1, 0, 0, 0 }, 3)]
    public void Debug_exit_status_is_twice_the_value_plus_1(byte[] written, long status)
    {
        new DebugExit(_stop).Write(DebugExit.Port, written);
        _stop.Stop!.Reason.Should().Be(GuestStopReason.DebugExit);
        _stop.Stop.Code.Should().Be(status);
    }

    [Fact]
    public void Only_the_first_stop_counts()
    {
        int calls = 0;
        _stop.Requested += () => calls++;
        _stop.Request(GuestStopReason.Reset, 0, "first");
        _stop.Request(GuestStopReason.Halted, 0, "second");
        _stop.Stop!.Text.Should().Be("first");
        calls.Should().Be(1);
    }

    [Fact]
    public void Clock_reads_in_bcd_and_in_binary()
    {
        var rtc = new CmosRtc(_clock, 64 << 20);
        ReadCmos(rtc, 0).Should().Be(0x59);
        ReadCmos(rtc, 2).Should().Be(0x58);
        ReadCmos(rtc, 4).Should().Be(0x23);
        ReadCmos(rtc, 6).Should().Be(5, "29 February 2024 was a Thursday, counted from Sunday = 1");
        ReadCmos(rtc, 7).Should().Be(0x29);
        ReadCmos(rtc, 8).Should().Be(0x02);
        ReadCmos(rtc, 9).Should().Be(0x24);
        ReadCmos(rtc, 0x32).Should().Be(0x20);
        WriteCmos(rtc, 11, 0x06);
        ReadCmos(rtc, 0).Should().Be(59);
        ReadCmos(rtc, 4).Should().Be(23);
    }

    [Theory]
    [InlineData(0, 0x12)]
    [InlineData(1, 0x01)]
    [InlineData(11, 0x11)]
    [InlineData(12, 0x92)]
    [InlineData(13, 0x81)]
    [InlineData(23, 0x91)]
    public void Twelve_hour_clock_has_a_pm_bit(int hour, byte expected)
    {
        _clock.Now = new DateTimeOffset(2024, 1, 1, hour, 0, 0, TimeSpan.Zero);
        var rtc = new CmosRtc(_clock, 64 << 20);
        WriteCmos(rtc, 11, 0x00);
        ReadCmos(rtc, 4).Should().Be(expected);
    }

    [Fact]
    public void Clock_announces_its_update_244_us_before_the_second()
    {
        var rtc = new CmosRtc(_clock, 64 << 20);
        ReadCmos(rtc, 10).Should().Be(0x26);
        _clock.Now += TimeSpan.FromMicroseconds(1_000_000 - 244);
        ReadCmos(rtc, 10).Should().Be(0xa6);
    }

    [Fact]
    public void Guest_can_set_the_clock()
    {
        var rtc = new CmosRtc(_clock, 64 << 20);
        WriteCmos(rtc, 11, 0x82);
        WriteCmos(rtc, 0, 0x10);
        WriteCmos(rtc, 7, 0x01);
        WriteCmos(rtc, 9, 0x30);
        _clock.Now += TimeSpan.FromSeconds(30);
        ReadCmos(rtc, 0).Should().Be(0x10, "SET stops the clock");
        WriteCmos(rtc, 11, 0x02);
        _clock.Now += TimeSpan.FromSeconds(5);
        ReadCmos(rtc, 0).Should().Be(0x15);
        ReadCmos(rtc, 7).Should().Be(0x01);
        ReadCmos(rtc, 9).Should().Be(0x30);
    }

    [Fact]
    public void Cmos_tells_the_memory_size()
    {
        var rtc = new CmosRtc(_clock, 512 << 20);
        (ReadCmos(rtc, 0x15) | (ReadCmos(rtc, 0x16) << 8)).Should().Be(640);
        (ReadCmos(rtc, 0x34) | (ReadCmos(rtc, 0x35) << 8)).Should().Be((512 - 16) * 16, "64 KiB units above 16 MiB");
        (ReadCmos(rtc, 0x17) | (ReadCmos(rtc, 0x18) << 8)).Should().Be(0xffff);
        ReadCmos(rtc, 13).Should().Be(0x80);
    }

    [Fact]
    public void Keyboard_controller_passes_its_tests_and_resets()
    {
        var i8042 = new I8042(_stop);
        Out(i8042, I8042.CommandPort, 0xaa);
        (In(i8042, I8042.CommandPort) & 1).Should().Be(1);
        In(i8042, I8042.DataPort).Should().Be(0x55);
        (In(i8042, I8042.CommandPort) & 1).Should().Be(0);
        Out(i8042, I8042.CommandPort, 0x60);
        Out(i8042, I8042.DataPort, 0x47);
        Out(i8042, I8042.CommandPort, 0x20);
        In(i8042, I8042.DataPort).Should().Be(0x47);
        _stop.Stop.Should().BeNull();
        Out(i8042, I8042.CommandPort, 0xfe);
        _stop.Stop!.Reason.Should().Be(GuestStopReason.Reset);
    }

    /// <summary>A reset is acknowledged, then the self-test's result comes; each byte is an edge of its own on line 1.</summary>
    [Fact]
    public void Keyboard_answers_with_an_interrupt_for_each_byte()
    {
        int edges = 0;
        var i8042 = new I8042(_stop, level => edges += level ? 1 : 0);
        Out(i8042, I8042.DataPort, 0xff);
        edges.Should().Be(0, "the command byte does not allow interrupts");
        In(i8042, I8042.DataPort).Should().Be(0xfa);
        In(i8042, I8042.DataPort).Should().Be(0xaa);
        (In(i8042, I8042.CommandPort) & 1).Should().Be(0);
        In(i8042, I8042.DataPort).Should().Be(0xaa, "the last byte stays");

        Out(i8042, I8042.CommandPort, 0x60);
        Out(i8042, I8042.DataPort, 0x41);
        Out(i8042, I8042.DataPort, 0xf2);
        edges.Should().Be(1);
        In(i8042, I8042.DataPort).Should().Be(0xfa);
        In(i8042, I8042.DataPort).Should().Be(0xab);
        In(i8042, I8042.DataPort).Should().Be(0x41, "0x83, translated");
        edges.Should().Be(3);
    }

    [Theory]
    [InlineData(new byte[] { 0xed, 0x07 }, new byte[] { 0xfa, 0xfa })] // lights
    [InlineData(new byte[] { 0xf0, 0x00 }, new byte[] { 0xfa, 0xfa, 0x02 })] // which scan code set
    [InlineData(new byte[] { 0xf3, 0xff }, new byte[] { 0xfa, 0xfa })] // repetition; 0xff is its parameter, no reset
    [InlineData(new byte[] { 0xee }, new byte[] { 0xee })]
    [InlineData(new byte[] { 0xf4 }, new byte[] { 0xfa })]
    [InlineData(new byte[] { 0x01 }, new byte[] { 0xfe })] // no command
    public void Keyboard_takes_parameters(byte[] sent, byte[] answers)
    {
        var i8042 = new I8042(_stop);
        foreach (byte value in sent) Out(i8042, I8042.DataPort, value);
        foreach (byte value in answers) In(i8042, I8042.DataPort).Should().Be(value);
        (In(i8042, I8042.CommandPort) & 1).Should().Be(0);
    }

    [Fact]
    public void Mouse_does_not_answer_and_a_full_buffer_drops()
    {
        var i8042 = new I8042(_stop);
        Out(i8042, I8042.CommandPort, 0xd4);
        Out(i8042, I8042.DataPort, 0xff);
        (In(i8042, I8042.CommandPort) & 1).Should().Be(0);
        for (int i = 0; i < 40; i++) Out(i8042, I8042.DataPort, 0xf4);
        for (int i = 0; i < 16; i++) In(i8042, I8042.DataPort);
        (In(i8042, I8042.CommandPort) & 1).Should().Be(0);
    }

    [Theory]
    [InlineData(SystemControl.PortA, 0x02, false)]
    [InlineData(SystemControl.PortA, 0x03, true)]
    [InlineData(SystemControl.ResetControl, 0x02, false)]
    [InlineData(SystemControl.ResetControl, 0x06, true)]
    public void Reset_ports_reset_on_their_bit(ushort port, byte value, bool resets)
    {
        Out(new SystemControl(_stop), port, value);
        (_stop.Stop is not null).Should().Be(resets);
    }

    [Fact]
    public void Pci_address_register_holds_dwords_only_and_functions_are_absent()
    {
        var pci = new PciConfig();
        pci.Write(PciConfig.Address, BitConverter.GetBytes(0x80000000u));
        byte[] data = [0xff, 0xff, 0xff, 0xff];
        pci.Read(PciConfig.Address, data);
        BitConverter.ToUInt32(data).Should().Be(0x80000000);
        byte[] narrow = [0xff];
        pci.Read(PciConfig.Address, narrow);
        narrow[0].Should().Be(0xff, "mechanism #2 must not be found");
        data.AsSpan().Fill(0xff);
        pci.Read(PciConfig.Data, data);
        BitConverter.ToUInt32(data).Should().Be(0xffffffff);
    }

    private static byte ReadCmos(CmosRtc rtc, byte index)
    {
        Out(rtc, 0x70, index);
        return In(rtc, 0x71);
    }

    private static void WriteCmos(CmosRtc rtc, byte index, byte value)
    {
        Out(rtc, 0x70, index);
        Out(rtc, 0x71, value);
    }

    private static void Out(BytePortDevice device, ushort port, byte value) => device.Write(port, [value]);

    private static byte In(BytePortDevice device, ushort port)
    {
        Span<byte> data = [0xff];
        device.Read(port, data);
        return data[0];
    }
}
