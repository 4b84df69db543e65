using System.IO.Pipelines;
using System.Text;
using Iced.Intel;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Vmm.Boot;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Vmm.Tests;

/// <summary>Whole guests on the PC.</summary>
public class PcTests
{
    public static TheoryData<string> All => Kernels.All;

    /// <summary>The VMM's own controllers: HLT, timer, PIC, KVM_INTERRUPT, IRET, three times.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void Timer_interrupts_wake_a_halted_guest(string kernel)
    {
        (GuestStop stop, string output) = Run(kernel, c =>
        {
            Label handler = c.CreateLabel(), counted = c.CreateLabel(), wait = c.CreateLabel(), start = c.CreateLabel();
            c.jmp(start);
            c.Label(ref handler); // at 0x7c02, see the vector below
            c.cmp(bx, 3); // a slow host lets more of them come
            c.jae(counted);
            c.inc(bx);
            c.Label(ref counted);
            c.mov(al, 0x20);
            c.@out(0x20, al);
            c.iret();

            c.Label(ref start);
            c.mov(__word_ptr[0x20 * 4], 0x7c02);
            c.mov(__word_ptr[0x20 * 4 + 2], 0);
            foreach ((byte port, byte value) in new (byte, byte)[]
            {
                (0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, 0x01), (0x21, 0xfe), // PIC: vector 0x20, line 0 only
                (0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e), // PIT: 100 Hz
            })
            {
                c.mov(al, (sbyte)value);
                c.@out(port, al);
            }

            c.xor(bx, bx);
            c.sti();
            c.Label(ref wait);
            c.hlt();
            c.cmp(bx, 3);
            c.jb(wait);
            c.mov(dx, 0x3f8);
            c.mov(al, bl);
            c.add(al, (sbyte)'0');
            c.@out(dx, al);
            c.cli();
            c.hlt();
        });
        output.Should().Be("3", "the guest ended: {0}", stop);
        stop.Reason.Should().Be(GuestStopReason.Halted, "interrupts are off: nothing wakes it");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Debug_exit_ends_the_guest_with_its_status(string kernel)
    {
        (GuestStop stop, _) = Run(kernel, c =>
        {
            c.mov(al, 0x10);
            c.@out(0xf4, al);
            c.hlt();
        });
        stop.Reason.Should().Be(GuestStopReason.DebugExit);
        stop.Code.Should().Be(33);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void String_output_is_served_item_by_item(string kernel)
    {
        (_, string output) = Run(kernel, c =>
        {
            c.mov(si, 0x7c80);
            c.mov(cx, 5);
            c.mov(dx, 0x3f8);
            c.cld();
            c.rep.outsb();
            c.cli();
            c.hlt();
        }, pc => pc.Ram.Write(0x7c80, "hello"u8));
        output.Should().Be("hello");
    }

    /// <summary>64-bit code with an empty IDT.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void Triple_fault_is_a_shutdown(string kernel)
    {
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 4 << 20, Irqchip = false });
        FlatLoader.Load64(pc.Ram, pc.Vcpu, [0x0f, 0x0b]); // ud2
        GuestStop stop = pc.Run(TimeSpan.FromSeconds(20));
        stop.Reason.Should().Be(GuestStopReason.Shutdown, "the guest ended: {0}", stop);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Timeout_stops_an_endless_loop(string kernel)
    {
        (GuestStop stop, _) = Run(kernel, c =>
        {
            Label here = c.CreateLabel();
            c.Label(ref here);
            c.jmp(here);
        }, seconds: 0.2);
        stop.Reason.Should().Be(GuestStopReason.Interrupted);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Timeout_stops_a_halted_guest(string kernel)
    {
        (GuestStop stop, _) = Run(kernel, c =>
        {
            Label here = c.CreateLabel();
            c.sti();
            c.Label(ref here);
            c.hlt();
            c.jmp(here);
        }, seconds: 0.2);
        stop.Reason.Should().Be(GuestStopReason.Interrupted);
    }

    private static (GuestStop Stop, string Output) Run(string kernel, Action<Assembler> program, Action<Pc>? prepare = null, double seconds = 20)
    {
        var c = new Assembler(16);
        program(c);
        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), 0x7c00);

        var output = new MemoryStream();
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 4 << 20, Output = PipeWriter.Create(output), Irqchip = false });
        FlatLoader.Load16(pc.Ram, pc.Vcpu, code.ToArray());
        prepare?.Invoke(pc);
        return (pc.Run(TimeSpan.FromSeconds(seconds)), Encoding.ASCII.GetString(output.ToArray()));
    }
}
