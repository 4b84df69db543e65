using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using Kvm.Emulator.Svm;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>SVM on each processor: EFER.SVME and the host save area, what happens when another user has it, and turning it off.</summary>
public sealed unsafe class SvmOperation
{
    private const ulong svme = 1 << 12;

    [Fact]
    [Trait("Seed", "S2-20")]
    public void From_the_ioctl_to_the_processor()
    {
        using AmdHost host = AmdHost.Loaded(cpus: 1);
        using FunctionTraceSession trace = FunctionTrace.Start(host.Host);
        host.CreateVm();
        // kvm_dev_ioctl_create_vm, kvm_create_vm and hardware_enable_all are inlined in the recorded kernel, and not in its trees.
        trace.Flatten().Select(static f => f.Name).Should().ContainInOrder("kvm_dev_ioctl", "hardware_enable_nolock", "kvm_arch_hardware_enable", "svm_hardware_enable");
    }

    [Fact]
    [Trait("Seed", "S2-21")]
    public void EFER_SVME_set_by_somebody_else_is_EBUSY()
    {
        using AmdHost host = AmdHost.Loaded();
        host.OnCpu(1, () => host.HostX86.Cpus[1].Wrmsr(MSR_EFER, host.HostX86.Cpus[1].Rdmsr(MSR_EFER) | svme));
        host.TryCreateVm().Should().Be((KvmResult)Errno.EBUSY);
        host.Dmesg.Should().Contain("kvm: enabling virtualization on CPU1 failed");
        // CPU 0 was enabled, and disabled again.
        (host.ReadMsr(0, MSR_EFER) & svme).Should().Be(0);
        host.ReadMsr(0, MSR_VM_HSAVE_PA).Should().Be(0);
        (host.ReadMsr(1, MSR_EFER) & svme).Should().Be(svme, "it belongs to somebody else");
        host.OnCpu(1, () => host.HostX86.Cpus[1].Wrmsr(MSR_EFER, host.HostX86.Cpus[1].Rdmsr(MSR_EFER) & ~svme));
        host.CreateVm();
    }

    [Fact]
    [Trait("Seed", "S2-22")]
    [Trait("Seed", "S2-24")]
    [Trait("Seed", "S2-25")]
    public void SVME_then_the_host_save_area_then_the_TSC_ratio()
    {
        using AmdHost host = AmdHost.Loaded(model: CpuModel.AmdZen);
        host.Log.Take();
        host.CreateVm();
        List<Instruction> log = host.Log.Take();
        List<ulong> areas = [];
        bool ratio = (CpuModel.AmdZen.SvmFeatures & 1 << 4) != 0;
        for (int cpu = 0; cpu < 2; cpu++)
        {
            Instruction[] writes = [.. log.Where(i => i.Cpu == cpu && i.Mnemonic == "WRMSR" && i.Operand is MSR_EFER or MSR_VM_HSAVE_PA or MSR_AMD64_TSC_RATIO).Where(i => i.Cpu == cpu)];
            writes.Select(static i => (uint)i.Operand).Should().Equal(ratio ? [MSR_EFER, MSR_VM_HSAVE_PA, MSR_AMD64_TSC_RATIO] : [MSR_EFER, MSR_VM_HSAVE_PA]);
            (writes[0].Value & svme).Should().Be(svme);
            (writes[1].Value & 0xfff).Should().Be(0);
            areas.Add(writes[1].Value);
            if (ratio)
                writes[2].Value.Should().Be(0x100000000);
        }
        areas.Should().OnlyHaveUniqueItems();
        host.Host.Pages.InUseByTag["svm_cpu_init"].Should().Be(2);
    }

    [Fact]
    [Trait("Seed", "S2-23")]
    public void ASIDs_of_a_processor_are_those_of_CPUID_without_the_hosts()
    {
        using var guest = new Guest();
        uint asids = AmdHost.Recorded.Leaf(0x8000000a).Ebx;
        asids.Should().BeGreaterThan(2);
        guest.Load(0xf4);
        for (uint expected = 1; expected < 4; expected++)
        {
            guest.RunToExit().Should().Be((uint)Uapi.KVM_EXIT_HLT);
            guest.Control.Asid.Should().Be(expected);
            guest.Vcpu.CurrentVmcb.AsidGeneration = 0; // as after a move to another CPU
        }
    }

    /// <summary>The last ASID is CPUID's number less one; after it all are flushed and numbering begins again.</summary>
    [Fact]
    public void When_ASIDs_are_used_up_all_are_flushed()
    {
        CpuModel model = AmdHost.WithSvmLeaf(new CpuidLeaf(1, 4, 0, 1));
        using var guest = new Guest(model: model);
        guest.Load(0xf4);
        List<uint> asids = [];
        for (int i = 0; i < 7; i++)
        {
            guest.RunToExit();
            asids.Add(guest.Control.Asid);
            guest.Vcpu.CurrentVmcb.AsidGeneration = 0;
        }
        asids.Should().Equal(1, 2, 3, 1, 2, 3, 1);
    }

    [Fact]
    public void Another_processor_gives_a_new_ASID_and_everything_is_dirty()
    {
        using var guest = new Guest();
        guest.Load(0xf4);
        guest.RunToExit();
        KvmVmcbInfo vmcb = guest.Vcpu.CurrentVmcb;
        vmcb.Cpu.Should().Be(0);
        guest.Process.Task.SetAffinity(1);
        guest.Host.Log.Take();
        guest.RunToExit();
        vmcb.Cpu.Should().Be(1);
        guest.Host.Log.Take().Should().Contain(static i => i.Mnemonic == "VMRUN" && i.Cpu == 1);
    }

    [Fact]
    public void The_last_close_clears_the_save_area_and_sets_GIF_before_SVME_goes()
    {
        using AmdHost host = AmdHost.Loaded();
        int vm = host.CreateVm();
        host.Log.Take();
        host.Process.Close(vm);
        List<Instruction> log = host.Log.Take();
        for (int cpu = 0; cpu < 2; cpu++)
        {
            log.Where(i => i.Cpu == cpu).Select(static i => i.ToString()).Should().Equal("WRMSR c0010117", "RDMSR c0000080", "STGI", "WRMSR c0000080");
            (host.ReadMsr(cpu, MSR_EFER) & svme).Should().Be(0);
            host.ReadMsr(cpu, MSR_VM_HSAVE_PA).Should().Be(0);
        }
    }

    [Fact]
    public void A_processor_that_goes_offline_leaves_SVM_and_comes_back_with_it()
    {
        using AmdHost host = AmdHost.Loaded();
        int vm = host.CreateVm();
        host.Host.CpuDown(1).Should().Be((KvmResult)0);
        (host.Machine.Processors[1].State->Efer & svme).Should().Be(0);
        host.Host.CpuUp(1).Should().Be((KvmResult)0);
        (host.ReadMsr(1, MSR_EFER) & svme).Should().Be(svme);
        host.Process.Close(vm);
        (host.ReadMsr(1, MSR_EFER) & svme).Should().Be(0);
    }

    [Fact]
    public void Emergency_turns_it_off()
    {
        using AmdHost host = AmdHost.Loaded(cpus: 1);
        host.CreateVm();
        host.OnCpu(0, host.Amd.EmergencyDisable);
        (host.ReadMsr(0, MSR_EFER) & svme).Should().Be(0);
        host.OnCpu(0, () => host.Amd.HardwareEnable().Should().Be(0)); // so that the close finds what it expects
    }

    [Theory]
    [InlineData("VMRUN")]
    [InlineData("VMLOAD")]
    [InlineData("VMSAVE")]
    [InlineData("CLGI")]
    public void A_fault_of_an_SVM_instruction_is_a_bug_unless_the_host_reboots(string mnemonic)
    {
        using var guest = new Guest();
        guest.Load(0xf4);
        guest.Host.Machine.Processors[0].InstructionFaults.Add(mnemonic, InstructionResult.Faulted(Fault.Ud));
        guest.RunOnce();
        guest.Host.Dmesg.Should().Contain(static l => l.Contains("kvm_spurious_fault", StringComparison.Ordinal));
    }
}
