namespace Kvm.Vmm.Statistics;

/// <summary>What a running guest tells of itself: counters since it was made.</summary>
/// <param name="Pid">The process it lives in.</param>
/// <param name="Name">What its user calls it.</param>
/// <param name="Backend">The kernel that runs it.</param>
/// <param name="Memory">Bytes of RAM.</param>
/// <param name="Nanoseconds">When this was read, on the process's monotonic clock.</param>
/// <param name="Vm">The VM's counters by KVM's names.</param>
/// <param name="Vcpus">Each vCPU's.</param>
public sealed record GuestSnapshot(int Pid, string Name, string Backend, ulong Memory, long Nanoseconds, IReadOnlyDictionary<string, ulong> Vm, IReadOnlyList<VcpuSnapshot> Vcpus);
