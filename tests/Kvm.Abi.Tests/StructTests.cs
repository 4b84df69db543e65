using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.Json;

namespace Kvm.Abi.Tests;

/// <summary>Every structure of the headers: size, and offset and size of every field, nested ones included.</summary>
public class StructTests
{
    public static IEnumerable<object[]> Structs => Header.Names("structs");

    [Theory, MemberData(nameof(Structs))]
    public void Size_is_the_header_s(string name)
    {
        Type? type = Header.Type(name);
        type.Should().NotBeNull($"struct {name} exists in the header");
        Layout.SizeOf(type!).Should().Be(Header.Entry("structs", name).GetProperty("size").GetInt32());
    }

    [Theory, MemberData(nameof(Structs))]
    public void Fields_lie_where_the_header_puts_them(string name)
    {
        Type type = Header.Type(name)!;
        foreach (JsonElement field in Header.Entry("structs", name).GetProperty("fields").EnumerateArray())
            Check(type, field);
    }

    /// <summary>The reverse: no public field that the header does not have.</summary>
    [Theory, MemberData(nameof(Structs))]
    public void Has_no_field_of_its_own(string name)
    {
        var known = Header.Entry("structs", name).GetProperty("fields").EnumerateArray().Select(f => f.GetProperty("name").GetString()!.Replace("[]", "")).ToHashSet();
        Walk(Header.Type(name)!, "");

        void Walk(Type type, string prefix)
        {
            foreach (FieldInfo field in type.GetFields(BindingFlags.Public | BindingFlags.Instance))
            {
                known.Should().Contain(prefix + field.Name);
                Type element = Element(field.FieldType);
                if (element.IsNested) Walk(element, prefix + field.Name + ".");
            }
        }
    }

    private static void Check(Type type, JsonElement field)
    {
        string path = field.GetProperty("name").GetString()!;
        int offset = field.GetProperty("off").GetInt32();
        string because = $"{type.Name}.{path}";
        if (path.Split('.')[^1].StartsWith("__empty_", StringComparison.Ordinal)) return; // the C macro's zero-sized stand-in before a flexible array
        if (type.GetCustomAttributes<FlexibleArrayAttribute>().FirstOrDefault(a => a.Name == path) is { } flexible)
        {
            flexible.Offset.Should().Be(offset, because);
            Layout.SizeOf(flexible.ElementType).Should().Be(field.GetProperty("elem_size").GetInt32(), because);
            return;
        }

        if (field.TryGetProperty("size", out JsonElement zero) && zero.GetInt32() == 0)
        {
            type.GetCustomAttributes<FlexibleArrayAttribute>().Should().Contain(a => a.Name.StartsWith(path + ".", StringComparison.Ordinal), because);
            return;
        }

        (int at, Type last, MemberInfo member) = Resolve(type, path);
        at.Should().Be(offset, because);
        if (field.TryGetProperty("bits", out JsonElement bits))
            CheckBits(last, (PropertyInfo)member, offset - at + OffsetInside(type, path), field.GetProperty("bit_off").GetInt32(), bits.GetInt32(), because);
        else
            Layout.SizeOf(((FieldInfo)member).FieldType).Should().Be(field.GetProperty("size").GetInt32(), because);
    }

    /// <summary>Follows a path such as <c>redirtbl[].fields.vector</c>; array elements resolve to element 0.</summary>
    private static (int Offset, Type Owner, MemberInfo Member) Resolve(Type type, string path)
    {
        int offset = 0;
        MemberInfo? member = null;
        Type owner = type;
        foreach (string part in path.Replace("[]", "").Split('.'))
        {
            if (member is FieldInfo previous) owner = Element(previous.FieldType);
            member = owner.GetField(part) ?? (MemberInfo?)owner.GetProperty(part);
            member.Should().NotBeNull($"{type.Name}.{path} exists in the header");
            offset += member is FieldInfo f ? Layout.OffsetOf(owner, f) : BitByte(owner, (PropertyInfo)member!);
        }

        return (offset, owner, member!);
    }

    private static Type Element(Type type)
    {
        while (type.GetCustomAttribute<InlineArrayAttribute>() is not null)
            type = type.GetFields(BindingFlags.NonPublic | BindingFlags.Instance)[0].FieldType;
        return type;
    }

    private static int OffsetInside(Type type, string path)
    {
        (_, Type owner, MemberInfo member) = Resolve(type, path);
        return BitByte(owner, (PropertyInfo)member);
    }

    private static int BitByte(Type owner, PropertyInfo property) => Bytes(owner, property, 0xff).AsSpan().IndexOfAnyExcept((byte)0);

    private static void CheckBits(Type owner, PropertyInfo property, int at, int bit, int count, string because)
    {
        byte[] bytes = Bytes(owner, property, 0xff);
        bytes[at].Should().Be((byte)(((1 << count) - 1) << bit), because);
        bytes.Count(b => b != 0).Should().Be(1, because);
    }

    private static byte[] Bytes(Type owner, PropertyInfo property, byte value)
    {
        object boxed = Activator.CreateInstance(owner)!;
        property.SetValue(boxed, value);
        var result = new byte[Layout.SizeOf(owner)];
        typeof(StructTests).GetMethod(nameof(Copy), BindingFlags.NonPublic | BindingFlags.Static)!.MakeGenericMethod(owner).Invoke(null, [boxed, result]);
        return result;
    }

    private static unsafe void Copy<T>(object boxed, byte[] to) where T : unmanaged
    {
        var value = (T)boxed;
        new ReadOnlySpan<byte>(&value, sizeof(T)).CopyTo(to);
    }
}
