namespace Kvm.Core;

/// <summary>A kernel module: a name, parameters, init and exit, a reference count. Vendor modules derive from it.</summary>
public abstract class HostModule
{
    private int _refs;

    /// <summary>The name in lsmod: "kvm", "kvm_intel", "kvm_amd".</summary>
    public abstract string Name { get; }

    /// <summary>The modules that must be loaded before; they stay while this one is loaded.</summary>
    public virtual IReadOnlyList<string> DependsOn => [];

    /// <summary>The module's parameters.</summary>
    public ModuleParameters Parameters { get; } = new();

    /// <summary>References: opened files, VMs, modules that depend on it.</summary>
    public int RefCount => Volatile.Read(ref _refs);

    /// <summary>The host, once inserted.</summary>
    public Host Host { get; internal set; } = null!;

    /// <summary>module_init. An error unloads the module.</summary>
    protected internal abstract KvmResult Init();

    /// <summary>module_exit.</summary>
    protected internal abstract void Exit();

    /// <summary>try_module_get / __module_get.</summary>
    public void Get() => Interlocked.Increment(ref _refs);

    /// <summary>module_put.</summary>
    public void Put() => Interlocked.Decrement(ref _refs);
}
