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

    public Computer(string vendor)
    {
        _kernel = KernelHost.Create(MachineOptions.Uniform(vendor == "intel" ? CpuModel.IntelSkylake : CpuModel.AmdZen, 2));
        _vendor = vendor == "intel" ? new KvmIntel(_kernel.Arch) : new KvmAmd(_kernel.Arch);
        _kernel.LoadVendor(_vendor).Raw.Should().Be(0);
        PagesOfModules = Host.Pages.InUse;
    }

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
