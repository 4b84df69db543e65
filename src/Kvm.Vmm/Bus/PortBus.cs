namespace Kvm.Vmm.Bus;

/// <summary>The 64 Ki I/O ports: who answers at which.</summary>
/// <remarks>One access at a time reaches a device, from whichever vCPU. Devices are registered before the guest runs, but their ports may move at any time.</remarks>
public sealed class PortBus
{
    private readonly byte[] _owner = new byte[0x10000];
    private readonly IPortDevice?[] _devices = new IPortDevice?[byte.MaxValue + 1]; // the first is nobody
    private int _count = 1;

    /// <summary>An access that nobody answered: port, size, is a write. For diagnostics.</summary>
    public Action<ushort, int, bool>? Unclaimed { get; set; }

    /// <summary>Gives <paramref name="count"/> ports from <paramref name="first"/> to a device.</summary>
    /// <exception cref="InvalidOperationException">Another device has one of the ports.</exception>
    public void Add(ushort first, int count, IPortDevice device)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first + count, 0x10000);
        Span<byte> range = _owner.AsSpan(first, count);
        int taken = range.IndexOfAnyExcept((byte)0);
        if (taken >= 0) throw new InvalidOperationException($"port 0x{first + taken:x} already belongs to {_devices[range[taken]]!.GetType().Name}");
        if (_count > byte.MaxValue && Array.IndexOf(_devices, device) < 0) throw new InvalidOperationException("more than 255 port devices");
        TryAdd(first, count, device);
    }

    /// <summary>Gives ports that a guest chose to a device. False: some are taken, or lie beyond the last; nothing changed.</summary>
    public bool TryAdd(ushort first, int count, IPortDevice device)
    {
        if (first + count > 0x10000) return false;
        lock (_owner)
        {
            Span<byte> range = _owner.AsSpan(first, count);
            if (range.ContainsAnyExcept((byte)0)) return false;
            int index = Array.IndexOf(_devices, device);
            if (index < 0)
            {
                if (_count > byte.MaxValue) return false;
                index = _count++;
                _devices[index] = device;
            }

            range.Fill((byte)index);
            return true;
        }
    }

    /// <summary>Takes those of the ports from a device that it has.</summary>
    public void Remove(ushort first, int count, IPortDevice device)
    {
        int index = Array.IndexOf(_devices, device);
        lock (_owner)
        {
            if (index > 0) _owner.AsSpan(first, Math.Min(count, 0x10000 - first)).Replace((byte)index, (byte)0);
        }
    }

    /// <summary>IN of <paramref name="data"/>'s size. Nobody there: all ones.</summary>
    public void Read(ushort port, Span<byte> data)
    {
        if (IsSplit(port, data.Length))
        {
            for (int i = 0; i < data.Length; i++) Read((ushort)(port + i), data.Slice(i, 1));
            return;
        }

        data.Fill(0xff);
        if (_devices[_owner[port]] is { } device)
        {
            lock (device) device.Read(port, data);
        }
        else
        {
            Unclaimed?.Invoke(port, data.Length, false);
        }
    }

    /// <summary>OUT. Nobody there: lost.</summary>
    public void Write(ushort port, ReadOnlySpan<byte> data)
    {
        if (IsSplit(port, data.Length))
        {
            for (int i = 0; i < data.Length; i++) Write((ushort)(port + i), data.Slice(i, 1));
            return;
        }

        if (_devices[_owner[port]] is { } device)
        {
            lock (device) device.Write(port, data);
        }
        else
        {
            Unclaimed?.Invoke(port, data.Length, true);
        }
    }

    /// <summary>A wide access to a device of 8-bit registers goes beyond it: the bus makes bytes of it, each for the port's own device.</summary>
    private bool IsSplit(ushort port, int size)
    {
        if (size == 1 || _devices[_owner[port]] is not BytePortDevice) return false;
        for (int i = 1; i < size; i++)
        {
            if (_owner[(ushort)(port + i)] != _owner[port]) return true;
        }

        return false;
    }
}
