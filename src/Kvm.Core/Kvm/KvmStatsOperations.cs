namespace Kvm.Core;

/// <summary>kvm_vm_stats_fops and kvm_vcpu_stats_fops: the read-only statistics file of a VM or vCPU, which holds the VM.</summary>
internal sealed unsafe class KvmStatsOperations : FileOperations
{
    public override KvmResult Read(KvmFile file, ulong buffer, ulong count, ref long position)
    {
        if (file.PrivateData is KvmVcpu vcpu)
            fixed (KvmVcpuStat* stat = &vcpu.Stat) return KvmStats.Read(vcpu.StatsId, KvmStats.Vcpu, stat, sizeof(KvmVcpuStat), buffer, count, ref position);
        var vm = (KvmVm)file.PrivateData!;
        fixed (KvmVmStat* stat = &vm.Stat) return KvmStats.Read(vm.StatsId, KvmStats.Vm, stat, sizeof(KvmVmStat), buffer, count, ref position);
    }

    public override void Release(KvmFile file) => (file.PrivateData as KvmVm ?? ((KvmVcpu)file.PrivateData!).Vm).Put();
}
