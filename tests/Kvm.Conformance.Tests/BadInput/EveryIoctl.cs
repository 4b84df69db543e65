using Kvm.Abi;
using Kvm.Core;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>Every ioctl with descriptors, numbers and pointers that are wrong: the kernel's errno, and nothing has changed.</summary>
public sealed class EveryIoctl
{
    private static readonly string[] kinds = ["system", "vm", "vcpu", "device"];

    /// <summary>Rows whose kernel function answers before it looks at the pointer.</summary>
    private static readonly Dictionary<string, Errno> before = new()
    {
        ["system KVM_TRACE_ENABLE"] = Errno.EOPNOTSUPP,
        ["device KVM_GET_DEVICE_ATTR"] = Errno.EPERM,
        ["vm KVM_SET_IDENTITY_MAP_ADDR"] = Errno.EINVAL, // there is a vCPU
        ["vm KVM_GET_PIT2"] = Errno.ENXIO,
        ["vcpu KVM_GET_LAPIC"] = Errno.EINVAL,
        ["vcpu KVM_SET_LAPIC"] = Errno.EINVAL,
        ["vcpu KVM_SET_VAPIC_ADDR"] = Errno.EINVAL,
    };

    /// <summary>Rows that refuse the zeros of a page before they would write to it.</summary>
    private static readonly Dictionary<string, Errno> zeros = new()
    {
        ["system KVM_GET_MSR_INDEX_LIST"] = Errno.EFAULT,
        ["system KVM_GET_SUPPORTED_CPUID"] = Errno.E2BIG,
        ["system KVM_GET_EMULATED_CPUID"] = Errno.E2BIG,
        ["system KVM_GET_SUPPORTED_HV_CPUID"] = Errno.E2BIG,
        ["vcpu KVM_GET_SUPPORTED_HV_CPUID"] = Errno.E2BIG,
        ["vm KVM_CREATE_DEVICE"] = Errno.ENODEV,
        ["vm KVM_CLEAR_DIRTY_LOG"] = Errno.ENOENT,
        ["vm KVM_GET_IRQCHIP"] = Errno.ENXIO,
        ["vm KVM_SET_IRQCHIP"] = Errno.ENXIO,
        ["vm KVM_IRQ_LINE_STATUS"] = Errno.ENXIO,
        ["vm KVM_GET_PIT"] = Errno.ENXIO,
        ["vm KVM_SET_PIT"] = Errno.ENXIO,
        ["vm KVM_GET_PIT2"] = Errno.ENXIO,
        ["vcpu KVM_GET_LAPIC"] = Errno.EINVAL,
    };

    [Theory, InlineData("intel"), InlineData("amd")]
    public void On_what_is_no_file_of_its_kind(string vendor) => Run(vendor, static (session, check) =>
    {
        session.CreateDevice();
        foreach (ApiRow row in ApiRow.All)
        {
            foreach (int none in new[] { -1, 63, int.MaxValue })
                check($"{row} on descriptor {none}", session.Process.Ioctl(none, row.Number, 0), Errno.EBADF);
            check($"{row} on an eventfd", session.Process.Ioctl((int)session.Named("event"), row.Number, 0), Errno.ENOTTY);
            foreach (string kind in kinds.Where(k => !ApiRow.Knows(k, row.Number)))
                check($"{row} on a {kind}", session.Ioctl(kind, row.Number, 0), ApiRow.Unknown(kind));
        }
    });

    [Theory, InlineData("intel"), InlineData("amd")]
    public void With_other_bits_for_size_direction_or_type(string vendor) => Run(vendor, static (session, check) =>
    {
        session.CreateDevice();
        foreach (ApiRow row in ApiRow.All)
        {
            IEnumerable<uint> numbers = new[] { row.Number ^ 0x40000000, row.Number ^ 0x80000000, row.Number ^ 0xc0000000, row.Number ^ 8 << 16, row.Number ^ 1 << 29, row.Number + 0x100, row.Number ^ 0x8000 };
            foreach (uint number in numbers.Where(n => !ApiRow.Knows(row.Kind, n)))
                check($"{row} as {number:x}", session.Ioctl(row.Kind, number, session.Named("ram")), ApiRow.Unknown(row.Kind));
        }
    });

    [Theory, InlineData("intel"), InlineData("amd")]
    public void With_pointers_to_nothing(string vendor) => Run(vendor, static (session, check) =>
    {
        session.CreateDevice();
        foreach (ApiRow row in ApiRow.InScope.Where(static r => r.Size != 0))
        {
            foreach ((string what, ulong pointer) in new[]
            {
                ("0x1000", 0x1000UL), ("an unmapped page", session.Named("gone")), ("a page without access", session.Named("prot-none")), ("the end of memory", session.Named("half")),
                ("the kernel", 0xffff_8000_0000_0000), ("no address", 0x8000_0000_0000_0000), ("the last byte", ulong.MaxValue), ("the end of user space", UserMemory.TaskSizeMax - 1),
            })
            {
                // the end of memory has four bytes, which is all that some take
                Errno expected = before.GetValueOrDefault(row.ToString(), Errno.EFAULT);
                if (what == "the end of memory" && row.Size == 4)
                    continue;
                check($"{row} with a pointer to {what}", session.Ioctl(row.Kind, row.Number, pointer), expected);
            }
        }
    });

    /// <summary>What With_pointers_to_nothing has seen.</summary>
    internal static Errno WithPointerToNothing(ApiRow row) => before.GetValueOrDefault(row.ToString(), Errno.EFAULT);

    /// <summary>KVM_GET_MSRS of no MSR writes nothing.</summary>
    [Theory, InlineData("intel"), InlineData("amd")]
    public void With_memory_that_cannot_be_written(string vendor) => Run(vendor, static (session, check) =>
    {
        foreach (ApiRow row in ApiRow.InScope.Where(static r => r.Size != 0 && r.Kind != "device" && (r.Number & 0x80000000) != 0 && r.Name is not "KVM_GET_MSRS"))
            check($"{row} with read-only memory", session.Ioctl(row.Kind, row.Number, session.Named("ro")), zeros.GetValueOrDefault(row.ToString(), Errno.EFAULT));
    });

    private static void Run(string vendor, Action<Session, Action<string, KvmResult, Errno>> calls)
    {
        using var computer = new Computer(vendor);
        List<string> wrong = [];
        using (var session = new Session(computer))
        {
            string? state = null;
            calls(session, (what, result, errno) =>
            {
                if (result.Errno != errno)
                    wrong.Add($"{what}: expected {errno}, got {result}");
                string after = session.State();
                if (state is not null && state != after)
                    wrong.Add($"{what}: changed {Difference(state, after)}");
                state = after;
            });
        }

        wrong.Should().BeEmpty();
        computer.ShouldHaveNoLeak();
    }

    internal static string Difference(string before, string after)
    {
        string[] a = before.Split('\n'), b = after.Split('\n');
        int at = Enumerable.Range(0, Math.Min(a.Length, b.Length)).FirstOrDefault(i => a[i] != b[i]);
        return $"{a[at]} to {b[at]}";
    }
}
