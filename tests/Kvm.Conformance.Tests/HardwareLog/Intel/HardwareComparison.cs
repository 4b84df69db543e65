namespace Kvm.Conformance.Tests.HardwareLog.Intel;

/// <summary>How one step of the model compares with the recording: the longest common sequence of instructions, per processor.</summary>
internal sealed record HardwareComparison(string Step, int Recorded, int Model, int Matched, IReadOnlyList<string> Missing, IReadOnlyList<string> Extra, IReadOnlyList<string> Values)
{
    /// <summary>Share of the recorded instructions that the model executed too, in the same order and with the same value where it is deterministic.</summary>
    public double Share => Recorded == 0 ? 1 : (double)(Matched - Values.Count) / Recorded;

    public bool Equal => Missing.Count == 0 && Extra.Count == 0 && Values.Count == 0;

    public static HardwareComparison Compare(string step, IReadOnlyList<HardwareOp> recorded, IReadOnlyList<HardwareOp> model, Func<HardwareOp, bool> deterministic)
    {
        List<string> missing = [], extra = [], values = [];
        int matched = 0;
        foreach (int cpu in recorded.Concat(model).Select(o => o.Cpu).Distinct().Order())
        {
            HardwareOp[] r = [.. recorded.Where(o => o.Cpu == cpu)], m = [.. model.Where(o => o.Cpu == cpu)];
            foreach ((HardwareOp? left, HardwareOp? right) in Align(r, m))
            {
                if (right is null)
                {
                    missing.Add(left!.ToString());
                }
                else if (left is null)
                {
                    extra.Add(right.ToString());
                }
                else
                {
                    matched++;
                    if (left.Value != right.Value && deterministic(left))
                        values.Add($"{left} but the model has {right.Value:x}");
                }
            }
        }
        return new HardwareComparison(step, recorded.Count, model.Count, matched, missing, extra, values);
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
