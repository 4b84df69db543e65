using System.IO.Pipelines;
using Kvm.Vmm.Devices;

namespace Kvm.Vmm.Tests;

public class Serial16550Tests
{
    private const int Data = 0, Ier = 1, Iir = 2, Fcr = 2, Lcr = 3, Mcr = 4, Lsr = 5, Msr = 6, Scratch = 7;

    private readonly Pipe _output = new(new PipeOptions(pauseWriterThreshold: 0));
    private readonly Pipe _input = new(new PipeOptions(pauseWriterThreshold: 0));
    private readonly List<bool> _line = [];
    private readonly Serial16550 _serial;

    public Serial16550Tests() => _serial = new Serial16550(Serial16550.Com1, _output.Writer, _input.Reader, _line.Add);

    [Fact]
    public void Byte_written_comes_out()
    {
        Write(Data, (byte)'A');
        Write(Data, (byte)'B');
        Sent().Should().Equal("AB"u8.ToArray());
    }

    [Fact]
    public void Transmitter_is_empty_after_reset_and_after_each_byte()
    {
        Read(Lsr).Should().Be(0x60);
        Write(Data, 1);
        Read(Lsr).Should().Be(0x60);
    }

    [Fact]
    public void Modem_lines_of_a_connected_terminal_are_on() => Read(Msr).Should().Be(0xb0);

    [Fact]
    public void Input_is_announced_and_read_in_order()
    {
        Receive(1, 2);
        Read(Lsr).Should().Be(0x61);
        Read(Data).Should().Be(1);
        Read(Data).Should().Be(2);
        Read(Lsr).Should().Be(0x60);
        Read(Data).Should().Be(0, "nothing is left");
    }

    /// <summary>Linux finds a 16550A by the two FIFO bits of IIR; a 16450 would leave them clear.</summary>
    [Fact]
    public void Fifo_bits_show_in_IIR_only_while_enabled()
    {
        Read(Iir).Should().Be(0x01);
        Write(Fcr, 0x01);
        Read(Iir).Should().Be(0xc1);
        Write(Fcr, 0x00);
        Read(Iir).Should().Be(0x01);
    }

    [Fact]
    public void Fifo_holds_16_and_the_pipe_the_rest()
    {
        Write(Fcr, 0x01);
        Receive([.. Enumerable.Range(0, 40).Select(i => (byte)i)]);
        for (int i = 0; i < 40; i++) Read(Data).Should().Be((byte)i);
    }

    [Fact]
    public void Clearing_the_receive_fifo_drops_its_bytes()
    {
        Write(Fcr, 0x01);
        Receive(1, 2, 3);
        Read(Lsr).Should().Be(0x61);
        Write(Fcr, 0x03);
        Read(Lsr).Should().Be(0x60);
    }

    [Fact]
    public void Scratch_register_holds_any_value()
    {
        foreach (byte value in new byte[] { 0x5a, 0xa5, 0x00, 0xff })
        {
            Write(Scratch, value);
            Read(Scratch).Should().Be(value);
        }
    }

    [Fact]
    public void Divisor_latch_hides_data_and_interrupt_enable()
    {
        Write(Ier, 0x05);
        Write(Lcr, 0x83);
        Write(Data, 0x0c);
        Write(Ier, 0x00);
        Read(Data).Should().Be(0x0c);
        _serial.BaudRate.Should().Be(9600);
        Write(Lcr, 0x03);
        Read(Lcr).Should().Be(0x03);
        Read(Ier).Should().Be(0x05);
        Sent().Should().BeEmpty("the divisor is not data");
    }

    [Fact]
    public void Upper_half_of_interrupt_enable_reads_0()
    {
        Write(Ier, 0xff);
        Read(Ier).Should().Be(0x0f);
    }

    /// <summary>Linux's autoconfig: in loopback, MCR 0x1a (OUT2, RTS) must read back as CTS and DCD, MSR 0x9-.</summary>
    [Fact]
    public void Loopback_wires_outputs_to_inputs()
    {
        Write(Mcr, 0x1a);
        (Read(Msr) & 0xf0).Should().Be(0x90);
        Write(Mcr, 0x15);
        (Read(Msr) & 0xf0).Should().Be(0x60);
        Write(Mcr, 0x00);
        (Read(Msr) & 0xf0).Should().Be(0xb0);
    }

    [Fact]
    public void Loopback_returns_data_and_sends_none()
    {
        Write(Mcr, 0x10);
        Write(Data, 0x77);
        Read(Lsr).Should().Be(0x61);
        Read(Data).Should().Be(0x77);
        Sent().Should().BeEmpty();
    }

    [Fact]
    public void Loopback_overrun_is_reported_once()
    {
        Write(Mcr, 0x10);
        Write(Data, 1);
        Write(Data, 2);
        Read(Lsr).Should().Be(0x63);
        Read(Lsr).Should().Be(0x61);
    }

    [Fact]
    public void Modem_status_deltas_clear_on_reading()
    {
        Read(Msr);
        Write(Mcr, 0x10); // loopback: CTS, DSR, DCD fall
        Read(Msr).Should().Be(0x0b);
        Read(Msr).Should().Be(0x00);
        Write(Mcr, 0x14); // RI rises: no delta
        Read(Msr).Should().Be(0x40);
        Write(Mcr, 0x10); // RI falls: trailing edge
        Read(Msr).Should().Be(0x04);
    }

    [Fact]
    public void Receive_interrupt_follows_the_data()
    {
        Write(Mcr, 0x08);
        Write(Ier, 0x01);
        _line.Should().BeEmpty();
        Receive(9);
        _serial.Poll();
        _line.Should().Equal(true);
        Read(Iir).Should().Be(0x04);
        Read(Data);
        _line.Should().Equal(true, false);
        Read(Iir).Should().Be(0x01);
    }

    [Fact]
    public void Transmit_interrupt_comes_with_enabling_and_goes_with_reading_IIR()
    {
        Write(Mcr, 0x08);
        Write(Ier, 0x02);
        _line.Should().Equal(true);
        Read(Iir).Should().Be(0x02);
        _line.Should().Equal(true, false);
        Write(Data, 1);
        Read(Iir).Should().Be(0x02);
        Read(Iir).Should().Be(0x01);
    }

    [Fact]
    public void Receive_is_more_urgent_than_transmit()
    {
        Write(Ier, 0x03);
        Receive(1);
        Read(Iir).Should().Be(0x04);
        Read(Data);
        Read(Iir).Should().Be(0x02, "reading IIR for the receiver did not answer the transmitter");
    }

    [Fact]
    public void Out2_gates_the_line()
    {
        Write(Ier, 0x02);
        _line.Should().BeEmpty();
        Write(Mcr, 0x08);
        _line.Should().Equal(true);
    }

    [Fact]
    public void Wide_access_touches_consecutive_registers()
    {
        _serial.Write(Serial16550.Com1 + Lcr, [0x03, 0x0b]);
        Read(Lcr).Should().Be(0x03);
        Read(Mcr).Should().Be(0x0b);
    }

    private void Write(int register, byte value) => _serial.Write((ushort)(Serial16550.Com1 + register), [value]);

    private byte Read(int register)
    {
        Span<byte> data = [0xff];
        _serial.Read((ushort)(Serial16550.Com1 + register), data);
        return data[0];
    }

    private void Receive(params byte[] bytes)
    {
        bytes.CopyTo(_input.Writer.GetSpan(bytes.Length));
        _input.Writer.Advance(bytes.Length);
        _input.Writer.FlushAsync().AsTask().Wait();
    }

    private byte[] Sent()
    {
        if (!_output.Reader.TryRead(out ReadResult result)) return [];
        byte[] bytes = System.Buffers.BuffersExtensions.ToArray(result.Buffer);
        _output.Reader.AdvanceTo(result.Buffer.End);
        return bytes;
    }
}
