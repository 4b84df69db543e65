using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Emulate;

/// <summary>What the emulator keeps of an instruction that it decoded is only used for the same bytes, at the same address, in the same mode.</summary>
public sealed unsafe class DecodedInstructions
{
    private const ulong device = ModeGuest.Hole + 0x40;

    public static TheoryData<string> Vendors => ["intel", "amd"];

    /// <summary>Executes one instruction that writes to a device: where, and how many bytes.</summary>
    private static (ulong Address, uint Length) Write(ModeGuest g, params byte[] instruction)
    {
        var code = new Span<byte>(g.Memory + ModeGuest.Code, 16);
        code.Fill(0xf4);
        instruction.CopyTo(code);
        kvm_regs r = default;
        r.rip = ModeGuest.Code;
        r.rsp = ModeGuest.StackTop;
        r.rflags = 2;
        r.rdi = device;
        g.Guest.Regs = r;
        Guest.Ok(g.Guest.VcpuIoctl(KVM_RUN, null));
        kvm_run* run = g.Guest.Run;
        run->exit_reason.Should().Be((uint)KVM_EXIT_MMIO);
        run->mmio.is_write.Should().Be(1);
        (ulong, uint) written = (run->mmio.phys_addr, run->mmio.len);
        Guest.Ok(g.Guest.VcpuIoctl(KVM_RUN, null));
        run->exit_reason.Should().Be((uint)KVM_EXIT_HLT);
        g.Guest.Regs.rip.Should().Be(ModeGuest.Code + (ulong)instruction.Length + 1);
        return written;
    }

    [Theory]
    [MemberData(nameof(Vendors))]
    public void Other_bytes_at_the_same_address_are_decoded(string vendor)
    {
        using var g = new ModeGuest(vendor, 32);
        for (int i = 0; i < 3; i++)
            Write(g, 0x89, 0x07).Should().Be((device, 4u), "mov [edi], eax");
        Write(g, 0x88, 0x07).Should().Be((device, 1u), "mov [edi], al");
        Write(g, 0x66, 0x89, 0x07).Should().Be((device, 2u), "mov [edi], ax");
        Write(g, 0x89, 0x47, 0x08).Should().Be((device + 8, 4u), "mov [edi+8], eax");
        Write(g, 0x89, 0x47, 0x0c).Should().Be((device + 12, 4u), "mov [edi+12], eax: only the last byte differs");
        Write(g, 0x89, 0x07).Should().Be((device, 4u), "mov [edi], eax");
    }

    [Theory]
    [MemberData(nameof(Vendors))]
    public void The_same_bytes_in_another_mode_are_decoded(string vendor)
    {
        using var g = new ModeGuest(vendor, 32);
        kvm_sregs wide = g.Guest.Sregs, narrow = wide;
        narrow.cs.db = 0;
        narrow.ds.@base = device;
        for (int i = 0; i < 2; i++)
        {
            g.Guest.Sregs = wide;
            Write(g, 0x89, 0x07).Should().Be((device, 4u), "mov [edi], eax");
            g.Guest.Sregs = narrow;
            Write(g, 0x89, 0x07).Should().Be((device, 2u), "mov [bx], ax");
        }
    }
}
