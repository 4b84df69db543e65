using System.Reflection;
using Kvm.Core.Tracing;

namespace Kvm.Conformance.Tests.Trees;

/// <summary>Kernel functions that a method of the model stands for.</summary>
internal static class ModelledFunctions
{
    /// <summary>Names of <see cref="KernelFunctionAttribute"/> in the projects that model the kernel.</summary>
    public static IReadOnlySet<string> Names { get; } = Scan();

    private static HashSet<string> Scan()
    {
        HashSet<string> names = [];
        foreach (string assembly in (string[])["Kvm.Core", "Kvm.Arch.X86", "Kvm.Arch.X86.Vmx", "Kvm.Arch.X86.Svm"])
        {
            const BindingFlags all = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;
            foreach (Type type in Assembly.Load(assembly).GetTypes())
                foreach (MemberInfo member in type.GetMembers(all).Append(type))
                    foreach (KernelFunctionAttribute attribute in member.GetCustomAttributes<KernelFunctionAttribute>(false))
                        names.Add(attribute.Name);
        }
        return names;
    }
}
