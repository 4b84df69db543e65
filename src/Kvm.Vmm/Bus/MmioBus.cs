namespace Kvm.Vmm.Bus;

/// <summary>Guest-physical ranges that devices answer.</summary>
/// <remarks>One access at a time reaches a device, from whichever vCPU; ranges may come, go and move at any time.</remarks>
public sealed class MmioBus
{
    private readonly Lock _changes = new();
    private Range[] _ranges = []; // by address; replaced as a whole

    /// <summary>An access that nobody answered: address, size, is a write. For diagnostics.</summary>
    public Action<ulong, int, bool>? Unclaimed { get; set; }

    /// <exception cref="InvalidOperationException">The range overlaps another device's.</exception>
    public void Add(ulong first, ulong length, IMmioDevice device)
    {
        if (!TryAdd(first, length, device)) throw new InvalidOperationException($"0x{first:x}..0x{first + (length - 1):x} overlaps another device");
    }

    /// <summary>Gives a range that a guest chose to a device. False: it overlaps another one's; nothing changed.</summary>
    public bool TryAdd(ulong first, ulong length, IMmioDevice device)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentOutOfRangeException.ThrowIfZero(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first, ulong.MaxValue - (length - 1));
        ulong last = first + (length - 1);
        lock (_changes)
        {
            if (Array.Exists(_ranges, r => r.First <= last && r.Last >= first)) return false;
            Volatile.Write(ref _ranges, [.. _ranges.Append(new Range(first, last, device)).OrderBy(static r => r.First)]);
            return true;
        }
    }

    /// <summary>Takes a device's range that starts there.</summary>
    public void Remove(ulong first, IMmioDevice device)
    {
        lock (_changes) Volatile.Write(ref _ranges, Array.FindAll(_ranges, r => r.First != first || r.Device != device));
    }

    /// <summary>A load of 1 to 8 bytes. Nobody there: all ones.</summary>
    public void Read(ulong address, Span<byte> data)
    {
        data.Fill(0xff);
        if (Find(address) is { } range)
        {
            lock (range.Device) range.Device.Read(address - range.First, data);
        }
        else
        {
            Unclaimed?.Invoke(address, data.Length, false);
        }
    }

    /// <summary>A store of 1 to 8 bytes. Nobody there: lost.</summary>
    public void Write(ulong address, ReadOnlySpan<byte> data)
    {
        if (Find(address) is { } range)
        {
            lock (range.Device) range.Device.Write(address - range.First, data);
        }
        else
        {
            Unclaimed?.Invoke(address, data.Length, true);
        }
    }

    private Range? Find(ulong address)
    {
        Range[] ranges = Volatile.Read(ref _ranges);
        int low = 0, high = ranges.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) / 2;
            Range range = ranges[middle];
            if (address < range.First) high = middle - 1;
            else if (address > range.Last) low = middle + 1;
            else return range;
        }

        return null;
    }

    private readonly record struct Range(ulong First, ulong Last, IMmioDevice Device);
}
