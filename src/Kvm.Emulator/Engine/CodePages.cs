namespace Kvm.Emulator.Engine;

/// <summary>
/// The physical pages of a machine that some processor has decoded code from, with how many processors have and which 64-byte granules.
/// Asked without a lock whenever a TLB entry is filled for writing; changed under a lock.
/// </summary>
internal sealed class CodePages
{
    private readonly Lock gate = new();
    private Table table = new(1024);

    private sealed class Table(int size)
    {
        internal readonly ulong[] Pages = new ulong[size];
        internal readonly int[] Owners = new int[size];
        internal readonly ulong[] Granules = new ulong[size];
        internal int Used;

        internal int Find(ulong page)
        {
            int mask = Pages.Length - 1;
            int i = (int)((page >> 12) * 0x9E3779B97F4A7C15UL >> 40) & mask;
            // Page zero is stored as 1: zero marks a free slot.
            ulong key = page | 1;
            while (true)
            {
                ulong found = Volatile.Read(ref Pages[i]);
                if (found == key || found == 0)
                    return i;
                i = (i + 1) & mask;
            }
        }
    }

    /// <summary>Some processor has decoded code in the page.</summary>
    internal bool Contains(ulong page)
    {
        Table t = Volatile.Read(ref table);
        int i = t.Find(page);
        return Volatile.Read(ref t.Owners[i]) > 0;
    }

    /// <summary>Some processor has decoded code in these granules of the page; how many have code in the page.</summary>
    internal bool Overlaps(ulong page, ulong granules, out int owners)
    {
        Table t = Volatile.Read(ref table);
        int i = t.Find(page);
        owners = Volatile.Read(ref t.Owners[i]);
        return (Volatile.Read(ref t.Granules[i]) & granules) != 0;
    }

    /// <summary>A processor begins to have code in the page. True when it is the first.</summary>
    internal bool Add(ulong page)
    {
        lock (gate)
        {
            if (table.Used * 2 >= table.Pages.Length)
                Grow();
            int i = table.Find(page);
            if (table.Pages[i] == 0)
            {
                table.Granules[i] = 0;
                Volatile.Write(ref table.Pages[i], page | 1);
                table.Used++;
            }
            int owners = table.Owners[i] + 1;
            Volatile.Write(ref table.Owners[i], owners);
            return owners == 1;
        }
    }

    internal void AddGranules(ulong page, ulong granules)
    {
        lock (gate)
        {
            int i = table.Find(page);
            Volatile.Write(ref table.Granules[i], table.Granules[i] | granules);
        }
    }

    /// <summary>A processor no longer has code in the page.</summary>
    internal void Remove(ulong page)
    {
        lock (gate)
        {
            int i = table.Find(page);
            if (table.Owners[i] > 0 && --table.Owners[i] == 0)
                table.Granules[i] = 0;
        }
    }

    private void Grow()
    {
        int live = 0;
        foreach (int owners in table.Owners)
            live += owners > 0 ? 1 : 0;
        var bigger = new Table(live * 4 > table.Pages.Length ? table.Pages.Length * 2 : table.Pages.Length);
        for (int i = 0; i < table.Pages.Length; i++)
        {
            if (table.Owners[i] == 0)
                continue;
            int j = bigger.Find(table.Pages[i] & ~1UL);
            bigger.Pages[j] = table.Pages[i];
            bigger.Owners[j] = table.Owners[i];
            bigger.Granules[j] = table.Granules[i];
            bigger.Used++;
        }
        Volatile.Write(ref table, bigger);
    }
}
