using System.Collections.Concurrent;
using Kvm.Conformance.Tests.Sessions;
using Kvm.Core;
using Kvm.Core.Tracing;

namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>The recorded session, performed on the model with the recorded processor model; what its modules did to the processors, step by step.</summary>
/// <param name="FirstEntry">What differs in the VMCS or VMCB at the first entry.</param>
/// <param name="FirstEntryCompared">Fields or words compared there.</param>
internal sealed record HardwareReplay(string Vendor, string Parameters, IReadOnlyList<HardwareComparison> Steps, IReadOnlyList<string> FirstEntry, int FirstEntryCompared)
{
    /// <summary>Vendor and parameters of the sessions that are replayed.</summary>
    public static IReadOnlyList<(string Vendor, string Parameters)> Sessions { get; } =
        [("intel", ""), ("intel", "nested=0"), ("intel", "enable_apicv=0"), ("intel", "unrestricted_guest=0"), ("intel", "ept=0"), ("amd", ""), ("amd", "nested=0"), ("amd", "npt=0")];

    private static readonly ConcurrentDictionary<(string, string), Lazy<HardwareReplay>> replays = new();

    public static HardwareReplay Of(string vendor, string parameters) =>
        replays.GetOrAdd((vendor, parameters), static k => new Lazy<HardwareReplay>(() => Run(k.Item1, k.Item2))).Value;

    private static HardwareReplay Run(string vendor, string parameters)
    {
        RecordedSession recorded = RecordedSession.Of(vendor)[parameters];
        using var model = new ModelHost(vendor);
        model.LoadKvm().Should().Be((KvmResult)0);
        var recorder = new HardwareRecorder();
        model.Observe(recorder);
        using FunctionTraceSession trace = FunctionTrace.Start(model.Host);
        var session = new Real16Session(model.Host) { BetweenSteps = () => recorder.Take() };
        var addresses = new AddressBook { ShadowPaging = parameters.Contains("pt=0", StringComparison.Ordinal) };
        List<HardwareComparison> steps = [];

        session.RunOn(CpuOf(recorded.Load));
        // The recorded kernel has nested virtualization on by default, the model's kvm_intel off (D-VMX-1).
        string given = vendor == "intel" && !parameters.Contains("nested", StringComparison.Ordinal) ? parameters + " nested=1" : parameters;
        model.LoadVendor(given).Should().Be((KvmResult)0);
        Add("load", recorded.Load);
        foreach ((string name, int i) in session.Steps.Select(static (s, i) => (s, i)))
        {
            RecordedStep step = recorded.Real16[i];
            step.Name.Should().Be(name[3..]);
            session.RunOn(CpuOf(step.Operations));
            recorder.Take();
            KvmResult r = session.Run(i);
            if (step.Errno is { } expected)
                ((int)r.Errno).Should().Be(expected, name);
            Add(name, step.Operations);
        }

        session.Exits.Should().Equal(session.Steps.Where(static s => s.Contains("KVM_RUN-", StringComparison.Ordinal)).Select(static s => s[11..]).Skip(1));
        model.UnloadVendor().Should().Be((KvmResult)0);
        Add("unload", recorded.Unload);
        (List<string> first, int compared) = FirstEntryOf(vendor, recorded.FirstEntry, recorder.FirstEntry!, addresses);
        return new HardwareReplay(vendor, parameters, steps, first, compared);

        void Add(string step, List<HardwareOp> operations) => steps.Add(HardwareComparison.Compare(step, operations, recorder.Take(), addresses));
    }

    /// <summary>The processor that the calling thread was on: where most was done. What is done on each, like switching VMX on, tells nothing.</summary>
    private static int CpuOf(List<HardwareOp> operations) => operations.Count(static o => o.Cpu == 0) > operations.Count(static o => o.Cpu == 1) ? 0 : 1;

    private static (List<string>, int) FirstEntryOf(string vendor, Dictionary<ulong, ulong> recorded, Dictionary<ulong, ulong> model, AddressBook addresses)
    {
        List<string> differences = [];
        if (vendor == "intel")
        {
            foreach ((ulong field, ulong value) in recorded)
            {
                if (!ValueRules.Same(ValueRules.OfField(field), value, model.GetValueOrDefault(field), addresses))
                    differences.Add($"{(Emulator.Vmx.VmcsField)field}: recorded {value:x}, model {(model.TryGetValue(field, out ulong m) ? m.ToString("x") : "has no such field")}");
            }

            return (differences, recorded.Count(static f => ValueRules.OfField(f.Key) != ValueRule.Free));
        }

        // The recording leaves words out that are 0.
        int compared = 0;
        foreach ((ulong offset, ulong value) in model)
        {
            bool quadword = Vmcb64.TryGetValue(offset & ~7ul, out ValueRule rule);
            if (quadword && (offset & 4) != 0 || rule == ValueRule.Free && quadword)
                continue;
            ulong want = recorded.GetValueOrDefault(offset), have = value;
            if (quadword)
            {
                want |= recorded.GetValueOrDefault(offset + 4) << 32;
                have |= model[offset + 4] << 32;
            }

            compared++;
            if (!ValueRules.Same(quadword ? rule : ValueRule.Exact, want, have, addresses))
                differences.Add($"VMCB {offset:x3}: recorded {want:x}, model {have:x}");
        }

        return (differences, compared);
    }

    /// <summary>64-bit words of the VMCB that are not compared as they are: permission maps, TSC offset, roots of page tables.</summary>
    private static readonly Dictionary<ulong, ValueRule> Vmcb64 = new() { [0x40] = ValueRule.Page, [0x48] = ValueRule.Page, [0x50] = ValueRule.Free, [0xb0] = ValueRule.Page, [0x550] = ValueRule.Root };
}
