using System.Buffers.Binary;
using Kvm.Client;
using Kvm.Vmm.Bus;
using Kvm.Vmm.Devices;
using Kvm.Vmm.Virtio;

namespace Kvm.Vmm.Tests;

/// <summary>A virtio device on PCI, as a driver finds it: its BAR, its capabilities, its vectors.</summary>
public sealed class VirtioPciTests : IDisposable
{
    private const int Device = 2;

    private readonly KvmSystem _kvm = KvmSystem.Open(KvmBackend.Model());
    private readonly Pc _pc;

    public VirtioPciTests()
    {
        _pc = new Pc(_kvm, new PcOptions { Memory = 8 << 20 });
        _pc.AddVirtio(new VirtioEntropy());
        _pc.LoadMultiboot(MultibootTests.Flat([0xf4]), "x"); // which places the BAR
    }

    private uint Bar => Config(0x10) & ~0xfu;

    public void Dispose()
    {
        _pc.Dispose();
        _kvm.Dispose();
    }

    [Fact]
    public void It_is_a_modern_device_with_a_place_and_an_interrupt()
    {
        Config(0).Should().Be(0x10441af4);
        (Config(8) & 0xff).Should().BeGreaterThan(0, "modern devices have a revision");
        Bar.Should().BeGreaterThanOrEqualTo(0xd0000000);
        (Config(4) & 6).Should().Be(6, "memory and bus mastering are on");
        (Config(0x3c) & 0xffff).Should().Be(0x010a, "INTA#, routed to 10");
    }

    [Fact]
    public void The_BAR_tells_its_size()
    {
        uint before = Config(0x10);
        SetConfig(4, 0);
        SetConfig(0x10, 0xffffffff);
        Config(0x10).Should().Be(0xffff8000, "32 KiB");
        SetConfig(0x10, before);
        Config(0x14).Should().Be(0, "there is no other");
    }

    /// <summary>All kinds of registers, each once, and MSI-X.</summary>
    [Fact]
    public void Capabilities_name_all_registers()
    {
        var kinds = new List<uint>();
        int msix = 0;
        for (int at = (int)(Config(0x34) & 0xff); at != 0; at = (int)(Config(at) >> 8 & 0xff))
        {
            if ((Config(at) & 0xff) == 9) kinds.Add(Config(at) >> 24);
            if ((Config(at) & 0xff) == 0x11) msix = at;
        }

        kinds.Should().BeEquivalentTo([1u, 2u, 3u, 4u, 5u]);
        (Config(msix) >> 16 & 0x7ff).Should().Be(1, "two vectors: the queue's and the configuration's");
    }

    [Fact]
    public void Registers_follow_the_BAR()
    {
        uint before = Bar;
        Read(before, 0x12, 2).Should().Be(1, "one queue");
        SetConfig(0x10, 0xe8000000);
        Read(0xe8000000, 0x12, 2).Should().Be(1);
        Read(before, 0x12, 2).Should().Be(0xffff, "nobody is there any more");
        SetConfig(4, 0);
        Read(0xe8000000, 0x12, 2).Should().Be(0xffff, "not decoded");
    }

    /// <summary>A guest that puts it on top of another device loses it, and gets it back elsewhere.</summary>
    [Fact]
    public void A_BAR_on_top_of_another_device_is_not_there()
    {
        SetConfig(0x10, (uint)TestDevice.MmioAddress);
        _pc.Mmio.Write(TestDevice.MmioAddress + 0x12, [1, 2]);
        Read((uint)TestDevice.MmioAddress, 0x12, 2).Should().Be(0x0201);
        SetConfig(0x10, 0xe0000000);
        Read(0xe0000000, 0x12, 2).Should().Be(1);
    }

    [Fact]
    public void Vectors_that_are_not_there_are_refused()
    {
        Write(Bar, 0x10, 2, 1);
        Read(Bar, 0x10, 2).Should().Be(1);
        Write(Bar, 0x10, 2, 2);
        Read(Bar, 0x10, 2).Should().Be(0xffff);
    }

    /// <summary>Masked: the pending bit waits. A vector without MSI-X: the line's cause, which reading takes.</summary>
    [Fact]
    public void Interrupts_wait_behind_masks()
    {
        Queue();
        Write(Bar, 0x1a, 2, 0);
        SetMsix(0x8000);
        Offer();
        Wait(() => (Read(Bar, 0x5000, 4) & 1) != 0);
        Write(Bar, 0x4000, 4, 0xfee00000);
        Write(Bar, 0x4008, 4, 0x40);
        Write(Bar, 0x400c, 4, 0); // unmasked
        Read(Bar, 0x5000, 4).Should().Be(0, "it was sent");
        Read(Bar, 0x1000, 1).Should().Be(0, "the line has no cause");
    }

    [Fact]
    public void Without_MSI_X_the_line_has_a_cause()
    {
        Queue();
        Offer();
        Wait(() => Read(Bar, 0x1000, 1) == 1);
        Read(Bar, 0x1000, 1).Should().Be(0, "reading takes it");
    }

    /// <summary>VIRTIO_PCI_CAP_PCI_CFG: the registers through configuration space.</summary>
    [Fact]
    public void The_window_in_configuration_space_shows_the_registers()
    {
        int window = (int)(Config(0x34) & 0xff);
        while ((Config(window) & 0xff) != 9 || Config(window) >> 24 != 5) window = (int)(Config(window) >> 8 & 0xff);
        SetConfig(window + 8, 0x12);
        SetConfig(window + 12, 2);
        ConfigBytes(window + 16, 2).Should().Be(1);
        SetConfig(window + 8, 0x7ffff);
        ConfigBytes(window + 16, 2).Should().Be(1, "outside: the last value stays");
    }

    [Fact]
    public void As_many_devices_as_the_bus_has_room_for()
    {
        using var pc = new Pc(_kvm, new PcOptions { Memory = 8 << 20 });
        for (int i = 0; i < 30; i++) pc.AddVirtio(new VirtioEntropy());
        using var more = new VirtioEntropy();
        FluentActions.Invoking(() => pc.AddVirtio(more)).Should().Throw<InvalidOperationException>().WithMessage("*room*");
        pc.LoadMultiboot(MultibootTests.Flat([0xf4]), "x");
    }

    private void Queue()
    {
        foreach (uint status in (ReadOnlySpan<uint>)[0, 3]) Write(Bar, 0x14, 1, status);
        Write(Bar, 0x08, 4, 1);
        Write(Bar, 0x0c, 4, 1);
        Write(Bar, 0x14, 1, 11);
        Write(Bar, 0x16, 2, 0);
        Write(Bar, 0x18, 2, 8);
        Write(Bar, 0x20, 4, 0x200000);
        Write(Bar, 0x28, 4, 0x201000);
        Write(Bar, 0x30, 4, 0x202000);
        Write(Bar, 0x1c, 2, 1);
        Write(Bar, 0x14, 1, 15);
    }

    private void Offer()
    {
        _pc.Ram.Write(0x200000, 0x300000UL);
        _pc.Ram.Write(0x200008, 16u);
        _pc.Ram.Write(0x20000c, (ushort)2);
        _pc.Ram.Write(0x201004, (ushort)0);
        _pc.Ram.Write(0x201002, (ushort)1);
        Write(Bar, 0x3000, 2, 0);
        Wait(() => _pc.Ram.Read<ushort>(0x202002) == 1);
    }

    private static void Wait(Func<bool> condition)
    {
        for (int i = 0; i < 20000; i++)
        {
            if (condition()) return;
            Thread.Sleep(1);
        }

        throw new TimeoutException("it never came");
    }

    private uint Config(int offset)
    {
        Select(offset);
        Span<byte> data = stackalloc byte[4];
        _pc.Ports.Read(PciConfig.Data, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private uint ConfigBytes(int offset, int length)
    {
        Select(offset);
        Span<byte> data = stackalloc byte[4];
        data.Clear();
        _pc.Ports.Read(PciConfig.Data, data[..length]);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void SetConfig(int offset, uint value)
    {
        Select(offset);
        _pc.Ports.Write(PciConfig.Data, BitConverter.GetBytes(value));
    }

    private void SetMsix(ushort control)
    {
        int at = (int)(Config(0x34) & 0xff);
        while ((Config(at) & 0xff) != 0x11) at = (int)(Config(at) >> 8 & 0xff);
        Select(at);
        _pc.Ports.Write(PciConfig.Data + 2, BitConverter.GetBytes(control));
    }

    private void Select(int offset) => _pc.Ports.Write(PciConfig.Address, BitConverter.GetBytes(0x80000000 | Device << 11 | (uint)offset));

    private uint Read(uint bar, uint offset, int size)
    {
        Span<byte> data = stackalloc byte[4];
        data.Clear();
        _pc.Mmio.Read(bar + offset, data[..size]);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void Write(uint bar, uint offset, int size, uint value)
    {
        _pc.Mmio.Write(bar + offset, BitConverter.GetBytes(value).AsSpan(0, size));
    }
}
