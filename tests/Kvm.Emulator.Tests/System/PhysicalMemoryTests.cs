namespace Kvm.Emulator.Tests;

/// <summary>Which physical addresses are RAM.</summary>
public sealed unsafe class PhysicalMemoryTests
{
    [Fact]
    public void Allocated_pages_lie_low_enough_for_39_address_bits_and_are_zero()
    {
        using var machine = new Machine(CpuModel.IntelSkylake);
        ulong page = machine.Memory.Allocate(0x3000);
        (page & 0xfff).Should().Be(0);
        page.Should().BeLessThan(1UL << 39);
        new Span<byte>((void*)page, 0x3000).IndexOfAnyExcept((byte)0).Should().Be(-1);
        machine.Memory.Contains(page, 0x3000).Should().BeTrue();
        machine.Memory.Contains(page, 0x3001).Should().Be(machine.Memory.Contains(page + 0x3000));
        machine.Memory.Free(page, 0x3000);
        machine.Memory.Contains(page).Should().BeFalse();
    }

    [Fact]
    public void Overlapping_registrations_are_counted_by_address()
    {
        using var machine = new Machine(CpuModel.IntelSkylake);
        PhysicalMemory memory = machine.Memory;
        memory.Register(0x10_0000, 0x4000);
        memory.Register(0x10_2000, 0x4000);
        memory.Register(0x10_0000, 0x4000);
        memory.Contains(0x10_0000, 0x6000).Should().BeTrue();
        memory.Size.Should().Be(0x6000);
        memory.Unregister(0x10_0000, 0x4000);
        memory.Contains(0x10_0000, 0x6000).Should().BeTrue();
        memory.Unregister(0x10_0000, 0x4000);
        memory.Contains(0x10_1000).Should().BeFalse();
        memory.Contains(0x10_2000, 0x4000).Should().BeTrue();
        memory.Unregister(0x10_2000, 0x4000);
        memory.Size.Should().Be(0);
    }

    [Fact]
    public void Ranges_that_touch_serve_one_request_together()
    {
        using var machine = new Machine(CpuModel.IntelSkylake);
        machine.Memory.Register(0x10_0000, 0x1000);
        machine.Memory.Register(0x10_1000, 0x1000);
        machine.Memory.Contains(0x10_0800, 0x1000).Should().BeTrue();
        machine.Memory.Contains(0x10_0800, 0x2000).Should().BeFalse();
    }

    [Fact]
    public void The_same_address_cannot_be_two_memories()
    {
        using var machine = new Machine(CpuModel.IntelSkylake);
        machine.Memory.Register(0x10_0000, 0x1000);
        ulong other = machine.Memory.Allocate(0x1000);
        Action map = () => machine.Memory.Map(0x10_0000, 0x1000, (byte*)other);
        map.Should().Throw<ArgumentException>();
        Action parts = () => machine.Memory.Register(0x10_0800, 0x1000);
        parts.Should().Throw<ArgumentException>();
    }

    [Fact]
    public void A_window_maps_another_physical_address()
    {
        using var machine = new Machine(CpuModel.IntelSkylake);
        ulong page = machine.Memory.Allocate(0x1000);
        *(uint*)page = 0xdeadbeef;
        machine.Memory.Map(0, 0x1000, (byte*)page);
        (*(uint*)machine.Memory.Pointer(0)).Should().Be(0xdeadbeef);
        (machine.Memory.Pointer(0x1000) == null).Should().BeTrue();
    }
}
