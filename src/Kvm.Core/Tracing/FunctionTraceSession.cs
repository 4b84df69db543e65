using System.Reflection;
using System.Text;

namespace Kvm.Core.Tracing;

/// <summary>What was recorded between start and stop: call trees by task.</summary>
public sealed partial class FunctionTraceSession : IDisposable
{
    private static readonly object s_gate = new();
    private static Dictionary<string, string?>? s_modules;
    private static int s_assemblies;

    private readonly object _gate = new();
    private readonly List<(string Title, List<FunctionTraceNode> Roots)> _groups = [];

    internal FunctionTraceSession(Host? host) => Host = host;

    /// <summary>The host whose threads are recorded; null = all.</summary>
    public Host? Host { get; }

    /// <summary>Root calls by task, in order of first appearance.</summary>
    public IReadOnlyList<(string Title, IReadOnlyList<FunctionTraceNode> Roots)> Groups
    {
        get { lock (_gate) return [.. _groups.Select(g => (g.Title, (IReadOnlyList<FunctionTraceNode>)[.. g.Roots]))]; }
    }

    /// <summary>Stops recording.</summary>
    public void Dispose() => FunctionTrace.Stop(this);

    internal FunctionTraceThread NewThread() => new(this);

    internal void AddRoot(string title, FunctionTraceNode root)
    {
        lock (_gate)
        {
            foreach (var g in _groups)
            {
                if (g.Title != title) continue;
                g.Roots.Add(root);
                return;
            }

            _groups.Add((title, [root]));
        }
    }

    /// <summary>Every function of the session, depth first.</summary>
    public IEnumerable<FunctionTraceNode> Flatten()
    {
        static IEnumerable<FunctionTraceNode> Walk(FunctionTraceNode n)
        {
            yield return n;
            foreach (FunctionTraceNode c in n.Children)
                foreach (FunctionTraceNode d in Walk(c)) yield return d;
        }

        return Groups.SelectMany(g => g.Roots).SelectMany(Walk);
    }

    /// <summary>The trees as text: module in brackets, equal neighbours folded with their count, the CPU at each root.</summary>
    /// <param name="root">Which of the roots to show; null: all.</param>
    public string Format(Func<FunctionTraceNode, bool>? root = null)
    {
        var text = new StringBuilder();
        foreach (var (title, all) in Groups)
        {
            IReadOnlyList<FunctionTraceNode> roots = root is null ? all : [.. all.Where(root)];
            if (roots.Count == 0) continue;
            if (text.Length > 0) text.Append('\n');
            text.Append('[').Append(title).Append("]\n");
            Print(text, roots, 0);
        }

        return text.ToString();
    }

    /// <summary>The module tag of a function: "kvm", "kvm_intel", "kvm_amd", or null for the rest of the kernel.</summary>
    public static string? ModuleOf(string function)
    {
        lock (s_gate)
        {
            Assembly[] assemblies = AppDomain.CurrentDomain.GetAssemblies();
            if (s_modules is null || s_assemblies != assemblies.Length)
            {
                s_assemblies = assemblies.Length;
                s_modules = Scan(assemblies);
            }

            return s_modules.TryGetValue(function, out string? module) ? module : ByPrefix(function);
        }
    }

    /// <summary>Functions that are traced as a name only: KVM's, but for what KVM calls elsewhere in the kernel.</summary>
    private static string? ByPrefix(string function)
    {
        if (s_kernelWords.Any(w => function.Contains(w, StringComparison.Ordinal))) return null;
        string name = function.TrimStart('_');
        if (s_intelWords.Any(w => name.StartsWith(w, StringComparison.Ordinal))) return "kvm_intel";
        return s_amdWords.Any(w => name.StartsWith(w, StringComparison.Ordinal)) ? "kvm_amd" : "kvm";
    }

    private static readonly string[] s_kernelWords =
        ["kmem_cache_", "kvmalloc", "vzalloc", "vmalloc", "free_pages", "fpu_alloc", "kthread_", "synchronize_srcu", "user_return_notifier_"];

    private static readonly string[] s_intelWords = ["vmx_", "nested_vmx_", "free_nested"];
    private static readonly string[] s_amdWords = ["svm_", "nested_svm_", "sev_", "avic_"];

    private static void Print(StringBuilder text, IReadOnlyList<FunctionTraceNode> nodes, int depth)
    {
        for (int i = 0; i < nodes.Count; i++)
        {
            FunctionTraceNode node = nodes[i];
            int count = 1;
            while (i + 1 < nodes.Count && depth > 0 && nodes[i + 1].Same(node))
            {
                i++;
                count++;
            }

            text.Append(' ', depth * 2).Append(node.Name);
            if (ModuleOf(node.Name) is { } module) text.Append(" [").Append(module).Append(']');
            if (node.Children.Count > 0) text.Append(" {");
            if (count > 1) text.Append("   x").Append(count);
            if (depth == 0) text.Append("      <- cpu").Append(node.Cpu);
            text.Append('\n');
            if (node.Children.Count == 0) continue;
            Print(text, node.Children, depth + 1);
            text.Append(' ', depth * 2).Append("}\n");
        }
    }

    private static Dictionary<string, string?> Scan(Assembly[] assemblies)
    {
        var map = new Dictionary<string, string?>();
        foreach (Assembly assembly in assemblies)
        {
            if (assembly.GetName().Name?.StartsWith("Kvm.", StringComparison.Ordinal) != true) continue;
            Type?[] types;
            try
            {
                types = assembly.GetTypes();
            }
            catch (ReflectionTypeLoadException e)
            {
                types = e.Types;
            }

            foreach (Type? type in types)
            {
                if (type is null) continue;
                const BindingFlags all = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;
                foreach (MemberInfo member in type.GetMembers(all).Append(type))
                    foreach (KernelFunctionAttribute a in member.GetCustomAttributes<KernelFunctionAttribute>(false))
                        map[a.Name] = Module(a.File, assembly);
            }
        }

        return map;
    }

    private static string? Module(string? file, Assembly assembly)
    {
        if (file is null)
        {
            return assembly.GetName().Name switch
            {
                "Kvm.Arch.X86" => "kvm",
                "Kvm.Arch.X86.Vmx" => "kvm_intel",
                "Kvm.Arch.X86.Svm" => "kvm_amd",
                _ => null,
            };
        }

        if (file.StartsWith("arch/x86/kvm/vmx/", StringComparison.Ordinal)) return "kvm_intel";
        if (file.StartsWith("arch/x86/kvm/svm/", StringComparison.Ordinal)) return "kvm_amd";
        return file.StartsWith("arch/x86/kvm/", StringComparison.Ordinal) || file.StartsWith("virt/kvm/", StringComparison.Ordinal) ? "kvm" : null;
    }
}
