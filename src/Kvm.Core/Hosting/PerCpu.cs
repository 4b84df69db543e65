using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <summary>A per-CPU variable (DEFINE_PER_CPU): one <typeparamref name="T"/> for each possible CPU.</summary>
public sealed class PerCpu<T>
{
    // One cache line apart, so that CPUs do not share lines.
    private struct Slot
    {
        public T Value;
        private unsafe fixed byte _padding[64];
    }

    private readonly Slot[] _slots;
    private readonly Host _host;

    /// <summary>Makes the variable; <paramref name="init"/> gives each CPU's first value.</summary>
    public PerCpu(Host host, Func<HostCpu, T>? init = null)
    {
        _host = host;
        _slots = new Slot[host.Cpus.Count];
        if (init is null) return;
        foreach (HostCpu cpu in host.Cpus) _slots[cpu.Id].Value = init(cpu);
    }

    /// <summary>per_cpu(var, cpu).</summary>
    public ref T this[int cpu]
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => ref _slots[cpu].Value;
    }

    /// <summary>per_cpu(var, cpu).</summary>
    public ref T this[HostCpu cpu] => ref _slots[cpu.Id].Value;

    /// <summary>this_cpu_ptr(&amp;var): the calling CPU's instance.</summary>
    public ref T This
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => ref _slots[_host.CurrentCpu.Id].Value;
    }
}
