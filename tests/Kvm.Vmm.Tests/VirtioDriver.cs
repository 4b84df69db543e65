using System.Buffers.Binary;
using System.Diagnostics;
using Kvm.Client;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Bus;
using Kvm.Vmm.Virtio;

namespace Kvm.Vmm.Tests;

/// <summary>The driver's side of a virtio-mmio device, without a guest: registers, and queues in RAM.</summary>
internal sealed class VirtioDriver : IDisposable
{
    public const ulong Version1 = 1UL << 32, EventIndex = 1UL << 29, IndirectDescriptors = 1UL << 28;
    public const ushort Next = 1, Write = 2, Indirect = 4;
    private const ulong QueueArea = 0x10000, QueueStep = 0x4000, Available = 0x1000, Used = 0x2000;

    private readonly KvmSystem _kvm;
    private readonly Vm _vm;
    private readonly VirtioMmio _registers;
    private readonly IMmioDevice _bus;
    private readonly Dictionary<int, (ushort Size, ushort Available, ushort Used)> _queues = [];

    public VirtioDriver(VirtioDevice device, ulong memory = 4 << 20)
    {
        _kvm = KvmSystem.Open(KvmBackend.Model());
        _vm = _kvm.CreateVm();
        Ram = new GuestRam(_vm, memory);
        _bus = _registers = new VirtioMmio(device, _vm, Ram, 0xd0000000, level =>
        {
            if (level) Interrupts++;
        });
    }

    public GuestRam Ram { get; }

    /// <summary>How often the line went, or stayed, high.</summary>
    public int Interrupts { get; private set; }

    public uint Status => Read(0x70);

    public uint Read(uint register)
    {
        Span<byte> data = stackalloc byte[4];
        lock (_bus) _bus.Read(register, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    public void Set(uint register, uint value)
    {
        Span<byte> data = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        lock (_bus) _bus.Write(register, data);
    }

    public ulong Offered
    {
        get
        {
            Set(0x14, 0);
            ulong low = Read(0x10);
            Set(0x14, 1);
            return low | (ulong)Read(0x10) << 32;
        }
    }

    /// <summary>Negotiates features, as far as FEATURES_OK.</summary>
    public void Negotiate(ulong features)
    {
        Set(0x70, 0);
        Set(0x70, 3);
        Set(0x24, 0);
        Set(0x20, (uint)features);
        Set(0x24, 1);
        Set(0x20, (uint)(features >> 32));
        Set(0x70, 11);
    }

    /// <summary>Sets up these queues with that many descriptors, and starts.</summary>
    public void Start(ulong features = Version1, ushort size = 8, int queues = 1)
    {
        Negotiate(features);
        (Read(0x70) & 8).Should().Be(8);
        for (int i = 0; i < queues; i++)
        {
            Set(0x30, (uint)i);
            Set(0x38, size);
            ulong at = Area(i);
            Ram.Clear(at, QueueStep);
            Set(0x80, (uint)at);
            Set(0x90, (uint)(at + Available));
            Set(0xa0, (uint)(at + Used));
            Set(0x44, 1);
            _queues[i] = (size, 0, 0);
        }

        Set(0x70, 15);
    }

    public void Descriptor(int queue, int index, ulong address, uint length, ushort flags, ushort next = 0) =>
        DescriptorAt(Area(queue) + (ulong)index * 16, address, length, flags, next);

    public void DescriptorAt(ulong at, ulong address, uint length, ushort flags, ushort next = 0)
    {
        Ram.Write(at, address);
        Ram.Write(at + 8, length);
        Ram.Write(at + 12, flags);
        Ram.Write(at + 14, next);
    }

    /// <summary>Makes chains available, and rings.</summary>
    public void Offer(int queue, params ReadOnlySpan<ushort> heads)
    {
        (ushort size, ushort available, ushort used) = _queues[queue];
        foreach (ushort head in heads) Ram.Write(Area(queue) + Available + 4 + 2u * (uint)(available++ % size), head);
        Thread.MemoryBarrier();
        Ram.Write(Area(queue) + Available + 2, available);
        _queues[queue] = (size, available, used);
        Set(0x50, (uint)queue);
    }

    /// <summary>Waits for the next chain that comes back.</summary>
    public (uint Head, uint Written) Take(int queue)
    {
        (ushort size, ushort available, ushort used) = _queues[queue];
        var clock = Stopwatch.StartNew();
        while (Ram.Read<ushort>(Area(queue) + Used + 2) == used)
        {
            if (clock.Elapsed > TimeSpan.FromSeconds(60)) throw new TimeoutException("the device gave nothing back");
            Thread.Sleep(1);
        }

        ulong element = Area(queue) + Used + 4 + 8u * (uint)(used % size);
        _queues[queue] = (size, available, (ushort)(used + 1));
        return (Ram.Read<uint>(element), Ram.Read<uint>(element + 4));
    }

    /// <summary>Whether <see cref="Take"/> would not wait.</summary>
    public bool HasUsed(int queue) => Ram.Read<ushort>(Area(queue) + Used + 2) != _queues[queue].Used;

    public void WaitForStatus(uint bits)
    {
        var clock = Stopwatch.StartNew();
        while ((Status & bits) != bits)
        {
            if (clock.Elapsed > TimeSpan.FromSeconds(60)) throw new TimeoutException($"status 0x{Status:x}");
            Thread.Sleep(1);
        }
    }

    public static ulong Area(int queue) => QueueArea + QueueStep * (ulong)queue;

    public ulong AvailableRing(int queue) => Area(queue) + Available;

    public ulong UsedRing(int queue) => Area(queue) + Used;

    public void Dispose()
    {
        _registers.Dispose();
        Ram.Dispose();
        _vm.Dispose();
        _kvm.Dispose();
    }
}
