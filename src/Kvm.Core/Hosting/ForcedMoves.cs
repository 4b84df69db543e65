namespace Kvm.Core;

/// <summary>
/// Where a task goes at its preemption points when <see cref="HostOptions.PreemptionSeed"/> asks for moves: a stream of pseudo-random numbers (xorshift64*) that follows from
/// the seed and the owner alone. A vCPU has its own, so that its moves do not depend on which thread runs it, nor on what other vCPUs do.
/// </summary>
public sealed class ForcedMoves
{
    /// <summary>At points that are no VM exits, such as the end of a spinlock's section, the task stays all but one time in so many.</summary>
    private const int RareOdds = 8;

    private ulong _state;

    internal ForcedMoves(ulong seed, ulong owner)
    {
        // splitmix64, so that neighbouring seeds and owners have nothing in common.
        ulong x = unchecked(seed + (owner + 1) * 0x9e3779b97f4a7c15);
        x = unchecked((x ^ x >> 30) * 0xbf58476d1ce4e5b9);
        x = unchecked((x ^ x >> 27) * 0x94d049bb133111eb);
        _state = (x ^ x >> 31) | 1;
    }

    /// <summary>Preemptions so far.</summary>
    public long Count { get; private set; }

    /// <summary>A digest of the moves so far, in order: equal in two runs that made the same ones.</summary>
    public ulong Digest { get; private set; } = 0xcbf29ce484222325;

    internal bool Stays() => Next(RareOdds) != 0;

    /// <summary>The CPU to go to: any other than <paramref name="from"/> that <paramref name="task"/> may run on, or that one when there is no other.</summary>
    internal HostCpu Choose(HostTask task, HostCpu from)
    {
        IReadOnlyList<HostCpu> cpus = task.Host.Cpus;
        HostCpu to = from;
        int first = Next(cpus.Count);
        for (int i = 0; i < cpus.Count && to == from; i++)
        {
            HostCpu cpu = cpus[(first + i) % cpus.Count];
            if (cpu != from && cpu.Online && task.MayRunOn(cpu)) to = cpu;
        }

        Count++;
        Digest = unchecked((Digest ^ (uint)to.Id) * 0x100000001b3);
        return to;
    }

    private int Next(int below)
    {
        _state ^= _state >> 12;
        _state ^= _state << 25;
        _state ^= _state >> 27;
        return (int)(unchecked(_state * 0x2545f4914f6cdd1d) >> 33) % below;
    }
}
