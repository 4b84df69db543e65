using Kvm.Abi;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>A call with a value that the kernel refuses. Data/bad-values.txt.</summary>
/// <param name="What">The value that is refused.</param>
/// <param name="Argument">See <see cref="Session.Argument"/>.</param>
/// <param name="Before">What comes before it; see <see cref="Session.Prepare"/>.</param>
internal sealed record BadCall(string Kind, string Name, string What, string Argument, Errno Errno, IReadOnlyList<string> Before)
{
    public static IReadOnlyList<BadCall> All { get; } = [.. File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "Data", "bad-values.txt"))
        .Where(static l => l.Length > 0 && l[0] != '#').Select(static l => l.Split('\t'))
        .Select(static p => new BadCall(p[0], p[1], p[2], p[3], Enum.Parse<Errno>(p[4]), p.Length > 5 ? p[5].Split(" ; ") : []))];

    public static uint Number(string name) => (uint)typeof(Uapi).GetField(name)!.GetRawConstantValue()!;

    public override string ToString() => $"{Kind} {Name}: {What}";
}
