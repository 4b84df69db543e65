using Kvm.Abi;
using Kvm.Core;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>The 115 ioctls by kind of file, row by row: each is there, and gives every errno of its kernel function that a caller can provoke.</summary>
public sealed class ApiRows
{
    /// <summary>16 of /dev/kvm, 46 of a VM, 50 of a vCPU, 3 of a device.</summary>
    [Fact]
    public void Are_all_there()
    {
        ApiRow.All.GroupBy(static r => r.Kind).Select(static g => (g.Key, g.Count())).Should().Equal(("system", 16), ("vm", 46), ("vcpu", 50), ("device", 3));
        ApiRow.All.Select(static r => (r.Kind, r.Number)).Should().OnlyHaveUniqueItems();
        ApiRow.All.Should().OnlyContain(static r => BadCall.Number(r.Name) == r.Number);
    }

    /// <summary>EFAULT is asked for with a pointer to nothing; ENOMEM by failing allocations (Failures); the rest with the values of bad-values.txt.</summary>
    [Theory, InlineData("intel"), InlineData("amd")]
    public void Give_every_errno_that_can_be_provoked(string vendor)
    {
        List<string> missing = [];
        foreach (ApiRow row in ApiRow.InScope)
        {
            IEnumerable<Errno> expected = row.Errnos.Where(e => e is not Errno.ENOMEM && !row.Excused.Contains(e.ToString(), StringComparison.Ordinal));
            missing.AddRange(expected.Except(Given(vendor, row)).Select(e => $"{row}: {e}"));
        }

        missing.Should().BeEmpty();
    }

    /// <summary>A row that the model does not have would answer as an unknown number does, whatever its argument.</summary>
    [Theory, InlineData("intel"), InlineData("amd")]
    public void Are_not_unknown(string vendor)
    {
        using var computer = new Computer(vendor);
        using var session = new Session(computer);
        session.CreateDevice();
        List<string> unknown = [];
        foreach (ApiRow row in ApiRow.InScope)
        {
            ulong[] arguments = row.Size != 0 ? [session.Named("gone"), session.Named("ram")] : [0, 1];
            if (arguments.All(a => session.Ioctl(row.Kind, row.Number, a).Errno == ApiRow.Unknown(row.Kind)) && !KnowsOtherwise(row))
                unknown.Add(row.ToString());
        }

        unknown.Should().BeEmpty();
    }

    /// <summary>Debian's kernel has no CONFIG_KVM_XEN: the numbers are unknown. No processor here has SEV: they are known, and refused after the structure was read.</summary>
    [Theory, InlineData("intel"), InlineData("amd")]
    public void Of_what_is_not_built_or_not_there_are_refused(string vendor)
    {
        using var computer = new Computer(vendor);
        using var session = new Session(computer);
        foreach (ApiRow row in ApiRow.All.Where(static r => r.Without != "-"))
        {
            foreach (string argument in new[] { "ram", "ro", "gone", "prot-none" })
            {
                bool reads = row.Name is nameof(Uapi.KVM_MEMORY_ENCRYPT_REG_REGION) or nameof(Uapi.KVM_MEMORY_ENCRYPT_UNREG_REGION);
                Errno expected = row.Without != "SEV" ? ApiRow.Unknown(row.Kind) : reads && argument is "gone" or "prot-none" ? Errno.EFAULT : Errno.ENOTTY;
                session.Ioctl(row.Kind, row.Number, session.Named(argument)).Should().Be((KvmResult)expected, "{0} with {1}", row, argument);
            }
        }

        session.Ioctl("vm", Uapi.KVM_CHECK_EXTENSION, Uapi.KVM_CAP_XEN_HVM).Value.Should().Be(0);
    }

    /// <summary>What the model answered to the row's refused values and to a pointer to nothing.</summary>
    internal static IReadOnlyList<Errno> Given(string vendor, ApiRow row)
    {
        HashSet<Errno> given = [.. BadValues.Given(vendor)[row.ToString()]];
        if (row.Size != 0)
            given.Add(EveryIoctl.WithPointerToNothing(row));
        return [.. given.Where(static e => e != 0).Order()];
    }

    /// <summary>Rows that refuse both arguments with the errno of unknown numbers: a second KVM_RUN argument, an address in use; their other answers are in bad-values.txt.</summary>
    private static bool KnowsOtherwise(ApiRow row) => BadCall.All.Any(c => c.Kind == row.Kind && c.Name == row.Name);
}
