using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Kvm.Abi;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>A virtual processor of kvm_intel (<c>struct vcpu_vmx</c>).</summary>
public sealed unsafe partial class VcpuVmx : X86Vcpu
{
    /// <summary>Bits of IA32_PERF_GLOBAL_CTRL that entries and exits change.</summary>
    internal ulong PerfSwitched;

    internal VcpuVmx(KvmIntel vmx, X86Vm vm) : base(vm) => Vmx = vmx;

    /// <summary>The module this vCPU belongs to.</summary>
    internal readonly KvmIntel Vmx;

    /// <summary>The last VMLAUNCH or VMRESUME failed: the guest was never entered.</summary>
    internal bool Fail;
    internal byte X2apicMsrBitmapMode;
    /// <summary>FS, GS and KERNEL_GS_BASE hold guest values, the host's are saved in the loaded VMCS.</summary>
    internal bool GuestStateLoaded;

    internal ulong ExitQualificationCached;
    internal uint ExitIntrInfo;
    internal uint IdtVectoringInfo;
    internal ulong RflagsCached;

    internal VmxUretMsrArray GuestUretMsrs;
    internal bool GuestUretMsrsLoaded;
    internal ulong MsrHostKernelGsBase;
    internal ulong MsrGuestKernelGsBase;

    internal ulong SpecCtrl;
    internal uint MsrIa32UmwaitControl;

    internal readonly LoadedVmcs Vmcs01 = new();
    internal LoadedVmcs LoadedVmcs = null!;

    /// <summary>MSRs loaded at entry (guest) and at exit (host); their value arrays are where the VMCS says.</summary>
    internal MsrAutoload MsrAutoloadGuest;
    internal MsrAutoload MsrAutoloadHost;

    /// <summary>Real mode on a processor without unrestricted guest: virtual-8086 mode stands in.</summary>
    internal RealModeState Rmode;
    internal SegmentCacheState SegmentCache;
    internal int Vpid;
    /// <summary>The guest's state can't be entered; instructions are emulated until it can.</summary>
    internal bool EmulationRequired;
    internal VmxExitReason ExitReason;

    /// <summary>Posted-interrupt descriptor, 64 bytes of native memory.</summary>
    internal PostedInterruptDescriptor* PiDesc;

    internal uint PleWindow;
    internal bool PleWindowDirty;
    /// <summary>Page-modification log, 512 guest-physical addresses; 0 = none.</summary>
    internal ulong PmlPage;

    /// <summary>nested.enlightened_vmcs_enabled: userspace let the guest hypervisor use Hyper-V's form of the VMCS.</summary>
    internal bool EnlightenedVmcsEnabled;
    internal ulong MsrIa32FeatureControl;
    internal ulong MsrIa32FeatureControlValidBits;
    internal readonly ulong[] MsrIa32Sgxlepubkeyhash = new ulong[4];
    internal ulong MsrIa32McuOptCtrl;
    internal bool DisableFbClear;

    /// <summary>MSRs whose reads (writes) are to be intercepted, by slot in the passthrough list, before the filter of userspace is applied.</summary>
    internal uint ShadowMsrInterceptRead;
    internal uint ShadowMsrInterceptWrite;

    internal NestedVmxMsrs NestedMsrs;

    /// <summary>The part of struct vcpu_vmx that the processor reads by physical address; 0 = none.</summary>
    private ulong nativePage;

    /// <summary>Lays the posted-interrupt descriptor and the MSR-load areas out in <paramref name="page"/>.</summary>
    internal void SetNativePage(ulong page)
    {
        nativePage = page;
        PiDesc = (PostedInterruptDescriptor*)page;
        MsrAutoloadGuest = new MsrAutoload { Values = (VmxMsrEntry*)(page + 64) };
        MsrAutoloadHost = new MsrAutoload { Values = (VmxMsrEntry*)(page + 64 + MAX_NR_LOADSTORE_MSRS * 16) };
    }

    internal ulong TakeNativePage()
    {
        ulong page = nativePage;
        nativePage = 0;
        PiDesc = null;
        return page;
    }

    /// <summary>Host TSC at which the preemption timer shall end the guest's run; all ones: not in use.</summary>
    internal ulong HvDeadlineTsc = ulong.MaxValue;
}

/// <summary>An MSR restored when the kernel returns to userspace, its guest value and whether entering the guest loads it (<c>struct vmx_uret_msr</c>).</summary>
internal struct VmxUretMsr
{
    public bool LoadIntoHardware;
    public ulong Data;
    public ulong Mask;
}

/// <summary>One per MSR that <c>kvm_add_user_return_msr</c> may accept.</summary>
[InlineArray(7)]
internal struct VmxUretMsrArray
{
    private VmxUretMsr first;
}

/// <summary>An entry of a VM-entry or VM-exit MSR area (SDM vol 3C, "MSR-load area").</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct VmxMsrEntry
{
    public uint Index;
    public uint Reserved;
    public ulong Value;
}

/// <summary><c>struct vmx_msrs</c>: how many entries are in use, and where they are.</summary>
internal unsafe struct MsrAutoload
{
    public uint Nr;
    public VmxMsrEntry* Values;

    /// <summary>Slot of <paramref name="msr"/>, or -1.</summary>
    public readonly int Find(uint msr)
    {
        for (int i = 0; i < Nr; i++)
            if (Values[i].Index == msr)
                return i;
        return -1;
    }
}

[InlineArray(8)]
internal struct SegmentArray8
{
    private kvm_segment first;
}

internal struct RealModeState
{
    public bool Vm86Active;
    public ulong SaveRflags;
    public SegmentArray8 Segs;
}

/// <summary>Segment registers as last read from the VMCS, one valid bit per register and part.</summary>
internal struct SegmentCacheState
{
    public uint Bitmask;
    public SavedSegmentArray Seg;

    internal struct SavedSegment
    {
        public ushort Selector;
        public ulong Base;
        public uint Limit;
        public uint Ar;
    }

    [InlineArray(8)]
    internal struct SavedSegmentArray
    {
        private SavedSegment first;
    }
}

/// <summary>The VM-exit reason field (SDM vol 3C, "Exit Reason").</summary>
internal struct VmxExitReason
{
    public uint Full;

    public readonly ushort Basic => (ushort)Full;
    public readonly bool EnclaveMode => (Full & 1u << 27) != 0;
    public readonly bool FailedVmentry => (Full & 1u << 31) != 0;
    public bool BusLockDetected
    {
        readonly get => (Full & 1u << 26) != 0;
        set => Full = value ? Full | 1u << 26 : Full & ~(1u << 26);
    }
}

/// <summary>Posted-interrupt descriptor (SDM vol 3C, "Posted-Interrupt Descriptor").</summary>
[StructLayout(LayoutKind.Explicit, Size = 64)]
internal unsafe struct PostedInterruptDescriptor
{
    [FieldOffset(0)] public fixed ulong Pir[4];
    /// <summary>Bit 0 ON, bit 1 SN.</summary>
    [FieldOffset(32)] public uint Control;
    [FieldOffset(34)] public byte Nv;
    [FieldOffset(36)] public uint Ndst;
}
