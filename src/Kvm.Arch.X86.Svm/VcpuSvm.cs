using Kvm.Emulator;
using Kvm.Emulator.Svm;

namespace Kvm.Arch.X86.Svm;

/// <summary>A virtual processor of kvm_amd (<c>struct vcpu_svm</c>).</summary>
public sealed unsafe class VcpuSvm : X86Vcpu
{
    internal VcpuSvm(KvmSvm vm)
        : base(vm)
    {
    }

    /// <summary>The VMCB in use: that of <see cref="CurrentVmcb"/>.</summary>
    internal Vmcb* Vmcb;
    internal readonly KvmVmcbInfo Vmcb01 = new();
    internal KvmVmcbInfo CurrentVmcb = null!;

    /// <summary>The processor this vCPU is loaded on.</summary>
    internal Processor Processor = null!;

    internal uint Asid;
    internal uint SysenterEspHi, SysenterEipHi;
    internal ulong TscAux;
    internal ulong MsrDecfg;
    internal ulong NextRip;
    internal ulong SpecCtrl;
    internal ulong TscRatioMsr;
    internal ulong VirtSpecCtrl;

    /// <summary>MSR permission map: two pages, a set bit intercepts.</summary>
    internal uint* Msrpm;

    internal ulong NmiIretRip;
    internal bool NmiSinglestep;
    internal ulong NmiSinglestepGuestRflags;

    internal ulong SoftIntCsbase, SoftIntOldRip, SoftIntNextRip;
    internal bool SoftIntInjected;

    // SVM features that this guest may use for guests of its own.
    internal bool NripsEnabled, TscScalingEnabled, VVmloadVmsaveEnabled, LbrvEnabled, PauseFilterEnabled, PauseThresholdEnabled, VgifEnabled;

    /// <summary>What userspace's MSR filter would allow if it were absent: a set bit passes the access through. By slot of the direct-access list.</summary>
    internal ulong ShadowMsrInterceptRead, ShadowMsrInterceptWrite;

    /// <summary>Host FS, GS, TR, LDTR and SYSCALL MSRs are in the host save area: VMLOAD brings them back.</summary>
    internal bool GuestStateLoaded;

    // svm->nested: what a guest hypervisor has written.
    internal ulong NestedHsaveMsr, NestedVmCrMsr;
    internal ulong NestedVmcb12Gpa;
}
