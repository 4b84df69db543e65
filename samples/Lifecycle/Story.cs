using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;

namespace Lifecycle;

/// <summary>Tells and checks, chapter by chapter.</summary>
internal sealed partial class Story(TextWriter output)
{
    /// <summary>Statements so far.</summary>
    public int Checked { get; private set; }

    /// <summary>Those that did not hold.</summary>
    public int Failed { get; private set; }

    private bool _intel;

    private string Module => _intel ? "kvm_intel" : "kvm_amd";

    private string Bit => _intel ? "CR4.VMXE" : "EFER.SVME";

    public void Tell(bool intel)
    {
        _intel = intel;
        output.WriteLine($"=== {(intel ? "VMX: kvm_intel on an Intel machine" : "SVM: kvm_amd on an AMD machine")} ===");
        FirstVmEnables();
        HostDisabledByItsBios();
        ProcessorThatCanNotEnter();
        ProcessorsThatDiffer();
        Hotplug();
        SuspendAndResume();
        EveryUnwindingLabel();
        output.WriteLine();
    }

    private void Chapter(string title) => output.WriteLine($"\n--- {title}");

    private void Say(string text) => output.WriteLine("    " + text);

    private void Check(bool holds, string statement)
    {
        Checked++;
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
        Check(c.EnabledCpus == "", $"no processor has {Bit} set after loading and opening");

        int first = 0, second = 0;
        using (FunctionTraceSession trace = FunctionTrace.Start(c.Host))
        {
            first = c.CreateVm(kvm).Value;
            Check(c.EnabledCpus == "0,1", $"the first KVM_CREATE_VM sets {Bit} on every processor:");
            Show(trace, "hardware_enable");
        }

        using (FunctionTraceSession trace = FunctionTrace.Start(c.Host))
        {
            second = c.CreateVm(kvm).Value;
            Check(!trace.Flatten().Any(n => n.Name == "hardware_enable_nolock"), "the second VM touches no processor, it only counts");
        }

        Check(c.Kvm.UsageCount == 2, "kvm_usage_count = 2, the number of VMs");
        Check(c.Vendor.RefCount > 0, $"{Module} is in use: reference count {c.Vendor.RefCount}, from VMs and descriptors");
        Equal(c.Unload(), Errno.EAGAIN, $"rmmod {Module} meanwhile");

        int vcpu = c.CreateVcpu(first).Value;
        c.Process.Close(first);
        Check(c.Kvm.UsageCount == 2, "close(vm): its vCPU's descriptor keeps it alive");
        c.Process.Close(vcpu);
        Check(c.Kvm.UsageCount == 1 && c.EnabledCpus == "0,1", "close(vcpu): now it is gone; one VM is left, virtualization stays on");
        using (FunctionTraceSession trace = FunctionTrace.Start(c.Host))
        {
            c.Process.Close(second);
            Check(c.Kvm.UsageCount == 0 && c.EnabledCpus == "", $"close of the last VM clears {Bit} everywhere:");
            Show(trace, "hardware_disable");
        }

        c.Process.Close(kvm);
        Equal(c.Unload(), KvmResult.Ok, $"rmmod {Module}");
        Check(c.Host.Pages.InUse == 0, "every page came back");
    }

    private void HostDisabledByItsBios()
    {
        Chapter("A BIOS that disabled virtualization: the module refuses to load");
        Say(_intel ? "IA32_FEATURE_CONTROL (MSR 0x3a) is locked without the bit that allows VMXON outside SMX." : "VM_CR (MSR 0xc0010114) has SVMDIS set, and locked.");
        ProcessorOptions off = new(Computer.Model(_intel)) { Bios = BiosSettings.VirtualizationDisabled };
        using var c = new Computer(_intel, off, off);
        Equal(c.Load(), Errno.EOPNOTSUPP, $"insmod {Module}");
        Dmesg(c, $"kvm: support for '{Module}' disabled by bios");
        Equal(c.Open(), Errno.ENOENT, "open(/dev/kvm)");
        Check(c.Host.Pages.InUse == 0, "every page came back");
        if (!_intel) return;

        ProcessorOptions fine = new(Computer.Model(true));
        using var one = new Computer(true, fine, off);
        Equal(one.Load(), Errno.EOPNOTSUPP, "insmod kvm_intel where the BIOS forgot the second processor only");
        ProcessorOptions open = fine with { Bios = BiosSettings.Unlocked };
        using var unlocked = new Computer(true, open, open);
        Equal(unlocked.Load(), KvmResult.Ok, "insmod kvm_intel where the BIOS left the MSR unlocked: the kernel sets and locks it");
    }

    private void ProcessorThatCanNotEnter()
    {
        Chapter(_intel ? "VMXON faults in one processor: KVM_CREATE_VM gives -EBUSY" : "Another hypervisor uses SVM in one processor: KVM_CREATE_VM gives -EBUSY");
        Say(_intel ? "CPU 1 runs with CR0.NE clear, which VMX operation does not allow: VMXON raises #GP." : "CPU 1 has EFER.SVME set already.");
        using var c = new Computer(_intel);
        c.Load();
        int kvm = c.Open().Value;
        c.Break(1);
        string before = c.State;
        using (FunctionTraceSession trace = FunctionTrace.Start(c.Host))
        {
            Equal(c.CreateVm(kvm), Errno.EBUSY, "KVM_CREATE_VM");
            Show(trace, "hardware_enable", "hardware_disable");
        }

        Dmesg(c, "kvm: enabling virtualization on CPU1 failed");
        if (_intel) Dmesg(c, "VMXON faulted, MSR_IA32_FEAT_CTL (0x3a) = 0x5");
        Check(!c.Enabled(0), "CPU 0, which had entered, left again");
        if (_intel) Check(!c.Enabled(1), "CR4.VMXE is clear in the one that faulted");
        Check(c.State == before, "nothing is left of the VM: pages, descriptors, counts are as before");
        c.Mend(1);
        Check(c.CreateVm(kvm).IsOk && c.EnabledCpus == "0,1", "once CPU 1 is mended the same call works");
    }

    private void ProcessorsThatDiffer()
    {
        Chapter("Processors that differ: the module refuses to load");
        if (!_intel)
        {
            Say("Only the first processor has SVM. At boot the kernel keeps the features that all of them have; kvm_amd asks the kernel.");
            CpuModel without = Computer.Model(false).WithCpuid(0x80000001, 0, set: default, clear: default(CpuidLeaf) with { Ecx = 1 << 2 });
            using var half = new Computer(false, new ProcessorOptions(Computer.Model(false)), new ProcessorOptions(without));
            Equal(half.Load(), Errno.EOPNOTSUPP, "insmod kvm_amd");
            Dmesg(half, "has_svm: svm not available");
            Dmesg(half, "kvm: no hardware support for 'kvm_amd'");
            return;
        }

        CpuModel model = Computer.Model(true);
        Say("kvm_intel sets its controls up on every processor and compares. The second's secondary controls (MSR 0x48b) lack PAUSE-loop exiting, which the first offers.");
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
        using (FunctionTraceSession trace = FunctionTrace.Start(c.Host))
        {
            Equal(c.Host.CpuDown(1), KvmResult.Ok, "echo 0 > cpu1/online, with a VM");
            Equal(c.Host.CpuDown(0), Errno.EBUSY, "echo 0 > cpu0/online, the last one");
            Equal(c.Host.CpuUp(1), KvmResult.Ok, "echo 1 > cpu1/online");
            Check(c.EnabledCpus == "0,1", "with a VM it leaves before it goes, and enters when it comes back:");
            Show(trace, "kvm_dying_cpu", "kvm_starting_cpu", "hardware_");
        }

        if (_intel)
        {
            c.Host.CpuDown(1);
            c.BreakNextVmxon(1);
            Equal(c.Host.CpuUp(1), KvmResult.Ok, "echo 1 > cpu1/online where VMXON faults: the processor comes all the same");
            Dmesg(c, "kvm: enabling virtualization on CPU1 failed");
            Check(c.EnabledCpus == "0", "but it has not entered, and KVM knows");
        }

        c.Process.Close(vm);
        Check(c.EnabledCpus == "", "the last VM switches the rest off");
    }

    private void SuspendAndResume()
    {
        Chapter("The computer sleeps and wakes up");
        using var c = new Computer(_intel);
        c.Load();
        int vm = c.CreateVm(c.Open().Value).Value;
        using (FunctionTraceSession trace = FunctionTrace.Start(c.Host))
        {
            Equal(c.Host.SuspendResume(), KvmResult.Ok, "echo mem > /sys/power/state, with a VM");
            Check(c.EnabledCpus == "0,1", "the first CPU by kvm_suspend and kvm_resume, the others as by hotplug:");
            Show(trace, "kvm_suspend", "kvm_resume", "kvm_dying_cpu", "kvm_starting_cpu");
        }

        Check(c.CreateVcpu(vm).IsOk, "the VM is still good");
    }

    private void Dmesg(Computer c, string line) => Check(c.Host.Log.Lines.Contains(line), $"dmesg: {line}");

    /// <summary>The calls whose names begin like one of these, outermost first, and on which processor.</summary>
    private void Show(FunctionTraceSession trace, params string[] prefixes)
    {
        bool Wanted(FunctionTraceNode n) => prefixes.Any(p => n.Name.Contains(p, StringComparison.Ordinal));
        void Print(FunctionTraceNode node, int depth)
        {
            bool wanted = Wanted(node);
            if (wanted) Say($"  cpu{node.Cpu}  {new string(' ', depth * 2)}{node.Name}");
            foreach (FunctionTraceNode child in node.Children) Print(child, wanted ? depth + 1 : depth);
        }

        foreach ((_, IReadOnlyList<FunctionTraceNode> roots) in trace.Groups)
        {
            foreach (FunctionTraceNode root in roots) Print(root, 0);
        }
    }
}
