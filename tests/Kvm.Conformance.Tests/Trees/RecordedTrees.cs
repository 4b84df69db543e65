using System.Globalization;
using System.IO.Compression;
using System.Text.RegularExpressions;

namespace Kvm.Conformance.Tests.Trees;

/// <summary>One recorded step: the trees of the task that made the call, and those of other CPUs and tasks.</summary>
/// <param name="Path">vendor/trees/session/step-name.tree.txt</param>
/// <param name="Own">Calls of the task that made the system call.</param>
/// <param name="Others">Calls of other CPUs and tasks, by title.</param>
/// <param name="Cpu">Where the first call of that task began.</param>
internal sealed record RecordedTree(string Path, List<CallTree> Own, List<(string Title, List<CallTree> Roots)> Others, int Cpu)
{
    public string Vendor => Path.Split('/')[0];
    public string Session => Path.Split('/')[2];
    public string Step => Path.Split('/')[3].Replace(".tree.txt", "", StringComparison.Ordinal);
}

/// <summary>Function graphs of the real kvm, kvm_intel and kvm_amd (Linux 6.1.192), one per ioctl or module operation.</summary>
internal static partial class RecordedTrees
{
    public static IReadOnlyList<RecordedTree> All { get; } = Read();

    public static RecordedTree Find(string vendor, string session, string step) =>
        All.Single(t => t.Vendor == vendor && t.Session == session && t.Step == step);

    private static List<RecordedTree> Read()
    {
        List<RecordedTree> trees = [];
        using FileStream file = File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", "trees.txt.gz"));
        using var reader = new StreamReader(new GZipStream(file, CompressionMode.Decompress));
        List<string>? lines = null;
        string? path = null;
        while (reader.ReadLine() is { } line)
        {
            if (line.StartsWith("=== ", StringComparison.Ordinal))
            {
                Finish();
                path = line[4..];
                lines = [];
            }
            else
            {
                lines?.Add(line);
            }
        }
        Finish();
        return trees;

        void Finish()
        {
            if (path != null)
                trees.Add(Parse(path, lines!));
        }
    }

    private static RecordedTree Parse(string path, List<string> lines)
    {
        List<CallTree> own = [];
        List<(string, List<CallTree>)> others = [];
        int cpu = -1;
        List<CallTree> target = own;
        bool first = true;
        Stack<(CallTree Node, int Count, List<CallTree> Siblings)> open = new();
        foreach (string raw in lines)
        {
            string line = raw.Trim();
            if (line.Length == 0 || line[0] == '#')
                continue;
            if (line[0] == '[')
            {
                target = first ? own : [];
                if (!first)
                    others.Add((line, target));
                first = false;
                open.Clear();
                continue;
            }
            if (line == "}")
            {
                (CallTree node, int count, List<CallTree> siblings) = open.Pop();
                for (int i = 0; i < count; i++)
                    siblings.Add(node);
                continue;
            }
            Match match = Line().Match(line);
            if (!match.Success)
                continue;
            string name = Normalize(match.Groups[1].Value);
            // The second half of a function that the compiler split in two belongs to the first.
            if (name != match.Groups[1].Value && open.TryPeek(out var whole) && whole.Node.Name == name)
            {
                if (match.Groups[2].Success)
                    open.Push((whole.Node, 0, whole.Siblings));
                continue;
            }
            if (cpu < 0 && match.Groups[4].Success)
                cpu = int.Parse(match.Groups[4].Value, CultureInfo.InvariantCulture);
            var call = new CallTree(name, []);
            int times = match.Groups[3].Success ? int.Parse(match.Groups[3].Value, CultureInfo.InvariantCulture) : 1;
            List<CallTree> into = open.TryPeek(out var parent) ? parent.Node.Children : target;
            if (match.Groups[2].Success)
            {
                open.Push((call, times, into));
            }
            else
            {
                for (int i = 0; i < times; i++)
                    into.Add(call);
            }
        }
        return new RecordedTree(path, own, others, cpu);
    }

    /// <summary>Compiler-made copies of a function carry suffixes.</summary>
    internal static string Normalize(string name)
    {
        int dot = name.IndexOf('.', StringComparison.Ordinal);
        return dot < 0 ? name : name[..dot];
    }

    [GeneratedRegex(@"^(?:\(\.\.\.\) )?(\S+)(?: \[\w+\])?( \{)?(?:\s+x(\d+))?(?:\s+<- cpu(\d+))?$")]
    private static partial Regex Line();
}
