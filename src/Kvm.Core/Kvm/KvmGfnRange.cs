namespace Kvm.Core;

/// <summary>struct kvm_gfn_range: the frames of one slot that a change of process memory hits.</summary>
/// <param name="Slot">The slot.</param>
/// <param name="Start">First frame.</param>
/// <param name="End">First frame behind.</param>
/// <param name="MayBlock">The handler may reschedule.</param>
public readonly record struct KvmGfnRange(KvmMemorySlot Slot, ulong Start, ulong End, bool MayBlock);
