using Kvm.Core;

namespace Kvm.Arch.X86.Svm;

/// <summary>Module parameters of kvm_amd. hardware_setup turns off what the processor lacks, and /sys shows that.</summary>
/// <remarks>svm.c, avic.c: module_param. Without CONFIG_KVM_AMD_SEV there are no SEV parameters.</remarks>
internal sealed class SvmParameters
{
    public bool Avic;
    public bool DumpInvalidVmcb;
    public bool ForceAvic;
    public bool InterceptSmi = true;
    public int Lbrv = 1;
    public int Nested = 1;
    public bool Npt = true;
    public int Nrips = 1;
    public uint PauseFilterCount = 3000;
    public uint PauseFilterCountGrow = 2;
    public uint PauseFilterCountMax = 65535;
    public uint PauseFilterCountShrink;
    public uint PauseFilterThresh = 128;
    public int TscScaling = 1;
    public int Vgif = 1;
    public int Vls = 1;

    public void Define(ModuleParameters p)
    {
        p.Define("avic", () => Avic, v => Avic = v);
        p.Define("dump_invalid_vmcb", () => DumpInvalidVmcb, v => DumpInvalidVmcb = v, ModuleParameters.Writable);
        p.Define("force_avic", () => ForceAvic, v => ForceAvic = v).Unsafe = true;
        p.Define("intercept_smi", () => InterceptSmi, v => InterceptSmi = v);
        p.Define("lbrv", () => Lbrv, v => Lbrv = v);
        p.Define("nested", () => Nested, v => Nested = v);
        p.Define("npt", () => Npt, v => Npt = v);
        p.Define("nrips", () => Nrips, v => Nrips = v);
        DefineUshort(p, "pause_filter_count", () => PauseFilterCount, v => PauseFilterCount = v);
        DefineUshort(p, "pause_filter_count_grow", () => PauseFilterCountGrow, v => PauseFilterCountGrow = v);
        DefineUshort(p, "pause_filter_count_max", () => PauseFilterCountMax, v => PauseFilterCountMax = v);
        DefineUshort(p, "pause_filter_count_shrink", () => PauseFilterCountShrink, v => PauseFilterCountShrink = v);
        DefineUshort(p, "pause_filter_thresh", () => PauseFilterThresh, v => PauseFilterThresh = v);
        p.Define("tsc_scaling", () => TscScaling, v => TscScaling = v);
        p.Define("vgif", () => Vgif, v => Vgif = v);
        p.Define("vls", () => Vls, v => Vls = v);
    }

    private static void DefineUshort(ModuleParameters p, string name, Func<uint> get, Action<uint> set) =>
        p.Define(name, get, set).Check = v => (uint)v > ushort.MaxValue ? Abi.Errno.ERANGE : 0;
}
