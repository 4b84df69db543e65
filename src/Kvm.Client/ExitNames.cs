using System.Collections.Frozen;
using System.Reflection;
using Kvm.Abi;

namespace Kvm.Client;

/// <summary>The names of exit reasons.</summary>
public static class ExitNames
{
    /// <summary>Details of an exit share the prefix with reasons; they are not reasons.</summary>
    private static readonly string[] s_details = ["KVM_EXIT_IO_", "KVM_EXIT_HYPERV_", "KVM_EXIT_XEN_"];

    private static readonly FrozenDictionary<int, string> s_names = typeof(Uapi).GetFields(BindingFlags.Public | BindingFlags.Static)
        .Where(f => f.Name.StartsWith("KVM_EXIT_", StringComparison.Ordinal) && f.FieldType == typeof(int) && !s_details.Any(d => f.Name.StartsWith(d, StringComparison.Ordinal)))
        .ToFrozenDictionary(f => (int)f.GetRawConstantValue()!, f => f.Name);

    /// <summary><c>KVM_EXIT_IO</c> and the like; the number when Linux 6.1 has no such reason.</summary>
    public static string Of(int reason) => s_names.TryGetValue(reason, out string? name) ? name : $"exit reason {reason}";
}
