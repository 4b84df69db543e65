using System.Runtime.InteropServices;
using Iced.Intel;
using Kvm.Abi;
using Kvm.Client;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace LongMode;

/// <summary>A VM with 1 MiB of memory, whose only help from outside is a descriptor table.</summary>
public static class LongModeGuest
{
    // Where things lie in guest memory.
    private const ushort RealModeCode = 0x1000;
    private const uint LongModeCode = 0x2000;
    private const uint Gdt = 0x3000;
    private const ushort Gdtr = 0x3020;
    private const uint Idt = 0x4000;
    private const uint Stack = 0x8000;
    private const uint PageTables = 0x10000; // PML4, PDPT, PD

    private const ushort CodeSelector = 0x08, DataSelector = 0x10;
    private const ushort SerialPort = 0x3f8;

    public static void Run(IKvmBackend backend, TextWriter output)
    {
        using var kvm = KvmSystem.Open(backend);
        using var vm = kvm.CreateVm();
        using var ram = vm.MapMemory(slot: 0, guestAddress: 0, size: 0x100000);
        using var vcpu = vm.CreateVcpu(0);
        vcpu.SetCpuid(kvm.GetSupportedCpuid()); // without it the processor has no long mode to offer

        AssembleRealMode().CopyTo(ram.At(RealModeCode, 0x1000));
        AssembleLongMode().CopyTo(ram.At(LongModeCode, 0x1000));
        ReadOnlySpan<ulong> descriptors = [0, 0x00af9b000000ffff, 0x00cf93000000ffff]; // null; 64-bit code; data
        MemoryMarshal.AsBytes(descriptors).CopyTo(ram.At(Gdt, 24));
        ram.At<ushort>(Gdtr) = 3 * 8 - 1; // what LGDT reads: limit, base
        ram.At<uint>(Gdtr + 2) = Gdt;

        kvm_sregs sregs = vcpu.SRegs;
        sregs.cs.@base = 0;
        sregs.cs.selector = 0;
        vcpu.SRegs = sregs;
        vcpu.Regs = new kvm_regs { rip = RealModeCode, rsp = Stack, rflags = 2 };

        while (true)
        {
            VcpuExit exit = vcpu.Run();
            switch (exit.Reason)
            {
                case KVM_EXIT_IO when exit.Io is { IsOut: true, Port: SerialPort }:
                    foreach (byte value in exit.Io.Data) output.Write((char)value);
                    break;
                case KVM_EXIT_HLT:
                    output.WriteLine($"(halted in {((vcpu.SRegs.efer & (1 << 10)) != 0 ? "long" : "legacy")} mode)");
                    return;
                default:
                    throw new InvalidOperationException($"unexpected exit: {exit.ReasonName}, rip 0x{vcpu.Regs.rip:x}");
            }
        }
    }

    /// <summary>Builds page tables that map the first 2 MiB to themselves, and switches to 64-bit mode.</summary>
    private static byte[] AssembleRealMode()
    {
        var c = new Assembler(bitness: 16);
        c.mov(ax, (ushort)(PageTables >> 4));
        c.mov(es, ax);
        c.xor(di, di);
        c.xor(ax, ax);
        c.mov(cx, 3 * 4096 / 2);
        c.cld();
        c.rep.stosw();
        c.mov(__dword_ptr.es[0x0000], (PageTables + 0x1000) | 3); // present, writable
        c.mov(__dword_ptr.es[0x1000], (PageTables + 0x2000) | 3);
        c.mov(__dword_ptr.es[0x2000], 0x83);                      // one 2 MiB page

        c.mov(eax, PageTables);
        c.mov(cr3, eax);
        c.mov(eax, cr4);
        c.or(eax, 1 << 5); // PAE
        c.mov(cr4, eax);
        c.mov(ecx, 0xc0000080); // EFER
        c.rdmsr();
        c.or(eax, 1 << 8); // LME
        c.wrmsr();
        c.lgdt(__[Gdtr]);
        c.mov(eax, cr0);
        c.or(eax, 0x80000001); // PG and PE at once: from real mode into long mode
        c.mov(cr0, eax);
        c.db(0x66, 0xea); // jmp far, 32-bit offset
        c.dd(LongModeCode);
        c.dw(CodeSelector);
        return Bytes(c, RealModeCode);
    }

    /// <summary>Prints, divides by zero, handles that, prints again.</summary>
    private static byte[] AssembleLongMode()
    {
        var c = new Assembler(bitness: 64);
        Label print = c.CreateLabel(), divideError = c.CreateLabel(), idtr = c.CreateLabel();
        Label hello = c.CreateLabel(), caught = c.CreateLabel(), back = c.CreateLabel();

        c.mov(eax, DataSelector);
        c.mov(ds, ax);
        c.mov(es, ax);
        c.mov(ss, ax);
        c.mov(esp, Stack);

        // Vector 0 of the IDT: an interrupt gate to divideError.
        c.lea(rax, __[divideError]);
        c.mov(edi, Idt);
        c.mov(__word_ptr[rdi], ax);
        c.mov(__word_ptr[rdi + 2], CodeSelector);
        c.mov(__word_ptr[rdi + 4], 0x8e00);
        c.shr(rax, 16);
        c.mov(__word_ptr[rdi + 6], ax);
        c.shr(rax, 16);
        c.mov(__dword_ptr[rdi + 8], eax);
        c.mov(__dword_ptr[rdi + 12], 0);
        c.lidt(__[idtr]);

        c.lea(rsi, __[hello]);
        c.call(print);
        c.xor(ecx, ecx);
        c.div(ecx); // two bytes long: the handler skips it
        c.lea(rsi, __[back]);
        c.call(print);
        c.hlt();

        c.Label(ref divideError);
        c.lea(rsi, __[caught]);
        c.call(print);
        c.add(__qword_ptr[rsp], 2); // the saved RIP
        c.iretq();

        c.Label(ref print); // the zero-terminated text at RSI
        Label next = c.CreateLabel(), done = c.CreateLabel();
        c.mov(edx, SerialPort);
        c.Label(ref next);
        c.lodsb();
        c.test(al, al);
        c.je(done);
        c.@out(dx, al);
        c.jmp(next);
        c.Label(ref done);
        c.ret();

        c.Label(ref idtr);
        c.dw(16 - 1);
        c.dq(Idt);
        Text(c, ref hello, "hello from 64-bit mode\n");
        Text(c, ref caught, "caught a divide error\n");
        Text(c, ref back, "and back\n");
        return Bytes(c, LongModeCode);
    }

    private static void Text(Assembler c, ref Label label, string text)
    {
        c.Label(ref label);
        c.db([.. System.Text.Encoding.ASCII.GetBytes(text), 0]);
    }

    private static byte[] Bytes(Assembler c, ulong address)
    {
        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), address);
        return code.ToArray();
    }
}
