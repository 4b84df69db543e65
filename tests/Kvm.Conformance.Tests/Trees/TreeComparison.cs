namespace Kvm.Conformance.Tests.Trees;

/// <summary>
/// A recorded tree against the model's tree for the same call. Functions the model does not have are lifted out of the recording, functions that never occur in the
/// recordings out of the model; runs of equal neighbours count once, because their number (allocations, pages, MSRs) is not the path.
/// </summary>
internal sealed record TreeComparison(string Step, int Recorded, int Modelled, int Matched, IReadOnlyList<string> Missing, IReadOnlyList<string> Extra)
{
    /// <summary>Share of the recorded calls whose function the model has.</summary>
    public double Coverage => Recorded == 0 ? 1 : (double)Modelled / Recorded;

    /// <summary>Share of those that the model made too, in the same order and nesting.</summary>
    public double Share => Modelled == 0 ? 1 : (double)Matched / Modelled;

    public static TreeComparison Compare(string step, List<CallTree> recorded, List<CallTree> model, Func<string, bool> modelled, Func<string, bool> known)
    {
        int total = recorded.Sum(static r => r.Flatten().Count());
        int covered = recorded.Sum(r => r.Flatten().Count(c => modelled(c.Name)));
        List<string> left = CallTree.Paths(Fold(CallTree.Filter(recorded, modelled)));
        List<string> right = CallTree.Paths(Fold(CallTree.Filter(model, known)));
        (List<string> missing, List<string> extra, int matched) = Align(left, right);
        return new TreeComparison(step, total, left.Count, matched, missing, extra) { RecordedModelled = covered };
    }

    /// <summary>Recorded calls, repeats counted, whose function the model has.</summary>
    public int RecordedModelled { get; private init; }

    private static List<CallTree> Fold(List<CallTree> calls)
    {
        List<CallTree> result = [];
        foreach (CallTree call in calls)
        {
            var folded = new CallTree(call.Name, Fold(call.Children));
            if (result.Count == 0 || !Same(result[^1], folded))
                result.Add(folded);
        }
        return result;
    }

    private static bool Same(CallTree a, CallTree b) => a.Name == b.Name && a.Children.Count == b.Children.Count && a.Children.Zip(b.Children).All(static p => Same(p.First, p.Second));

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
