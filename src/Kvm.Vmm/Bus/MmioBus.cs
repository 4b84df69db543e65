namespace Kvm.Vmm.Bus;

/// <summary>Guest-physical ranges that devices answer.</summary>
/// <remarks>Devices are registered before the guest runs; accesses then need no lock.</remarks>
public sealed class MmioBus
{
    private readonly List<Range> _ranges = [];

    /// <summary>An access that nobody answered: address, size, is a write. For diagnostics.</summary>
    public Action<ulong, int, bool>? Unclaimed { get; set; }

    /// <exception cref="InvalidOperationException">The range overlaps another device's.</exception>
    public void Add(ulong first, ulong length, IMmioDevice device)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentOutOfRangeException.ThrowIfZero(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first, ulong.MaxValue - (length - 1));
        ulong last = first + (length - 1);
        int at = _ranges.FindIndex(r => r.First > first);
        if (at < 0) at = _ranges.Count;
        if ((at > 0 && _ranges[at - 1].Last >= first) || (at < _ranges.Count && _ranges[at].First <= last))
            throw new InvalidOperationException($"0x{first:x}..0x{last:x} overlaps another device");
        _ranges.Insert(at, new Range(first, last, device));
    }

    /// <summary>A load of 1 to 8 bytes. Nobody there: all ones.</summary>
    public void Read(ulong address, Span<byte> data)
    {
        data.Fill(0xff);
        if (Find(address) is { } range) range.Device.Read(address - range.First, data);
        else Unclaimed?.Invoke(address, data.Length, false);
    }

    /// <summary>A store of 1 to 8 bytes. Nobody there: lost.</summary>
    public void Write(ulong address, ReadOnlySpan<byte> data)
    {
        if (Find(address) is { } range) range.Device.Write(address - range.First, data);
        else Unclaimed?.Invoke(address, data.Length, true);
    }

    private Range? Find(ulong address)
    {
        int low = 0, high = _ranges.Count - 1;
        while (low <= high)
        {
            int middle = (low + high) / 2;
            Range range = _ranges[middle];
            if (address < range.First) high = middle - 1;
            else if (address > range.Last) low = middle + 1;
            else return range;
        }

        return null;
    }

    private readonly record struct Range(ulong First, ulong Last, IMmioDevice Device);
}
