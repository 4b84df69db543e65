using System.Reflection;
using System.Text.RegularExpressions;
using Kvm.Conformance.Tests.House;
using Kvm.Core.Tracing;

namespace Kvm.Conformance.Tests.Trees;

/// <summary>Kernel functions that the model has.</summary>
internal static partial class ModelledFunctions
{
    private static readonly string[] projects = ["Kvm.Core", "Kvm.Arch.X86", "Kvm.Arch.X86.Vmx", "Kvm.Arch.X86.Svm"];

    /// <summary>Functions that the model's trace shows: named where the trace is written.</summary>
    public static IReadOnlySet<string> Traced { get; } = ScanSources();

    /// <summary>Functions that a method of the model stands for, traced or not.</summary>
    public static IReadOnlySet<string> Names { get; } = ScanAttributes();

    private static HashSet<string> ScanAttributes()
    {
        HashSet<string> names = [.. Traced];
        foreach (string assembly in projects)
        {
            const BindingFlags all = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;
            foreach (Type type in Assembly.Load(assembly).GetTypes())
                foreach (MemberInfo member in type.GetMembers(all).Append(type))
                    foreach (KernelFunctionAttribute attribute in member.GetCustomAttributes<KernelFunctionAttribute>(false))
                        names.Add(attribute.Name);
        }
        return names;
    }

    private static HashSet<string> ScanSources() =>
    [
        .. projects.SelectMany(static p => Repository.SourceFiles(Path.Combine("src", p))).SelectMany(static f => TraceCall().Matches(File.ReadAllText(f)))
            .Select(static m => m.Groups[1].Value),
    ];

    [GeneratedRegex("""FunctionTrace\.(?:Enter|Leaf)\("([^"]+)"\)""")]
    private static partial Regex TraceCall();
}
