using System.Collections.Concurrent;
using Kvm.Abi;

namespace Kvm.Core;

/// <summary>Registered character devices (misc_register) as /dev shows them.</summary>
public sealed class DeviceFiles
{
    private readonly Host _host;
    private readonly ConcurrentDictionary<string, MiscDevice> _byPath = new();

    internal DeviceFiles(Host host) => _host = host;

    /// <summary>The devices there are.</summary>
    public IReadOnlyCollection<MiscDevice> All => [.. _byPath.Values];

    /// <summary>The device at a path, or null.</summary>
    public MiscDevice? Find(string path) => _byPath.GetValueOrDefault(path);

    /// <summary>misc_register (fault point "misc_register"): -EBUSY when the minor is taken.</summary>
    [Tracing.KernelFunction("misc_register", File = "drivers/char/misc.c")]
    public KvmResult Register(MiscDevice device)
    {
        using var _ = Tracing.FunctionTrace.Enter("misc_register");
        if (_host.Faults.ShouldFail("misc_register")) return Errno.ENOMEM;
        return _byPath.TryAdd(device.Path, device) ? 0 : Errno.EBUSY;
    }

    /// <summary>misc_deregister.</summary>
    [Tracing.KernelFunction("misc_deregister", File = "drivers/char/misc.c")]
    public void Deregister(MiscDevice device)
    {
        using var _ = Tracing.FunctionTrace.Enter("misc_deregister");
        _byPath.TryRemove(new KeyValuePair<string, MiscDevice>(device.Path, device));
    }

    internal KvmResult Open(string path, int flags, out KvmFile? file)
    {
        file = null;
        if (!_byPath.TryGetValue(path, out MiscDevice? device)) return Errno.ENOENT;
        return _host.AllocateFile(path, device.Operations, device.PrivateData, flags, out file);
    }
}
