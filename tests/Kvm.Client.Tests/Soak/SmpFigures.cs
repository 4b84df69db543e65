namespace Kvm.Client.Tests.Soak;

/// <summary>What the processors of a guest did together.</summary>
internal readonly record struct SmpFigures(ulong Rounds, ulong Ipis, ulong Nmis, ulong Timers, ulong Halts)
{
    public override string ToString() => $"{Rounds:N0} rounds, {Ipis:N0} IPIs, {Nmis:N0} NMIs, {Timers:N0} timer interrupts, {Halts:N0} halts";
}
