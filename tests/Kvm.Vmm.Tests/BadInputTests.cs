using System.Buffers.Binary;
using System.IO.Pipelines;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Devices;

namespace Kvm.Vmm.Tests;

/// <summary>Images and guests may hold anything: a broken image is refused in a sentence, a guest's accesses to devices never throw.</summary>
public sealed class BadInputTests : IDisposable
{
    private readonly KvmSystem _kvm = Kernels.Open("intel");
    private readonly Pc _pc;

    public BadInputTests() => _pc = new Pc(_kvm, new PcOptions { Memory = 16 << 20, Irqchip = false });

    public void Dispose()
    {
        _pc.Dispose();
        _kvm.Dispose();
    }

    [Fact]
    public void Any_linux_header_is_loaded_or_refused()
    {
        var random = new Random(1);
        int loaded = 0, refused = 0;
        for (int i = 0; i < 3000; i++)
        {
            byte[] file = FakeKernel.Build();
            for (int n = random.Next(1, 12); n > 0; n--) file[random.Next(0x1f1, 0x270)] = Edge(random);
            foreach (LinuxEntry entry in Enum.GetValues<LinuxEntry>())
                Count(() => _pc.LoadLinux(BzImage.Parse(file), entry, new string('x', random.Next(0, 3000)), new byte[random.Next(0, 3) * 5000]), ref loaded, ref refused);
        }

        loaded.Should().BeGreaterThan(100);
        refused.Should().BeGreaterThan(100);
    }

    [Theory]
    [InlineData(0x258, 0xffff_ffff_ffff_f000, "*memory*")]  // prefers the end of the address space
    [InlineData(0x258, 0xffff_ffff, "*memory*")]
    public void Linux_that_wants_to_lie_beyond_memory_is_refused(int offset, ulong value, string message)
    {
        byte[] file = FakeKernel.Build();
        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(offset), value);
        foreach (LinuxEntry entry in Enum.GetValues<LinuxEntry>())
            FluentActions.Invoking(() => _pc.LoadLinux(BzImage.Parse(file), entry, "")).Should().Throw<BootException>().WithMessage(message);
    }

    /// <summary>However long a line the image says it takes: there is a place for it, and no more.</summary>
    [Theory]
    [InlineData(LinuxEntry.Long64, 0x60000 - 1)]
    [InlineData(LinuxEntry.Protected32, 0x60000 - 1)]
    [InlineData(LinuxEntry.Real16, 0x9fc00 - 0x9e000 - 1)]
    public void Command_line_has_room_and_no_more(LinuxEntry entry, int most)
    {
        byte[] file = FakeKernel.Build();
        BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(0x238), uint.MaxValue);
        BzImage image = BzImage.Parse(file);
        FluentActions.Invoking(() => _pc.LoadLinux(image, entry, new string('x', most))).Should().NotThrow();
        FluentActions.Invoking(() => _pc.LoadLinux(image, entry, new string('x', most + 1))).Should().Throw<BootException>().WithMessage("*command line*");
    }

    [Fact]
    public void Any_elf_is_loaded_or_refused()
    {
        var random = new Random(2);
        byte[] good = MultibootTests.Elf([0xf4]);
        int loaded = 0, refused = 0;
        for (int i = 0; i < 5000; i++)
        {
            byte[] file = [.. good];
            for (int n = random.Next(1, 8); n > 0; n--) file[random.Next(0, Math.Min(file.Length, 0x80))] = Edge(random);
            Count(() => ElfImage.Parse(file).LoadPhysical(_pc.Ram), ref loaded, ref refused);
            Count(() => _pc.LoadMultiboot(file, "x"), ref loaded, ref refused);
        }

        loaded.Should().BeGreaterThan(100);
        refused.Should().BeGreaterThan(100);
    }

    [Fact]
    public void Any_multiboot_header_is_loaded_or_refused()
    {
        var random = new Random(3);
        byte[] good = MultibootTests.Flat([0xf4]);
        int loaded = 0, refused = 0;
        for (int i = 0; i < 5000; i++)
        {
            byte[] file = [.. good];
            for (int n = random.Next(1, 5); n > 0; n--)
                BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(12 + random.Next(0, 5) * 4), (uint)random.Next() << random.Next(0, 32));
            Count(() => _pc.LoadMultiboot(file, "x", new byte[random.Next(0, 2) * 100]), ref loaded, ref refused);
        }

        loaded.Should().BeGreaterThan(100);
        refused.Should().BeGreaterThan(100);
    }

    /// <summary>Every port of the PC, every size, any value, while time jumps.</summary>
    [Theory]
    [InlineData(4)]
    [InlineData(5)]
    public async Task Any_port_access_is_answered(int seed)
    {
        var random = new Random(seed);
        var time = new JumpingTime();
        var pipe = new Pipe(new PipeOptions(pauseWriterThreshold: 0));
        await pipe.Reader.CompleteAsync();
        using var pc = new Pc(_kvm, new PcOptions { Memory = 4 << 20, Irqchip = false, Time = time, Output = pipe.Writer, DebugOutput = pipe.Writer });
        int[] ports =
        [
            .. Enumerable.Range(0x3f8, 8), .. Enumerable.Range(0x20, 2), .. Enumerable.Range(0xa0, 2), 0x4d0, 0x4d1, .. Enumerable.Range(0x40, 4), 0x61, 0x70, 0x71, 0x60, 0x64, 0x92,
            0xcf8, 0xcf9, .. Enumerable.Range(0xcfc, 4), 0x510, 0x511, .. Enumerable.Range(0xe0, 12), .. Enumerable.Range(0xf4, 4), .. Enumerable.Range(0x2000, 24), 0xffff,
        ];
        var data = new byte[4];
        for (int i = 0; i < 200_000; i++)
        {
            var port = (ushort)ports[random.Next(ports.Length)];
            int size = 1 << random.Next(3);
            random.NextBytes(data);
            if (random.Next(4) == 0) Array.Fill(data, Edge(random));
            if (random.Next(2) == 0) pc.Ports.Write(port, data.AsSpan(0, size));
            else pc.Ports.Read(port, data.AsSpan(0, size));
            if (random.Next(50) == 0) time.Now += random.NextInt64(TimeSpan.TicksPerDay * 40);
            if (random.Next(200) == 0 && pc.Loop.Interrupts is { Pending: true } interrupts) interrupts.Acknowledge();
        }
    }

    /// <summary>The last second of the year 9999 is as far as a clock of two-digit centuries goes.</summary>
    [Fact]
    public void Clock_set_to_the_end_of_time_stays_there()
    {
        var time = new ManualTime();
        var clock = new CmosRtc(time, 16 << 20);
        foreach ((byte register, byte value) in new (byte, byte)[] { (0x32, 0x99), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59) }) Write(register, value);
        time.Advance(TimeSpan.FromDays(400));
        Read(9).Should().Be(0x99);
        Read(0x32).Should().Be(0x99);
        Write(0, 0x30);
        Read(8).Should().Be(0x12);

        void Write(byte register, byte value)
        {
            clock.Write(0x70, [register]);
            clock.Write(0x71, [value]);
        }

        byte Read(byte register)
        {
            clock.Write(0x70, [register]);
            var value = new byte[1];
            clock.Read(0x71, value);
            return value[0];
        }
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(4096UL)]
    [InlineData((1UL << 20) - 4096)]
    [InlineData((4UL << 20) + 1)]
    public void Pc_needs_a_mebibyte_of_whole_pages(ulong memory) =>
        FluentActions.Invoking(() => new Pc(_kvm, new PcOptions { Memory = memory })).Should().Throw<ArgumentOutOfRangeException>().WithMessage("PcOptions.Memory: *");

    private static byte Edge(Random random) => random.Next(4) switch { 0 => 0, 1 => 0xff, 2 => (byte)(1 << random.Next(8)), _ => (byte)random.Next(256) };

    private static void Count(Action load, ref int loaded, ref int refused)
    {
        try
        {
            load();
            loaded++;
        }
        catch (BootException e)
        {
            e.Message.Should().NotBeEmpty();
            refused++;
        }
    }

    /// <summary>Time in which no timer ever fires.</summary>
    private sealed class JumpingTime : TimeProvider
    {
        public long Now { get; set; }

        public override long TimestampFrequency => TimeSpan.TicksPerSecond;

        public override long GetTimestamp() => Now;

        public override DateTimeOffset GetUtcNow() => DateTimeOffset.UnixEpoch.AddTicks(Now);

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) => new Idle();

        private sealed class Idle : ITimer
        {
            public bool Change(TimeSpan dueTime, TimeSpan period) => dueTime == Timeout.InfiniteTimeSpan || dueTime >= TimeSpan.Zero ? true : throw new ArgumentOutOfRangeException(nameof(dueTime));

            public void Dispose()
            {
            }

            public ValueTask DisposeAsync() => ValueTask.CompletedTask;
        }
    }
}
