using Kvm.Abi;

namespace Kvm.Core;

/// <summary>The loaded modules: insmod and rmmod.</summary>
public sealed class ModuleList
{
    private readonly Host _host;
    private readonly List<HostModule> _loaded = [];
    private readonly KernelMutex _mutex = new();

    internal ModuleList(Host host) => _host = host;

    /// <summary>Loaded modules in load order.</summary>
    public IReadOnlyList<HostModule> Loaded
    {
        get { lock (_loaded) return [.. _loaded]; }
    }

    /// <summary>The loaded module of that name, or null.</summary>
    public HostModule? Find(string name) => Loaded.FirstOrDefault(m => m.Name == name);

    /// <summary>True when a module of that name is loaded.</summary>
    public bool IsLoaded(string name) => Find(name) is not null;

    /// <summary>
    /// insmod: parses "name=value" parameters (unknown ones are ignored with a message, bad values are -EINVAL), runs init. -EEXIST when loaded, -ENOENT when a
    /// module it needs is missing; otherwise what init returns.
    /// </summary>
    public KvmResult Insert(HostModule module, string parameters = "")
    {
        using Host.KernelScope scope = _host.EnterKernel("insmod");
        using var _ = _mutex.Enter();
        if (Find(module.Name) is not null) return Errno.EEXIST;
        var needed = new List<HostModule>();
        foreach (string name in module.DependsOn)
        {
            if (Find(name) is not { } dependency)
            {
                _host.Log.Warn($"{module.Name}: Unknown symbol (err -2)");
                return Errno.ENOENT;
            }

            needed.Add(dependency);
        }

        module.Host = _host;
        KvmResult r = module.Parameters.Parse(module.Name, parameters, _host.Log);
        if (r.IsError) return r;
        foreach (HostModule m in needed) m.Get();
        r = module.Init();
        if (r.IsError)
        {
            foreach (HostModule m in needed) m.Put();
            return r;
        }

        lock (_loaded) _loaded.Add(module);
        return 0;
    }

    /// <summary>rmmod: -ENOENT when not loaded, -EAGAIN (EWOULDBLOCK) while something uses it.</summary>
    public KvmResult Remove(string name)
    {
        using Host.KernelScope scope = _host.EnterKernel("rmmod");
        using var _ = _mutex.Enter();
        if (Find(name) is not { } module) return Errno.ENOENT;
        if (module.RefCount != 0) return Errno.EAGAIN;
        module.Exit();
        lock (_loaded) _loaded.Remove(module);
        foreach (string dependency in module.DependsOn) Find(dependency)?.Put();
        return 0;
    }
}
