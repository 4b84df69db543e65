using System.Collections.Concurrent;
using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <summary>
/// The running kernel that the KVM model stands on: CPUs, memory, log, time, modules, processes. One per emulated machine. Dispose gives all memory back.
/// </summary>
public sealed partial class Host : IDisposable
{
    /// <summary>RESCHEDULE_VECTOR (arch/x86/include/asm/irq_vectors.h).</summary>
    public const byte RescheduleVector = 0xfd;

    /// <summary>CALL_FUNCTION_VECTOR.</summary>
    public const byte CallFunctionVector = 0xfc;

    private readonly long _bootTimestamp;
    private readonly double _nsPerTick;
    private readonly ConcurrentDictionary<byte, Action<HostCpu>> _vectors = new();
    private int _nextPid = 300;
    private bool _disposed;

    /// <summary>Boots a host.</summary>
    public Host(HostOptions? options = null)
    {
        Options = options ?? new HostOptions();
        ArgumentOutOfRangeException.ThrowIfLessThan(Options.CpuCount, 1, nameof(options));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(Options.CpuCount, 1024, nameof(options));
        Time = Options.TimeProvider;
        _bootTimestamp = Time.GetTimestamp();
        _nsPerTick = 1e9 / Time.TimestampFrequency;
        Log = new Printk(this, Options.LogRecords);
        Faults = new FaultInjection();
        Pages = new PageAllocator(this, Options.MaxPages);
        Cpus = [.. Enumerable.Range(0, Options.CpuCount).Select(i => new HostCpu(this, i))];
        Modules = new ModuleList(this);
        Debugfs = new DebugFs(this);
    }

    public HostOptions Options { get; }

    /// <summary>All possible CPUs, by number.</summary>
    public IReadOnlyList<HostCpu> Cpus { get; }

    /// <summary>printk.</summary>
    public Printk Log { get; }

    /// <summary>The page allocator.</summary>
    public PageAllocator Pages { get; }

    /// <summary>Faults to inject.</summary>
    public FaultInjection Faults { get; }

    /// <summary>The one source of time.</summary>
    public TimeProvider Time { get; }

    /// <summary>Loaded modules.</summary>
    public ModuleList Modules { get; }

    /// <summary>/sys/kernel/debug.</summary>
    public DebugFs Debugfs { get; }

    /// <summary>The emulated machine that is told about host memory, once the architecture attached it.</summary>
    public IHostRam? Ram { get; private set; }

    /// <summary>ktime_get: nanoseconds since boot.</summary>
    public long KtimeNs => (long)((Time.GetTimestamp() - _bootTimestamp) * _nsPerTick);

    /// <summary>smp_processor_id(): the CPU that the calling thread occupies. Throws when the thread is not in this kernel: our own bug.</summary>
    public HostCpu CurrentCpu
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => HostTask.CurrentOrNull?.Cpu ?? ThrowNoCpu();
    }

    /// <summary>The calling thread's CPU, or null outside the kernel.</summary>
    public static HostCpu? CurrentCpuOrNull => HostTask.CurrentOrNull?.Cpu;

    /// <summary>num_online_cpus.</summary>
    public int OnlineCpuCount => Cpus.Count(c => c.Online);

    /// <summary>for_each_online_cpu.</summary>
    public IEnumerable<HostCpu> OnlineCpus => Cpus.Where(c => c.Online);

    /// <summary>Binds the machine that backs host memory; it learns of all memory there is and of all changes.</summary>
    public void AttachRam(IHostRam ram)
    {
        Ram = ram;
        Pages.Announce(ram);
        foreach (HostProcess process in Processes) process.Mm.Announce(ram);
    }

    /// <summary>Installs the handler of an interrupt vector (posted interrupts, timers…). It runs on the CPU that got it, interrupts off.</summary>
    public void SetVectorHandler(byte vector, Action<HostCpu>? handler)
    {
        if (handler is null) _vectors.TryRemove(vector, out _);
        else _vectors[vector] = handler;
    }

    internal void DispatchVector(HostCpu cpu, byte vector)
    {
        if (_vectors.TryGetValue(vector, out Action<HostCpu>? handler)) handler(cpu);
    }

    internal int AllocatePid() => Interlocked.Increment(ref _nextPid);

    internal bool AnyOnline(CpuMask mask)
    {
        foreach (HostCpu cpu in Cpus)
            if (cpu.Online && mask.Test(cpu.Id)) return true;
        return false;
    }

    private HostCpu ThrowNoCpu() =>
        throw new InvalidOperationException("smp_processor_id() outside the kernel model: enter it with Host.EnterKernel or through a system call.");

    /// <summary>Powers the machine off: processes die, memory goes back.</summary>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        foreach (HostProcess process in Processes) process.Exit();
        StopTimers();
        Pages.Dispose();
    }
}
