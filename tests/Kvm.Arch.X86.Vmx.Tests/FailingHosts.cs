using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>Hosts on which the real kvm_intel did not load or could not create a VM: the model answers with the same errno and the same kernel messages.</summary>
public sealed class FailingHosts
{
    private const ulong locked = 1, outsideSmx = 4;

    [Fact]
    [Trait("Seed", "S1-6")]
    public void Firmware_locked_VMX_off()
    {
        using var host = new IntelHost(bios: static _ => new BiosSettings { FeatureControl = locked });
        Replay(host, "featctl-locked-off");
        host.HostX86.BootCpuHas(X86Feature.VMX).Should().BeFalse();
    }

    [Fact]
    public void Firmware_locked_VMX_off_on_one_processor_only()
    {
        using var host = new IntelHost(bios: static cpu => new BiosSettings { FeatureControl = cpu == 0 ? locked | outsideSmx : locked });
        Replay(host, "featctl-cpu1-locked-off");
    }

    [Fact]
    [Trait("Seed", "S1-4")]
    public void Firmware_left_the_register_unlocked()
    {
        using var host = new IntelHost(bios: static _ => BiosSettings.Unlocked);
        Replay(host, "featctl-unlocked");
        for (int cpu = 0; cpu < 2; cpu++)
            host.OnCpu(cpu, () => host.HostX86.ThisCpu.Rdmsr(0x3a).Should().Be(locked | outsideSmx));
    }

    [Fact]
    [Trait("Seed", "S0-9")]
    public void Another_user_of_VMX_has_set_the_bit()
    {
        using var host = new IntelHost();
        Replay(host, "vmxe-already-set");
    }

    [Fact]
    [Trait("Seed", "S0-28")]
    public void VMXON_faults_on_one_processor()
    {
        using var host = new IntelHost();
        host.Machine.Processors[1].InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));
        Replay(host, "vmxon-fault-cpu1");
    }

    [Fact]
    public void Processor_without_VMX()
    {
        using var host = new IntelHost(CpuModel.Load("bochs-skylake-x").WithCpuid(1, 0, default, new CpuidLeaf(0, 0, 1 << 5, 0)));
        Replay(host, "novmx");
    }

    private static void Replay(IntelHost host, string log)
    {
        foreach (string message in RecordedConsole.BootMessages(log).Where(static m => m.Contains("VMX", StringComparison.Ordinal)))
            host.Dmesg.Should().Contain(message);
        int vmxeBySomeoneElse = -1;
        foreach (RecordedCommand command in RecordedConsole.Commands(log))
        {
            int logged = host.Host.Log.Records.Count;
            string[] words = command.Line.Split(' ');
            switch (words[0])
            {
                case "insmod" when words[1].EndsWith("kvm-intel.ko", StringComparison.Ordinal):
                    if (host.Host.Modules.IsLoaded("kvm_intel"))
                        host.Host.Modules.Remove("kvm_intel").Should().Be((KvmResult)0);
                    ErrnoOf(host.Load()).Should().Be(command.Rc, command.Line);
                    KvmResult device = host.Process.Open("/dev/kvm");
                    device.IsError.Should().Be(command.Rc != 0);
                    if (device.IsOk)
                        host.Process.Close(device.Value);
                    break;
                case "insmod" when words[1].EndsWith("setvmxe.ko", StringComparison.Ordinal):
                    vmxeBySomeoneElse = words[2][^1] - '0';
                    host.OnCpu(vmxeBySomeoneElse, () => host.HostX86.ThisCpu.Cr4SetBits(X86Const.X86_CR4_VMXE));
                    continue;
                case "rmmod":
                    host.OnCpu(vmxeBySomeoneElse, () => host.HostX86.ThisCpu.Cr4ClearBits(X86Const.X86_CR4_VMXE));
                    continue;
                case "holdvm":
                    HoldVm(host, command);
                    break;
                default:
                    continue; // kvm.ko, kvm_amd
            }
            string[] messages = [.. host.Host.Log.Records.Skip(logged).Select(static r => r.Text)];
            foreach (string expected in command.Dmesg.Where(static m => m.StartsWith("kvm", StringComparison.Ordinal) || m.StartsWith("VMXON", StringComparison.Ordinal)))
                messages.Should().Contain(expected, command.Line);
        }
    }

    /// <summary>The program that opened /dev/kvm, created a VM and vCPUs, and printed each result.</summary>
    private static void HoldVm(IntelHost host, RecordedCommand command)
    {
        KvmResult kvm = host.Process.Open("/dev/kvm");
        Check("open /dev/kvm", kvm);
        if (kvm.IsError)
            return;
        KvmResult vm = host.Process.Ioctl(kvm.Value, KVM_CREATE_VM);
        Check("KVM_CREATE_VM", vm);
        List<int> fds = [];
        if (!vm.IsError)
        {
            for (uint id = 0; id < uint.Parse(command.Line.Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture); id++)
            {
                KvmResult vcpu = host.Process.Ioctl(vm.Value, KVM_CREATE_VCPU, id);
                Check($"KVM_CREATE_VCPU {id}", vcpu);
                fds.Add(vcpu.Value);
            }
            fds.Add(vm.Value);
        }
        foreach (int fd in fds.Append(kvm.Value))
            host.Process.Close(fd);

        void Check(string what, KvmResult result)
        {
            string line = command.Output.Single(l => l.StartsWith($"holdvm: {what} = ", StringComparison.Ordinal));
            string recorded = line.Split(" = ")[1].Trim();
            if (recorded.StartsWith("-1", StringComparison.Ordinal))
                result.Errno.ToString().Should().Be(recorded[3..], line);
            else
                result.IsError.Should().BeFalse(line);
        }
    }

    private static int ErrnoOf(KvmResult result) => (int)result.Errno;
}
