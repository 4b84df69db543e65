using System.Diagnostics;
using System.Globalization;
using Xunit.Abstractions;

namespace Kvm.Client.Tests.Soak;

/// <summary>
/// Many processors that interrupt each other and sleep: no wake-up is lost. A few seconds here; with KVM_TEST_SOAK_SECONDS (tests/nightly.sh) as long as it says.
/// </summary>
public class SmpSoak(ITestOutputHelper output)
{
    private static readonly string? s_seconds = Environment.GetEnvironmentVariable("KVM_TEST_SOAK_SECONDS");

    private static TimeSpan Duration => TimeSpan.FromSeconds(s_seconds is null ? 2 : double.Parse(s_seconds, CultureInfo.InvariantCulture));

    /// <summary>64 vCPUs share 8 processors of the host, and both kinds of interrupt delivery have their turn.</summary>
    [SkippableTheory]
    [InlineData("intel", "")]
    [InlineData("intel", "enable_apicv=0")]
    [InlineData("amd", "")]
    public void Of_64_vCPUs_loses_no_interrupt_timer_or_wakeup(string kernel, string parameters)
    {
        using var vm = new SmpVm(KvmBackend.ByName("model", kernel, processors: 8, Split(parameters)), 64);
        Soak(vm, $"{kernel} {parameters}", Duration);
    }

    /// <summary>Every vCPU is preempted at every VM exit, and goes on on another processor of the host.</summary>
    [SkippableTheory]
    [InlineData("intel", "", 1)]
    [InlineData("intel", "enable_apicv=0", 2)]
    [InlineData("intel", "ept=0", 3)]
    [InlineData("intel", "preemption_timer=0", 4)]
    [InlineData("intel", "kvm.lapic_timer_advance_ns=0", 5)]
    [InlineData("amd", "", 6)]
    [InlineData("amd", "npt=0", 7)]
    public void Of_6_vCPUs_that_are_moved_at_every_exit_loses_nothing(string kernel, string parameters, ulong seed)
    {
        using var vm = new SmpVm(Moving(kernel, parameters, seed), 6);
        Soak(vm, $"{kernel} {parameters} seed {seed}", Duration / 2);
    }

    /// <summary>
    /// A TSC deadline becomes the time of a timer of the host by two looks at clocks, and the thread may stand still between them: the timer may be late then, never early.
    /// </summary>
    [Theory]
    [InlineData("intel", "preemption_timer=0")]
    [InlineData("intel", "")]
    [InlineData("amd", "")]
    public void Timers_are_not_early_when_time_goes_by_between_two_looks_at_the_clock(string kernel, string parameters)
    {
        using var vm = new SmpVm(Model(kernel, parameters, options => options.Time = new HaltingTime()), 1);
        Soak(vm, $"{kernel} {parameters} with gaps", TimeSpan.FromSeconds(1));
    }

    private static IKvmBackend Moving(string kernel, string parameters, ulong seed) => Model(kernel, parameters, options =>
    {
        options.Processors = 4;
        options.PreemptionSeed = seed;
    });

    private static IKvmBackend Model(string kernel, string parameters, Action<ModelOptions> configure) => KvmBackend.Model(options =>
    {
        options.Vendor = kernel == "intel" ? Kvm.Emulator.CpuVendor.Intel : Kvm.Emulator.CpuVendor.Amd;
        foreach (string[] parameter in Split(parameters).Select(static p => p.Split('='))) options.ModuleParameters[parameter[0]] = parameter[1];
        configure(options);
    });

    private static string[] Split(string parameters) => parameters.Split(' ', StringSplitOptions.RemoveEmptyEntries);

    private void Soak(SmpVm vm, string what, TimeSpan duration)
    {
        long start = Stopwatch.GetTimestamp();
        vm.Run.Start();
        // On a busy machine it takes as long as it takes until all have done something.
        vm.Run.Watch(() => Stopwatch.GetElapsedTime(start) > duration && Enumerable.Range(0, vm.Vcpus.Length).All(i => vm.Guest.RoundsOf(vm.Memory.Span, i) >= 20));
        SmpFigures figures = vm.Run.Finish();
        output.WriteLine($"{what}: {figures} in {Stopwatch.GetElapsedTime(start).TotalSeconds:0.0} s, lost 0");
        figures.Timers.Should().BePositive();
        figures.Ipis.Should().BePositive();
    }
}
