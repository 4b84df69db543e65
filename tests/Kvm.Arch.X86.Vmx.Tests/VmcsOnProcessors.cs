using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>Where a VMCS is: loading, migration between processors, and what is said when VMCLEAR or VMPTRLD fail.</summary>
public sealed class VmcsOnProcessors
{
    private sealed class Vcpus : IDisposable
    {
        public Vcpus(int count = 1)
        {
            Host = IntelHost.Loaded();
            int vm = Host.CreateVm();
            Host.Process.Task.SetAffinity(0);
            for (uint i = 0; i < count; i++)
                Fds.Add(Host.CreateVcpu(vm, i));
            Log = InstructionLog.On(Host);
        }

        public IntelHost Host { get; }
        public List<int> Fds { get; } = [];
        public InstructionLog Log { get; }
        public VcpuVmx Vcpu => Host.Vcpu();

        /// <summary>An ioctl that loads the vCPU, on a CPU; what was done to the processors.</summary>
        public List<Instruction> TouchOn(int cpu, int vcpu = 0)
        {
            Host.Process.Task.SetAffinity(cpu);
            Log.Take();
            kvm_mp_state state = default;
            Host.Process.Ioctl(Fds[vcpu], KVM_GET_MP_STATE, ref state).Should().Be((KvmResult)0);
            return [.. Log.Take().Where(static i => i.Mnemonic is "VMCLEAR" or "VMPTRLD" or "VMWRITE")];
        }

        public void Dispose() => Host.Dispose();
    }

    [Fact]
    [Trait("Seed", "S4-65")]
    public void An_ioctl_switches_to_the_vcpu_and_back()
    {
        using var v = new Vcpus();
        using FunctionTraceSession trace = FunctionTrace.Start(v.Host.Host);
        v.TouchOn(0);
        trace.Flatten().Select(static f => f.Name).Should().ContainInOrder("vcpu_load", "preempt_notifier_register", "vmx_vcpu_load", "vcpu_put", "vmx_vcpu_put", "preempt_notifier_unregister");
        v.Vcpu.Cpu.Should().Be(0, "the last processor is remembered");
    }

    [Fact]
    [Trait("Seed", "S4-66")]
    [Trait("Seed", "S4-119")]
    public void On_another_processor_the_VMCS_is_cleared_where_it_was()
    {
        using var v = new Vcpus();
        List<Instruction> done = v.TouchOn(1);
        done[0].Should().Match<Instruction>(i => i.Mnemonic == "VMCLEAR" && i.Cpu == 0 && i.Operand == v.Vcpu.LoadedVmcs.Vmcs);
        done[1].Should().Match<Instruction>(i => i.Mnemonic == "VMPTRLD" && i.Cpu == 1);
        v.Vcpu.LoadedVmcs.Cpu.Should().Be(1);
        v.Vcpu.LoadedVmcs.Launched.Should().BeFalse();
        v.TouchOn(0)[0].Should().Match<Instruction>(i => i.Mnemonic == "VMCLEAR" && i.Cpu == 1);
    }

    [Fact]
    [Trait("Seed", "S4-67")]
    public void VMPTRLD_only_when_another_VMCS_is_current()
    {
        using var v = new Vcpus(2);
        v.TouchOn(0).Where(static i => i.Mnemonic == "VMPTRLD").Should().ContainSingle("the second vCPU was current");
        v.TouchOn(0).Should().BeEmpty();
        v.TouchOn(0, vcpu: 1).Select(static i => i.Mnemonic).Should().Equal("VMPTRLD");
    }

    [Fact]
    [Trait("Seed", "S4-68")]
    [Trait("Seed", "S4-69")]
    [Trait("Seed", "S4-114")]
    public void A_failing_VMPTRLD_is_only_reported()
    {
        foreach (InstructionResult failure in (InstructionResult[])[InstructionResult.FailInvalid, InstructionResult.FailValid])
        {
            using var v = new Vcpus(2);
            v.Host.Machine.Processors[0].InstructionFaults.Add("VMPTRLD", failure);
            v.TouchOn(0);
            ulong vmcs = v.Vcpu.LoadedVmcs.Vmcs;
            v.Host.Dmesg.Should().Contain(l => l.Contains($"kvm: vmptrld failed: {vmcs:x16}/{vmcs:x} err=", StringComparison.Ordinal));
        }
    }

    [Fact]
    [Trait("Seed", "S4-70")]
    [Trait("Seed", "S4-72")]
    public void A_change_of_processor_asks_for_a_TLB_flush_and_writes_the_processors_host_state()
    {
        using var v = new Vcpus();
        v.Vcpu.ClearRequest(KvmRequest.KVM_REQ_TLB_FLUSH);
        List<Instruction> done = v.TouchOn(1);
        v.Vcpu.TestRequest(KvmRequest.KVM_REQ_TLB_FLUSH).Should().BeTrue();
        done.Where(static i => i.Mnemonic == "VMWRITE").Select(static i => i.Field).Should().Equal(HOST_TR_BASE, HOST_GDTR_BASE, HOST_IA32_SYSENTER_ESP);
        HostX86Cpu cpu = v.Host.HostX86.Cpus[1];
        done[2].Value.Should().Be(cpu.TssAddress);
        done[3].Value.Should().Be(cpu.GdtAddress);
        done[4].Value.Should().Be(cpu.EntryStackTop);
    }

    [Fact]
    [Trait("Seed", "S4-71")]
    [Trait("Seed", "S4-73")]
    public void Each_processor_lists_the_VMCSs_loaded_on_it()
    {
        using var v = new Vcpus(2);
        v.Host.Vmx.LoadedOn(0).Should().Be(2);
        v.TouchOn(1);
        v.Host.Vmx.LoadedOn(0).Should().Be(1);
        v.Host.Vmx.LoadedOn(1).Should().Be(1);
        v.Host.Machine.Processors.Should().OnlyContain(static p => p.InVmxOperation, "each has a VMXON region of its own");
    }

    [Fact]
    [Trait("Seed", "S4-110")]
    [Trait("Seed", "S4-111")]
    public void A_failing_VMCLEAR_is_only_reported()
    {
        using var v = new Vcpus();
        ulong vmcs = v.Vcpu.LoadedVmcs.Vmcs;
        v.Host.Machine.Processors[0].InstructionFaults.Add("VMCLEAR", InstructionResult.FailInvalid);
        v.TouchOn(1)[0].Operand.Should().Be(vmcs, "the operand is the physical address of the VMCS");
        v.Host.Dmesg.Should().Contain(l => l.Contains($"kvm: vmclear failed: {vmcs:x16}/{vmcs:x} err=", StringComparison.Ordinal));
    }

    [Fact]
    [Trait("Seed", "S4-112")]
    public void After_VMCLEAR_the_next_entry_is_a_launch()
    {
        using var v = new Vcpus();
        using Guest guest = new(v.Host, v.Fds[0]);
        guest.Load([0xe6, 0x10, 0xeb, 0xfc]); // out 0x10,al; jmp to it
        Entry(0).Should().Be("VMLAUNCH");
        Entry(0).Should().Be("VMRESUME");
        Entry(1).Should().Be("VMLAUNCH");
        Entry(1).Should().Be("VMRESUME");

        string Entry(int cpu)
        {
            v.Host.Process.Task.SetAffinity(cpu);
            v.Log.Take();
            guest.Run().Should().Be((uint)KVM_EXIT_IO);
            return v.Log.Take().First(static i => i.Mnemonic is "VMLAUNCH" or "VMRESUME").Mnemonic;
        }
    }
}
