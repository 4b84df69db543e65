using System.Globalization;
using Kvm.Benchmarks.Api;
using Kvm.Benchmarks.Boot;
using Kvm.Benchmarks.Engine;
using Kvm.Benchmarks.Growth;

switch (args.FirstOrDefault())
{
    // engine [kernel ...]: speed of the execution engine.
    case "engine":
        EngineRun.Report(args[1..], rounds: 5);
        return 0;
    // engine-once kernel: one warm run, seconds and instructions, for scripts that alternate engines.
    case "engine-once":
        EngineRun.Once(EngineKernel.Get(args[1]), 4);
        (double seconds, ulong instructions) = EngineRun.Once(EngineKernel.Get(args[1]));
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{seconds:F4} {instructions}"));
        return 0;
    // api [rounds [exits [name]]]: exits, creation, many VMs; with a name only what contains it.
    case "api":
        ApiCosts.Report(Console.Out, args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 5, args.Length > 2 ? int.Parse(args[2], CultureInfo.InvariantCulture) : 200_000, args.Length > 3 ? args[3] : "");
        return 0;
    // growth [full|small [name]]: costs with more and more slots, vCPUs, VMs and pages; with a name only what contains it.
    case "growth":
        GrowthReport.Print(Console.Out, args.Length > 1 && args[1] == "small" ? GrowthSizes.Small : GrowthSizes.Full, args.Length > 2 ? args[2] : "");
        return 0;
    // bochs-once kernel: the same kernel on Bochs, CPU seconds.
    case "bochs-once":
        Console.WriteLine(BochsRun.Once(EngineKernel.Get(args[1])).ToString("F4", CultureInfo.InvariantCulture));
        return 0;
    // engine-vs-bochs, engine-vs-qemu [rounds [kernel ...]]: both, alternating; medians of the paired ratios.
    case "engine-vs-bochs":
        EngineVersus.Report(args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 3, "bochs", kernel => BochsRun.Once(kernel), args.Length > 2 ? args[2..] : []);
        return 0;
    case "engine-vs-qemu":
        EngineVersus.Report(args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 3, "qemu", QemuRun.Once, args.Length > 2 ? args[2..] : []);
        return 0;
    // boot-vs-qemu rounds kernel initrd kvm.dll [options of kvm run ...]: seconds to a shell's prompt on both, in turns.
    case "boot-vs-qemu" when args.Length >= 5:
        BootVersus.Report(Console.Out, int.Parse(args[1], CultureInfo.InvariantCulture), args[4..], args[2], args[3]);
        return 0;
    default:
        Console.Error.WriteLine("usage: engine [kernel ...] | engine-once kernel | bochs-once kernel | engine-vs-bochs [rounds [kernel ...]] | engine-vs-qemu [rounds [kernel ...]] | boot-vs-qemu rounds kernel initrd kvm.dll [option ...] | api [rounds [exits [name]]] | growth [full|small [name]]");
        return 2;
}
