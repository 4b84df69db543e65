using System.Reflection;
using System.Text;
using Kvm.Core.Tracing;

namespace Kvm.Conformance.Tests.House;

/// <summary>docs/MAP.md (kernel function → C# method) is generated from the attributes; this test regenerates it and fails on a difference.</summary>
public class KernelMap
{
    private static readonly string[] Assemblies = ["Kvm.Core", "Kvm.Arch.X86", "Kvm.Arch.X86.Vmx", "Kvm.Arch.X86.Svm"];

    [Fact]
    public void Docs_MAP_is_what_the_attributes_say()
    {
        string path = Repository.PathOf("docs", "MAP.md");
        string expected = Generate();
        if (Environment.GetEnvironmentVariable("KVM_REGENERATE") == "1")
            File.WriteAllText(path, expected);

        File.ReadAllText(path).Should().Be(expected, "docs/MAP.md is generated: run the tests once with KVM_REGENERATE=1");
    }

    /// <summary>A kernel name on two methods would make the map and the function trace ambiguous within one module.</summary>
    [Fact]
    public void Every_kernel_function_names_its_file()
    {
        Rows().Where(r => string.IsNullOrEmpty(r.Attribute.File)).Select(r => r.Attribute.Name + " on " + r.Method).Should().BeEmpty();
    }

    private static string Generate()
    {
        var text = new StringBuilder();
        text.Append("# Kernel function → C# method\n\n");
        text.Append("Generated from the `[KernelFunction]` attributes (a test regenerates this page and fails on a difference).\n");
        var rows = Rows().ToList();
        text.Append($"{rows.Count} entries.\n");
        foreach (var file in rows.GroupBy(r => r.Attribute.File ?? "").OrderBy(g => g.Key, StringComparer.Ordinal))
        {
            text.Append($"\n## {file.Key}\n\n| kernel function | C# | formerly |\n|---|---|---|\n");
            foreach (var row in file.OrderBy(r => r.Attribute.Name, StringComparer.Ordinal).ThenBy(r => r.Method, StringComparer.Ordinal))
                text.Append($"| `{row.Attribute.Name}` | `{row.Method}` | {(row.Attribute.Formerly is { } f ? $"`{f}`" : "")} |\n");
        }
        return text.ToString();
    }

    private static IEnumerable<(KernelFunctionAttribute Attribute, string Method)> Rows() =>
        from assembly in Assemblies
        from type in Assembly.Load(assembly).GetTypes()
        from member in type.GetMembers(BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly).Append(type)
        from attribute in member.GetCustomAttributes<KernelFunctionAttribute>(inherit: false)
        select (attribute, member == (MemberInfo)type ? Name(type) : Name(type) + "." + member.Name);

    private static string Name(Type type) => type.FullName!.Replace('+', '.');
}
