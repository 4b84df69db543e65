using System.Reflection;
using System.Text.Json;

namespace Kvm.Abi.Tests;

/// <summary>What the C compiler says of the Linux 6.1 headers (Data/uapi-6.1.json), and what reflection says of the assembly.</summary>
internal static class Header
{
    public static readonly JsonElement Root = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "Data", "uapi-6.1.json"))).RootElement;

    private static readonly Dictionary<string, FieldInfo> s_fields =
        typeof(Uapi).GetFields(BindingFlags.Public | BindingFlags.Static).ToDictionary(f => f.Name);

    private static readonly Dictionary<string, Type> s_types =
        typeof(Uapi).Assembly.GetExportedTypes().Where(t => !t.IsNested).ToDictionary(t => t.Name);

    /// <summary>The value of <c>Uapi.name</c>; null when the code lacks it.</summary>
    public static object? Constant(string name) => s_fields.GetValueOrDefault(name)?.GetValue(null);

    public static Type? Type(string name) => s_types.GetValueOrDefault(name);

    public static IEnumerable<object[]> Names(string section) => Root.GetProperty(section).EnumerateObject().Select(p => new object[] { p.Name });

    public static JsonElement Entry(string section, string name) => Root.GetProperty(section).GetProperty(name);
}
