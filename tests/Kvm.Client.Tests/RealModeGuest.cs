using Iced.Intel;

namespace Kvm.Client.Tests;

/// <summary>A VM with one page of RAM at 0x1000 and one vCPU about to run 16-bit code there.</summary>
internal sealed class RealModeGuest : IDisposable
{
    public const ulong Base = 0x1000;

    public RealModeGuest(string kernel, Action<Assembler> program)
        : this(Kernels.Open(kernel), program)
    {
    }

    public RealModeGuest(KvmSystem system, Action<Assembler> program)
    {
        System = system;
        Vm = System.CreateVm();
        Ram = Vm.MapMemory(slot: 0, guestAddress: Base, size: 0x2000);
        Vcpu = Vm.CreateVcpu(0);

        var assembler = new Assembler(16);
        program(assembler);
        using var code = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(code), Base);
        code.ToArray().CopyTo(Ram.Span);

        var sregs = Vcpu.SRegs;
        sregs.cs.@base = 0;
        sregs.cs.selector = 0;
        Vcpu.SRegs = sregs;
        Vcpu.Regs = new() { rip = Base, rflags = 2, rsp = 0x3000 };
    }

    public KvmSystem System { get; }

    public Vm Vm { get; }

    public GuestMemory Ram { get; }

    public Vcpu Vcpu { get; }

    public void Dispose()
    {
        Vcpu.Dispose();
        Ram.Dispose();
        Vm.Dispose();
        System.Dispose();
    }
}
