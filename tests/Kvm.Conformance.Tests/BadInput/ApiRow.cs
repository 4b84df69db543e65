using System.Globalization;
using Kvm.Abi;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>An ioctl for one kind of file. Data/ioctls.txt.</summary>
/// <param name="Kind">"system", "vm", "vcpu", "device".</param>
/// <param name="Errnos">What its kernel function can return.</param>
/// <param name="Without">The option that the kernel is built without (it has no such ioctl then), "SEV" for the processor feature (it is refused then), or "-".</param>
/// <param name="Excused">Errnos that no caller can provoke here, and why; or "-".</param>
internal sealed record ApiRow(string Kind, string Name, uint Number, IReadOnlyList<Errno> Errnos, string Without, string Excused)
{
    public static IReadOnlyList<ApiRow> All { get; } = [.. File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "Data", "ioctls.txt"))
        .Where(static l => l.Length > 0 && l[0] != '#').Select(static l => l.Split('\t')).Select(static p =>
            new ApiRow(p[0], p[1], uint.Parse(p[2][2..], NumberStyles.HexNumber, CultureInfo.InvariantCulture), p[3] == "-" ? [] : [.. p[3].Split(',').Select(Enum.Parse<Errno>)], p[4], p[5]))];

    public static IEnumerable<ApiRow> InScope => All.Where(static r => r.Without == "-");

    /// <summary>Bytes of the structure that the argument points to; 0: the argument is a value.</summary>
    public int Size => (int)(Number >> 16 & 0x3fff);

    /// <summary>What a file of the kind says to a number that is not among its own.</summary>
    public static Errno Unknown(string kind) => kind is "vm" or "device" ? Errno.ENOTTY : Errno.EINVAL;

    public static bool Knows(string kind, uint number) => All.Any(r => r.Kind == kind && r.Number == number);

    public override string ToString() => $"{Kind} {Name}";
}
