namespace Kvm.Arch.X86;

/// <summary>Which performance events a guest may count.</summary>
/// <remarks>struct kvm_pmu_event_filter, uapi/asm/kvm.h.</remarks>
public sealed record KvmPmuEventFilter(bool Allow, uint FixedCounterBitmap, ulong[] Events);
