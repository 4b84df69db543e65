using Kvm.Arch.X86;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Vmx;
using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>A default machine of a vendor with its module loaded. Disposing it checks that every page came back.</summary>
internal sealed class Computer : IDisposable
{
    private readonly KernelHost _kernel;
    private readonly HostModule _vendor;

    public Computer(string vendor, string parameters = "", bool recorded = false)
    {
        _kernel = KernelHost.Create(MachineOptions.Uniform(ModelOf(vendor, recorded), 2));
        _vendor = vendor == "intel" ? new KvmIntel(_kernel.Arch) : new KvmAmd(_kernel.Arch);
        _kernel.LoadVendor(_vendor, parameters).Raw.Should().Be(0);
        PagesOfModules = Host.Pages.InUse;
    }

    /// <summary>The vendor's default processor, or one like that of the recordings: that of kvm_amd had nested paging and no other feature of SVM.</summary>
    private static CpuModel ModelOf(string vendor, bool recorded) => (vendor, recorded) switch
    {
        ("intel", false) => CpuModel.IntelSkylake,
        ("intel", true) => CpuModel.Load("bochs-skylake-x"),
        (_, false) => CpuModel.AmdZen,
        (_, true) => RecordedMachine.AmdProcessor,
    };

    public KernelHost Kernel => _kernel;

    public Host Host => _kernel.Host;

    public HostProcess Process => Host.Process;

    /// <summary>Pages in use with the modules loaded and no VM.</summary>
    public long PagesOfModules { get; }

    /// <summary>Everything that VMs and vCPUs took has come back.</summary>
    public void ShouldHaveNoLeak() => Host.Pages.InUse.Should().Be(PagesOfModules, "all VMs are closed; by tag: {0}", string.Join(", ", Host.Pages.InUseByTag));

    public void Dispose()
    {
        Host.Modules.Remove(_vendor.Name);
        Host.Modules.Remove("kvm");
        long left = Host.Pages.InUse;
        _kernel.Dispose();
        left.Should().Be(0, "no page outlives the modules");
    }
}
