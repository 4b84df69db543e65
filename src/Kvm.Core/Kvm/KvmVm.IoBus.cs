using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>Buses of devices inside the kernel model. Lookups run inside an SRCU section; changes hold <see cref="SlotsLock"/>.</remarks>
public abstract unsafe partial class KvmVm
{
    private readonly KvmIoBus?[] _buses = new KvmIoBus?[4];

    /// <summary>kvm_get_bus: null after an allocation failed while a device was removed.</summary>
    public KvmIoBus? Bus(KvmBus bus) => Volatile.Read(ref _buses[(int)bus]);

    internal bool InitBuses()
    {
        for (int i = 0; i < _buses.Length; i++)
        {
            if (Host.Faults.ShouldFail("kzalloc", "kvm_io_bus")) return false;
            _buses[i] = KvmIoBus.Empty;
        }

        return true;
    }

    internal void FreeBuses() => Array.Clear(_buses);

    internal void DestroyBuses()
    {
        for (int i = 0; i < _buses.Length; i++)
        {
            _buses[i]?.Destroy();
            _buses[i] = null;
        }
    }

    /// <summary>kvm_io_bus_write: 0, or -EOPNOTSUPP when no device takes it (-ENOMEM when the bus is gone).</summary>
    [KernelFunction("kvm_io_bus_write", File = "virt/kvm/kvm_main.c")]
    public KvmResult IoBusWrite(KvmVcpu? vcpu, KvmBus bus, ulong address, int length, void* value)
    {
        using var _ = FunctionTrace.Enter("kvm_io_bus_write");
        if (Bus(bus) is not { } b) return Errno.ENOMEM;
        int r = b.Write(vcpu, address, length, value);
        return r < 0 ? r : 0;
    }

    /// <summary>kvm_io_bus_write_cookie: the index of the device that took it, tried first next time.</summary>
    public KvmResult IoBusWriteCookie(KvmVcpu? vcpu, KvmBus bus, ulong address, int length, void* value, int cookie)
    {
        if (Bus(bus) is not { } b) return Errno.ENOMEM;
        return b.WriteCookie(vcpu, address, length, value, cookie);
    }

    /// <summary>kvm_io_bus_read.</summary>
    [KernelFunction("kvm_io_bus_read", File = "virt/kvm/kvm_main.c")]
    public KvmResult IoBusRead(KvmVcpu? vcpu, KvmBus bus, ulong address, int length, void* value)
    {
        using var _ = FunctionTrace.Enter("kvm_io_bus_read");
        if (Bus(bus) is not { } b) return Errno.ENOMEM;
        int r = b.Read(vcpu, address, length, value);
        return r < 0 ? r : 0;
    }

    /// <summary>kvm_io_bus_register_dev: -ENOSPC with 1000 devices, -ENOMEM. Readers never wait.</summary>
    [KernelFunction("kvm_io_bus_register_dev", File = "virt/kvm/kvm_main.c")]
    public KvmResult IoBusRegisterDev(KvmBus bus, ulong address, int length, KvmIoDevice device)
    {
        using var _ = FunctionTrace.Enter("kvm_io_bus_register_dev");
        if (Bus(bus) is not { } old) return Errno.ENOMEM;
        if (old.Count - old.IoeventfdCount > KvmLimits.NR_IOBUS_DEVS - 1) return Errno.ENOSPC;
        if (Host.Faults.ShouldFail("kmalloc", "kvm_io_bus")) return Errno.ENOMEM;
        Volatile.Write(ref _buses[(int)bus], old.With(address, length, device));
        using (FunctionTrace.Enter("synchronize_srcu_expedited")) Srcu.Synchronize();
        return 0;
    }

    /// <summary>kvm_io_bus_unregister_dev: 0 also when it is not there; -ENOMEM removes the whole bus, destroying all other devices on it.</summary>
    [KernelFunction("kvm_io_bus_unregister_dev", File = "virt/kvm/kvm_main.c")]
    public KvmResult IoBusUnregisterDev(KvmBus bus, KvmIoDevice device)
    {
        using var _ = FunctionTrace.Enter("kvm_io_bus_unregister_dev");
        if (Bus(bus) is not { } old || old.IndexOf(device) < 0) return 0;
        KvmIoBus? next = Host.Faults.ShouldFail("kmalloc", "kvm_io_bus") ? null : old.Without(device);
        Volatile.Write(ref _buses[(int)bus], next);
        using (FunctionTrace.Enter("synchronize_srcu_expedited")) Srcu.Synchronize();
        if (next is not null) return 0;
        Host.Log.Err("kvm: failed to shrink bus, removing it completely");
        old.Destroy(except: device);
        return Errno.ENOMEM;
    }

    /// <summary>kvm_io_bus_get_dev: the first device at an address, or null.</summary>
    public KvmIoDevice? IoBusGetDev(KvmBus bus, ulong address) => Bus(bus)?.DeviceAt(address);

    /// <summary>ioeventfd_count of a bus; such devices do not count towards its limit. With <see cref="SlotsLock"/>.</summary>
    public void AddIoeventfd(KvmBus bus, int delta)
    {
        if (Bus(bus) is { } b) b.IoeventfdCount += delta;
    }
}
