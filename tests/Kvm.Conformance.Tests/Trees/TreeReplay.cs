using Kvm.Conformance.Tests.Sessions;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Trees;

/// <summary>The recorded sessions on the model, with the function trace on: one comparison per recorded tree.</summary>
internal static class TreeReplay
{
    private static readonly Dictionary<string, Lazy<IReadOnlyList<TreeComparison>>> all = new()
    {
        ["intel"] = new(static () => [.. Modules("intel"), .. Guest("intel"), .. Interrupts("intel")]),
        ["amd"] = new(static () => [.. Modules("amd"), .. Guest("amd"), .. Interrupts("amd")]),
    };

    public static IReadOnlyList<TreeComparison> Of(string vendor) => all[vendor].Value;

    private static RecordedTree? Recorded(string vendor, string session, string step) =>
        RecordedTrees.All.FirstOrDefault(t => t.Vendor == vendor && t.Session == session && t.Step == step);

    private static TreeComparison? Compare(ModelHost model, string session, string step, Action call)
    {
        using FunctionTraceSession trace = FunctionTrace.Start(model.Host);
        call();
        return Recorded(model.Vendor, session, step) is { } tree ? TreeComparison.Compare(tree, [.. trace.Groups.Select(static g => g.Roots.Select(Node).ToList())]) : null;
    }

    private static CallTree Node(FunctionTraceNode node) => new(RecordedTrees.Normalize(node.Name), [.. node.Children.Select(Node)]);

    /// <summary>The 64-bit session with interrupt controllers up to its guest, whose code is not recorded.</summary>
    private static List<TreeComparison> Interrupts(string vendor)
    {
        using var model = new ModelHost(vendor);
        model.LoadKvm().Should().Be((KvmResult)0);
        model.LoadVendor(vendor == "intel" ? "nested=1" : "nrips=0").Should().Be((KvmResult)0);
        var session = new Long64Session(model.Host);
        List<TreeComparison> result = [];
        foreach ((string name, int i) in session.Steps.Select(static (s, i) => (s, i)))
        {
            RecordedTree? tree = RecordedTrees.All.FirstOrDefault(t => t.Vendor == vendor && t.Session == "core-long64" && t.Step[3..] == name && !session.AfterGuest(i));
            session.RunOn(tree is { Cpu: >= 0 } ? tree.Cpu : 1);
            if (tree is null)
                session.Run(i);
            else
                result.Add(Compare(model, "core-long64", tree.Step, () => session.Run(i))!);
        }

        return result;
    }

    /// <summary>The 16-bit session.</summary>
    private static List<TreeComparison> Guest(string vendor)
    {
        using var model = new ModelHost(vendor);
        model.LoadKvm().Should().Be((KvmResult)0);
        model.LoadVendor(vendor == "intel" ? "nested=1" : "nrips=0").Should().Be((KvmResult)0);
        var session = new Real16Session(model.Host);
        List<TreeComparison> result = [];
        foreach ((string name, int i) in session.Steps.Select(static (s, i) => (s, i)))
        {
            session.RunOn(Recorded(vendor, "core-real16", name) is { Cpu: >= 0 } tree ? tree.Cpu : 1);
            if (Compare(model, "core-real16", name, () => session.Run(i)) is { } comparison)
                result.Add(comparison);
        }

        return result;
    }

    /// <summary>insmod, rmmod, a processor that goes and comes back without and with a VM, a second VM; a process that is killed.</summary>
    private static List<TreeComparison> Modules(string vendor)
    {
        using var model = new ModelHost(vendor);
        List<TreeComparison> result = [];
        Host host = model.Host;
        host.Process.Task.SetAffinity(0);
        string module = vendor == "intel" ? "kvm-intel" : "kvm-amd";
        Step("load-1-insmod-kvm", () => model.LoadKvm().IsOk.Should().BeTrue());
        Step("load-2-insmod-" + module, () => model.LoadVendor(vendor == "intel" ? "nested=1" : "").IsOk.Should().BeTrue());
        Step("hotplug-1-offline-cpu1-noVM", () => host.CpuDown(1).IsOk.Should().BeTrue());
        Step("hotplug-2-online-cpu1-noVM", () => host.CpuUp(1).IsOk.Should().BeTrue());
        HostProcess first = Holder(host, vcpus: 2);
        Step("hotplug-3-offline-cpu1-VM", () => host.CpuDown(1).IsOk.Should().BeTrue());
        Step("hotplug-4-online-cpu1-VM", () => host.CpuUp(1).IsOk.Should().BeTrue());
        Step("secondvm-1-create", () => Holder(host, vcpus: 0).Exit());
        Step("hotplug-5-close-VM", first.Exit);
        host.Process.Task.SetAffinity(1);
        Step("unload-1-rmmod-" + model.VendorModuleName, () => model.UnloadVendor().IsOk.Should().BeTrue());
        Step("unload-2-rmmod-kvm", () => host.Modules.Remove("kvm").IsOk.Should().BeTrue());
        return result;

        void Step(string name, Action call)
        {
            TreeComparison? comparison = Compare(model, "module", name, call);
            comparison.Should().NotBeNull(name);
            result.Add(comparison!);
        }
    }

    /// <summary>A process that keeps a VM with vCPUs open.</summary>
    private static HostProcess Holder(Host host, int vcpus)
    {
        HostProcess process = host.CreateProcess("holdvm");
        process.Task.SetAffinity(1);
        int kvm = process.Open("/dev/kvm").Value;
        int vm = process.Ioctl(kvm, KVM_CREATE_VM).Value;
        for (uint id = 0; id < vcpus; id++)
            process.Ioctl(vm, KVM_CREATE_VCPU, id).IsOk.Should().BeTrue();
        return process;
    }
}
