namespace Kvm.Vmm.Statistics;

/// <summary>A vCPU's part of a <see cref="GuestSnapshot"/>.</summary>
/// <param name="Id">Its id.</param>
/// <param name="Kvm">KVM's counters by name: <c>exits</c>, <c>halt_exits</c>…</param>
/// <param name="UserExits">Returns of KVM_RUN by <c>KVM_EXIT_…</c>.</param>
public sealed record VcpuSnapshot(uint Id, IReadOnlyDictionary<string, ulong> Kvm, IReadOnlyDictionary<string, long> UserExits);
