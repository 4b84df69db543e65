using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>Entering and leaving VMX operation: CR4.VMXE, VMXON, what happens when it fails, VMXOFF.</summary>
public sealed class VmxOperation
{
    private const ulong vmxe = 1 << 13;
    private const uint featCtl = 0x3a;

    [Fact]
    [Trait("Seed", "S0-1")]
    public void VMXON_without_CR4_VMXE_is_an_invalid_opcode()
    {
        using var host = new IntelHost();
        host.OnCpu(0, () =>
        {
            InstructionResult result = host.HostX86.ThisCpu.Processor.Vmxon(host.Host.Pages.AllocPage("test"));
            result.IsFault.Should().BeTrue();
            result.Fault.Vector.Should().Be(Fault.UD);
        });
    }

    [Fact]
    [Trait("Seed", "S0-24")]
    public void VMXE_is_bit_13() => X86Const.X86_CR4_VMXE.Should().Be(0x2000);

    [Fact]
    [Trait("Seed", "S0-10")]
    [Trait("Seed", "S0-25")]
    [Trait("Seed", "S0-33")]
    public void First_VM_sets_VMXE_then_VMXON_of_this_cpus_area_then_INVEPT_of_everything()
    {
        using IntelHost host = IntelHost.Loaded();
        InstructionLog log = InstructionLog.On(host);
        host.CreateVm();
        List<Instruction> all = log.Take();
        List<ulong> areas = [];
        for (int cpu = 0; cpu < 2; cpu++)
        {
            Instruction[] done = [.. all.Where(i => i.Cpu == cpu && i.Mnemonic is "CR4" or "VMXON" or "INVEPT").Where(i => i.Cpu == cpu)];
            done.Select(static i => i.Mnemonic).Should().Equal("CR4", "VMXON", "INVEPT");
            (done[0].Value & ~done[0].Operand).Should().Be(vmxe);
            done[2].Operand.Should().Be(2);
            host.HostX86.Cpus[cpu].Cr4Shadow.Should().Match(static shadow => (shadow & vmxe) != 0);
            areas.Add(done[1].Operand);
        }
        areas.Should().OnlyHaveUniqueItems();
    }

    [Fact]
    [Trait("Seed", "S0-26")]
    public void The_operand_of_VMXON_is_the_physical_address_of_a_page_that_begins_with_the_revision()
    {
        using IntelHost host = IntelHost.Loaded();
        InstructionLog log = InstructionLog.On(host);
        host.CreateVm();
        foreach (Instruction vmxon in log.Take().Where(static i => i.Mnemonic == "VMXON"))
        {
            (vmxon.Operand & 0xfff).Should().Be(0);
            host.Host.Pages.InUseByTag.Should().ContainKey("alloc_vmcs_cpu");
            unsafe
            {
                (*(uint*)vmxon.Operand).Should().Be(host.Vmx.VmcsConfig.RevisionId);
            }
        }
    }

    [Fact]
    [Trait("Seed", "S0-27")]
    public void VMfail_of_VMXON_goes_unnoticed_a_fault_does_not()
    {
        using IntelHost host = IntelHost.Loaded();
        host.Machine.Processors[0].InstructionFaults.Add("VMXON", InstructionResult.FailInvalid);
        int vm = host.CreateVm();
        host.Dmesg.Should().NotContain(static l => l.Contains("VMXON", StringComparison.Ordinal));
        host.Process.Close(vm);

        host.Machine.Processors[0].InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));
        host.Process.Ioctl(host.OpenKvm(), KVM_CREATE_VM).Should().Be((KvmResult)Errno.EBUSY);
    }

    [Fact]
    [Trait("Seed", "S0-29")]
    public void The_warning_shows_0xdeadbeef_when_the_register_cannot_be_read()
    {
        using IntelHost host = IntelHost.Loaded();
        host.Machine.Processors[0].InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));
        host.Machine.Processors[0].InstructionFaults.Add("RDMSR", InstructionResult.Faulted(Fault.Gp()), skip: 0, count: 100);
        host.Process.Ioctl(host.OpenKvm(), KVM_CREATE_VM).Should().Be((KvmResult)Errno.EBUSY);
        host.Dmesg.Should().Contain(static l => l.EndsWith("VMXON faulted, MSR_IA32_FEAT_CTL (0x3a) = 0xdeadbeef", StringComparison.Ordinal));
    }

    [Fact]
    [Trait("Seed", "S0-30")]
    public void The_register_is_MSR_0x3a()
    {
        using IntelHost host = IntelHost.Loaded();
        host.Machine.Processors[0].InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));
        InstructionLog log = InstructionLog.On(host);
        host.Process.Ioctl(host.OpenKvm(), KVM_CREATE_VM);
        log.Take().SkipWhile(static i => i.Mnemonic != "VMXON" || i.Cpu != 0).Should().Contain(static i => i.Mnemonic == "RDMSR" && i.Operand == featCtl);
    }

    [Fact]
    [Trait("Seed", "S0-31")]
    public void After_a_fault_VMXE_is_clear_again()
    {
        using IntelHost host = IntelHost.Loaded();
        host.Machine.Processors[1].InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));
        host.Process.Ioctl(host.OpenKvm(), KVM_CREATE_VM).Should().Be((KvmResult)Errno.EBUSY);
        foreach (Processor cpu in host.Machine.Processors)
        {
            (cpu.ReadCr(4) & vmxe).Should().Be(0);
            cpu.InVmxOperation.Should().BeFalse();
        }
    }

    [Fact]
    [Trait("Seed", "S4-108")]
    [Trait("Seed", "S4-109")]
    public void Last_close_leaves_VMX_operation_and_clears_VMXE()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.Machine.Processors.Should().OnlyContain(static p => p.InVmxOperation);
        InstructionLog log = InstructionLog.On(host);
        host.Process.Close(vm);
        host.Machine.Processors.Should().OnlyContain(static p => !p.InVmxOperation && (p.ReadCr(4) & vmxe) == 0);
        log.Take().Where(static i => i.Mnemonic is "VMXOFF" or "CR4" && i.Cpu == 1).Select(static i => i.Mnemonic).Should().ContainInOrder("VMXOFF", "CR4");
    }

    [Fact]
    [Trait("Seed", "S4-113")]
    public void A_fault_of_a_VMX_instruction_is_a_bug_unless_the_host_reboots()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.Machine.Processors[1].InstructionFaults.Add("VMXOFF", InstructionResult.Faulted(Fault.Ud));
        host.Process.Close(vm);
        host.Dmesg.Should().Contain(static l => l.Contains("kvm_spurious_fault", StringComparison.Ordinal));

        using IntelHost rebooting = IntelHost.Loaded();
        rebooting.CreateVm();
        rebooting.Machine.Processors[1].InstructionFaults.Add("VMXOFF", InstructionResult.Faulted(Fault.Ud));
        rebooting.Host.Reboot();
        rebooting.Dmesg.Should().NotContain(static l => l.Contains("kvm_spurious_fault", StringComparison.Ordinal));
    }

    [Fact]
    public void A_processor_that_goes_offline_leaves_VMX_operation_with_its_VMCSs_written_back()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.Process.Task.SetAffinity(1);
        host.CreateVcpu(vm);
        VcpuVmx vcpu = host.Vcpu();
        vcpu.LoadedVmcs.Cpu.Should().Be(1);
        InstructionLog log = InstructionLog.On(host);
        host.Process.Task.SetAffinity(0);
        host.Host.CpuDown(1).Should().Be((KvmResult)0);
        log.Take().Where(static i => i.Cpu == 1 && i.Mnemonic is "VMCLEAR" or "VMXOFF").Select(static i => i.Mnemonic).Should().Equal("VMCLEAR", "VMXOFF");
        vcpu.LoadedVmcs.Cpu.Should().Be(-1);
        host.Machine.Processors[1].InVmxOperation.Should().BeFalse();
        host.Host.CpuUp(1).Should().Be((KvmResult)0);
        host.Machine.Processors[1].InVmxOperation.Should().BeTrue();
        host.Process.Close(vm);
    }

    [Fact]
    public void Emergency_writes_back_and_leaves()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.Process.Task.SetAffinity(0);
        host.CreateVcpu(vm);
        InstructionLog log = InstructionLog.On(host);
        host.OnCpu(0, host.Vmx.EmergencyDisable);
        log.Take().Where(static i => i.Mnemonic is "VMCLEAR" or "VMXOFF").Select(static i => i.Mnemonic).Should().Equal("VMCLEAR", "VMXOFF");
        host.Machine.Processors[0].InVmxOperation.Should().BeFalse();
        host.OnCpu(0, () => host.Vmx.HardwareEnable()); // so that the close finds what it expects
    }
}
