using System.Globalization;

namespace Kvm.Benchmarks.Engine;

/// <summary>The engine and another emulator on the same kernels, kernel by kernel in turn, so that all see the same load of the machine. CPU seconds, not wall time.</summary>
/// <remarks>Both of this machine's engines take part: ratios are the other's time divided by theirs.</remarks>
internal static class EngineVersus
{
    /// <param name="rounds">Runs of each.</param>
    /// <param name="name">Of the other emulator.</param>
    /// <param name="other">Runs a kernel there.</param>
    /// <param name="names">Kernels; none: all.</param>
    internal static void Report(int rounds, string name, Func<EngineKernel, double> other, IReadOnlyList<string> names)
    {
        var kernels = EngineKernel.All.Where(k => names.Count == 0 || names.Contains(k.Name)).ToList();
        string[] engines = ["interpreter", "native"];
        foreach (EngineKernel kernel in kernels)
            foreach (string engine in engines)
                EngineRun.Once(kernel, 10, engine);
        Console.WriteLine($"kernel    M instr  interpreter s   native s {name,9} s   ratio (range): interpreter, native");
        double[] products = [1, 1];
        foreach (EngineKernel kernel in kernels)
        {
            List<double>[] seconds = [[], []], ratios = [[], []];
            var theirs = new List<double>();
            ulong instructions = 0;
            for (int i = 0; i < rounds; i++)
            {
                theirs.Add(other(kernel));
                for (int e = 0; e < engines.Length; e++)
                {
                    (double time, instructions) = EngineRun.Once(kernel, engine: engines[e]);
                    seconds[e].Add(time);
                    ratios[e].Add(theirs[^1] / time);
                }
            }
            for (int e = 0; e < engines.Length; e++)
                products[e] *= Median(ratios[e]);
            Console.WriteLine(string.Format(CultureInfo.InvariantCulture, "{0,-8} {1,8:F1} {2,14:F3} {3,10:F3} {4,11:F2}   {5,6:F2} ({6:F2}-{7:F2}) {8,8:F2} ({9:F2}-{10:F2})",
                kernel.Name, instructions / 1e6, seconds[0].Min(), seconds[1].Min(), theirs.Min(), Median(ratios[0]), ratios[0].Min(), ratios[0].Max(),
                Median(ratios[1]), ratios[1].Min(), ratios[1].Max()));
        }
        Console.WriteLine(string.Format(CultureInfo.InvariantCulture, "geometric mean of the ratios: interpreter {0:F2}, native {1:F2}",
            Math.Pow(products[0], 1.0 / kernels.Count), Math.Pow(products[1], 1.0 / kernels.Count)));
    }

    private static double Median(List<double> values)
    {
        var sorted = values.Order().ToList();
        return sorted[sorted.Count / 2];
    }
}
