using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <summary>struct kvm_io_bus: devices sorted by address. Immutable but for the ioeventfd count; a change makes a new one.</summary>
public sealed unsafe class KvmIoBus
{
    private readonly record struct IoRange(ulong Address, int Length, KvmIoDevice? Device);

    private readonly IoRange[] _ranges;

    private KvmIoBus(IoRange[] ranges, int ioeventfds)
    {
        _ranges = ranges;
        IoeventfdCount = ioeventfds;
    }

    internal static KvmIoBus Empty => new([], 0);

    /// <summary>Devices on the bus.</summary>
    public int Count => _ranges.Length;

    /// <summary>Those of them that are ioeventfds.</summary>
    public int IoeventfdCount { get; internal set; }

    internal KvmIoBus With(ulong address, int length, KvmIoDevice device)
    {
        var range = new IoRange(address, length, device);
        int i = 0;
        while (i < _ranges.Length && Compare(in _ranges[i], in range) <= 0) i++;
        return new KvmIoBus([.. _ranges[..i], range, .. _ranges[i..]], IoeventfdCount);
    }

    internal KvmIoBus Without(KvmIoDevice device)
    {
        int i = IndexOf(device);
        return new KvmIoBus([.. _ranges[..i], .. _ranges[(i + 1)..]], IoeventfdCount);
    }

    internal int IndexOf(KvmIoDevice device) => Array.FindIndex(_ranges, r => r.Device == device);

    internal KvmIoDevice? DeviceAt(ulong address)
    {
        int i = First(new IoRange(address, 1, null));
        return i < 0 ? null : _ranges[i].Device;
    }

    [KernelFunction("__kvm_io_bus_write", File = "virt/kvm/kvm_main.c")]
    internal int Write(KvmVcpu? vcpu, ulong address, int length, void* value)
    {
        using var _ = FunctionTrace.Enter("__kvm_io_bus_write");
        var key = new IoRange(address, length, null);
        for (int i = First(in key); i >= 0 && i < _ranges.Length && Compare(in key, in _ranges[i]) == 0; i++)
            if (_ranges[i].Device!.Write(vcpu, address, length, value).Raw == 0) return i;
        return -(int)Errno.EOPNOTSUPP;
    }

    internal int WriteCookie(KvmVcpu? vcpu, ulong address, int length, void* value, int cookie)
    {
        var key = new IoRange(address, length, null);
        if (cookie >= 0 && cookie < _ranges.Length && Compare(in key, in _ranges[cookie]) == 0 &&
            _ranges[cookie].Device!.Write(vcpu, address, length, value).Raw == 0)
            return cookie;
        return Write(vcpu, address, length, value);
    }

    internal int Read(KvmVcpu? vcpu, ulong address, int length, void* value)
    {
        var key = new IoRange(address, length, null);
        for (int i = First(in key); i >= 0 && i < _ranges.Length && Compare(in key, in _ranges[i]) == 0; i++)
            if (_ranges[i].Device!.Read(vcpu, address, length, value).Raw == 0) return i;
        return -(int)Errno.EOPNOTSUPP;
    }

    internal void Destroy(KvmIoDevice? except = null)
    {
        foreach (IoRange range in _ranges)
            if (range.Device != except) range.Device!.Destructor();
    }

    /// <summary>The first device that may take an access, or -1.</summary>
    [KernelFunction("kvm_io_bus_get_first_dev", File = "virt/kvm/kvm_main.c")]
    private int First(in IoRange key)
    {
        FunctionTrace.Leaf("kvm_io_bus_get_first_dev");
        int lo = 0, hi = _ranges.Length - 1;
        while (lo <= hi)
        {
            int mid = (lo + hi) >>> 1;
            int c = Compare(in key, in _ranges[mid]);
            if (c < 0)
            {
                hi = mid - 1;
            }
            else if (c > 0)
            {
                lo = mid + 1;
            }
            else
            {
                while (mid > 0 && Compare(in key, in _ranges[mid - 1]) == 0) mid--;
                return mid;
            }
        }

        return -1;
    }

    /// <summary>kvm_io_bus_cmp: 0 when the first range lies in the second, or begins at it when the second has no length.</summary>
    private static int Compare(in IoRange r1, in IoRange r2)
    {
        ulong a1 = r1.Address, a2 = r2.Address;
        if (a1 < a2) return -1;
        if (r2.Length != 0)
        {
            a1 = unchecked(a1 + (ulong)r1.Length);
            a2 = unchecked(a2 + (ulong)r2.Length);
        }

        return a1 > a2 ? 1 : 0;
    }
}
