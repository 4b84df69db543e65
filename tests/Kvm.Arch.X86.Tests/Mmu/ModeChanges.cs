using Iced.Intel;
using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Mmu;

/// <summary>
/// A guest on its way through the modes of the processor: real mode, "big real mode", protected mode, 32-bit paging, PAE, long mode and back. The same on every kind of
/// host: real mode in hardware, in virtual-8086 mode on KVM's TSS, or emulated; tables shadowed or not.
/// </summary>
public sealed unsafe class ModeChanges
{
    private const uint gdt = 0x800, pd32 = 0x40000, pdpt = 0x41000, pd = 0x42000, pml4 = 0x44000, pdpt64 = 0x45000;

    public static TheoryData<string> Hosts => [.. ShadowPaging.Hosts, "intel ept=0 emulate_invalid_guest_state=0"];

    private static Guest Start(string host)
    {
        string[] parts = host.Split(' ', 2);
        var guest = new Guest(parts[0], 1, true, parts.Length > 1 ? parts[1] : "");
        var cpuid = (kvm_cpuid2*)guest.Process.MapAnonymous(0x4000);
        cpuid->nent = 256;
        Guest.Ok(guest.Process.Ioctl(guest.KvmFd, KVM_GET_SUPPORTED_CPUID, (ulong)cpuid));
        Guest.Ok(guest.Process.Ioctl(guest.VcpuFd, KVM_SET_CPUID2, (ulong)cpuid));
        var g = (ulong*)(guest.Memory + gdt);
        g[1] = 0x00cf9b000000ffff; // 08 32-bit code
        g[2] = 0x00cf93000000ffff; // 10 32-bit data
        g[3] = 0x00009b000000ffff; // 18 16-bit code
        g[4] = 0x000093000000ffff; // 20 16-bit data
        g[5] = 0x00af9b000000ffff; // 28 64-bit code
        *(ushort*)(guest.Memory + 0x7f0) = 0x2f;
        *(uint*)(guest.Memory + 0x7f2) = gdt;

        // One to one: 4 MiB pages, PAE with 2 MiB pages, long mode with 2 MiB pages.
        for (uint i = 0; i < 4; i++)
            ((uint*)(guest.Memory + pd32))[i] = (i << 22) | 0x83;
        for (uint i = 0; i < 4; i++)
            ((ulong*)(guest.Memory + pd))[i] = (i << 21) | 0x83;
        *(ulong*)(guest.Memory + pdpt) = pd | 1;
        *(ulong*)(guest.Memory + pml4) = pdpt64 | 3;
        *(ulong*)(guest.Memory + pdpt64) = pd | 3;
        return guest;
    }

    private static byte[] Assemble(int bits, ulong at, Action<Assembler> program)
    {
        var a = new Assembler(bits);
        program(a);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), at);
        return stream.ToArray();
    }

    private static void Put(Guest guest, uint at, byte[] code) => code.CopyTo(new Span<byte>(guest.Memory + at, code.Length));

    /// <summary>A jump to another code segment: 66 EA offset selector from 16-bit code, EA from 32-bit code.</summary>
    private static byte[] FarJump(int bits, uint at, ushort selector) =>
        [.. bits == 16 ? new byte[] { 0x66, 0xea } : [0xea], .. BitConverter.GetBytes(at), .. BitConverter.GetBytes(selector)];

    private static void Runs(Guest guest)
    {
        uint reason = guest.RunToExit();
        reason.Should().Be((uint)KVM_EXIT_HLT, $"suberror {guest.Run->@internal.suberror}, at {guest.Regs.rip:x} cr0 {guest.Sregs.cr0:x}");
    }

    [Theory]
    [MemberData(nameof(Hosts))]
    public void Real_protected_paging_PAE_long_mode_and_back(string host)
    {
        using Guest guest = Start(host);
        byte[] real = Assemble(16, 0x1000, a =>
        {
            a.cli();
            a.mov(ax, 0x1234);
            a.mov(__word_ptr[0x500], ax);
            a.lgdt(__[0x7f0]);
            a.mov(eax, cr0);
            a.or(al, 1);
            a.mov(cr0, eax);
        });
        guest.Load([.. real, .. FarJump(16, 0x2000, 8)]);
        byte[] protectedMode = Assemble(32, 0x2000, a =>
        {
            a.mov(eax, 0x10);
            a.mov(ds, ax);
            a.mov(es, ax);
            a.mov(ss, ax);
            a.mov(fs, ax);
            a.mov(gs, ax);
            a.mov(esp, 0x9000);
            a.mov(__dword_ptr[0x504], 0x11111111);

            // 32-bit paging with 4 MiB pages.
            a.mov(eax, cr4);
            a.or(eax, 0x10);
            a.mov(cr4, eax);
            a.mov(eax, pd32);
            a.mov(cr3, eax);
            a.mov(eax, cr0);
            a.or(eax, 0x80000000);
            a.mov(cr0, eax);
            a.push(0x22222222);
            a.pop(__dword_ptr[0x508]);

            // Off, then PAE.
            a.mov(eax, cr0);
            a.and(eax, 0x7fffffff);
            a.mov(cr0, eax);
            a.mov(eax, cr4);
            a.or(eax, 0x20);
            a.mov(cr4, eax);
            a.mov(eax, pdpt);
            a.mov(cr3, eax);
            a.mov(eax, cr0);
            a.or(eax, 0x80000000);
            a.mov(cr0, eax);
            a.mov(__dword_ptr[0x50c], 0x33333333);

            // Off, then long mode.
            a.mov(eax, cr0);
            a.and(eax, 0x7fffffff);
            a.mov(cr0, eax);
            a.mov(ecx, 0xc0000080);
            a.rdmsr();
            a.or(eax, 0x100);
            a.wrmsr();
            a.mov(eax, pml4);
            a.mov(cr3, eax);
            a.mov(eax, cr0);
            a.or(eax, 0x80000000);
            a.mov(cr0, eax);
        });
        Put(guest, 0x2000, [.. protectedMode, .. FarJump(32, 0x3000, 0x28)]);
        // retfq takes RIP first, then CS: 64 bits each.
        byte[] longMode = Assemble(64, 0x3000, a =>
        {
            a.mov(rax, 0x4444444444444444);
            a.mov(__qword_ptr[0x510], rax);
            a.push(8);
            a.push(0x4000);
        });
        Put(guest, 0x3000, [.. longMode, 0x48, 0xcb]); // retfq
        byte[] back = Assemble(32, 0x4000, a =>
        {
            a.mov(eax, cr0);
            a.and(eax, 0x7fffffff);
            a.mov(cr0, eax);
            a.mov(ecx, 0xc0000080);
            a.rdmsr();
            a.and(eax, ~0x100);
            a.wrmsr();
            a.mov(__dword_ptr[0x518], 0x55555555);
        });
        Put(guest, 0x4000, [.. back, .. FarJump(32, 0x5000, 0x18)]);
        byte[] leave = Assemble(16, 0x5000, a =>
        {
            a.mov(ax, 0x20);
            a.mov(ds, ax);
            a.mov(es, ax);
            a.mov(ss, ax);
            a.mov(fs, ax);
            a.mov(gs, ax);
            a.mov(eax, cr0);
            a.and(al, 0xfe);
            a.mov(cr0, eax);
        });
        Put(guest, 0x5000, [.. leave, 0xea, 0x00, 0x60, 0x00, 0x00]);
        Put(guest, 0x6000, Assemble(16, 0x6000, a =>
        {
            a.xor(ax, ax);
            a.mov(ds, ax);
            a.mov(es, ax);
            a.mov(ss, ax);
            a.mov(sp, 0x9000);
            a.mov(__dword_ptr[0x51c], 0x66666666);
            a.hlt();
        }));
        Runs(guest);
        (*(ushort*)(guest.Memory + 0x500)).Should().Be(0x1234);
        for (uint i = 1; i <= 3; i++)
            (*(uint*)(guest.Memory + 0x500 + (i * 4))).Should().Be(i * 0x11111111);
        (*(ulong*)(guest.Memory + 0x510)).Should().Be(0x4444444444444444);
        (*(uint*)(guest.Memory + 0x518)).Should().Be(0x55555555);
        (*(uint*)(guest.Memory + 0x51c)).Should().Be(0x66666666);
        (guest.Sregs.cr0 & 0x80000001).Should().Be(0);
        guest.Regs.rip.Should().BeInRange(0x6000, 0x6030);
    }

    /// <summary>Segment registers keep the limits of protected mode when it is left: 4 GiB in real mode.</summary>
    [Theory]
    [InlineData("intel")]
    [InlineData("intel unrestricted_guest=0")]
    [InlineData("intel ept=0")]
    [InlineData("amd")]
    [InlineData("amd npt=0")]
    public void Big_real_mode_reaches_beyond_1_MiB(string host)
    {
        using Guest guest = Start(host);
        byte[] real = Assemble(16, 0x1000, a =>
        {
            a.lgdt(__[0x7f0]);
            a.mov(eax, cr0);
            a.or(al, 1);
            a.mov(cr0, eax);
            a.mov(bx, 0x10);
            a.mov(ds, bx);
            a.mov(es, bx);
            a.and(al, 0xfe);
            a.mov(cr0, eax);
            a.mov(edi, 0x300000);
            a.mov(__dword_ptr.ds[edi], 0xcafe);
            a.mov(eax, __dword_ptr.es[edi]);
            a.add(eax, 2);
            a.mov(__word_ptr.ds[edi + 8], ax);
            a.mov(ecx, 3);
            Label loop = a.CreateLabel();
            a.Label(ref loop);
            a.inc(__dword_ptr.ds[edi + 12]);
            a.dec(cx);
            a.jne(loop);
            a.hlt();
        });
        guest.Load(real);
        Runs(guest);
        (*(uint*)(guest.Memory + 0x300000)).Should().Be(0xcafe);
        (*(ushort*)(guest.Memory + 0x300008)).Should().Be(0xcb00);
        (*(uint*)(guest.Memory + 0x30000c)).Should().Be(3);
    }

    /// <summary>Software interrupts, faults and traps through the table of real mode.</summary>
    [Theory]
    [MemberData(nameof(Hosts))]
    public void Interrupts_of_real_mode(string host)
    {
        using Guest guest = Start(host);
        guest.Load(Assemble(16, 0x1000, a =>
        {
            a.mov(bx, 0);
            a.@int(0x40);
            a.int3();
            a.xor(cx, cx);
            a.div(cx);
            a.pushf();
            a.pop(dx);
            a.sti();
            a.pushf();
            a.pop(si);
            a.cli();
            a.hlt();
        }));
        foreach ((int vector, uint at, byte add) in new (int, uint, byte)[] { (0x40, 0x2000, 1), (3, 0x2010, 2), (0, 0x2020, 4) })
        {
            *(uint*)(guest.Memory + (vector * 4)) = at;
            Put(guest, at, vector == 0
                ? Assemble(16, at, a => { a.add(bx, add); a.mov(cx, 1); a.mov(ax, 0); a.mov(dx, 0); a.iret(); })
                : Assemble(16, at, a => { a.add(bx, add); a.iret(); }));
        }

        Runs(guest);
        kvm_regs r = guest.Regs;
        (r.rbx & 0xffff).Should().Be(7);
        (r.rdx & 0x200).Should().Be(0);
        (r.rsi & 0x200).Should().Be(0x200);
    }
}
