using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Run;

public unsafe class Mmio
{
    public static TheoryData<string> Vendors => ["amd", "intel"];

    /// <summary>DS points at the memory hole at 8 MiB: "unreal" mode with a 4 GiB limit.</summary>
    private static Guest InHole(string vendor, byte[] code)
    {
        var g = new Guest(vendor);
        g.Load(code);
        kvm_sregs s = g.Sregs;
        s.ds.@base = 0x800000;
        s.es.@base = 0x800000;
        g.Sregs = s;
        return g;
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Write_exits_with_rip_past_the_instruction(string vendor)
    {
        using Guest g = InHole(vendor, [0xb0, 0x5a, 0xa2, 0x10, 0x00, 0xf4]); // mov [10h], al
        g.RunToExit().Should().Be((uint)KVM_EXIT_MMIO);
        g.Run->mmio.phys_addr.Should().Be(0x800010);
        g.Run->mmio.len.Should().Be(1);
        g.Run->mmio.is_write.Should().Be(1);
        g.Run->mmio.data[0].Should().Be(0x5a);
        g.Regs.rip.Should().Be(0x1005);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Read_is_finished_by_the_next_run(string vendor)
    {
        using Guest g = InHole(vendor, [0xa1, 0x20, 0x00, 0xf4]); // mov ax, [20h]
        g.RunToExit().Should().Be((uint)KVM_EXIT_MMIO);
        g.Run->mmio.is_write.Should().Be(0);
        g.Run->mmio.len.Should().Be(2);
        g.Regs.rip.Should().Be(0x1000);
        g.Run->mmio.data[0] = 0x34;
        g.Run->mmio.data[1] = 0x12;
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        (g.Regs.rax & 0xffff).Should().Be(0x1234);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Read_modify_write_reads_then_writes(string vendor)
    {
        using Guest g = InHole(vendor, [0x83, 0x06, 0x30, 0x00, 0x05, 0xf4]); // add word [30h], 5
        g.RunToExit().Should().Be((uint)KVM_EXIT_MMIO);
        g.Run->mmio.is_write.Should().Be(0);
        g.Run->mmio.data[0] = 0xfe;
        g.Run->mmio.data[1] = 0xff;
        g.RunToExit().Should().Be((uint)KVM_EXIT_MMIO);
        g.Run->mmio.is_write.Should().Be(1);
        g.Run->mmio.data[0].Should().Be(3);
        g.Run->mmio.data[1].Should().Be(0);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        (g.Regs.rflags & 1).Should().Be(1, "0FFFEh + 5 carries");
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Rep_movs_into_a_device_exits_once_per_element(string vendor)
    {
        var g = new Guest(vendor);
        "hello!"u8.CopyTo(new Span<byte>(g.Memory + 0x2000, 6));
        g.Load([0xbe, 0x00, 0x20, 0xbf, 0x00, 0x00, 0xb9, 0x03, 0x00, 0xf3, 0xa5, 0xf4]);
        kvm_sregs s = g.Sregs;
        s.es.@base = 0x800000;
        g.Sregs = s;
        using (g)
        {
            for (uint i = 0; i < 3; i++)
            {
                g.RunToExit().Should().Be((uint)KVM_EXIT_MMIO);
                g.Run->mmio.phys_addr.Should().Be(0x800000 + (i * 2));
                g.Run->mmio.data[0].Should().Be("hello!"u8[(int)i * 2]);
                g.Regs.rcx.Should().Be(2 - i);
            }

            g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        }
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Access_across_the_end_of_memory_is_memory_then_a_fragment(string vendor)
    {
        var g = new Guest(vendor);
        g.Load([0x66, 0xa1, 0xfe, 0x0f, 0xf4]); // mov eax, [0ffeh]
        kvm_sregs s = g.Sregs;
        s.ds.@base = 0x7ff000;
        g.Sregs = s;
        g.Memory[0x7ffffe] = 0x11;
        g.Memory[0x7fffff] = 0x22;
        using (g)
        {
            g.RunToExit().Should().Be((uint)KVM_EXIT_MMIO);
            g.Run->mmio.phys_addr.Should().Be(0x800000);
            g.Run->mmio.len.Should().Be(2);
            g.Run->mmio.data[0] = 0x33;
            g.Run->mmio.data[1] = 0x44;
            g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
            g.Regs.rax.Should().Be(0x44332211);
        }
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Write_to_a_read_only_slot_is_an_mmio_exit_and_reads_are_memory(string vendor)
    {
        using var g = new Guest(vendor);
        byte* rom = (byte*)g.Process.MapAnonymous(0x10000);
        rom[0] = 0x77;
        g.AddMemory(1, 0x900000, 0x10000, (ulong)rom, KVM_MEM_READONLY).Raw.Should().Be(0);
        g.Load([0xa0, 0x00, 0x00, 0xa2, 0x01, 0x00, 0xf4]);
        kvm_sregs s = g.Sregs;
        s.ds.@base = 0x900000;
        g.Sregs = s;
        g.RunToExit().Should().Be((uint)KVM_EXIT_MMIO);
        g.Run->mmio.is_write.Should().Be(1);
        g.Run->mmio.phys_addr.Should().Be(0x900001);
        g.Run->mmio.data[0].Should().Be(0x77);
        rom[1].Should().Be(0);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Instruction_that_is_not_emulated_ends_with_an_internal_error_and_its_bytes(string vendor)
    {
        using Guest g = InHole(vendor, [0x62, 0x06, 0x00, 0x00, 0xf4]); // bound ax, [0]
        g.RunToExit().Should().Be((uint)KVM_EXIT_INTERNAL_ERROR);
        g.Run->@internal.suberror.Should().Be((uint)KVM_INTERNAL_ERROR_EMULATION);
        g.Run->emulation_failure.ndata.Should().Be(8u);
        g.Run->emulation_failure.flags.Should().Be((ulong)KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
        byte* bytes = (byte*)&g.Run->@internal.data[1];
        bytes[0].Should().BeGreaterThanOrEqualTo(4);
        bytes[1].Should().Be(0x62);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Sixteen_bytes_are_two_exits_of_eight(string vendor)
    {
        using Guest g = InHole(vendor, [0x90]);
        kvm_sregs s = g.Sregs;
        s.cr4 |= 0x200;
        g.Sregs = s;
        g.Emulate([0x0f, 0x11, 0x06, 0x00, 0x00]).Should().Be(0); // movups [0], xmm0
        (g.Run->mmio.len, g.Run->mmio.phys_addr, g.Run->mmio.is_write).Should().Be((8u, 0x800000ul, (byte)1));
        g.RunToExit().Should().Be((uint)KVM_EXIT_MMIO);
        (g.Run->mmio.len, g.Run->mmio.phys_addr, g.Run->mmio.is_write).Should().Be((8u, 0x800008ul, (byte)1));
    }
}
