namespace Kvm.Conformance.Tests.Trees;

/// <summary>A call and the calls it made.</summary>
internal sealed record CallTree(string Name, List<CallTree> Children)
{
    public IEnumerable<CallTree> Flatten() => Children.SelectMany(static c => c.Flatten()).Prepend(this);

    /// <summary>Without the calls of <paramref name="names"/> and what they called.</summary>
    public static List<CallTree> Without(IEnumerable<CallTree> roots, IReadOnlySet<string> names) =>
        [.. roots.Where(r => !names.Contains(r.Name)).Select(r => new CallTree(r.Name, Without(r.Children, names)))];

    /// <summary>The calls of <paramref name="roots"/> that satisfy <paramref name="keep"/>; callees of one that does not take its place.</summary>
    public static List<CallTree> Filter(IEnumerable<CallTree> roots, Func<string, bool> keep)
    {
        List<CallTree> result = [];
        foreach (CallTree root in roots)
        {
            List<CallTree> children = Filter(root.Children, keep);
            if (keep(root.Name))
                result.Add(new CallTree(root.Name, children));
            else
                result.AddRange(children);
        }
        return result;
    }

    /// <summary>Calls in order, each with the names of its callers: two sessions with the same lines have the same calls, order and nesting.</summary>
    public static List<string> Paths(IEnumerable<CallTree> roots, string prefix = "")
    {
        List<string> result = [];
        foreach (CallTree root in roots)
        {
            string path = prefix.Length == 0 ? root.Name : prefix + " > " + root.Name;
            result.Add(path);
            result.AddRange(Paths(root.Children, path));
        }
        return result;
    }
}
