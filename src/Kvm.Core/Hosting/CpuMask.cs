using System.Numerics;

namespace Kvm.Core;

/// <summary>A set of CPU numbers (struct cpumask). Single-bit operations are atomic.</summary>
public sealed class CpuMask
{
    private readonly ulong[] _words;

    /// <summary>An empty mask for CPUs 0 to <paramref name="cpus"/> - 1.</summary>
    public CpuMask(int cpus) => _words = new ulong[(cpus + 63) / 64];

    /// <summary>A mask with these CPUs.</summary>
    public CpuMask(int cpus, IEnumerable<int> set) : this(cpus)
    {
        foreach (int cpu in set) Set(cpu);
    }

    /// <summary>cpumask_test_cpu; false beyond the mask.</summary>
    public bool Test(int cpu) => (uint)cpu < (uint)(_words.Length * 64) && (Volatile.Read(ref _words[cpu >> 6]) >> (cpu & 63) & 1) != 0;

    /// <summary>cpumask_set_cpu.</summary>
    public void Set(int cpu) => Interlocked.Or(ref _words[cpu >> 6], 1UL << (cpu & 63));

    /// <summary>cpumask_clear_cpu.</summary>
    public void Clear(int cpu) => Interlocked.And(ref _words[cpu >> 6], ~(1UL << (cpu & 63)));

    /// <summary>cpumask_clear.</summary>
    public void ClearAll() => Array.Clear(_words);

    /// <summary>cpumask_empty.</summary>
    public bool IsEmpty => Array.TrueForAll(_words, w => w == 0);

    /// <summary>cpumask_weight.</summary>
    public int Count => _words.Sum(w => BitOperations.PopCount(w));

    /// <summary>The CPUs in ascending order.</summary>
    public IEnumerable<int> Cpus
    {
        get
        {
            for (int i = 0; i < _words.Length; i++)
                for (ulong w = _words[i]; w != 0; w &= w - 1)
                    yield return i * 64 + BitOperations.TrailingZeroCount(w);
        }
    }

    /// <summary>The list format of the kernel: "0-1,3".</summary>
    public override string ToString()
    {
        var parts = new List<string>();
        int[] cpus = [.. Cpus];
        for (int i = 0; i < cpus.Length; i++)
        {
            int j = i;
            while (j + 1 < cpus.Length && cpus[j + 1] == cpus[j] + 1) j++;
            parts.Add(i == j ? $"{cpus[i]}" : $"{cpus[i]}-{cpus[j]}");
            i = j;
        }

        return string.Join(',', parts);
    }
}
