namespace Kvm.Conformance;

/// <summary>A scenario that the model answers differently, with the reason.</summary>
/// <param name="Recording">The recording's <see cref="Recording.Key"/>.</param>
/// <param name="Scenario">The scenario's name; with <see cref="NotPortable"/> behind it, answers that the recording itself calls not portable.</param>
/// <param name="Class">What is still to come, an entry of docs/DIVERGENCES.md, or what of the recorded host the answers depend on.</param>
/// <param name="What">What differs.</param>
public sealed record KnownFailure(string Recording, string Scenario, string Class, string What)
{
    /// <summary>Follows the name where only such answers differ.</summary>
    public const string NotPortable = " (not portable)";

    /// <summary>The list that this library brings: known-failures.txt.</summary>
    public static IReadOnlyList<KnownFailure> All { get; } = Read(new StreamReader(typeof(KnownFailure).Assembly.GetManifestResourceStream("known-failures.txt")!));

    /// <summary>Reads a list: four columns with tabs between them, comments with #.</summary>
    /// <exception cref="InvalidDataException">A line has other columns.</exception>
    public static IReadOnlyList<KnownFailure> Read(TextReader reader)
    {
        var known = new List<KnownFailure>();
        for (int line = 1; reader.ReadLine() is { } text; line++)
        {
            if (text.Length == 0 || text[0] == '#') continue;
            string[] columns = text.Split('\t');
            if (columns.Length != 4) throw new InvalidDataException($"line {line}: recording, scenario, class and what differs, with tabs between them");
            known.Add(new KnownFailure(columns[0], columns[1], columns[2], columns[3]));
        }

        return known;
    }
}
