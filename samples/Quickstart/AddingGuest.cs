using Iced.Intel;
using Kvm.Abi;
using Kvm.Client;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Quickstart;

/// <summary>A VM with one page of memory and one processor.</summary>
public static class AddingGuest
{
    private const ulong Start = 0x1000;
    private const ushort SerialPort = 0x3f8;

    public static void Run(IKvmBackend backend, TextWriter output)
    {
        using var kvm = KvmSystem.Open(backend);
        using var vm = kvm.CreateVm();
        using var ram = vm.MapMemory(slot: 0, guestAddress: Start, size: 0x1000);
        Assemble().CopyTo(ram.Span);

        using var vcpu = vm.CreateVcpu(0);
        kvm_sregs sregs = vcpu.SRegs; // the processor comes out of reset at F000:FFF0
        sregs.cs.@base = 0;
        sregs.cs.selector = 0;
        vcpu.SRegs = sregs;
        vcpu.Regs = new kvm_regs { rip = Start, rax = 2, rbx = 2, rflags = 2 };

        while (true)
        {
            VcpuExit exit = vcpu.Run();
            switch (exit.Reason)
            {
                case KVM_EXIT_IO when exit.Io is { IsOut: true, Port: SerialPort }:
                    foreach (byte value in exit.Io.Data) output.Write((char)value);
                    break;
                case KVM_EXIT_HLT:
                    output.WriteLine("(halted)");
                    return;
                default:
                    throw new InvalidOperationException($"unexpected exit: {exit.ReasonName}");
            }
        }
    }

    private static byte[] Assemble()
    {
        var c = new Assembler(bitness: 16);
        c.mov(dx, SerialPort);
        c.add(al, bl);
        c.add(al, (sbyte)'0');
        c.@out(dx, al);
        c.mov(al, (sbyte)'\n');
        c.@out(dx, al);
        c.hlt();

        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), Start);
        return code.ToArray();
    }
}
