using System.Buffers.Binary;
using System.Text;
using Kvm.Vmm.Virtio;

namespace Kvm.Vmm.Tests;

/// <summary>Virtio's rules, against drivers that keep them and drivers that don't.</summary>
public class VirtioTests
{
    private const uint NeedsReset = 0x40;
    private const ulong Header = 0x100000, Data = 0x101000, StatusByte = 0x110000;

    [Fact]
    public void Registers_say_who_it_is()
    {
        using var driver = new VirtioDriver(new VirtioEntropy());
        driver.Read(0).Should().Be(0x74726976);
        driver.Read(4).Should().Be(2);
        driver.Read(8).Should().Be(4);
        driver.Read(0x34).Should().Be(64, "the queue's largest size");
        driver.Set(0x30, 1);
        driver.Read(0x34).Should().Be(0, "there is no second queue");
        (driver.Offered & VirtioDriver.Version1).Should().NotBe(0);
    }

    /// <summary>FEATURES_OK stays only for a modern driver that wants nothing that was not offered.</summary>
    [Theory]
    [InlineData(VirtioDriver.Version1, 8)]
    [InlineData(VirtioDriver.Version1 | VirtioDriver.EventIndex, 8)]
    [InlineData(0, 0)]
    [InlineData(VirtioDriver.Version1 | 1UL << 9, 0)]
    public void FEATURES_OK(ulong features, uint expected)
    {
        using var driver = new VirtioDriver(new VirtioEntropy());
        driver.Negotiate(features);
        (driver.Status & 8).Should().Be(expected);
    }

    [Fact]
    public void Random_numbers_fill_what_the_driver_offers()
    {
        using var driver = new VirtioDriver(new VirtioEntropy());
        driver.Start();
        driver.Descriptor(0, 0, Data, 64, VirtioDriver.Write);
        driver.Offer(0, 0);
        driver.Take(0).Should().Be((0, 64));
        driver.Ram.At(Data, 64).ToArray().Distinct().Count().Should().BeGreaterThan(8);
        driver.Interrupts.Should().BeGreaterThan(0);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void What_was_written_to_a_disk_is_read_back(bool indirect)
    {
        var store = new MemoryStore(64 * 512);
        using var driver = new VirtioDriver(new VirtioBlock(store, "serial"));
        driver.Start(VirtioDriver.Version1 | VirtioDriver.IndirectDescriptors);
        driver.Ram.At(Data, 1024).Fill(0xa5);
        Request(driver, 1, 3, 1024, write: true, indirect).Should().Be(0);
        store.Bytes.AsSpan(3 * 512, 1024).ToArray().Should().OnlyContain(b => b == 0xa5);
        store.Bytes[3 * 512 - 1].Should().Be(0);
        store.Bytes[5 * 512].Should().Be(0);
        driver.Ram.At(Data, 2048).Clear();
        Request(driver, 0, 2, 2048, write: false, indirect).Should().Be(0);
        driver.Ram.At(Data, 2048).ToArray().Count(b => b == 0xa5).Should().Be(1024);
        Request(driver, 8, 0, 20, write: false, indirect).Should().Be(0);
        Encoding.ASCII.GetString(driver.Ram.At(Data, 6)).Should().Be("serial");
    }

    /// <summary>A flush is answered when the store has flushed, not before.</summary>
    [Fact]
    public void Flush_reaches_the_store()
    {
        var store = new MemoryStore(512);
        using var driver = new VirtioDriver(new VirtioBlock(store));
        (driver.Offered & 1 << 9).Should().NotBe(0);
        driver.Start();
        Request(driver, 1, 0, 512, write: true).Should().Be(0);
        store.Flushes.Should().Be(0);
        Request(driver, 4, 0, 0, write: false).Should().Be(0);
        store.Flushes.Should().Be(1);
    }

    [Theory]
    [InlineData(0, 63, 512, 0)]
    [InlineData(0, 63, 1024, 1)]
    [InlineData(0, 64, 512, 1)]
    [InlineData(0, ulong.MaxValue, 512, 1)]
    [InlineData(0, ulong.MaxValue / 512 + 1, 512, 1)]
    [InlineData(0, 0, 500, 1)]
    [InlineData(8, 0, 19, 1)]
    [InlineData(99, 0, 512, 2)]
    public void Requests_that_can_t_be_are_answered_with_an_error(uint type, ulong sector, uint length, byte status)
    {
        using var driver = new VirtioDriver(new VirtioBlock(new MemoryStore(64 * 512)));
        driver.Start();
        Request(driver, type, sector, length, write: false).Should().Be(status);
        driver.Status.Should().Be(15);
    }

    [Fact]
    public void Read_only_disks_say_so_and_are_not_written()
    {
        var store = new MemoryStore(512) { ReadOnly = true };
        using var driver = new VirtioDriver(new VirtioBlock(store));
        (driver.Offered & 1 << 5).Should().NotBe(0);
        driver.Start();
        driver.Ram.At(Data, 512).Fill(1);
        Request(driver, 1, 0, 512, write: true).Should().Be(1);
        store.Bytes[0].Should().Be(0);
    }

    /// <summary>A full disk: the guest gets an error for each request, the user one line.</summary>
    [Fact]
    public void A_store_that_fails_gives_IO_errors_and_one_warning()
    {
        var store = new MemoryStore(4 * 512) { Failure = "No space left on device" };
        var warnings = new List<string>();
        using var driver = new VirtioDriver(new VirtioBlock(store, warn: warnings.Add));
        driver.Start();
        Request(driver, 1, 0, 512, write: true).Should().Be(1);
        Request(driver, 4, 0, 0, write: false).Should().Be(1);
        store.Failure = null;
        Request(driver, 1, 0, 512, write: true).Should().Be(0);
        warnings.Should().Equal("No space left on device");
    }

    [Fact]
    public void A_circle_of_descriptors_needs_a_reset()
    {
        using var driver = new VirtioDriver(new VirtioEntropy());
        driver.Start();
        driver.Descriptor(0, 0, Data, 8, VirtioDriver.Write | VirtioDriver.Next, 1);
        driver.Descriptor(0, 1, Data, 8, VirtioDriver.Write | VirtioDriver.Next, 0);
        driver.Offer(0, 0);
        driver.WaitForStatus(NeedsReset);
        driver.Read(0x60).Should().Be(2, "a change of the configuration");
        driver.Start();
        driver.Descriptor(0, 0, Data, 8, VirtioDriver.Write);
        driver.Offer(0, 0);
        driver.Take(0).Should().Be((0, 8));
    }

    [Theory]
    [InlineData(4 << 20, 1)]
    [InlineData((4 << 20) - 8, 16)]
    [InlineData(ulong.MaxValue - 3, 8)]
    [InlineData(0xd0000000, 4)]
    [InlineData(0x1000, uint.MaxValue)]
    public void Buffers_outside_RAM_need_a_reset(ulong address, uint length)
    {
        using var driver = new VirtioDriver(new VirtioEntropy());
        driver.Start();
        driver.Descriptor(0, 0, address, length, VirtioDriver.Write);
        driver.Offer(0, 0);
        driver.WaitForStatus(NeedsReset);
    }

    [Fact]
    public void Readable_behind_writable_needs_a_reset()
    {
        using var driver = new VirtioDriver(new VirtioEntropy());
        driver.Start();
        driver.Descriptor(0, 0, Data, 8, VirtioDriver.Write | VirtioDriver.Next, 1);
        driver.Descriptor(0, 1, Data, 8, 0);
        driver.Offer(0, 0);
        driver.WaitForStatus(NeedsReset);
    }

    [Fact]
    public void More_available_than_the_queue_holds_needs_a_reset()
    {
        using var driver = new VirtioDriver(new VirtioEntropy());
        driver.Start();
        driver.Ram.Write(driver.AvailableRing(0) + 2, (ushort)9);
        driver.Set(0x50, 0);
        driver.WaitForStatus(NeedsReset);
    }

    /// <summary>VIRTIO_F_RING_EVENT_IDX: an interrupt when the used index passes what the driver wished for.</summary>
    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 0)]
    [InlineData(0xffff, 0)]
    public void Interrupts_come_when_the_driver_wished(ushort wish, int expected)
    {
        using var driver = new VirtioDriver(new VirtioEntropy());
        driver.Start(VirtioDriver.Version1 | VirtioDriver.EventIndex);
        driver.Ram.Write(driver.AvailableRing(0) + 4 + 2 * 8, wish);
        driver.Descriptor(0, 0, Data, 8, VirtioDriver.Write);
        driver.Offer(0, 0);
        driver.Take(0);
        Settle(driver);
        driver.Interrupts.Should().Be(expected);
        driver.Ram.Read<ushort>(driver.UsedRing(0) + 4 + 8 * 8).Should().Be(1, "the device wants to hear of the next one");
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 0)]
    public void Interrupts_are_left_out_on_request(ushort flags, int expected)
    {
        using var driver = new VirtioDriver(new VirtioEntropy());
        driver.Start();
        driver.Ram.Write(driver.AvailableRing(0), flags);
        driver.Descriptor(0, 0, Data, 8, VirtioDriver.Write);
        driver.Offer(0, 0);
        driver.Take(0);
        Settle(driver);
        driver.Interrupts.Should().Be(expected);
    }

    [Fact]
    public void A_balloon_takes_the_content_of_pages_and_counts_them()
    {
        var balloon = new VirtioBalloon();
        using var driver = new VirtioDriver(balloon);
        driver.Start(queues: 2);
        balloon.Wanted = 2 * 4096;
        driver.Read(0x100).Should().Be(2);
        driver.Ram.At(0x200000, 0x3000).Fill(7);
        driver.Ram.Write(Data, 0x200u);
        driver.Ram.Write(Data + 4, 0x201u);
        driver.Ram.Write(Data + 8, 0xffffffu); // no RAM
        driver.Descriptor(0, 0, Data, 12, 0);
        driver.Offer(0, 0);
        driver.Take(0).Should().Be((0, 0));
        balloon.PageCount.Should().Be(2);
        driver.Ram.At(0x200000, 0x2000).ToArray().Should().OnlyContain(b => b == 0);
        driver.Ram.At(0x202000, 1)[0].Should().Be(7);
        driver.Set(0x104, 2);
        balloon.Actual.Should().Be(2 * 4096);
        driver.Descriptor(1, 0, Data, 4, 0);
        driver.Offer(1, 0);
        driver.Take(1);
        balloon.PageCount.Should().Be(1);
    }

    [Fact]
    public async Task A_console_carries_bytes_both_ways()
    {
        var output = new System.IO.Pipelines.Pipe();
        var input = new System.IO.Pipelines.Pipe();
        var console = new VirtioConsole(output.Writer, input.Reader);
        using var driver = new VirtioDriver(console);
        driver.Start(queues: 2);
        console.Connect();
        "from the guest"u8.CopyTo(driver.Ram.At(Data, 14));
        driver.Descriptor(1, 0, Data, 14, 0);
        driver.Offer(1, 0);
        driver.Take(1);
        var result = await output.Reader.ReadAsync();
        Encoding.ASCII.GetString(result.Buffer).Should().Be("from the guest");

        await input.Writer.WriteAsync("abcdef"u8.ToArray());
        driver.Descriptor(0, 0, Data, 4, VirtioDriver.Write);
        driver.Descriptor(0, 1, Data + 4, 4, VirtioDriver.Write);
        driver.Offer(0, 0, 1);
        driver.Take(0).Should().Be((0, 4));
        driver.Take(0).Should().Be((1, 2));
        Encoding.ASCII.GetString(driver.Ram.At(Data, 6)).Should().Be("abcdef");
        await input.Writer.WriteAsync("gh"u8.ToArray());
        driver.Descriptor(0, 2, Data, 4, VirtioDriver.Write);
        driver.Offer(0, 2);
        driver.Take(0).Should().Be((2, 2));
        Encoding.ASCII.GetString(driver.Ram.At(Data, 2)).Should().Be("gh");
    }

    /// <summary>Whatever a driver writes to rings, descriptors and registers, the device lives, and works again after a reset.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Rubbish_harms_nobody(int seed)
    {
        var random = new Random(seed);
        using var driver = new VirtioDriver(new VirtioBlock(new MemoryStore(64 * 512)));
        for (int round = 0; round < 60; round++)
        {
            driver.Start(VirtioDriver.Version1 | (random.Next(2) == 0 ? VirtioDriver.EventIndex : 0) | VirtioDriver.IndirectDescriptors);
            random.NextBytes(driver.Ram.At(VirtioDriver.Area(0), 0x2000));
            for (int i = 0; i < 8; i++)
                driver.Descriptor(0, i, (ulong)random.Next(5 << 20), (uint)random.Next(70000), (ushort)random.Next(8), (ushort)random.Next(10));
            driver.Ram.Write(driver.AvailableRing(0) + 2, (ushort)random.Next(9));
            for (uint at = 0; at < 8; at++) driver.Ram.Write(driver.AvailableRing(0) + 4 + 2 * at, (ushort)random.Next(9));
            driver.Set(0x50, 0);
            for (int i = 0; i < 20; i++) driver.Set((uint)random.Next(0x80) * 4, (uint)random.Next() >> random.Next(32));
        }

        driver.Set(0x70, 0);
        driver.Set(0x14, 0);
        driver.Start();
        Request(driver, 1, 0, 512, write: true).Should().Be(0);
    }

    private static void Settle(VirtioDriver driver)
    {
        // The interrupt, if any, follows the used index.
        for (int i = 0; i < 50 && driver.Interrupts == 0; i++) Thread.Sleep(2);
    }

    /// <returns>The status byte.</returns>
    private static byte Request(VirtioDriver driver, uint type, ulong sector, uint length, bool write, bool indirect = false)
    {
        const ulong table = 0x120000;
        BinaryPrimitives.WriteUInt64LittleEndian(driver.Ram.At(Header, 8), type);
        driver.Ram.Write(Header + 8, sector);
        driver.Ram.Write(StatusByte, (byte)0xee);
        ulong at = indirect ? table : VirtioDriver.Area(0);
        driver.DescriptorAt(at, Header, 16, VirtioDriver.Next, 1);
        ushort status = 1;
        if (length > 0)
        {
            driver.DescriptorAt(at + 16, Data, length, (ushort)((write ? 0 : VirtioDriver.Write) | VirtioDriver.Next), 2);
            status = 2;
        }

        driver.DescriptorAt(at + 16u * status, StatusByte, 1, VirtioDriver.Write);
        if (indirect) driver.Descriptor(0, 5, table, 16u * (status + 1u), VirtioDriver.Indirect);
        driver.Offer(0, indirect ? (ushort)5 : (ushort)0);
        driver.Take(0).Head.Should().Be(indirect ? 5u : 0u);
        return driver.Ram.Read<byte>(StatusByte);
    }

    private sealed class MemoryStore(int length) : IBlockStore
    {
        public byte[] Bytes { get; } = new byte[length];

        public int Flushes { get; private set; }

        public string? Failure { get; set; }

        public long Length => Bytes.Length;

        public bool ReadOnly { get; init; }

        public void Read(long offset, Span<byte> buffer)
        {
            Check();
            Bytes.AsSpan((int)offset, buffer.Length).CopyTo(buffer);
        }

        public void Write(long offset, ReadOnlySpan<byte> buffer)
        {
            Check();
            buffer.CopyTo(Bytes.AsSpan((int)offset));
        }

        public void Flush()
        {
            Check();
            Flushes++;
        }

        public void Dispose()
        {
        }

        private void Check()
        {
            if (Failure is not null) throw new IOException(Failure);
        }
    }
}
