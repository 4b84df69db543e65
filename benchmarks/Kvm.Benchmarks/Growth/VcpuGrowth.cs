using Kvm.Benchmarks.Api;
using Kvm.Client;
using Kvm.Client.Backends;

namespace Kvm.Benchmarks.Growth;

/// <summary>Creation of vCPUs in one VM: the first tenth, one in the middle, the last.</summary>
internal static class VcpuGrowth
{
    private const int Parts = 10;

    public static IEnumerable<GrowthRow> Measure(string vendor, GrowthSizes sizes)
    {
        int part = sizes.Vcpus / Parts;
        string[] names = [$"first {part}", $"middle {part}", $"last {part}"];
        foreach (bool irqchip in new[] { false, true })
        {
            double[] least = [double.MaxValue, double.MaxValue, double.MaxValue];
            double[] managed = new double[3], kernel = new double[3];
            for (int round = 0; round < sizes.Slices; round++)
            {
                double[] costs = Once(vendor, irqchip, sizes.Vcpus, part, managed, kernel);
                for (int i = 0; i < 3; i++) least[i] = Math.Min(least[i], costs[i]);
            }

            string with = irqchip ? "a vCPU with an APIC" : "a vCPU without an APIC";
            yield return new($"creation of {with}", irqchip ? "flat + a step for each APIC" : "flat", "us", names, least);
            yield return new($"managed memory of {with}", "flat", "KiB", names, managed);
            yield return new($"pages of {with}", "flat", "KiB", names, kernel);
        }
    }

    private static double[] Once(string vendor, bool irqchip, int count, int part, double[] managed, double[] kernel)
    {
        IKvmBackend backend = KvmBackend.ByName("model", vendor);
        using KvmSystem kvm = KvmSystem.Open(backend);
        using Vm vm = kvm.CreateVm();
        if (irqchip) vm.CreateIrqchip();
        var vcpus = new Vcpu[count];
        int[] starts = [0, count / 2 - part / 2, count - part];
        var costs = new double[3];
        int next = 0;
        for (int i = 0; i < 3; i++)
        {
            for (; next < starts[i]; next++) vcpus[next] = vm.CreateVcpu((uint)next);
            long heap = GC.GetTotalMemory(forceFullCollection: true), pages = Pages(backend);
            costs[i] = Cost.Once(() =>
            {
                for (; next < starts[i] + part; next++) vcpus[next] = vm.CreateVcpu((uint)next);
            }) / part / 1000;
            managed[i] = (GC.GetTotalMemory(forceFullCollection: true) - heap) / 1024.0 / part;
            kernel[i] = (Pages(backend) - pages) / 1024.0 / part;
        }

        foreach (Vcpu vcpu in vcpus) vcpu.Dispose();
        return costs;
    }

    internal static long Pages(IKvmBackend backend) => backend is ModelBackend { Host: { } host } ? host.Pages.InUse * 4096 + host.Pages.VmallocInUse : 0;
}
