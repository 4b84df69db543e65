namespace Kvm.Vmm.Debugging;

/// <summary>Why a debugged guest stands still.</summary>
/// <param name="Vcpu">The vCPU that it is about, by its place among the guest's.</param>
/// <param name="Cause">What happened.</param>
/// <param name="Address">The breakpoint's or watchpoint's linear address.</param>
/// <param name="End">For <see cref="DebugCause.Fatal"/>: what ends the guest when it is continued.</param>
public sealed record DebugStop(int Vcpu, DebugCause Cause, ulong Address = 0, GuestStop? End = null);
