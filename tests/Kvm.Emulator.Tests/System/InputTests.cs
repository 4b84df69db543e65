using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests;

/// <summary>Processor inputs from other threads: INIT, SIPI, stop, interrupts; breakpoints on ports; UMIP; virtual-8086 extensions.</summary>
public sealed unsafe class InputTests
{
    private const ulong Handler = 0x9000;

    [Fact]
    public void INIT_and_SIPI_start_a_second_processor_in_real_mode()
    {
        using var m = new BareMachine(processors: 2);
        Processor ap = m.Machine.Processors[1];
        m.Assemble(0xb000, a =>
        {
            a.mov(ax, cs);
            a.hlt();
        }, 16);
        ap.RaiseInit();
        ap.Run().Should().Be(StopReason.Shutdown, "it waits for a SIPI");
        ap.State->Activity.Should().Be(ActivityState.WaitForSipi);
        ap.RaiseSipi(0xb);
        ap.Run().Should().Be(StopReason.Halted);
        (ap.State->Gpr[0] & 0xffff).Should().Be(0xb00);
        ap.State->Rip.Should().Be(3);
        m.Cpu.State->Activity.Should().Be(ActivityState.Active, "the other processor is not concerned");
    }

    [Fact]
    public void A_SIPI_outside_wait_for_SIPI_is_lost()
    {
        using var m = new BareMachine();
        m.Long();
        m.Bytes(BareMachine.Code, 0x90, 0xf4);
        m.Cpu.RaiseSipi(0xb);
        m.Run().Should().Be(StopReason.Halted);
        m.State->Rip.Should().Be(BareMachine.Code + 2);
    }

    [Fact]
    public void INIT_is_held_in_VMX_root_operation_until_VMXOFF()
    {
        using var m = new BareMachine();
        m.Long();
        ulong region = m.Machine.Memory.Allocate(0x1000);
        *(uint*)region = 4;
        m.Cpu.WriteCr(4, m.State->Cr4 | Cr4.VMXE);
        m.Cpu.Vmxon(region).Ok.Should().BeTrue();
        m.Bytes(BareMachine.Code, 0x90, 0xf4, 0xf4);
        m.Cpu.RaiseInit();
        m.Run().Should().Be(StopReason.Halted);
        m.Cpu.Vmxoff();
        m.Cpu.ServiceEvents(out _, out _);
        (m.State->Cr0 & Cr0.PE).Should().Be(0);
    }

    [Fact]
    public void RequestStop_from_another_thread_ends_an_endless_loop()
    {
        using var m = new BareMachine();
        m.Long();
        m.Bytes(BareMachine.Code, 0xeb, 0xfe);
        var thread = new Thread(() =>
        {
            Thread.Sleep(30);
            m.Cpu.RequestStop();
        });
        thread.Start();
        m.Cpu.Run().Should().Be(StopReason.StopRequested);
        thread.Join();
        m.State->Rip.Should().Be(BareMachine.Code);
    }

    [Fact]
    public void The_highest_pending_vector_is_acknowledged_first()
    {
        using var m = new BareMachine();
        m.Cpu.RaiseInterrupt(0x31);
        m.Cpu.RaiseInterrupt(0xf2);
        m.Cpu.RaiseInterrupt(0x31);
        m.Cpu.InterruptPending.Should().BeTrue();
        m.Cpu.AcknowledgeInterrupt().Should().Be(0xf2);
        m.Cpu.AcknowledgeInterrupt().Should().Be(0x31);
        m.Cpu.AcknowledgeInterrupt().Should().Be(-1);
        m.Cpu.RaiseNmi();
        m.Cpu.AcknowledgeNmi().Should().BeTrue();
        m.Cpu.AcknowledgeNmi().Should().BeFalse();
    }

    [Fact]
    public void An_IO_breakpoint_traps_after_the_instruction_with_CR4_DE()
    {
        using var m = new BareMachine();
        m.Long();
        m.SetGate64(Fault.DB, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
        m.Bytes(Handler, 0xf4);
        m.State->Cr4 |= Cr4.DE;
        m.Cpu.WriteDr(2, 0x3f8);
        m.Cpu.WriteDr(7, 0x20 | 0x0200_0000);
        m.Bytes(BareMachine.Code, 0xe4, 0x10, 0x66, 0xba, 0xf8, 0x03, 0xec, 0x90);
        m.Run();
        m.State->Rip.Should().Be(Handler + 1);
        (*m.Qword(m.State->Gpr[4])).Should().Be(BareMachine.Code + 7);
        (m.State->Dr[6] & 0xf).Should().Be(4);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void UMIP_keeps_descriptor_table_addresses_from_user_code(bool umip)
    {
        CpuModel model = CpuModel.IntelSkylake.WithCpuid(7, 0, new CpuidLeaf(0, 0, 1 << 2, 0));
        foreach (byte[] code in (byte[][])[[0x0f, 0x01, 0x04, 0x25, 0, 0xd0, 0, 0], [0x0f, 0x01, 0x0c, 0x25, 0, 0xd0, 0, 0], [0x0f, 0x01, 0xe0], [0x0f, 0x00, 0xc0], [0x0f, 0x00, 0xc8]])
        {
            using var m = new BareMachine(model);
            m.Long(cpl: 3);
            m.SetGate64(Fault.GP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler);
            m.SetGate64(Fault.BP, SegmentRights.InterruptGate32, BareMachine.Code64, Handler + 0x10, dpl: 3);
            m.Bytes(Handler, 0xf4);
            m.Bytes(Handler + 0x10, 0xf4);
            m.State->Cr4 |= umip ? Cr4.UMIP : 0;
            m.Bytes(BareMachine.UserCode, [.. code, 0xcc]);
            m.Run();
            m.State->Rip.Should().Be(umip ? Handler + 1 : Handler + 0x11, Convert.ToHexString(code));
        }
    }

    /// <summary>SDM vol 3B, "Virtual-8086 Mode Extensions": redirection to the program's own IVT, VIF instead of IF.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void VME_redirects_INT_n_by_the_bitmap_and_CLI_clears_VIF(bool redirected)
    {
        using var m = new BareMachine();
        m.Protected();
        m.State->Cr4 |= Cr4.VME;
        m.Cpu.Segment(Seg.TR).Limit = 0x67 + 0x20 + 0x100;
        *(ushort*)(m.At(BareMachine.Tss) + 0x66) = 0x88;
        // Bit of vector 0x21 in the 32 bytes below the I/O map.
        m.At(BareMachine.Tss + 0x68 + 4)[0] = redirected ? (byte)0 : (byte)2;
        m.SetGate32(Fault.GP, BareMachine.Gate(SegmentRights.InterruptGate32, BareMachine.Code32, Handler));
        m.Bytes(Handler, 0xf4);
        *(uint*)m.At(0x21 * 4) = 0x0b00_0000;
        m.Bytes(0xb000, 0xf4);
        m.Assemble(BareMachine.Code, a =>
        {
            for (int i = 0; i < 4; i++)
                a.push(0);
            a.push(0x0c00);
            a.push(0x0ff0);
            a.push((int)(Flags.VM | Flags.VIF | 2));
            a.push(0x0a00);
            a.push(0);
            a.iretd();
        }, 32);
        m.Bytes(0xa000, 0xfa, 0xcd, 0x21);
        m.Run();
        m.State->Rip.Should().Be(Handler + 1, "without redirection INT n needs IOPL 3; with it HLT in virtual-8086 mode faults");
        uint saved = *(uint*)m.At(m.State->Gpr[4] + 4);
        uint flags = *(uint*)m.At(m.State->Gpr[4] + 12);
        saved.Should().Be(redirected ? 0u : 1u);
        (*(uint*)m.At(m.State->Gpr[4] + 8)).Should().Be(redirected ? 0xb00u : 0xa00u);
        (flags & (uint)Flags.VIF).Should().Be(0u, "CLI cleared VIF");
        if (redirected)
            (*(ushort*)m.At(0xc000 + 0xff0 - 2) & (ushort)(Flags.IOPL | Flags.IF)).Should().Be((ushort)Flags.IOPL, "the image shows IOPL 3 and VIF as IF");
    }
}
