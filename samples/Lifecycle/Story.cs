using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;

namespace Lifecycle;

/// <summary>Tells and checks, chapter by chapter.</summary>
internal sealed partial class Story(TextWriter output)
{
    /// <summary>Statements that did not hold.</summary>
    public int Failed { get; private set; }

    private bool _intel;

    private string Module => _intel ? "kvm_intel" : "kvm_amd";

    public void Tell(bool intel)
    {
        _intel = intel;
        output.WriteLine($"=== {(intel ? "VMX: kvm_intel on an Intel machine" : "SVM: kvm_amd on an AMD machine")} ===");
        FirstVmEnables();
        HostDisabledByItsBios();
        ProcessorThatCanNotEnter();
        ProcessorsThatDiffer();
        Hotplug();
        EveryFailureIsUndone("KVM_CREATE_VM", c => c.Open().Value, (c, kvm) => c.CreateVm(kvm));
        EveryFailureIsUndone("KVM_CREATE_VCPU", c => c.CreateVm(c.Open().Value).Value, (c, vm) => c.CreateVcpu(vm));
        output.WriteLine();
    }

    private void Chapter(string title) => output.WriteLine($"\n--- {title}");

    private void Say(string text) => output.WriteLine("    " + text);

    private void Check(bool holds, string statement)
    {
        if (!holds) Failed++;
        output.WriteLine($"{(holds ? "ok " : "NOT")} {statement}");
    }

    private void Equal(KvmResult actual, KvmResult expected, string what) =>
        Check(actual == expected, $"{what} = {actual}{(actual == expected ? "" : $" (expected {expected})")}");

    private void FirstVmEnables()
    {
        Chapter("The module is loaded, but virtualization is switched on by the first VM and off by the last");
        using var c = new Computer(_intel);
        Equal(c.Open(), Errno.ENOENT, "open(/dev/kvm) without a vendor module");
        Equal(c.Load(), KvmResult.Ok, $"insmod {Module}");
        int kvm = c.Open().Value;
        Check(c.EnabledCpus == "", "no processor has virtualization on after loading");

        using FunctionTraceSession trace = FunctionTrace.Start(c.Host);
        int first = c.CreateVm(kvm).Value;
        trace.Dispose();
        Check(c.EnabledCpus == "0,1", "the first KVM_CREATE_VM switches it on, on every processor");
        foreach (string line in trace.Format().Split('\n').Where(l => l.Contains("hardware_enable", StringComparison.Ordinal))) Say(line);

        using FunctionTraceSession again = FunctionTrace.Start(c.Host);
        int second = c.CreateVm(kvm).Value;
        again.Dispose();
        Check(!again.Flatten().Any(n => n.Name == "hardware_enable_nolock"), "the second VM only counts");
        Check(c.Kvm.UsageCount == 2, "kvm_usage_count = 2, the number of VMs");
        Equal(c.Unload(), Errno.EAGAIN, $"rmmod {Module} while VMs live");

        int vcpu = c.CreateVcpu(first).Value;
        c.Process.Close(first);
        Check(c.Kvm.UsageCount == 2, "a vCPU's descriptor keeps its VM alive after the VM's is closed");
        c.Process.Close(vcpu);
        Check(c.Kvm.UsageCount == 1 && c.EnabledCpus == "0,1", "one VM is left: virtualization stays on");
        c.Process.Close(second);
        Check(c.Kvm.UsageCount == 0 && c.EnabledCpus == "", "the last VM switches it off everywhere");
        c.Process.Close(kvm);
        Equal(c.Unload(), KvmResult.Ok, $"rmmod {Module}");
        Check(c.Host.Pages.InUse == 0, "every page came back");
    }

    private void HostDisabledByItsBios()
    {
        Chapter("A BIOS that disabled virtualization: the module refuses to load");
        ProcessorOptions off = new(Computer.Model(_intel)) { Bios = BiosSettings.VirtualizationDisabled };
        using var c = new Computer(_intel, off, off);
        Equal(c.Load(), Errno.EOPNOTSUPP, $"insmod {Module}");
        Dmesg(c, $"kvm: support for '{Module}' disabled by bios");
        Equal(c.Open(), Errno.ENOENT, "open(/dev/kvm)");
        if (!_intel) return;

        ProcessorOptions fine = new(Computer.Model(true));
        using var one = new Computer(true, fine, off);
        Equal(one.Load(), Errno.EOPNOTSUPP, "insmod kvm_intel when it is off in the second processor only");
        ProcessorOptions open = fine with { Bios = BiosSettings.Unlocked };
        using var unlocked = new Computer(true, open, open);
        Equal(unlocked.Load(), KvmResult.Ok, "insmod kvm_intel when IA32_FEATURE_CONTROL was left unlocked: the kernel sets it");
    }

    private void ProcessorThatCanNotEnter()
    {
        Chapter(_intel ? "VMXON faults in one processor" : "Another hypervisor uses SVM in one processor");
        using var c = new Computer(_intel);
        c.Load();
        int kvm = c.Open().Value;
        c.Break(1);
        Equal(c.CreateVm(kvm), Errno.EBUSY, "KVM_CREATE_VM");
        Dmesg(c, "kvm: enabling virtualization on CPU1 failed");
        if (_intel) Dmesg(c, "VMXON faulted, MSR_IA32_FEAT_CTL (0x3a) = 0x5");
        Check(!c.Enabled(0), "the processor that had entered left again");
        if (_intel) Check(!c.Enabled(1), "CR4.VMXE is clear in the one that faulted");
        Check(c.Kvm.UsageCount == 0 && c.Host.Pages.InUseByTag.Keys.All(t => !t.Contains("coalesced", StringComparison.Ordinal)), "nothing is left of the VM");
    }

    private void ProcessorsThatDiffer()
    {
        if (!_intel) return; // kvm_amd compares nothing but SVM itself
        Chapter("Processors that differ: the module refuses to load");
        CpuModel model = Computer.Model(true);
        // The second processor's secondary controls (MSR 0x48b) lack PAUSE-loop exiting, which the first offers.
        CpuModel odd = model.With(msrs: new Dictionary<uint, ulong?> { [0x48b] = model.Msrs[0x48b] & ~(1UL << (32 + 10)) });
        using var c = new Computer(true, new ProcessorOptions(model), new ProcessorOptions(odd));
        Equal(c.Load(), Errno.EIO, "insmod kvm_intel");
        Dmesg(c, "kvm: CPU 1 feature inconsistency!");
        Check(c.Host.Pages.InUse == 0, "every page came back");
    }

    private void Hotplug()
    {
        Chapter("A processor goes and comes back");
        using var c = new Computer(_intel);
        c.Load();
        int kvm = c.Open().Value;
        c.Host.CpuDown(1);
        c.Host.CpuUp(1);
        Check(!c.Enabled(1), "without a VM a new processor is left alone");
        int vm = c.CreateVm(kvm).Value;
        using FunctionTraceSession trace = FunctionTrace.Start(c.Host);
        Equal(c.Host.CpuDown(1), KvmResult.Ok, "echo 0 > cpu1/online, with a VM");
        Equal(c.Host.CpuDown(0), Errno.EBUSY, "the last processor can't go");
        Equal(c.Host.CpuUp(1), KvmResult.Ok, "echo 1 > cpu1/online");
        trace.Dispose();
        foreach (string line in trace.Format().Split('\n').Where(l => l.Contains("_cpu [kvm]", StringComparison.Ordinal) || l.Contains("hardware_", StringComparison.Ordinal))) Say(line);
        Check(c.EnabledCpus == "0,1", "with a VM it is switched on when it comes back");
        c.Process.Close(vm);
        Check(c.EnabledCpus == "", "and off with the last VM");
    }

    private void Dmesg(Computer c, string line) => Check(c.Host.Log.Lines.Contains(line), $"dmesg: {line}");
}
