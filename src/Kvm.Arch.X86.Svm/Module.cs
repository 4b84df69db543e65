using Kvm.Core;
using Kvm.Core.Tracing;

namespace Kvm.Arch.X86.Svm;

/// <summary>Loading and unloading of kvm-amd.ko.</summary>
/// <remarks>svm.c: svm_init, svm_exit.</remarks>
public sealed unsafe partial class KvmAmd
{
    public KvmAmd(X86Arch arch)
    {
        ArgumentNullException.ThrowIfNull(arch);
        this.arch = arch;
        system = arch.HostX86;
        svmData = new SvmCpuData[arch.Host.Cpus.Count];
        currentTscRatio = new ulong[arch.Host.Cpus.Count];
        Params.Define(Parameters);
    }

    public override string Name => "kvm_amd";

    public override IReadOnlyList<string> DependsOn => ["kvm"];

    /// <summary>
    /// insmod kvm_amd: common x86 checks, then kvm_init, after which /dev/kvm exists. -EOPNOTSUPP without SVM or with it disabled by the BIOS, -EEXIST when
    /// another vendor module is loaded.
    /// </summary>
    [KernelFunction("svm_init", File = "arch/x86/kvm/svm/svm.c")]
    protected override KvmResult Init()
    {
        using var _ = FunctionTrace.Enter("svm_init");
        KvmResult r = arch.VendorInit(this);
        if (r.IsError)
            return r;
        r = arch.Module.KvmInit(this, this);
        if (r.IsError)
            arch.VendorExit();
        return r;
    }

    /// <summary>rmmod kvm_amd.</summary>
    [KernelFunction("svm_exit", File = "arch/x86/kvm/svm/svm.c")]
    protected override void Exit()
    {
        using var _ = FunctionTrace.Enter("svm_exit");
        arch.Module.KvmExit();
        arch.VendorExit();
    }
}
