using System.Collections.Concurrent;
using Kvm.Core;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>Good and bad calls that were made on real kernels, with their answers: descriptors, counts, errnos.</summary>
public sealed class RecordedErrors
{
    private static readonly ConcurrentDictionary<string, Lazy<List<string>>> results = new();

    internal static IReadOnlyList<string[]> Cases { get; } = [.. File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "Data", "recorded-errors.txt"))
        .Where(static l => l.Length > 0 && l[0] != '#').Select(static l => l.Split('\t'))];

    [Theory, InlineData("intel"), InlineData("amd")]
    public void Are_the_models(string vendor) => WrongOf(vendor).Should().BeEmpty();

    internal static List<string> WrongOf(string vendor) => results.GetOrAdd(vendor, static v => new Lazy<List<string>>(() => Run(v))).Value;

    private static List<string> Run(string vendor)
    {
        List<string> wrong = [];
        using var computer = new Computer(vendor, vendor == "intel" ? "nested=1" : "", recorded: true);
        foreach (string[] call in Cases)
        {
            using (var session = new Session(computer))
            {
                foreach (string step in call.Length > 6 ? call[6].Split(" ; ") : [])
                    session.Prepare(step);
                KvmResult result = session.Ioctl(call[0], BadCall.Number(call[1]), session.Argument(call[0], call[3]));
                string expected = vendor == "intel" ? call[4] : call[5];
                string actual = result.IsError ? result.Errno.ToString() : expected == "fd" ? "fd" : $"{result.Raw}";
                if (actual != expected)
                    wrong.Add($"{call[2]}: expected {expected}, got {actual}");
            }

            computer.ShouldHaveNoLeak();
        }

        return wrong;
    }
}
