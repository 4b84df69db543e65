using System.Xml.Linq;

namespace Kvm.Conformance.Tests.House;

/// <summary>Dependencies between the projects point one way (docs/ARCHITECTURE.md).</summary>
public class ProjectDependencies
{
    /// <summary>Everything a project may reference directly.</summary>
    private static readonly Dictionary<string, string[]> Allowed = new()
    {
        ["Kvm.Abi"] = [],
        ["Kvm.Emulator"] = [],
        ["Kvm.Core"] = ["Kvm.Abi"],
        ["Kvm.Arch.X86"] = ["Kvm.Core", "Kvm.Emulator"],
        ["Kvm.Arch.X86.Vmx"] = ["Kvm.Arch.X86"],
        ["Kvm.Arch.X86.Svm"] = ["Kvm.Arch.X86"],
        // the model back end is one adapter class
        ["Kvm.Client"] = ["Kvm.Abi", "Kvm.Arch.X86.Vmx", "Kvm.Arch.X86.Svm"],
        ["Kvm.Vmm"] = ["Kvm.Client"],
        ["Kvm.Conformance"] = ["Kvm.Client"],
        ["Kvm.Tool"] = ["Kvm.Vmm", "Kvm.Conformance"],
    };

    public static IEnumerable<object[]> Projects => Allowed.Keys.Select(k => new object[] { k });

    [Theory]
    [MemberData(nameof(Projects))]
    public void References_only_what_the_house_allows(string project)
    {
        References(project).Should().BeSubsetOf(Allowed[project]);
    }

    [Fact]
    public void Every_project_under_src_is_in_the_table()
    {
        Directory.GetDirectories(Repository.PathOf("src")).Select(Path.GetFileName)
            .Should().BeEquivalentTo(Allowed.Keys);
    }

    /// <summary>A compiled reference that sneaks in through a transitive project shows in the assembly's manifest.</summary>
    [Fact]
    public void The_emulator_knows_nothing_of_KVM_and_Core_nothing_of_the_emulator()
    {
        ReferencedAssemblies("Kvm.Emulator").Should().NotContain(n => n.StartsWith("Kvm.", StringComparison.Ordinal));
        ReferencedAssemblies("Kvm.Core").Should().NotContain("Kvm.Emulator");
        ReferencedAssemblies("Kvm.Abi").Should().NotContain(n => n.StartsWith("Kvm.", StringComparison.Ordinal));
    }

    private static IEnumerable<string> References(string project) =>
        XDocument.Load(Repository.PathOf("src", project, project + ".csproj")).Descendants("ProjectReference")
            .Select(r => Path.GetFileNameWithoutExtension(r.Attribute("Include")!.Value.Replace('\\', '/')));

    private static IEnumerable<string> ReferencedAssemblies(string name) =>
        System.Reflection.Assembly.Load(name).GetReferencedAssemblies().Select(a => a.Name!);
}
