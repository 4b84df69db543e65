using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>The kernel module kvm_intel: VMX for KVM.</summary>
/// <remarks>arch/x86/kvm/vmx/vmx.c. Insert it with <c>host.Modules.Insert(new KvmIntel(arch))</c> after kvm.</remarks>
public sealed unsafe partial class KvmIntel : HostModule, IKvmX86Ops, IKvmX86InitOps
{
    private readonly X86Arch arch;

    /// <summary>Module parameters of the kernel's module; what the processor lacks is switched off when the module is loaded.</summary>
    public bool EnableVpid { get; private set; } = true;
    public bool EnableVnmi { get; private set; } = true;
    public bool FlexpriorityEnabled { get; private set; } = true;
    public bool EnableEpt { get; private set; } = true;
    public bool EnableUnrestrictedGuest { get; private set; } = true;
    public bool EnableEptAdBits { get; private set; } = true;
    public bool EmulateInvalidGuestState { get; private set; } = true;
    public bool Fasteoi { get; private set; } = true;
    public bool EnableIpiv { get; private set; } = true;
    /// <summary>Guests may see VMX. DIVERGES: D-VMX-1, off by default and without execution of nested guests.</summary>
    public bool Nested { get; private set; }
    public bool EnablePml { get; private set; } = true;
    public bool ErrorOnInconsistentVmcsConfig { get; private set; } = true;
    public bool DumpInvalidVmcs { get; private set; }
    public bool EnablePreemptionTimer { get; private set; } = true;
    public uint PleGap { get; private set; } = 128;
    public uint PleWindow { get; private set; } = 4096;
    public uint PleWindowGrow { get; private set; } = 2;
    public uint PleWindowShrink { get; private set; }
    public uint PleWindowMax { get; private set; } = uint.MaxValue;

    /// <summary>Checks of nested entries before the hardware's; nested guests do not run, so that nothing asks.</summary>
    private bool nestedEarlyCheck;
    /// <summary>Stays on only where ENCLS can be intercepted.</summary>
    private bool enableSgx = true;
    /// <summary>Stays on only under Hyper-V.</summary>
    private bool enlightenedVmcs = true;

    /// <summary>VMXON region of each CPU.</summary>
    private ulong[] vmxarea = [];
    /// <summary>The VMCS that is current on each CPU; 0 = none.</summary>
    private ulong[] currentVmcs = [];
    private LoadedVmcsList[] loadedVmcssOnCpu = [];
    private ulong hostIdtBase;
    private readonly Action<object?> clearLoadedVmcs;

    public KvmIntel(X86Arch arch)
    {
        this.arch = arch;
        nestedOps = new NestedState(arch);
        clearLoadedVmcs = argument => LoadedVmcsClearLocal((LoadedVmcs)argument!);
        DefineParameters();
    }

    public override string Name => "kvm_intel";

    public override IReadOnlyList<string> DependsOn => ["kvm"];

    private void DefineParameters()
    {
        Parameters.Define("vpid", () => EnableVpid, v => EnableVpid = v);
        Parameters.Define("vnmi", () => EnableVnmi, v => EnableVnmi = v);
        Parameters.Define("flexpriority", () => FlexpriorityEnabled, v => FlexpriorityEnabled = v);
        Parameters.Define("ept", () => EnableEpt, v => EnableEpt = v);
        Parameters.Define("unrestricted_guest", () => EnableUnrestrictedGuest, v => EnableUnrestrictedGuest = v);
        Parameters.Define("eptad", () => EnableEptAdBits, v => EnableEptAdBits = v);
        Parameters.Define("emulate_invalid_guest_state", () => EmulateInvalidGuestState, v => EmulateInvalidGuestState = v);
        Parameters.Define("fasteoi", () => Fasteoi, v => Fasteoi = v);
        Parameters.Define("enable_apicv", () => EnableApicv, v => EnableApicv = v);
        Parameters.Define("enable_ipiv", () => EnableIpiv, v => EnableIpiv = v);
        Parameters.Define("nested", () => Nested, v => Nested = v);
        Parameters.Define("enable_shadow_vmcs", () => enableShadowVmcs, v => enableShadowVmcs = v);
        Parameters.Define("pml", () => EnablePml, v => EnablePml = v);
        Parameters.Define("error_on_inconsistent_vmcs_config", () => ErrorOnInconsistentVmcsConfig, v => ErrorOnInconsistentVmcsConfig = v);
        Parameters.Define("dump_invalid_vmcs", () => DumpInvalidVmcs, v => DumpInvalidVmcs = v, ModuleParameters.Writable);
        Parameters.Define("preemption_timer", () => EnablePreemptionTimer, v => EnablePreemptionTimer = v);
        Parameters.Define("allow_smaller_maxphyaddr", () => AllowSmallerMaxphyaddr, v => AllowSmallerMaxphyaddr = v);
        Parameters.Define("nested_early_check", () => nestedEarlyCheck, v => nestedEarlyCheck = v);
        Parameters.Define("sgx", () => enableSgx, v => enableSgx = v);
        Parameters.Define("enlightened_vmcs", () => enlightenedVmcs, v => enlightenedVmcs = v);
        Parameters.Define("ple_gap", () => PleGap, v => PleGap = v);
        Parameters.Define("ple_window", () => PleWindow, v => PleWindow = v);
        Parameters.Define("ple_window_grow", () => PleWindowGrow, v => PleWindowGrow = v);
        Parameters.Define("ple_window_shrink", () => PleWindowShrink, v => PleWindowShrink = v);
        Parameters.Define("ple_window_max", () => PleWindowMax, v => PleWindowMax = v);
        Parameters.Define("vmentry_l1d_flush", () => VmentryL1dFlushText, SetVmentryL1dFlush, ModuleParameters.Writable).Check = CheckVmentryL1dFlush;
    }

    /// <summary>
    /// insmod kvm_intel: common x86 checks, mitigations, then kvm_init, after which /dev/kvm exists. -EOPNOTSUPP without VMX or with it disabled by the BIOS,
    /// -EEXIST when another vendor module is loaded, -EIO when a processor's VMX is unusable or differs from the others.
    /// </summary>
    [KernelFunction("vmx_init", File = "arch/x86/kvm/vmx/vmx.c")]
    protected override KvmResult Init()
    {
        using var _ = FunctionTrace.Enter("vmx_init");
        enlightenedVmcs = false;
        KvmResult r = arch.VendorInit(this);
        if (r.IsError)
            return r;
        r = SetupL1dFlush(vmentryL1dFlushParam);
        if (r.IsError)
            goto err_l1d_flush;

        int cpus = Host.Cpus.Count;
        currentVmcs = new ulong[cpus];
        loadedVmcssOnCpu = new LoadedVmcsList[cpus];
        for (int cpu = 0; cpu < cpus; cpu++)
        {
            loadedVmcssOnCpu[cpu] = new LoadedVmcsList();
            PiInitCpu(cpu);
        }

        // Shadow paging pays nothing for a guest MAXPHYADDR below the host's.
        if (!EnableEpt)
            AllowSmallerMaxphyaddr = true;

        // Last: after this userspace sees /dev/kvm.
        r = Kvm.KvmInit(this, this);
        if (r.IsError)
            goto err_kvm_init;
        return 0;

    err_kvm_init:
        ExitCommon();
    err_l1d_flush:
        arch.VendorExit();
        return r;
    }

    [KernelFunction("__vmx_exit", File = "arch/x86/kvm/vmx/vmx.c")]
    private void ExitCommon()
    {
        AllowSmallerMaxphyaddr = false;
        CleanupL1dFlush();
    }

    /// <summary>rmmod kvm_intel.</summary>
    [KernelFunction("vmx_exit", File = "arch/x86/kvm/vmx/vmx.c")]
    protected override void Exit()
    {
        using var _ = FunctionTrace.Enter("vmx_exit");
        Kvm.KvmExit();
        arch.VendorExit();
        ExitCommon();
    }
}
