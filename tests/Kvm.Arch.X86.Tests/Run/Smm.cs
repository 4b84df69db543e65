using Iced.Intel;
using Kvm.Abi;
using Kvm.Core;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Run;

/// <summary>System-management mode: KVM_SMI, the state save map, an address space of its own, RSM. With both MMUs, and with the real mode that kvm_intel emulates.</summary>
/// <remarks>arch/x86/kvm/x86.c:enter_smm, emulate.c:em_rsm.</remarks>
public sealed unsafe class Smm : IDisposable
{
    private const uint smbase = 0x30000, entry = 0x8000;
    private const ulong smramSize = 0x20000;

    private Guest guest = null!;
    private byte* smram;

    public static TheoryData<string, string> Machines => new()
    {
        { "amd", "" }, { "amd", "npt=0" }, { "intel", "" }, { "intel", "ept=0" }, { "intel", "unrestricted_guest=0" },
    };

    /// <summary>RAM in the first address space, and the same in the second but for 128 KiB from SMBASE on.</summary>
    private void Start(string vendor, string parameters, bool longMode)
    {
        guest = new Guest(vendor, parameters: parameters);
        smram = (byte*)guest.Process.MapAnonymous(smramSize);
        guest.AddMemory(1 << 16, 0, smbase, (ulong)guest.Memory).Should().Be(KvmResult.Ok);
        guest.AddMemory(1 << 16 | 1, smbase, smramSize, (ulong)smram).Should().Be(KvmResult.Ok);
        guest.AddMemory(1 << 16 | 2, smbase + smramSize, Guest.MemorySize - smbase - smramSize, (ulong)guest.Memory + smbase + smramSize).Should().Be(KvmResult.Ok);
        byte* cpuid = (byte*)guest.Process.MapAnonymous(0x4000);
        *(uint*)cpuid = 256;
        Guest.Ok(guest.Process.Ioctl(guest.KvmFd, KVM_GET_SUPPORTED_CPUID, (ulong)cpuid));
        for (int i = 0; i < *(int*)cpuid; i++)
        {
            var leaf = (kvm_cpuid_entry2*)(cpuid + 8) + i;
            if (leaf->function == 0x80000001 && !longMode)
                leaf->edx &= ~(1u << 29);
        }

        Guest.Ok(guest.VcpuIoctl(KVM_SET_CPUID2, cpuid));
    }

    private static byte[] Assemble(ulong at, Action<Assembler> program)
    {
        var a = new Assembler(16);
        program(a);
        using var code = new MemoryStream();
        a.Assemble(new StreamCodeWriter(code), at);
        return code.ToArray();
    }

    private void Handler(uint at, Action<Assembler> program) => Assemble(at, program).CopyTo(new Span<byte>(smram + (at - smbase), 0x1000));

    private int Port()
    {
        guest.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        return guest.Run->io.port;
    }

    private bool InSmm => (guest.Run->flags & KVM_RUN_X86_SMM) != 0;

    private void Smi() => Guest.Ok(guest.Process.Ioctl(guest.VcpuFd, KVM_SMI, 0));

    /// <summary>A loop that writes to port 0x80 and counts in BX.</summary>
    private void Loop()
    {
        guest.Load(Assemble(0x1000, static a =>
        {
            Label again = a.CreateLabel();
            a.Label(ref again);
            a.inc(bx);
            a.@out(0x80, al);
            a.jmp(again);
        }));
    }

    [Theory, MemberData(nameof(Machines))]
    public void SMI_enters_at_SMBASE_and_RSM_returns(string vendor, string parameters)
    {
        Start(vendor, parameters, longMode: true);
        Handler(smbase + entry, static a =>
        {
            a.mov(bx, 0x1234);
            a.@out(0x81, al);
            a.rsm();
        });
        Loop();
        Port().Should().Be(0x80);
        InSmm.Should().BeFalse();
        kvm_regs before = guest.Regs;
        Smi();
        Port().Should().Be(0x81);
        InSmm.Should().BeTrue();
        guest.Events.smi.smm.Should().Be(1);
        guest.Regs.rbx.Should().Be(0x1234);
        kvm_sregs inside = guest.Sregs;
        (inside.cs.@base, inside.cs.selector, inside.cs.limit).Should().Be((smbase, (ushort)(smbase >> 4), uint.MaxValue));
        (inside.cr0 & 1).Should().Be(0);
        inside.efer.Should().Be(0);

        Port().Should().Be(0x80, "back where it was");
        InSmm.Should().BeFalse();
        guest.Regs.rbx.Should().Be(before.rbx + 1);
        guest.Regs.rip.Should().Be(before.rip);
        guest.Sregs.cs.@base.Should().Be(0);
    }

    /// <summary>What the handler writes between SMBASE and its end is in its memory, what it writes elsewhere in the guest's.</summary>
    [Theory, MemberData(nameof(Machines))]
    public void Has_an_address_space_of_its_own(string vendor, string parameters)
    {
        Start(vendor, parameters, longMode: true);
        guest.Memory[smbase + 0x100] = 0x11;
        Handler(smbase + entry, static a =>
        {
            a.mov(__byte_ptr.cs[0x100], 0x55);
            a.xor(ax, ax);
            a.mov(ds, ax);
            a.inc(__byte_ptr[0x500]);
            a.@out(0x81, al);
            a.rsm();
        });
        Loop();
        Port().Should().Be(0x80);
        for (byte i = 1; i <= 3; i++)
        {
            Smi();
            Port().Should().Be(0x81);
            Port().Should().Be(0x80);
            smram[0x100].Should().Be(0x55);
            guest.Memory[smbase + 0x100].Should().Be(0x11);
            guest.Memory[0x500].Should().Be(i);
        }
    }

    /// <summary>AMD's map for guests with long mode, the old one of 32 bits for others; SMBASE and RIP in it are what RSM loads.</summary>
    [Theory]
    [InlineData("amd", "", true), InlineData("amd", "", false), InlineData("amd", "npt=0", true), InlineData("intel", "", true), InlineData("intel", "", false), InlineData("intel", "ept=0", true)]
    public void Saves_the_state_where_the_manuals_say(string vendor, string parameters, bool longMode)
    {
        Start(vendor, parameters, longMode);
        int rip = longMode ? 0xff78 : 0xfff0, rbxAt = longMode ? 0xffe0 : 0xffdc, baseAt = longMode ? 0xff00 : 0xfef8;
        Handler(smbase + entry, a =>
        {
            // Another SMBASE from the next SMI on, another RBX after RSM.
            a.mov(ecx, 0x34000);
            a.mov(__dword_ptr.cs[baseAt], ecx);
            a.mov(__word_ptr.cs[rbxAt], 0x7777);
            a.@out(0x81, al);
            a.rsm();
        });
        Handler(0x34000 + entry, static a =>
        {
            a.@out(0x82, al);
            a.rsm();
        });
        Loop();
        Port().Should().Be(0x80);
        Smi();
        Port().Should().Be(0x81);
        uint revision = *(uint*)(smram + 0xfefc);
        revision.Should().Be(longMode ? 0x00020064u : 0x00020000u);

        // The OUT is over before the SMI comes.
        (longMode ? *(ulong*)(smram + rip) : *(uint*)(smram + rip)).Should().Be(0x1003);
        Port().Should().Be(0x80);
        guest.Regs.rbx.Should().Be(0x7778);
        Smi();
        Port().Should().Be(0x82, "SMBASE has moved");
        Port().Should().Be(0x80);
    }

    /// <summary>A second SMI waits for RSM; NMIs are blocked meanwhile.</summary>
    [Theory, MemberData(nameof(Machines))]
    public void A_second_SMI_waits(string vendor, string parameters)
    {
        Start(vendor, parameters, longMode: true);
        Handler(smbase + entry, static a =>
        {
            a.@out(0x81, al);
            a.@out(0x82, al);
            a.rsm();
        });
        Loop();
        Port().Should().Be(0x80);
        Smi();
        Port().Should().Be(0x81);
        guest.Events.nmi.masked.Should().Be(1);
        Smi();
        Port().Should().Be(0x82);
        guest.Events.smi.pending.Should().Be(1);
        Port().Should().Be(0x81, "the second one, right after RSM");
        Port().Should().Be(0x82);
        Port().Should().Be(0x80);
        guest.Events.nmi.masked.Should().Be(0);
    }

    /// <summary>RSM outside of the mode is an invalid instruction.</summary>
    [Theory, MemberData(nameof(Machines))]
    public void RSM_outside_is_UD(string vendor, string parameters)
    {
        Start(vendor, parameters, longMode: true);
        *(uint*)(guest.Memory + 6 * 4) = 0x2000;
        Assemble(0x2000, static a => a.@out(0x86, al)).CopyTo(new Span<byte>(guest.Memory + 0x2000, 16));
        guest.Load(Assemble(0x1000, static a => a.rsm()));
        Port().Should().Be(0x86);
    }

    /// <summary>From 64-bit mode with paging and back.</summary>
    [Theory, MemberData(nameof(Machines))]
    public void Interrupts_64_bit_code(string vendor, string parameters)
    {
        Start(vendor, parameters, longMode: true);
        Handler(smbase + entry, static a =>
        {
            a.@out(0x81, al);
            a.rsm();
        });
        // Identity map of 2 MiB pages: PML4 at 0x4000, PDPT at 0x5000, PD at 0x6000.
        *(ulong*)(guest.Memory + 0x4000) = 0x5003;
        *(ulong*)(guest.Memory + 0x5000) = 0x6003;
        for (ulong i = 0; i < 4; i++)
            *(ulong*)(guest.Memory + 0x6000 + 8 * i) = i << 21 | 0x83;
        new byte[] { 0x48, 0xff, 0xc3, 0xe6, 0x80, 0xeb, 0xf9 }.CopyTo(new Span<byte>(guest.Memory + 0x1000, 8)); // inc rbx; out 0x80, al; jmp
        kvm_sregs s = guest.Sregs;
        s.cr3 = 0x4000;
        s.cr4 |= 0x20;
        s.cr0 |= 0x80000001;
        s.efer |= 0x500;
        s.cs = new kvm_segment { limit = uint.MaxValue, selector = 8, type = 11, present = 1, s = 1, l = 1, g = 1 };
        s.ds = s.es = s.fs = s.gs = s.ss = new kvm_segment { limit = uint.MaxValue, selector = 16, type = 3, present = 1, s = 1, db = 1, g = 1 };
        guest.Sregs = s;
        guest.Regs = new kvm_regs { rip = 0x1000, rflags = 2, rsp = 0x8000, rbx = 0x1_0000_0000, r15 = 0xdead_beef_0000_0001 };
        Port().Should().Be(0x80);
        for (ulong i = 1; i <= 3; i++)
        {
            Smi();
            Port().Should().Be(0x81);
            (guest.Sregs.efer & 0x400).Should().Be(0);
            Port().Should().Be(0x80);
            guest.Regs.rbx.Should().Be(0x1_0000_0001 + i);
            guest.Regs.r15.Should().Be(0xdead_beef_0000_0001);
            kvm_sregs after = guest.Sregs;
            (after.efer, after.cr3, after.cs.l).Should().Be((s.efer, s.cr3, (byte)1));
        }
    }

    public void Dispose() => guest.Dispose();
}
