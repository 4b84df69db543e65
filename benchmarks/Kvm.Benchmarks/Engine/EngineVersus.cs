using System.Globalization;

namespace Kvm.Benchmarks.Engine;

/// <summary>The engine and another emulator on the same kernels, kernel by kernel in turn, so that both see the same load of the machine. CPU seconds, not wall time.</summary>
internal static class EngineVersus
{
    /// <param name="rounds">Runs of each.</param>
    /// <param name="name">Of the other emulator.</param>
    /// <param name="other">Runs a kernel there.</param>
    /// <param name="names">Kernels; none: all.</param>
    internal static void Report(int rounds, string name, Func<EngineKernel, double> other, IReadOnlyList<string> names)
    {
        var kernels = EngineKernel.All.Where(k => names.Count == 0 || names.Contains(k.Name)).ToList();
        foreach (EngineKernel kernel in kernels)
            EngineRun.Once(kernel, 10);
        Console.WriteLine($"kernel    M instr   engine s {name,9} s   ratio (median)   range        engine MIPS");
        double product = 1;
        foreach (EngineKernel kernel in kernels)
        {
            var ratios = new List<double>();
            var ours = new List<double>();
            var theirs = new List<double>();
            ulong instructions = 0;
            for (int i = 0; i < rounds; i++)
            {
                (double seconds, instructions) = EngineRun.Once(kernel);
                ours.Add(seconds);
                theirs.Add(other(kernel));
                ratios.Add(theirs[^1] / seconds);
            }
            double ratio = Median(ratios);
            product *= ratio;
            Console.WriteLine(string.Format(CultureInfo.InvariantCulture, "{0,-8} {1,8:F1} {2,10:F3} {3,11:F2} {4,12:F2}       {5:F2}-{6:F2} {7,14:F0}",
                kernel.Name, instructions / 1e6, ours.Min(), theirs.Min(), ratio, ratios.Min(), ratios.Max(), instructions / Median(ours) / 1e6));
        }
        Console.WriteLine(string.Format(CultureInfo.InvariantCulture, "geometric mean of the ratios: {0:F2}", Math.Pow(product, 1.0 / kernels.Count)));
    }

    private static double Median(List<double> values)
    {
        var sorted = values.Order().ToList();
        return sorted[sorted.Count / 2];
    }
}
