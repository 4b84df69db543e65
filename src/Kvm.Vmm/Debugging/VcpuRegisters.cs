using Kvm.Abi;
using Kvm.Client;

namespace Kvm.Vmm.Debugging;

/// <summary>The registers of a vCPU that stands still: read once, written back group by group when changed.</summary>
internal sealed class VcpuRegisters
{
    private const ulong LongModeActive = 1 << 10;

    private readonly Vcpu _vcpu;
    private kvm_regs _general;
    private kvm_sregs _system;
    private kvm_fpu _fpu;

    public VcpuRegisters(Vcpu vcpu)
    {
        _vcpu = vcpu;
        _general = vcpu.Regs;
        _system = vcpu.SRegs;
        _fpu = vcpu.Fpu;
    }

    /// <summary>Which groups <see cref="Store"/> writes.</summary>
    [Flags]
    public enum Groups
    {
        None = 0,
        General = 1,
        System = 2,
        Fpu = 4,
    }

    public Groups Changed { get; set; }

    public ref kvm_regs General => ref _general;

    public ref kvm_sregs System => ref _system;

    public ref kvm_fpu Fpu => ref _fpu;

    /// <summary>16, 32 or 64.</summary>
    public int Bitness => (_system.efer & LongModeActive) != 0 && _system.cs.l != 0 ? 64 : _system.cs.db != 0 ? 32 : 16;

    /// <summary>Where the next instruction is: RIP, and the base of CS where code has one.</summary>
    public ulong LinearRip
    {
        get => Bitness == 64 ? _general.rip : (uint)(_system.cs.@base + _general.rip);
        set => _general.rip = Bitness == 64 ? value : (uint)(value - _system.cs.@base);
    }

    /// <exception cref="KvmException">The kernel does not take the state.</exception>
    public void Store()
    {
        if ((Changed & Groups.System) != 0) _vcpu.SRegs = _system;
        if ((Changed & Groups.General) != 0) _vcpu.Regs = _general;
        if ((Changed & Groups.Fpu) != 0) _vcpu.Fpu = _fpu;
        Changed = Groups.None;
    }
}
