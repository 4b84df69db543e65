namespace Kvm.Emulator;

/// <summary>Converts ticks of one clock to ticks of another without dividing: a whole part and a 64-bit fraction.</summary>
/// <remarks>The fraction is rounded up, so that whole results are whole; after some hours a result may be one tick early. It never runs backwards.</remarks>
internal readonly struct ClockRatio
{
    private readonly ulong whole, fraction;

    /// <param name="from">Ticks a second of the clock that is read; not 0.</param>
    /// <param name="to">Ticks a second of the clock that is shown.</param>
    public ClockRatio(ulong from, ulong to)
    {
        (whole, ulong rest) = Math.DivRem(to, from);
        fraction = (ulong)((((UInt128)rest << 64) + from - 1) / from);
    }

    public ulong Convert(ulong ticks) => (ticks * whole) + Math.BigMul(ticks, fraction, out _);
}
