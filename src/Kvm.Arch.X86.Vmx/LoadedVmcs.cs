namespace Kvm.Arch.X86.Vmx;

/// <summary>A VMCS with what the kernel remembers about it: where it is loaded, whether it was launched, and the values last written to its controls.</summary>
/// <remarks><c>struct loaded_vmcs</c> (arch/x86/kvm/vmx/vmcs.h). Linked into the per-CPU list of the processor it is loaded on, which VMCLEARs it before it goes offline.</remarks>
internal sealed unsafe class LoadedVmcs
{
    /// <summary>The VMCS region: address and physical address; 0 = none.</summary>
    public ulong Vmcs;
    public ulong ShadowVmcs;
    /// <summary>The processor it is loaded on, -1 = none. Written last when it moves.</summary>
    public volatile int Cpu = -1;
    public bool Launched;
    public bool NmiKnownUnmasked;
    public bool HvTimerSoftDisabled;
    // Software tracking of blocking by NMI, for processors without virtual NMIs.
    public bool SoftVnmiBlocked;
    public long EntryTime;
    public long VnmiBlockedTime;
    /// <summary>The MSR bitmap page: 1 KiB each for reads low, reads high, writes low, writes high; 0 = none.</summary>
    public ulong MsrBitmap;
    public VmcsHostState HostState;
    public VmcsControlsShadow ControlsShadow;

    // Intrusive list of loaded_vmcss_on_cpu, touched only on that CPU with interrupts off.
    internal LoadedVmcs? Next;
    internal LoadedVmcs? Previous;
}

/// <summary>Values in force while a guest runs, to be restored or rewritten only when they change (<c>struct vmcs_host_state</c>).</summary>
internal struct VmcsHostState
{
    public ulong Cr3;
    public ulong Cr4;
    public ulong GsBase;
    public ulong FsBase;
    public ulong Rsp;
    public ushort FsSel, GsSel, LdtSel, DsSel, EsSel;
}

/// <summary>The values last written to the control fields, so that unchanged ones are not written again (<c>struct vmcs_controls_shadow</c>).</summary>
internal struct VmcsControlsShadow
{
    public uint VmEntry;
    public uint VmExit;
    public uint Pin;
    public uint Exec;
    public uint SecondaryExec;
    public ulong TertiaryExec;
}
