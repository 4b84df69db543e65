using Kvm.Abi;
using Kvm.Arch.X86.Tests.Emulate;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Run;

/// <summary>A guest executes what is in its memory now: after its own stores, after writes by the process that runs it, and when the memory behind an address becomes another.</summary>
public sealed unsafe class ChangedCode
{
    private const ulong function = 0x20000, crossing = 0x21ffe;
    private const byte port = 0x10;

    public static TheoryData<string, int> Guests => new() { { "intel", 16 }, { "amd", 16 }, { "intel", 32 }, { "amd", 32 }, { "intel", 64 }, { "amd", 64 } };

    public static TheoryData<string, int> WideGuests => new() { { "intel", 32 }, { "amd", 32 }, { "intel", 64 }, { "amd", 64 } };

    private static void Load(ModeGuest g, params byte[] code)
    {
        new Span<byte>(g.Memory + ModeGuest.Code, 0x100).Fill(0xf4);
        code.CopyTo(new Span<byte>(g.Memory + ModeGuest.Code, 0x100));
        kvm_regs r = default;
        r.rip = ModeGuest.Code;
        r.rsp = ModeGuest.StackTop;
        r.rflags = 2;
        r.rbx = function;
        r.rsi = ModeGuest.Code;
        g.Guest.Regs = r;
    }

    /// <summary>mov al, imm; ret.</summary>
    private static void Function(byte* at, byte value)
    {
        at[0] = 0xb0;
        at[1] = value;
        at[2] = 0xc3;
    }

    /// <summary>Calls the function at RBX and tells AL to userspace, for ever: call rbx; out 10h, al; jmp.</summary>
    private static readonly byte[] caller = [0xff, 0xd3, 0xe6, port, 0xeb, 0xfa];

    private static byte Told(ModeGuest g)
    {
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        return *g.Guest.IoData;
    }

    [Theory, MemberData(nameof(Guests))]
    public void A_store_to_the_next_instruction_is_seen_by_it(string vendor, int mode)
    {
        using var g = new ModeGuest(vendor, mode);
        // mov byte [rsi+5], 22h; mov al, 11h; hlt, in 16-bit code with the same bytes: C6 44 05 is [si+5].
        Load(g, 0xc6, (byte)(mode == 16 ? 0x44 : 0x46), 0x05, 0x22, 0xb0, 0x11, 0xf4);
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        (g.Guest.Regs.rax & 0xff).Should().Be(0x22);
    }

    [Theory, MemberData(nameof(WideGuests))]
    public void A_loop_that_changes_a_function_calls_the_changed_one_each_time(string vendor, int mode)
    {
        using var g = new ModeGuest(vendor, mode);
        Function(g.Memory + function, 0);
        // mov ecx, 1000; again: inc byte [rbx+1]; call rbx; movzx eax, al; add edx, eax; dec ecx (ff c9); jnz again; hlt
        Load(g, 0xb9, 0xe8, 0x03, 0, 0, 0xfe, 0x43, 0x01, 0xff, 0xd3, 0x0f, 0xb6, 0xc0, 0x01, 0xc2, 0xff, 0xc9, 0x75, 0xf2, 0xf4);
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Guest.Regs.rdx.Should().Be((ulong)Enumerable.Range(1, 1000).Sum(i => i & 0xff));
    }

    [Theory, MemberData(nameof(WideGuests))]
    public void What_the_process_writes_into_guest_memory_is_executed(string vendor, int mode)
    {
        using var g = new ModeGuest(vendor, mode);
        Load(g, caller);
        for (int i = 0; i < 100; i++)
        {
            Function(g.Memory + function, (byte)i);
            Told(g).Should().Be((byte)i);
        }
    }

    [Theory, MemberData(nameof(WideGuests))]
    public void The_other_half_of_an_instruction_across_pages_counts_too(string vendor, int mode)
    {
        using var g = new ModeGuest(vendor, mode);
        Load(g, caller);
        kvm_regs r = g.Guest.Regs;
        r.rbx = crossing;
        g.Guest.Regs = r;
        // mov eax, imm32 with three bytes of it on the next page; ret
        byte[] code = [0xb8, 0x01, 0x02, 0x03, 0x04, 0xc3];
        code.CopyTo(new Span<byte>(g.Memory + crossing, 6));
        Told(g).Should().Be(1);
        for (uint i = 1; i < 50; i++)
        {
            *(g.Memory + crossing + 1) = (byte)i;
            *(g.Memory + crossing + 2) = (byte)(i * 3);
            Told(g).Should().Be((byte)i);
            g.Guest.Regs.rax.Should().Be(0x04030000u | (uint)(byte)(i * 3) << 8 | i);
        }
    }

    /// <summary>The guest's own store to the second page of an instruction that it has executed.</summary>
    [Theory, MemberData(nameof(WideGuests))]
    public void A_store_to_the_second_page_of_a_crossing_instruction_is_seen(string vendor, int mode)
    {
        using var g = new ModeGuest(vendor, mode);
        byte[] code = [0xb8, 0x01, 0x00, 0x00, 0x00, 0xc3];
        code.CopyTo(new Span<byte>(g.Memory + crossing, 6));
        // mov ecx, 200; again: inc byte [rbx+2] (bits 15:8); call rbx; add edx, eax; dec ecx; jnz again; hlt
        Load(g, 0xb9, 0xc8, 0, 0, 0, 0xfe, 0x43, 0x02, 0xff, 0xd3, 0x01, 0xc2, 0xff, 0xc9, 0x75, 0xf5, 0xf4);
        kvm_regs r = g.Guest.Regs;
        r.rbx = crossing;
        g.Guest.Regs = r;
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Guest.Regs.rdx.Should().Be((ulong)Enumerable.Range(1, 200).Sum(i => (i << 8) + 1));
    }

    [Theory, MemberData(nameof(WideGuests))]
    public void A_slot_that_gets_other_memory_brings_other_code(string vendor, int mode)
    {
        const ulong at = 0x900000;
        using var g = new ModeGuest(vendor, mode);
        byte* first = (byte*)g.Guest.Process.MapAnonymous(0x10000), second = (byte*)g.Guest.Process.MapAnonymous(0x10000);
        Function(first, 1);
        Function(second, 2);
        Load(g, caller);
        kvm_regs r = g.Guest.Regs;
        r.rbx = at;
        g.Guest.Regs = r;
        for (int i = 0; i < 20; i++)
        {
            byte* memory = (i & 1) == 0 ? first : second;
            g.Guest.AddMemory(1, at, 0, 0);
            g.Guest.AddMemory(1, at, 0x10000, (ulong)memory).Raw.Should().Be(0);
            Told(g).Should().Be((byte)((i & 1) + 1));
        }
    }

    [Theory, MemberData(nameof(WideGuests))]
    public void Memory_that_the_process_gives_back_is_executed_no_more(string vendor, int mode)
    {
        const ulong at = 0x900000;
        using var g = new ModeGuest(vendor, mode);
        ulong memory = g.Guest.Process.MapAnonymous(0x10000);
        Function((byte*)memory, 7);
        g.Guest.AddMemory(1, at, 0x10000, memory).Raw.Should().Be(0);
        Load(g, caller);
        kvm_regs r = g.Guest.Regs;
        r.rbx = at;
        g.Guest.Regs = r;
        Told(g).Should().Be(7);
        Told(g).Should().Be(7);
        g.Guest.Process.Munmap(memory, 0x10000).Raw.Should().Be(0);
        g.Guest.RunOnce().Raw.Should().Be(-(int)Errno.EFAULT);
    }

    /// <summary>The guest maps another page at the function's address and flushes its translation.</summary>
    [Theory]
    [InlineData("intel")]
    [InlineData("amd")]
    public void A_new_mapping_brings_other_code(string vendor)
    {
        const ulong directory = 0x102000, large = 0x200000, at = 0x400000;
        using var g = new ModeGuest(vendor, 64);
        Function(g.Memory + at, 1);
        Function(g.Memory + at + large, 2);
        // RSI: the directory entry of the function's 2 MiB. again: call rbx; add edx, eax; add qword [rsi], 200000h; invlpg [rbx]; call rbx; ...; hlt
        Load(g, 0xff, 0xd3, 0x0f, 0xb6, 0xd0, 0x48, 0x81, 0x06, 0, 0, 0x20, 0, 0x0f, 0x01, 0x3b, 0xff, 0xd3, 0x88, 0xc6, 0xf4);
        kvm_regs r = g.Guest.Regs;
        r.rbx = at;
        r.rsi = directory + 2 * 8;
        g.Guest.Regs = r;
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        (g.Guest.Regs.rdx & 0xffff).Should().Be(0x201);
    }

    /// <summary>A device's thread writes while the guest runs: it sees the new code sooner or later, and never a mixture.</summary>
    [Theory, MemberData(nameof(WideGuests))]
    public void What_another_thread_writes_while_the_guest_runs_is_seen_after_the_next_exit(string vendor, int mode)
    {
        using var g = new ModeGuest(vendor, mode);
        Load(g, caller);
        byte* at = g.Memory + function;
        Function(at, 1);
        int stop = 0;
        var writer = new Thread(() =>
        {
            for (byte i = 1; Volatile.Read(ref stop) == 0; i = (byte)(i == 9 ? 1 : i + 1))
                Volatile.Write(ref at[1], i);
        });
        writer.Start();
        for (int i = 0; i < 300; i++)
            Told(g).Should().BeInRange(1, 9);
        Volatile.Write(ref stop, 1);
        writer.Join();
        Told(g).Should().Be(at[1]);
    }
}
