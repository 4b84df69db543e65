namespace Kvm.Conformance.Tests.Trees;

/// <summary>
/// A recorded tree against the model's tree for the same call. Functions the model does not have are lifted out of the recording; functions that do not occur in the
/// recording of this call (the compiler made them part of their callers) out of the model. Leaves in a row count once.
/// </summary>
internal sealed record TreeComparison(RecordedTree Tree, int Recorded, int Modelled, int Matched, IReadOnlyList<string> Missing, IReadOnlyList<string> Extra)
{
    public string Step => Tree.Step;

    /// <summary>Share of the recorded calls whose function the model has.</summary>
    public double Coverage => Recorded == 0 ? 1 : (double)Modelled / Recorded;

    /// <summary>Share of those that the model made too, in the same order and nesting.</summary>
    public double Share => Modelled == 0 ? 1 : (double)Matched / Modelled;

    public static TreeComparison Compare(RecordedTree tree, List<CallTree> model, Func<string, bool> modelled, Func<string, bool> known)
    {
        List<CallTree> recorded = tree.Own;
        int total = recorded.Sum(static r => r.Flatten().Count());
        int covered = recorded.Sum(r => r.Flatten().Count(c => modelled(c.Name)));
        List<string> left = CallTree.Paths(Fold(CallTree.Filter(recorded, modelled)));
        List<string> right = CallTree.Paths(Fold(CallTree.Filter(model, known)));
        (List<string> missing, List<string> extra, int matched) = Align(left, right);
        return new TreeComparison(tree, total, left.Count, matched, missing, extra) { RecordedModelled = covered };
    }

    /// <summary>Recorded calls, repeats counted, whose function the model has.</summary>
    public int RecordedModelled { get; private init; }

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

    private static (List<string> Missing, List<string> Extra, int Matched) Align(List<string> a, List<string> b)
    {
        var length = new int[a.Count + 1, b.Count + 1];
        for (int i = a.Count - 1; i >= 0; i--)
            for (int j = b.Count - 1; j >= 0; j--)
                length[i, j] = a[i] == b[j] ? length[i + 1, j + 1] + 1 : Math.Max(length[i + 1, j], length[i, j + 1]);
        List<string> missing = [], extra = [];
        int x = 0, y = 0, matched = 0;
        while (x < a.Count && y < b.Count)
        {
            if (a[x] == b[y])
            {
                matched++;
                x++;
                y++;
            }
            else if (length[x + 1, y] >= length[x, y + 1])
            {
                missing.Add(a[x++]);
            }
            else
            {
                extra.Add(b[y++]);
            }
        }
        missing.AddRange(a.Skip(x));
        extra.AddRange(b.Skip(y));
        return (missing, extra, matched);
    }
}
