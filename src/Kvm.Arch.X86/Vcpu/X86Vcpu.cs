using Kvm.Abi;
using Kvm.Core;

namespace Kvm.Arch.X86;

/// <summary>
/// A virtual x86 processor: struct kvm_vcpu with struct kvm_vcpu_arch. The vendors derive VcpuVmx and VcpuSvm from it.
/// Everything here belongs to the thread that holds the vCPU's mutex, except the members that say otherwise.
/// </summary>
/// <remarks>asm/kvm_host.h:struct kvm_vcpu_arch. Members keep the kernel's words; "arch." is gone because the base class is struct kvm_vcpu.</remarks>
public abstract unsafe partial class X86Vcpu : KvmVcpu
{
    private readonly ulong[] regsMemory = GC.AllocateArray<ulong>((int)KvmReg.NR_VCPU_REGS, pinned: true);

    protected X86Vcpu(X86Vm vm)
        : base(vm)
    {
        Vm = vm;
        Arch = vm.Arch;
        Ops = Arch.Ops;
        fixed (ulong* p = regsMemory)
            Regs = p;
        RootMmu = new KvmMmu(this);
        Mmu = WalkMmu = RootMmu;
        EmulateCtxt = new X86EmulateContext(this);
    }

    /// <summary>The VM, with its architecture part.</summary>
    public new X86Vm Vm { get; }

    /// <summary>kvm.ko of this host.</summary>
    public new X86Arch Arch { get; }

    /// <summary>The vendor module.</summary>
    public IKvmX86Ops Ops { get; }

    // ---- registers: access RSP, RIP and the extended ones through the methods of X86Vcpu.CacheRegs.cs ----

    /// <summary>RAX RCX RDX RBX RSP RBP RSI RDI R8–R15 RIP, at a fixed address for the vCPU's life.</summary>
    public ulong* Regs { get; }

    public uint RegsAvail;
    public uint RegsDirty;

    public ulong Cr0;
    public ulong Cr0GuestOwnedBits;
    public ulong Cr2;
    public ulong Cr3;
    public ulong Cr4;
    public ulong Cr4GuestOwnedBits;
    public ulong Cr4GuestRsvdBits;
    public ulong Cr8;
    public uint Hflags;
    public ulong Efer;
    public ulong HostDebugctl;
    public ulong ApicBase;
    public int MpState;

    public ulong Ia32MiscEnableMsr;
    public ulong Smbase;
    public ulong SmiCount;
    public bool AtInstructionBoundary;
    public bool TprAccessReporting;
    public bool XsavesEnabled;
    public bool XfdNoWriteIntercept;
    public ulong Ia32Xss;
    public ulong MicrocodeVersion;
    public ulong ArchCapabilities;
    public ulong PerfCapabilities;

    // ---- paging ----

    /// <summary>The MMU in use for faults.</summary>
    public KvmMmu Mmu;
    public readonly KvmMmu RootMmu;

    /// <summary>The MMU whose page tables translate guest virtual addresses.</summary>
    public KvmMmu WalkMmu;

    public ulong Xcr0;
    public ulong GuestSupportedXcr0;
    public uint Pkru;
    public uint HostPkru;

    // ---- port and memory-mapped I/O in flight ----

    public KvmPioRequest Pio;

    /// <summary>The page at offset KVM_PIO_PAGE_OFFSET of the vCPU's mapping.</summary>
    public byte* PioData;

    /// <summary>How the pending exit is completed at the next KVM_RUN; 0 or less leaves KVM_RUN.</summary>
    public delegate*<X86Vcpu, int> CompleteUserspaceIo;

    // ---- events ----

    public byte EventExitInstLen;
    public bool ExceptionFromUserspace;
    public KvmQueuedException Exception;
    public KvmQueuedException ExceptionVmexit;
    public KvmQueuedInterrupt Interrupt;

    /// <summary>Real mode on Intel without unrestricted guest: HLT was emulated.</summary>
    public int HaltRequest;

    /// <summary>Asynchronous NMIs not yet looked at; any thread increments it.</summary>
    public int NmiQueued;

    /// <summary>NMIs that wait for the running handler to end (at most 2).</summary>
    public uint NmiPending;
    public bool NmiInjected;
    public bool SmiPending;
    public byte HandlingIntrFromGuest;

    // ---- CPUID ----

    public int CpuidNent;
    public kvm_cpuid_entry2[] CpuidEntries = [];
    public uint KvmCpuidBase;
    public bool IsAmdCompatible;
    public ulong ReservedGpaBits;
    public int Maxphyaddr;
    public uint PvCpuidFeatures;
    public bool PvCpuidEnforce;

    // ---- emulation ----

    public readonly X86EmulateContext EmulateCtxt;
    public bool EmulateRegsNeedSyncToVcpu;
    public bool EmulateRegsNeedSyncFromVcpu;
    public ulong LastRetryEip;
    public ulong LastRetryAddr;

    // ---- time ----

    public ulong Time;
    public uint HwTscKhz;
    public bool PvclockSetGuestStoppedRequest;
    public bool PvTimeActive;
    public ulong L1TscOffset;
    public ulong TscOffset;
    public ulong LastGuestTsc;
    /// <summary>The guest has run since <see cref="LastGuestTsc"/> was taken.</summary>
    public bool LastGuestTscDue;
    public ulong LastHostTsc;
    public ulong TscOffsetAdjustment;
    public ulong ThisTscNsec;
    public ulong ThisTscWrite;
    public ulong ThisTscGeneration;
    public bool TscCatchup;
    public bool TscAlwaysCatchup;
    public sbyte VirtualTscShift;
    public uint VirtualTscMult;
    public uint VirtualTscKhz;
    public long Ia32TscAdjustMsr;
    public ulong MsrIa32PowerCtl;
    public ulong L1TscScalingRatio;
    public ulong TscScalingRatio;

    // ---- memory types ----

    public readonly KvmMtrr MtrrState = new();
    public ulong Pat;

    // ---- debug registers ----

    /// <summary>KVM_DEBUGREG_* bits.</summary>
    public uint SwitchDbRegs;
    public readonly ulong[] Db = new ulong[4];
    public ulong Dr6;
    public ulong Dr7;
    public readonly ulong[] EffDb = new ulong[4];
    public ulong GuestDebugDr7;
    public ulong SinglestepRip;

    public ulong MsrPlatformInfo;
    public ulong MsrMiscFeaturesEnables;
    public ulong MsrHwcr;
    public ulong OsvwLength;
    public ulong OsvwStatus;
    public ulong MsrKvmPollControl;
    public ulong ApfMsrEnVal;
    public ulong ApfMsrIntVal;
    public bool ApfHalted;
    public ulong StMsrVal;
    public ulong PvEoiMsrVal;

    // ---- machine check ----

    public ulong McgCap;
    public ulong McgStatus;
    public ulong McgCtl;
    public ulong McgExtCtl;

    /// <summary>CTL, STATUS, ADDR, MISC of each bank.</summary>
    public readonly ulong[] MceBanks = new ulong[X86Const.KVM_MAX_MCE_BANKS * 4];
    public readonly ulong[] MciCtl2Banks = new ulong[X86Const.KVM_MAX_MCE_BANKS];

    // ---- the last MMIO access ----

    public ulong MmioGva;
    public uint MmioAccess;
    public ulong MmioGfn;
    public ulong MmioGen;

    public readonly KvmPmu Pmu = new();

    /// <summary>EPT violation: the exit qualification, for a page fault reflected to a nested guest's hypervisor.</summary>
    public ulong ExitQualification;
    public bool PvUnhalted;
    public int PendingExternalVector = -1;
    public bool PreemptedInKernel;
    public bool L1tfFlushL1d;

    /// <summary>Host CPU on which the last VM entry was attempted; -1 before the first.</summary>
    public int LastVmentryCpu = -1;
    public bool GuestStateProtected;
    public bool PdptrsFromUserspace;
}
