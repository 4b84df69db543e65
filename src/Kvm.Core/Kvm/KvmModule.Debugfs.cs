using System.Globalization;
using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>/sys/kernel/debug/kvm.</remarks>
public sealed unsafe partial class KvmModule
{
    internal KvmStatsOperations StatsOperations { get; } = new();

    private void InitDebug()
    {
        Host.Debugfs.CreateDirectory("kvm");
        foreach (KvmStats.Descriptor d in KvmStats.Vm)
            Host.Debugfs.CreateFile("kvm/" + d.Name, d.Mode, () => Text(Sum(VmList, d, vcpu: false)), Writer(d, () => VmList, vcpu: false));
        foreach (KvmStats.Descriptor d in KvmStats.Vcpu)
            Host.Debugfs.CreateFile("kvm/" + d.Name, d.Mode, () => Text(Sum(VmList, d, vcpu: true)), Writer(d, () => VmList, vcpu: true));
    }

    /// <summary>The VM's directory and files. Only allocations and the architecture's part can fail it; debugfs itself can't.</summary>
    [KernelFunction("kvm_create_vm_debugfs", File = "virt/kvm/kvm_main.c")]
    private KvmResult CreateVmDebugfs(KvmVm vm, int fd)
    {
        string directory = $"kvm/{HostTask.Current.Pid}-{fd}";
        if (Host.Debugfs.Exists(directory))
        {
            Host.Log.Warn($"KVM: debugfs: duplicate directory {directory["kvm/".Length..]}");
            return 0;
        }

        if (!Host.Debugfs.CreateDirectory(directory)) return 0;
        vm.DebugfsDirectory = directory;
        KvmResult r = Errno.ENOMEM;
        if (Host.Faults.ShouldFail("debugfs", "debugfs_stat_data")) goto out_err;
        KvmVm[] one = [vm];
        foreach (KvmStats.Descriptor d in KvmStats.Vm)
        {
            if (Host.Faults.ShouldFail("debugfs", "stat_data")) goto out_err;
            Host.Debugfs.CreateFile($"{directory}/{d.Name}", d.Mode, () => Text(Sum(one, d, vcpu: false)), Writer(d, () => one, vcpu: false));
        }

        foreach (KvmStats.Descriptor d in KvmStats.Vcpu)
        {
            if (Host.Faults.ShouldFail("debugfs", "stat_data")) goto out_err;
            Host.Debugfs.CreateFile($"{directory}/{d.Name}", d.Mode, () => Text(Sum(one, d, vcpu: true)), Writer(d, () => one, vcpu: true));
        }

        r = Arch.CreateVmDebugfs(vm, directory);
        if (!r.IsError) return 0;

    out_err:
        DestroyVmDebugfs(vm);
        return r;
    }

    [KernelFunction("kvm_destroy_vm_debugfs", File = "virt/kvm/kvm_main.c")]
    private void DestroyVmDebugfs(KvmVm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_destroy_vm_debugfs");
        if (vm.DebugfsDirectory is not { } directory) return;
        Host.Debugfs.Remove(directory);
        vm.DebugfsDirectory = null;
    }

    [KernelFunction("kvm_create_vcpu_debugfs", File = "virt/kvm/kvm_main.c")]
    private void CreateVcpuDebugfs(KvmVcpu vcpu)
    {
        if (vcpu.Vm.DebugfsDirectory is not { } parent) return;
        string directory = $"{parent}/vcpu{vcpu.VcpuId}";
        Host.Debugfs.CreateDirectory(directory);
        Host.Debugfs.CreateFile(directory + "/pid", ModuleParameters.ReadOnly, () => Text((ulong)(vcpu.Pid?.Pid ?? 0)));
        Arch.CreateVcpuDebugfs(vcpu, directory);
    }

    private static string Text(ulong value) => value.ToString(CultureInfo.InvariantCulture) + "\n";

    private static ulong Sum(IEnumerable<KvmVm> vms, KvmStats.Descriptor d, bool vcpu)
    {
        ulong sum = 0;
        foreach (KvmVm vm in vms)
        {
            if (vcpu)
            {
                foreach (KvmVcpu v in vm.Vcpus)
                    fixed (KvmVcpuStat* p = &v.Stat) sum += KvmStats.Value(p, d);
            }
            else
            {
                fixed (KvmVmStat* p = &vm.Stat) sum += KvmStats.Value(p, d);
            }
        }

        return sum;
    }

    private static Func<string, KvmResult>? Writer(KvmStats.Descriptor d, Func<IEnumerable<KvmVm>> vms, bool vcpu)
    {
        if (d.Mode == ModuleParameters.ReadOnly) return null;
        return text =>
        {
            if (!ulong.TryParse(text.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong value) || value != 0) return Errno.EINVAL;
            foreach (KvmVm vm in vms())
            {
                if (vcpu)
                {
                    foreach (KvmVcpu v in vm.Vcpus)
                        fixed (KvmVcpuStat* p = &v.Stat) KvmStats.Clear(p, d);
                }
                else
                {
                    fixed (KvmVmStat* p = &vm.Stat) KvmStats.Clear(p, d);
                }
            }

            return text.Length;
        };
    }
}
