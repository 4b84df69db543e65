namespace Kvm.Conformance.Tests.HardwareLog.Intel;

internal enum DifferenceKind
{
    /// <summary>Only in the recording.</summary>
    Missing,
    /// <summary>Only in the model.</summary>
    Extra,
    /// <summary>The same instruction with another value.</summary>
    Value,
}

/// <summary>One difference between the recording and the model.</summary>
internal sealed record HardwareDifference(string Step, DifferenceKind Kind, HardwareOp Op, ulong ModelValue = 0)
{
    public override string ToString() => Kind switch
    {
        DifferenceKind.Missing => $"missing {Op}",
        DifferenceKind.Extra => $"extra   {Op}",
        _ => $"value   {Op} but the model has {ModelValue:x}",
    };
}

/// <summary>How one step of the model compares with the recording: the longest common sequence of instructions, per processor.</summary>
internal sealed record HardwareComparison(string Step, int Recorded, int Model, int Matched, IReadOnlyList<HardwareDifference> Differences)
{
    /// <summary>Share of the recorded instructions that the model executed too, in the same order and with the same value where it is deterministic.</summary>
    public double Share => Recorded == 0 ? 1 : (double)(Matched - Differences.Count(static d => d.Kind == DifferenceKind.Value)) / Recorded;

    public static HardwareComparison Compare(string step, IReadOnlyList<HardwareOp> recorded, IReadOnlyList<HardwareOp> model)
    {
        List<HardwareDifference> differences = [];
        int matched = 0;
        foreach (int cpu in recorded.Concat(model).Select(static o => o.Cpu).Distinct().Order())
        {
            foreach ((HardwareOp? left, HardwareOp? right) in Align([.. recorded.Where(o => o.Cpu == cpu)], [.. model.Where(o => o.Cpu == cpu)]))
            {
                if (right is null)
                {
                    differences.Add(new HardwareDifference(step, DifferenceKind.Missing, left!));
                }
                else if (left is null)
                {
                    differences.Add(new HardwareDifference(step, DifferenceKind.Extra, right));
                }
                else
                {
                    matched++;
                    if (left.Value != right.Value && Determinism.IsDeterministic(left))
                        differences.Add(new HardwareDifference(step, DifferenceKind.Value, left, right.Value));
                }
            }
        }
        return new HardwareComparison(step, recorded.Count, model.Count, matched, differences);
    }

    private static List<(HardwareOp?, HardwareOp?)> Align(HardwareOp[] a, HardwareOp[] b)
    {
        var length = new int[a.Length + 1, b.Length + 1];
        for (int i = a.Length - 1; i >= 0; i--)
            for (int j = b.Length - 1; j >= 0; j--)
                length[i, j] = a[i].SameInstruction(b[j]) ? length[i + 1, j + 1] + 1 : Math.Max(length[i + 1, j], length[i, j + 1]);
        List<(HardwareOp?, HardwareOp?)> pairs = [];
        int x = 0, y = 0;
        while (x < a.Length && y < b.Length)
        {
            if (a[x].SameInstruction(b[y]))
                pairs.Add((a[x++], b[y++]));
            else if (length[x + 1, y] >= length[x, y + 1])
                pairs.Add((a[x++], null));
            else
                pairs.Add((null, b[y++]));
        }
        while (x < a.Length)
            pairs.Add((a[x++], null));
        while (y < b.Length)
            pairs.Add((null, b[y++]));
        return pairs;
    }
}
