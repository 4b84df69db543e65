using Kvm.Vmm.Devices;

namespace Kvm.Vmm.Tests;

public sealed class Pit8254Tests : IDisposable
{
    private readonly ManualTime _time = new();
    private readonly Pit8254 _pit;
    private int _interrupts;

    public Pit8254Tests() => _pit = new Pit8254(_time, level => _interrupts += level ? 1 : 0);

    public void Dispose() => _pit.Dispose();

    [Fact]
    public void Rate_generator_interrupts_at_its_rate()
    {
        Load(0, mode: 2, 11932); // 100 Hz
        _time.Advance(TimeSpan.FromMilliseconds(1005));
        _interrupts.Should().Be(100);
    }

    [Fact]
    public void One_shot_interrupts_once_and_again_when_reloaded()
    {
        Load(0, mode: 4, 1193); // 1 ms
        _time.Advance(TimeSpan.FromMilliseconds(0.9));
        _interrupts.Should().Be(0);
        _time.Advance(TimeSpan.FromMilliseconds(10));
        _interrupts.Should().Be(1);
        Load(0, mode: 4, 1193);
        _time.Advance(TimeSpan.FromMilliseconds(10));
        _interrupts.Should().Be(2);
    }

    [Fact]
    public void New_control_word_stops_channel_0()
    {
        Load(0, mode: 2, 11932);
        Out(0x43, 0x30);
        _time.Advance(TimeSpan.FromSeconds(1));
        _interrupts.Should().Be(0);
    }

    [Fact]
    public void Latched_count_stands_still_while_it_is_read()
    {
        Load(0, mode: 2, 50000);
        _time.Advance(TimeSpan.FromMilliseconds(10)); // 11931 ticks
        Out(0x43, 0x00);
        _time.Advance(TimeSpan.FromMilliseconds(10));
        int count = In(0x40) | In(0x40) << 8;
        count.Should().BeInRange(50000 - 11933, 50000 - 11930);
        int later = In(0x40) | In(0x40) << 8;
        later.Should().BeInRange(50000 - 23865, 50000 - 23860, "the latch was used up");
    }

    [Fact]
    public void Read_back_gives_status_then_count()
    {
        Load(0, mode: 3, 1000);
        Out(0x43, 0xc2); // status and count of channel 0
        In(0x40).Should().Be(0x80 | 0x30 | 3 << 1, "output high, both bytes, mode 3");
        int count = In(0x40) | In(0x40) << 8;
        count.Should().Be(1000);
    }

    /// <summary>Linux's TSC calibration: gate channel 2 through port 0x61, mode 0, wait for its output there.</summary>
    [Fact]
    public void Channel_2_counts_while_its_gate_is_open()
    {
        Out(0x61, 0x00);
        Out(0x43, 0xb0);
        Out(0x42, 0x9b);
        Out(0x42, 0x2e); // 11931: 10 ms
        _time.Advance(TimeSpan.FromMilliseconds(20));
        (In(0x61) & 0x20).Should().Be(0, "the gate is closed");
        Out(0x61, 0x01);
        _time.Advance(TimeSpan.FromMilliseconds(9.9));
        (In(0x61) & 0x20).Should().Be(0);
        _time.Advance(TimeSpan.FromMilliseconds(0.2));
        (In(0x61) & 0x20).Should().Be(0x20);
    }

    [Fact]
    public void Terminal_count_wraps_and_goes_on()
    {
        Out(0x61, 0x01);
        Load(2, mode: 0, 10);
        _time.Advance(TimeSpan.FromMilliseconds(1)); // 1193 ticks
        Out(0x43, 0x80);
        int count = In(0x42) | In(0x42) << 8;
        count.Should().BeInRange(0x10000 - 1184, 0x10000 - 1182);
    }

    [Fact]
    public void Refresh_bit_toggles()
    {
        var seen = new HashSet<int>();
        for (int i = 0; i < 100; i++)
        {
            seen.Add(In(0x61) & 0x10);
            _time.Advance(TimeSpan.FromMicroseconds(5));
        }

        seen.Should().BeEquivalentTo([0, 0x10]);
    }

    [Fact]
    public void Bcd_counts_decimally()
    {
        Out(0x61, 0x01);
        Out(0x43, 0xb1);
        Out(0x42, 0x00);
        Out(0x42, 0x10); // 1000
        _time.Advance(TimeSpan.FromMicroseconds(84)); // 100 ticks
        Out(0x43, 0x80);
        int count = In(0x42) | In(0x42) << 8;
        count.Should().Be(0x0900);
    }

    private void Load(int channel, int mode, int count)
    {
        Out(0x43, (byte)(channel << 6 | 0x30 | mode << 1));
        Out((ushort)(0x40 + channel), (byte)count);
        Out((ushort)(0x40 + channel), (byte)(count >> 8));
    }

    private void Out(ushort port, byte value) => _pit.Write(port, [value]);

    private byte In(ushort port)
    {
        Span<byte> data = [0xff];
        _pit.Read(port, data);
        return data[0];
    }
}
