using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <summary>struct srcu_struct: readers never block and never wait; <see cref="Synchronize"/> waits for the readers that were there before it.</summary>
/// <remarks>
/// Readers are many and updates few, so readers pay no fence: who synchronizes puts one into every thread of the process instead. A reader whose count that
/// fence did not publish has not begun its section's reads either, and they see what was updated before.
/// </remarks>
public sealed class Srcu
{
    private const int Stride = 8; // longs per cache line
    private readonly long[] _locks;
    private readonly long[] _unlocks;
    private readonly int _slots;
    private readonly object _update = new();
    private int _index;

    /// <summary>One counter pair for each CPU, and one for threads outside the kernel.</summary>
    public Srcu(int cpus)
    {
        _slots = Math.Max(1, cpus) + 1;
        _locks = new long[2 * _slots * Stride];
        _unlocks = new long[2 * _slots * Stride];
    }

    /// <summary>srcu_read_lock: the index to give to <see cref="ReadUnlock(int)"/>.</summary>
    public int ReadLock() => ReadLock(HostTask.Current);

    /// <summary>srcu_read_lock by <paramref name="current"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public int ReadLock(HostTask current)
    {
        int index = Volatile.Read(ref _index) & 1;
        HostCpu? cpu = current.Cpu;
        if (cpu is not null && cpu.Id < _slots - 1)
        {
            // Whoever occupies a CPU is the only one to count there. The read barrier keeps the compiler (and weakly ordered processors) from starting
            // the section's reads earlier; the fence between the count and them is Synchronize's.
            ref long counter = ref _locks[(index * _slots + cpu.Id) * Stride];
            Volatile.Write(ref counter, counter + 1);
            Volatile.ReadBarrier();
            return index;
        }

        Interlocked.Increment(ref _locks[(index * _slots + _slots - 1) * Stride]);
        return index;
    }

    /// <summary>srcu_read_unlock.</summary>
    public void ReadUnlock(int index) => ReadUnlock(index, HostTask.Current);

    /// <summary>srcu_read_unlock by <paramref name="current"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void ReadUnlock(int index, HostTask current)
    {
        HostCpu? cpu = current.Cpu;
        if (cpu is not null && cpu.Id < _slots - 1)
        {
            // The release store keeps the section's accesses before it.
            ref long counter = ref _unlocks[(index * _slots + cpu.Id) * Stride];
            Volatile.Write(ref counter, counter + 1);
            return;
        }

        Interlocked.Increment(ref _unlocks[(index * _slots + _slots - 1) * Stride]);
    }

    /// <summary>True while some reader is inside.</summary>
    public bool HasReaders => Active(0) || Active(1);

    /// <summary>synchronize_srcu: returns after every read section that began before it has ended. May sleep; must not be called inside a section.</summary>
    public void Synchronize()
    {
        HostTask task = HostTask.Current;
        task.AssertMaySleep();
        bool left = false;
        // Updaters take turns. The monitor is only held by a thread that waits for readers, and readers never wait for it.
        if (!Monitor.TryEnter(_update))
        {
            task.LeaveCpu(preempted: false);
            left = true;
            Monitor.Enter(_update);
        }

        try
        {
            // Two phases: a reader may have sampled the old index before the flip and count itself after it.
            Interlocked.MemoryBarrierProcessWide();
            WaitFor((_index & 1) ^ 1, task, ref left);
            Volatile.Write(ref _index, _index + 1);
            Interlocked.MemoryBarrierProcessWide();
            WaitFor((_index & 1) ^ 1, task, ref left);
        }
        finally
        {
            Monitor.Exit(_update);
        }

        if (left) task.ReturnToCpu();
    }

    private void WaitFor(int index, HostTask task, ref bool left)
    {
        var spin = new SpinWait();
        while (Active(index))
        {
            if (spin.NextSpinWillYield && !left)
            {
                task.LeaveCpu(preempted: false);
                left = true;
            }

            if (!left) task.Cpu?.ServiceInterrupts();
            spin.SpinOnce();
        }
    }

    private bool Active(int index)
    {
        // Unlocks are summed before locks: a reader seen as gone was seen as come.
        long unlocks = 0, locks = 0;
        for (int i = 0; i < _slots; i++) unlocks += Volatile.Read(ref _unlocks[(index * _slots + i) * Stride]);
        Interlocked.MemoryBarrier();
        for (int i = 0; i < _slots; i++) locks += Volatile.Read(ref _locks[(index * _slots + i) * Stride]);
        return locks != unlocks;
    }
}
