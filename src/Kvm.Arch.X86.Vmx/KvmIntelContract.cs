using Kvm.Core;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Members of the contract with the common x86 code that need no file of their own.</summary>
public sealed unsafe partial class KvmIntel
{
    private readonly NestedState nestedOps;
    private readonly IntelPmu pmuOps = new();

    IKvmX86Ops IKvmX86InitOps.RuntimeOps => this;
    IKvmPmuOps IKvmX86InitOps.PmuOps => pmuOps;

    /// <summary>Nested guests are not modelled: nothing is ever in guest mode.</summary>
    public IKvmX86NestedOps NestedOps => nestedOps;

    public X86Vm AllocVm(KvmModule module) => new KvmVmx(module, arch);

    public X86Vcpu AllocVcpu(X86Vm vm) => new VcpuVmx(this, vm);

    public ulong HostOwnedDebugctl => debugctlFreezeInSmm;

    public bool HasWbinvdExit() => CpuHasVmxWbinvdExit;

    public int CpuDirtyLogSize => EnablePml ? VmxControls.PML_ENTITY_NUM : 0;

    public int CompleteEmulatedMsr(X86Vcpu vcpu, int err) => vcpu.CompleteInsnGp(err);

    /// <summary>A vCPU leaves VMX operation conceptually before SMM; without nested guests only HLT state has to be cleared.</summary>
    public int EnterSmm(X86Vcpu vcpu, Span<byte> smstate)
    {
        ClearHlt(ToVmx(vcpu));
        return 0;
    }

    public int LeaveSmm(X86Vcpu vcpu, ReadOnlySpan<byte> smstate) => 0;

    /// <summary>Nothing to do: RSM exits anyway.</summary>
    public void EnableSmiWindow(X86Vcpu vcpu)
    {
    }

    public void VcpuDeliverSipiVector(X86Vcpu vcpu, byte vector)
    {
        GetSegment(vcpu, out Abi.kvm_segment cs, VCPU_SREG_CS);
        cs.selector = (ushort)(vector << 8);
        cs.@base = (ulong)vector << 12;
        SetSegment(vcpu, in cs, VCPU_SREG_CS);
        vcpu.Rip = 0;
    }
}
