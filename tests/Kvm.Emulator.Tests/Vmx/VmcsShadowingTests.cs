using Kvm.Emulator.Vmx;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>VMCS shadowing: VMREAD and VMWRITE of a guest hypervisor reach the VMCS that the link pointer names.</summary>
public unsafe class VmcsShadowingTests
{
    private static VmxMachine Guest(out ulong shadow, out byte* readBitmap, out byte* writeBitmap)
    {
        VmxMachine m = new VmxMachine().WithGuest(longMode: true);
        shadow = m.Page();
        *(uint*)shadow = m.Capabilities.RevisionId;
        m.Cpu.Vmclear(shadow).Ok.Should().BeTrue();
        *(uint*)shadow |= 0x8000_0000;
        readBitmap = (byte*)m.Page();
        writeBitmap = (byte*)m.Page();
        m.Set(VmcsField.SECONDARY_VM_EXEC_CONTROL, (ulong)SecondaryControls.VmcsShadowing);
        m.Write(VmcsField.VMREAD_BITMAP, (ulong)readBitmap);
        m.Write(VmcsField.VMWRITE_BITMAP, (ulong)writeBitmap);
        m.Write(VmcsField.VMCS_LINK_POINTER, shadow);
        return m;
    }

    [Fact]
    public void Accesses_go_to_the_shadow_VMCS()
    {
        using VmxMachine m = Guest(out ulong shadow, out _, out _);
        m.Code(64, a =>
        {
            a.mov(eax, (int)VmcsField.GUEST_RIP);
            a.mov(ebx, 0x1234);
            a.vmwrite(rax, rbx);
            a.vmread(rcx, rax);
            a.vmcall();
        });
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        m.State->Gpr[1].Should().Be(0x1234);
        // The host finds it after VMPTRLD of the shadow; the current VMCS was not touched.
        m.Read(VmcsField.GUEST_RIP).Should().BeInRange(VmxMachine.CodeAddress, VmxMachine.CodeAddress + 0x40);
        m.Cpu.Vmclear(m.VmcsPage);
        m.Cpu.Vmptrld(shadow).Ok.Should().BeTrue();
        m.Read(VmcsField.GUEST_RIP).Should().Be(0x1234);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Bitmaps_select_what_exits(bool write)
    {
        using VmxMachine m = Guest(out _, out byte* readBitmap, out byte* writeBitmap);
        m.Code(64, a =>
        {
            a.mov(eax, (int)VmcsField.GUEST_RIP);
            if (write)
                a.vmwrite(rax, rbx);
            else
                a.vmread(rbx, rax);
            a.vmcall();
        });
        (write ? writeBitmap : readBitmap)[(int)VmcsField.GUEST_RIP / 8] = 1 << ((int)VmcsField.GUEST_RIP & 7);
        m.Launch().Should().Be(write ? VmxExitReason.VMWRITE : VmxExitReason.VMREAD);
        (write ? writeBitmap : readBitmap)[(int)VmcsField.GUEST_RIP / 8] = 0;
        m.Resume().Should().Be(VmxExitReason.VMCALL);
    }

    [Fact]
    public void Encodings_beyond_bit_14_exit()
    {
        using VmxMachine m = Guest(out _, out _, out _);
        m.Code(64, a => { a.mov(eax, 0x8000); a.vmread(rbx, rax); });
        m.Launch().Should().Be(VmxExitReason.VMREAD);
    }

    [Fact]
    public void Without_a_shadow_VMCS_it_is_VMfailInvalid()
    {
        using VmxMachine m = Guest(out _, out _, out _);
        m.Write(VmcsField.VMCS_LINK_POINTER, ulong.MaxValue);
        m.Code(64, a => { a.mov(eax, (int)VmcsField.GUEST_RIP); a.vmread(rbx, rax); a.vmcall(); });
        m.Launch().Should().Be(VmxExitReason.VMCALL);
        (m.Read(VmcsField.GUEST_RFLAGS) & Flags.Status).Should().Be(Flags.CF);
    }

    [Fact]
    public void The_shadow_indicator_must_match_the_control()
    {
        using VmxMachine m = Guest(out ulong shadow, out _, out _);
        *(uint*)shadow &= 0x7fff_ffff;
        m.Cpu.Vmlaunch().Ok.Should().BeTrue();
        m.ExitReason.Should().Be(VmxExitReason.INVALID_STATE);
        m.Read(VmcsField.EXIT_QUALIFICATION).Should().Be(4);
    }
}
