namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>How one step of the model compares with the recording: the longest common sequence of instructions, per processor.</summary>
/// <param name="Step">"NN-name", "load" or "unload".</param>
/// <param name="Pairs">Recorded and model operations that stand side by side; one of them null where only the other did something.</param>
internal sealed record HardwareComparison(string Step, IReadOnlyList<(HardwareOp? Recorded, HardwareOp? Model)> Pairs, IReadOnlyList<HardwareDifference> Differences)
{
    public int Recorded => Pairs.Count(static p => p.Recorded is not null);

    /// <summary>Recorded operations that the model executed too, in the same order, with the same value.</summary>
    public int Matched => Recorded - Differences.Count(static d => d.Kind != DifferenceKind.Extra);

    public double Share => Recorded == 0 ? 1 : (double)Matched / Recorded;

    public static HardwareComparison Compare(string step, IReadOnlyList<HardwareOp> recorded, IReadOnlyList<HardwareOp> model, AddressBook addresses)
    {
        List<(HardwareOp?, HardwareOp?)> pairs = [];
        List<HardwareDifference> differences = [];
        foreach (int cpu in recorded.Concat(model).Select(static o => o.Cpu).Distinct().Order())
        {
            foreach ((HardwareOp? left, HardwareOp? right) in Align([.. recorded.Where(o => o.Cpu == cpu)], [.. model.Where(o => o.Cpu == cpu)]))
            {
                pairs.Add((left, right));
                if (right is null)
                    differences.Add(new HardwareDifference(DifferenceKind.Missing, left!));
                else if (left is null)
                    differences.Add(new HardwareDifference(DifferenceKind.Extra, right));
                else if (!ValueRules.Same(ValueRules.Of(left), left.Value, right.Value, addresses) || !left.Exit.SequenceEqual(right.Exit))
                    differences.Add(new HardwareDifference(DifferenceKind.Value, left, right));
            }
        }

        return new HardwareComparison(step, pairs, differences);
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
