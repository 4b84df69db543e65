using System.Collections.Concurrent;
using Kvm.Abi;
using Kvm.Core;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>Values that the kernel refuses, ioctl by ioctl: its errno, nothing has changed, and no errno of an ioctl is left out.</summary>
public sealed class BadValues
{
    private static readonly ConcurrentDictionary<string, Lazy<(List<string> Wrong, ILookup<string, Errno> Given)>> results = new();

    [Theory, InlineData("intel"), InlineData("amd")]
    public void Give_the_kernels_errno_and_change_nothing(string vendor) => WrongOf(vendor).Should().BeEmpty();

    /// <summary>Each errno that an ioctl can give has its case, or the reason why nobody can provoke it.</summary>
    [Fact]
    public void Every_errno_of_every_ioctl_has_a_case()
    {
        List<string> missing = [];
        foreach (ApiRow row in ApiRow.InScope)
        {
            foreach (Errno errno in row.Errnos.Where(static e => e is not (Errno.ENOMEM or Errno.EFAULT)))
            {
                bool tested = BadCall.All.Any(c => c.Kind == row.Kind && c.Name == row.Name && c.Errno == errno);
                bool excused = row.Excused.Contains(errno.ToString(), StringComparison.Ordinal);
                if (tested == excused)
                    missing.Add($"{row} {errno}{(tested ? " has a case and an excuse" : "")}");
            }
        }

        missing.Should().BeEmpty();
        BadCall.All.Should().OnlyContain(static c => ApiRow.Knows(c.Kind, BadCall.Number(c.Name)));
    }

    /// <summary>Without unrestricted guests the TSS is a slot of KVM's own: a second one is refused, and the first stays.</summary>
    [Fact]
    public void A_second_TSS_address_is_refused_where_the_first_counts()
    {
        using var computer = new Computer("intel", "unrestricted_guest=0");
        using (var session = new Session(computer))
        {
            session.Ioctl("vm", Uapi.KVM_SET_TSS_ADDR, 0xfffbd000).Should().Be(KvmResult.Ok);
            string before = session.State();
            session.Ioctl("vm", Uapi.KVM_SET_TSS_ADDR, 0xfffb0000).Should().Be((KvmResult)Errno.EEXIST);
            session.Ioctl("vm", Uapi.KVM_SET_TSS_ADDR, 0xfffbd000).Should().Be((KvmResult)Errno.EEXIST);
            session.State().Should().Be(before);
        }

        computer.ShouldHaveNoLeak();
    }

    internal static List<string> WrongOf(string vendor) => Of(vendor).Wrong;

    /// <summary>The errnos that the model gave, by "kind name" of the ioctl.</summary>
    internal static ILookup<string, Errno> Given(string vendor) => Of(vendor).Given;

    private static (List<string> Wrong, ILookup<string, Errno> Given) Of(string vendor) => results.GetOrAdd(vendor, static v => new(() => Run(v))).Value;

    private static (List<string> Wrong, ILookup<string, Errno> Given) Run(string vendor)
    {
        List<string> wrong = [];
        List<(string Row, Errno Errno)> given = [];
        using var computer = new Computer(vendor);
        foreach (BadCall call in BadCall.All)
        {
            using (var session = new Session(computer))
            {
                foreach (string step in call.Before)
                    session.Prepare(step);
                ulong argument = session.Argument(call.Kind, call.Argument);
                string before = session.State();
                KvmResult result = session.Ioctl(call.Kind, BadCall.Number(call.Name), argument);
                string after = session.State();
                given.Add(($"{call.Kind} {call.Name}", result.Errno));
                if (result.Errno != call.Errno)
                    wrong.Add($"{call}: expected {call.Errno}, got {result}");
                if (before != after)
                    wrong.Add($"{call}: changed {EveryIoctl.Difference(before, after)}");
            }

            computer.ShouldHaveNoLeak();
        }

        return (wrong, given.ToLookup(static g => g.Row, static g => g.Errno));
    }
}
