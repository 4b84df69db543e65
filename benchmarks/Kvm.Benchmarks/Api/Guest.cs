using System.Runtime.CompilerServices;
using Kvm.Abi;
using Kvm.Client;

namespace Kvm.Benchmarks.Api;

/// <summary>A VM with one page of 16-bit code and one vCPU.</summary>
internal sealed class Guest : IDisposable
{
    private readonly KvmSystem? _own;
    private readonly GuestMemory _ram;
    private readonly Vcpu _vcpu;

    public Guest(string vendor, byte[] program)
        : this(KvmSystem.Open(KvmBackend.ByName("model", vendor)), program, own: true)
    {
    }

    public Guest(KvmSystem kvm, byte[] program, bool own = false)
    {
        _own = own ? kvm : null;
        Vm = kvm.CreateVm();
        _ram = Vm.MapMemory(0, Programs.Code, 0x1000);
        program.CopyTo(_ram.Span);
        _vcpu = Vm.CreateVcpu(0);
        kvm_sregs sregs = _vcpu.SRegs;
        sregs.cs.selector = 0;
        sregs.cs.@base = 0;
        _vcpu.SRegs = sregs;
        _vcpu.Regs = new kvm_regs { rip = Programs.Code, rflags = 2 };
    }

    public Vm Vm { get; }

    /// <remarks>Optimized from the start: what is measured is the API, not this loop's way through the tiers.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Run(int exits)
    {
        for (int i = 0; i < exits; i++)
        {
            VcpuExit exit = _vcpu.Run();
            if (exit.Reason != Uapi.KVM_EXIT_IO) throw new InvalidOperationException($"exit {exit.Reason} instead of KVM_EXIT_IO");
        }
    }

    public void Dispose()
    {
        _vcpu.Dispose();
        _ram.Dispose();
        Vm.Dispose();
        _own?.Dispose();
    }
}
