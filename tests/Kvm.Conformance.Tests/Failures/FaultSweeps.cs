using System.Collections.Concurrent;
using System.Globalization;
using Kvm.Abi;
using Kvm.Arch.X86;
using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.Failures;

/// <summary>
/// Sessions in which one use of one point fails. Each checks for itself that the step which needed it changes nothing, that the same step works when it is tried
/// again, that the session ends as always and that every page comes back. The next session runs on the same host.
/// </summary>
internal static class FaultSweeps
{
    /// <summary>Processor model and parameters of the vendor module.</summary>
    public static IReadOnlyList<(string Model, string Parameters)> Configurations { get; } =
        [("intel-skylake", ""), ("intel-skylake", "unrestricted_guest=0"), ("intel-skylake", "ept=0"), ("bochs-skylake-x", "nested=1"), ("amd-zen", ""), ("amd-zen", "npt=0")];

    private static readonly ConcurrentDictionary<(string, string), Lazy<IReadOnlyList<FaultOutcome>>> outcomes = new();

    /// <summary>The outcome of every use of every point, by point and use.</summary>
    public static IReadOnlyList<FaultOutcome> Of(string model, string parameters) =>
        outcomes.GetOrAdd((model, parameters), static c => new Lazy<IReadOnlyList<FaultOutcome>>(() => Sweep(c.Item1, c.Item2))).Value;

    private static List<FaultOutcome> Sweep(string model, string parameters)
    {
        using var session = new WholeSession(model, parameters);
        Host host = session.Kernel.Host;
        host.Faults.StartCounting();
        Perform(session, "nothing", static () => { }).Should().Be((null, default(Errno)));
        List<FaultOutcome> result = [];
        foreach ((string point, long uses) in host.Faults.Counts.OrderBy(static c => c.Key, StringComparer.Ordinal))
        {
            for (long n = 1; n <= uses; n++)
            {
                host.Faults.Clear();
                host.Faults.Fail(point, n);
                (string? step, Errno errno) = Perform(session, string.Create(CultureInfo.InvariantCulture, $"{point} {n}"), static () => { });
                host.Faults.Hits.Should().Be(1, "{0} {1} is reached as without a failure before it", point, n);
                result.Add(new FaultOutcome(point, n, step, errno));
            }
        }

        host.Faults.Clear();
        for (int cpu = 0; cpu < 2; cpu++)
            result.AddRange(Processor(session, cpu));
        return result;
    }

    /// <summary>A processor on which virtualization can't be switched on: VMXON faults, or another hypervisor is there already.</summary>
    private static IEnumerable<FaultOutcome> Processor(WholeSession session, int cpu)
    {
        bool intel = session.Vendor == "intel";
        if (intel)
        {
            session.Kernel.Machine.Processors[cpu].InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));
            (string? step, Errno errno) = Perform(session, $"VMXON on CPU {cpu}", static () => { });
            yield return new FaultOutcome($"VMXON faults on CPU {cpu}", 1, step, errno);
        }

        Other(session, cpu, true);
        (string? occupied, Errno busy) = Perform(session, $"another hypervisor on CPU {cpu}", () => Other(session, cpu, false));
        yield return new FaultOutcome($"{(intel ? "CR4.VMXE" : "EFER.SVME")} is set on CPU {cpu}", 1, occupied, busy);
    }

    private static void Other(WholeSession session, int cpu, bool there) => session.Kernel.Host.SmpCallFunctionSingle(cpu, _ =>
    {
        HostX86Cpu x86 = session.Kernel.X86.ThisCpu;
        ulong efer = x86.Rdmsr(MsrIndex.MSR_EFER);
        if (session.Vendor == "amd")
            x86.Wrmsr(MsrIndex.MSR_EFER, there ? efer | X86Const.EFER_SVME : efer & ~X86Const.EFER_SVME);
        else if (there)
            x86.Cr4SetBits(X86Const.X86_CR4_VMXE);
        else
            x86.Cr4ClearBits(X86Const.X86_CR4_VMXE);
    }).Should().Be((KvmResult)0);

    private static (string? Step, Errno Errno) Perform(WholeSession session, string what, Action afterFailure)
    {
        PageAllocator pages = session.Kernel.Host.Pages;
        long inUse = pages.InUse;
        string? failed = null;
        Errno errno = default;
        for (int i = 0; i < session.Steps.Count; i++)
        {
            string before = HostState.Of(session.Kernel);
            KvmResult r = session.Step(i);
            if (!r.IsError)
                continue;
            failed.Should().BeNull("one failure of {0} fails one step, not {1} too", what, session.Steps[i]);
            failed = session.Steps[i];
            errno = r.Errno;
            HostState.Of(session.Kernel).Should().Be(before, "{0} failed for {1} and must change nothing", failed, what);
            afterFailure();
            r = session.Step(i);
            r.IsError.Should().BeFalse("{0} is tried again after {1}: {2}", failed, what, r);
        }

        pages.InUse.Should().Be(inUse, "after {0}: {1}", what, string.Join(", ", pages.InUseByTag));
        pages.VmallocInUse.Should().Be(0, "after {0}", what);
        return (failed, errno);
    }
}
