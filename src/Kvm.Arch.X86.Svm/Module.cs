using Kvm.Core;
using Kvm.Core.Tracing;

namespace Kvm.Arch.X86.Svm;

/// <summary>kvm-amd.ko.</summary>
/// <remarks>svm.c: svm_init, svm_exit.</remarks>
public sealed class KvmAmdModule : HostModule
{
    private readonly SvmParameters parameters = new();
    private readonly X86Arch arch;

    /// <summary>The module, to be inserted after the kvm module that <paramref name="arch"/> belongs to.</summary>
    public KvmAmdModule(X86Arch arch)
    {
        this.arch = arch;
        parameters.Define(Parameters);
    }

    public override string Name => "kvm_amd";

    public override IReadOnlyList<string> DependsOn => ["kvm"];

    /// <summary>The loaded vendor code; null before a successful load.</summary>
    internal KvmAmd? Amd { get; private set; }

    [KernelFunction("svm_init", File = "arch/x86/kvm/svm/svm.c")]
    protected override KvmResult Init()
    {
        using var _ = FunctionTrace.Enter("svm_init");
        var amd = new KvmAmd(arch, parameters);
        int r = arch.VendorInit(amd);
        if (r != 0)
            return r;
        // Last: from here on /dev/kvm exists.
        KvmResult result = arch.KvmModuleInit(amd, this);
        if (result.IsError)
        {
            arch.VendorExit();
            return result;
        }

        Amd = amd;
        return 0;
    }

    [KernelFunction("svm_exit", File = "arch/x86/kvm/svm/svm.c")]
    protected override void Exit()
    {
        using var _ = FunctionTrace.Enter("svm_exit");
        arch.KvmModuleExit();
        arch.VendorExit();
        Amd = null;
    }
}
