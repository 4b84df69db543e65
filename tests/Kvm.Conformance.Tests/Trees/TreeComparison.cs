namespace Kvm.Conformance.Tests.Trees;

/// <summary>
/// A recorded tree against the model's tree for the same call. Functions that belong to the machine's state, not to the call, are lifted out of the recording;
/// functions that do not occur in the recording of this call (the compiler made them part of their callers) out of the model. Equal leaves in a row count once.
/// </summary>
/// <param name="Tree">The recording.</param>
/// <param name="Machine">Recorded calls of functions of the machine (allocator, scheduler, clock).</param>
/// <param name="Calls">The other recorded calls.</param>
/// <param name="Missing">Those of them that the model's tree lacks at their place: path from the root, joined by " &gt; ".</param>
internal sealed record TreeComparison(RecordedTree Tree, int Machine, int Calls, IReadOnlyList<string> Missing)
{
    public int Matched => Calls - Missing.Count;

    public double Share => Calls == 0 ? 1 : (double)Matched / Calls;

    /// <param name="tree">The recording.</param>
    /// <param name="groups">The model's calls: of the calling thread first, then of other CPUs and threads.</param>
    public static TreeComparison Compare(RecordedTree tree, List<List<CallTree>> groups)
    {
        int machine = 0, calls = 0;
        List<string> missing = [];
        bool background = tree.Own.Count == 0;
        foreach ((string title, List<CallTree> roots) in tree.Others.Prepend(("", tree.Own)))
        {
            List<string> left = CallTree.Paths(Fold(MachineFunctions.Remove(roots)));
            machine += Fold(roots).Sum(static r => r.Flatten().Count()) - left.Count;
            calls += left.Count;
            HashSet<string> known = [.. roots.SelectMany(static r => r.Flatten()).Select(static c => c.Name)];
            // What another CPU or task did is in one of the model's other groups.
            IEnumerable<List<CallTree>> candidates = title.Length == 0 && !background ? groups.Take(1) : groups;
            missing.AddRange(candidates.Select(g => Align(left, CallTree.Paths(Fold(CallTree.Filter(MachineFunctions.Remove(g), known.Contains)))))
                .DefaultIfEmpty(left).MinBy(static m => m.Count)!);
        }

        return new TreeComparison(tree, machine, calls, missing);
    }

    private static List<CallTree> Fold(List<CallTree> calls)
    {
        List<CallTree> result = [];
        foreach (CallTree call in calls)
        {
            // A leaf once: how often it was called in a row (pages, MSRs, table entries) is not the path.
            if (call.Children.Count > 0 || result.Count == 0 || result[^1].Name != call.Name || result[^1].Children.Count > 0)
                result.Add(new CallTree(call.Name, Fold(call.Children)));
        }
        return result;
    }

    /// <summary>Lines of <paramref name="a"/> that are not in the longest common sequence with <paramref name="b"/>.</summary>
    private static List<string> Align(List<string> a, List<string> b)
    {
        var length = new int[a.Count + 1, b.Count + 1];
        for (int i = a.Count - 1; i >= 0; i--)
            for (int j = b.Count - 1; j >= 0; j--)
                length[i, j] = a[i] == b[j] ? length[i + 1, j + 1] + 1 : Math.Max(length[i + 1, j], length[i, j + 1]);
        List<string> missing = [];
        int x = 0, y = 0;
        while (x < a.Count && y < b.Count)
        {
            if (a[x] == b[y])
            {
                x++;
                y++;
            }
            else if (length[x + 1, y] >= length[x, y + 1])
            {
                missing.Add(a[x++]);
            }
            else
            {
                y++;
            }
        }
        missing.AddRange(a.Skip(x));
        return missing;
    }
}
