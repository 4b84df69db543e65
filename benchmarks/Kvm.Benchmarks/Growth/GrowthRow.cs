namespace Kvm.Benchmarks.Growth;

/// <summary>One line of the report: something's cost at several sizes.</summary>
/// <param name="Name">What costs.</param>
/// <param name="Promise">How the kernel's algorithm lets it grow: flat, logarithmic, linear.</param>
/// <param name="Unit">The unit of the costs.</param>
/// <param name="Sizes">What grows: the sizes, as they are printed.</param>
/// <param name="Costs">One for each size.</param>
internal readonly record struct GrowthRow(string Name, string Promise, string Unit, string[] Sizes, double[] Costs)
{
    /// <summary>The last cost by the first.</summary>
    public double Ratio => Costs[^1] / Costs[0];
}
