using System.IO.Pipelines;
using System.Net;
using System.Text;
using System.Xml.Linq;
using Iced.Intel;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Debugging;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Vmm.Tests;

/// <summary>gdb's remote protocol, spoken by hand, against guests in real mode at 0x7c00.</summary>
public class GdbServerTests
{
    private const int Rax = 0, Rip = 16;
    private const ulong Start = 0x7c00;

    public static TheoryData<string> All => Kernels.All;

    /// <summary>For what implementations of /dev/kvm without hardware may lack: INT3 and debug registers for the host's user.</summary>
    public static TheoryData<string> Models => Kernels.Models;

    [SkippableTheory, MemberData(nameof(All))]
    public void The_guest_waits_at_its_first_instruction_and_steps_one_at_a_time(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c =>
        {
            c.mov(ax, 0x1234); // 3 bytes
            c.inc(ax); // 1
            c.hlt();
        });
        GdbClient gdb = guest.Gdb;
        gdb.Ask("?").Should().Be("T02thread:1;");
        gdb.Register(Rip).Should().Be(Start);
        gdb.Ask("vCont;s:1").Should().Be("T05thread:1;");
        (gdb.Register(Rip), gdb.Register(Rax) & 0xffff).Should().Be((Start + 3, 0x1234UL));
        gdb.Ask("P0=ff0f000000000000").Should().Be("OK");
        gdb.Ask("s").Should().Be("T05thread:1;");
        (gdb.Register(Rip), gdb.Register(Rax)).Should().Be((Start + 4, 0x1000UL));
    }

    [Theory, MemberData(nameof(Models))]
    public void A_software_breakpoint_stops_before_its_instruction_and_cannot_be_seen(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c =>
        {
            c.mov(al, 1);
            c.mov(al, 2); // 0x7c02
            c.@out(0xf4, al);
        });
        GdbClient gdb = guest.Gdb;
        gdb.Ask("Z0,7c02,1").Should().Be("OK");
        gdb.Ask("Z0,7c02,1").Should().Be("OK", "it is there");
        gdb.Ask("m7c00,4").Should().Be("b001b002");
        gdb.Ask("M7c03,1:03").Should().Be("OK");
        gdb.Ask("c").Should().Be("T05swbreak:;thread:1;");
        (gdb.Register(Rip), gdb.Register(Rax) & 0xff).Should().Be((Start + 2, 1UL));
        gdb.Ask("z0,7c02,1").Should().Be("OK");
        gdb.Ask("z0,7c02,1").Should().Be("E0e", "it is gone");
        gdb.Ask("c").Should().Be("W00");
        guest.Stop.Code.Should().Be(7, "the debugger's 3 is what the guest printed");
    }

    [Theory, MemberData(nameof(Models))]
    public void Writing_over_a_breakpoint_keeps_it_and_takes_effect_when_it_goes(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c =>
        {
            c.nop();
            c.mov(al, 1); // 0x7c01
            c.@out(0xf4, al);
        });
        GdbClient gdb = guest.Gdb;
        gdb.Ask("Z0,7c01,1").Should().Be("OK");
        gdb.Ask("X7c00,3:\u0090\u00b0\u0005").Should().Be("OK");
        gdb.Ask("m7c00,3").Should().Be("90b005");
        gdb.Ask("c").Should().Be("T05swbreak:;thread:1;");
        gdb.Ask("z0,7c01,1").Should().Be("OK");
        gdb.Ask("c").Should().Be("W00");
        guest.Stop.Code.Should().Be((5 << 1) | 1);
    }

    [Theory, MemberData(nameof(Models))]
    public void Debug_registers_stop_at_instructions_and_behind_accesses(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c =>
        {
            c.nop();
            c.mov(al, __byte_ptr[0x9000]); // 0x7c01, 3 bytes
            c.mov(__byte_ptr[0x9000], al); // 0x7c04, 3 bytes
            c.mov(__byte_ptr[0x9001], al); // 0x7c07
            c.mov(al, __byte_ptr[0x9001]); // 0x7c0a
            c.@out(0xf4, al);
        });
        GdbClient gdb = guest.Gdb;
        gdb.Ask("Z1,7c01,1").Should().Be("OK");
        gdb.Ask("Z2,9000,1").Should().Be("OK");
        gdb.Ask("Z3,9000,1").Should().Be("", "x86 has no breakpoints for reads alone");
        gdb.Ask("Z4,9001,1").Should().Be("OK");
        gdb.Ask("c").Should().Be("T05hwbreak:;thread:1;");
        gdb.Register(Rip).Should().Be(Start + 1);
        gdb.Ask("z1,7c01,1").Should().Be("OK");
        gdb.Ask("c").Should().Be("T05watch:9000;thread:1;", "the read before is not a write");
        gdb.Register(Rip).Should().Be(Start + 7);
        gdb.Ask("c").Should().Be("T05awatch:9001;thread:1;");
        gdb.Register(Rip).Should().Be(Start + 0xa);
        gdb.Ask("c").Should().Be("T05awatch:9001;thread:1;", "a read is an access");
        gdb.Ask("z2,9000,1").Should().Be("OK");
        gdb.Ask("z4,9001,1").Should().Be("OK");
        gdb.Ask("c").Should().Be("W00");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void There_are_four_debug_registers_for_aligned_data(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c => c.hlt());
        GdbClient gdb = guest.Gdb;
        for (int i = 0; i < 4; i++) gdb.Ask($"Z2,{0x9000 + i * 8:x},8").Should().Be("OK");
        gdb.Ask("Z2,9000,8").Should().Be("E16");
        gdb.Ask("Z1,7c00,1").Should().Be("E16", "all are in use");
        gdb.Ask("z2,9008,8").Should().Be("OK");
        gdb.Ask("Z2,9101,2").Should().Be("E16", "not aligned");
        gdb.Ask("Z2,9100,3").Should().Be("E16", "no such length");
        gdb.Ask("Z2,9102,2").Should().Be("OK");
    }

    /// <summary>With breakpoints of the debugger's about, an INT3 of the guest's is still the guest's.</summary>
    [Theory, MemberData(nameof(Models))]
    public void The_guests_own_INT3_goes_to_the_guest(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c =>
        {
            Label start = c.CreateLabel();
            c.jmp(start); // 2 bytes
            c.mov(al, 0x21); // 0x7c02: #BP
            c.@out(0xf4, al);
            c.Label(ref start);
            c.mov(__word_ptr[3 * 4], 0x7c02);
            c.mov(__word_ptr[3 * 4 + 2], 0);
            c.int3();
            c.hlt();
        });
        guest.Gdb.Ask("Z0,7d00,1").Should().Be("OK");
        guest.Gdb.Ask("c").Should().Be("W00");
        guest.Stop.Code.Should().Be((0x21 << 1) | 1);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Ctrl_C_stops_a_loop_and_detaching_lets_the_guest_go_on(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c =>
        {
            Label loop = c.CreateLabel();
            c.Label(ref loop);
            c.cmp(__byte_ptr[0x9000], 1);
            c.jne(loop);
            c.mov(al, 0x11);
            c.@out(0xf4, al);
        });
        GdbClient gdb = guest.Gdb;
        gdb.Send("c");
        gdb.Raw("\u0003");
        gdb.Receive().Should().Be("T02thread:1;");
        gdb.Register(Rip).Should().BeInRange(Start, Start + 7);
        gdb.Ask("Z0,7c00,1").Should().Be("OK");
        gdb.Ask("M9000,1:01").Should().Be("OK");
        gdb.Ask("D").Should().Be("OK");
        guest.Stop.Code.Should().Be((0x11 << 1) | 1, "nobody stops it at a breakpoint that went with the debugger");
    }

    /// <summary>A debugger that is cut off is no reason for the guest to stand still; the next one finds it running, and stops it.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void A_client_that_vanishes_leaves_the_guest_to_the_next(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c =>
        {
            Label loop = c.CreateLabel();
            c.Label(ref loop);
            c.inc(__dword_ptr[0x9000]);
            c.cmp(__byte_ptr[0x9010], 1);
            c.jne(loop);
            c.mov(al, 0x11);
            c.@out(0xf4, al);
        });
        guest.Gdb.Ask("Z0,7c00,1").Should().Be("OK");
        guest.Gdb.Dispose();
        using var next = new GdbClient(guest.Server.Endpoint);
        next.Ask("?").Should().StartWith("T02");
        next.Ask("M9010,1:01").Should().Be("OK");
        next.Ask("c").Should().Be("W00");
        guest.Stop.Reason.Should().Be(GuestStopReason.DebugExit);
    }

    [Theory, MemberData(nameof(Models))]
    public void A_triple_fault_can_be_looked_at_before_the_guest_ends(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c =>
        {
            c.lidt(__[0x9000]); // limit 0
            c.mov(al, 0x55);
            c.int3();
        });
        GdbClient gdb = guest.Gdb;
        gdb.Ask("c").Should().Be("T06thread:1;");
        if (kernel == "intel") (gdb.Register(Rax) & 0xff).Should().Be(0x55); // on AMD the processor leaves nothing of the state, and KVM resets it
        gdb.Ask("c").Should().Be("W00");
        guest.Stop.Reason.Should().Be(GuestStopReason.Shutdown);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Stepping_an_input_from_a_device_shows_what_it_read(string kernel)
    {
        using var guest = new DebuggedGuest(kernel, c =>
        {
            c.mov(dx, 0x3fd);
            c.@in(al, dx); // 0x7c03: line status
            c.hlt();
        });
        guest.Gdb.Ask("s").Should().StartWith("T05");
        guest.Gdb.Ask("s").Should().StartWith("T05");
        (guest.Gdb.Register(Rip), guest.Gdb.Register(Rax) & 0xff).Should().Be((Start + 4, 0x60UL));
    }

    [Fact]
    public void The_target_description_lists_as_many_bytes_as_g_has()
    {
        using var guest = new DebuggedGuest("amd", c => c.hlt());
        XElement target = XDocument.Parse(guest.Gdb.Description().Replace("<!DOCTYPE target SYSTEM \"gdb-target.dtd\">", "", StringComparison.Ordinal)).Root!;
        XElement[] registers = [.. target.Descendants("reg")];
        string all = guest.Gdb.Ask("g");
        registers.Sum(r => (int)r.Attribute("bitsize")!).Should().Be(all.Length * 4);
        registers[Rip].Attribute("name")!.Value.Should().Be("rip");
        target.Elements("feature").Select(f => f.Attribute("name")!.Value).Should().Contain(["org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse", "org.gnu.gdb.i386.segments"]);
        guest.Gdb.Ask("G" + all).Should().Be("OK");
        guest.Gdb.Ask("g").Should().Be(all);
    }

    /// <summary>Code at CS 0xf000: what gdb calls rip is where the instruction is.</summary>
    [Fact]
    public void Rip_has_the_base_of_CS_in_it()
    {
        using var guest = new DebuggedGuest("intel", c => c.jmp(0x700, 0xc10)); // 0x700:0xc10 = 0x7c10
        guest.Gdb.Ask("s").Should().StartWith("T05");
        guest.Gdb.Register(Rip).Should().Be(0x7c10);
        guest.Gdb.Monitor("registers").Should().Contain("cs  0700 base 0000000000007000").And.Contain("16-bit code");
        guest.Gdb.Ask("P10=207c000000000000").Should().Be("OK");
        guest.Gdb.Register(Rip).Should().Be(0x7c20);
        guest.Gdb.Monitor("registers").Should().Contain("rip 0000000000000c20");
    }

    [Fact]
    public void Monitor_commands_show_what_gdb_cannot()
    {
        using var guest = new DebuggedGuest("amd", c =>
        {
            c.mov(ax, 0x1234);
            c.hlt();
        });
        GdbClient gdb = guest.Gdb;
        gdb.Ask("Z0,7c00,1").Should().Be("OK");
        gdb.Monitor("disassemble").Should().StartWith("0000000000007c00  b83412").And.Contain("mov ax,1234h");
        gdb.Monitor("disassemble 7c03 1").Should().StartWith("0000000000007c03  f4").And.Contain("hlt");
        gdb.Monitor("translate 7c00").Should().Be("7c00\n");
        gdb.Monitor("msr c0000080").Should().Be("0000000000000000\n");
        gdb.Monitor("msr 12345678").Should().Contain("EINVAL");
        gdb.Monitor("msr zz").Should().StartWith("not a number");
        gdb.Monitor("nonsense").Should().StartWith("unknown command").And.Contain("disassemble");
        gdb.Monitor("help").Should().Contain("translate");
    }

    [Fact]
    public void Damaged_and_nonsensical_packets_are_refused_and_the_session_goes_on()
    {
        using var guest = new DebuggedGuest("amd", c => c.hlt());
        GdbClient gdb = guest.Gdb;
        gdb.Raw("noise$g#00");
        gdb.Byte().Should().Be('-', "the checksum is wrong");
        gdb.Ask("mxyz").Should().Be("E16");
        gdb.Ask("m7c00,fffffffffffffffff").Should().Be("E16");
        gdb.Ask("m").Should().Be("E16");
        gdb.Ask("M7c00,2:00").Should().Be("E16", "one byte is not two");
        gdb.Ask("mffff0000,1").Should().Be("E0e", "no memory");
        gdb.Ask("pffff").Should().Be("E16");
        gdb.Ask("P0=00").Should().Be("E16");
        gdb.Ask("Hg9").Should().Be("E03");
        gdb.Ask("vCont;s:9").Should().Be("E03");
        gdb.Ask("vCont;x").Should().Be("E16");
        gdb.Ask("").Should().Be("");
        gdb.Ask("vMustReplyEmpty").Should().Be("");
        gdb.Ask("qXfer:features:read:other.xml:0,10").Should().Be("");
        gdb.Ask("qRcmd,zz").Should().Be("E16");
        gdb.Register(Rip).Should().Be(Start);
        gdb.Raw("$m7c00," + new string('0', 0x5000) + "1#" + "00");
        gdb.Byte().Should().Be('-', "longer than any packet");
    }

    [Fact]
    public void Killing_ends_the_guest()
    {
        using var guest = new DebuggedGuest("intel", c => c.hlt());
        guest.Gdb.Ask("vKill;1").Should().Be("OK");
        guest.Stop.Reason.Should().Be(GuestStopReason.Interrupted);
    }

    /// <summary>A guest, its server, a client.</summary>
    private sealed class DebuggedGuest : IDisposable
    {
        private readonly KvmSystem _kvm;
        private readonly Pc _pc;
        private readonly Task<GuestStop> _run;
        private readonly Task _serving;

        public DebuggedGuest(string kernel, Action<Assembler> program)
        {
            var c = new Assembler(16);
            program(c);
            using var code = new MemoryStream();
            c.Assemble(new StreamCodeWriter(code), Start);
            _kvm = Kernels.Open(kernel);
            _pc = new Pc(_kvm, new PcOptions { Memory = 4 << 20, Output = PipeWriter.Create(Stream.Null), Irqchip = false });
            FlatLoader.Load16(_pc.Ram, _pc.Vcpu, code.ToArray());
            Server = new GdbServer(new GuestDebugger(_pc.Vm, _pc.Loops, _pc.TryMemory, _pc.Stop), new IPEndPoint(IPAddress.Loopback, 0));
            _serving = Server.RunAsync();
            _run = Task.Factory.StartNew(() => _pc.Run(TimeSpan.FromSeconds(60)), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
            Gdb = new GdbClient(Server.Endpoint);
        }

        public GdbServer Server { get; }

        public GdbClient Gdb { get; }

        /// <summary>Waits for the guest's end.</summary>
        public GuestStop Stop => _run.WaitAsync(TimeSpan.FromSeconds(60)).Result;

        public void Dispose()
        {
            Gdb.Dispose();
            _pc.Stop.Request(GuestStopReason.Interrupted, 0, "test over");
            Stop.Should().NotBeNull();
            Server.Dispose();
            _serving.Wait(TimeSpan.FromSeconds(30)).Should().BeTrue();
            _pc.Dispose();
            _kvm.Dispose();
        }
    }
}
