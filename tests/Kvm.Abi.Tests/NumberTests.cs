using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Kvm.Abi.Tests;

/// <summary>Every ioctl number, constant, enumerator, string and macro of the headers.</summary>
public partial class NumberTests
{
    public static IEnumerable<object[]> Ioctls => Header.Names("ioctls");

    public static IEnumerable<object[]> Constants => Header.Names("constants");

    public static IEnumerable<object[]> Strings => Header.Names("strings");

    public static IEnumerable<object[]> Enums => Header.Names("enums");

    /// <summary>All but the include guards, which are not ABI.</summary>
    public static IEnumerable<object[]> OtherMacros => Header.Names("other_macros").Where(n => !((string)n[0]).EndsWith("_H", StringComparison.Ordinal));

    [Theory, MemberData(nameof(Ioctls))]
    public void Ioctl_has_the_header_s_number(string name)
    {
        JsonElement entry = Header.Entry("ioctls", name);
        Header.Constant(name).Should().Be(entry.GetProperty("value").GetUInt32());

        var number = new IoctlNumber((uint)Header.Constant(name)!);
        number.Type.Should().Be(Uapi.KVMIO);
        number.Nr.Should().Be(Convert.ToUInt32(entry.GetProperty("nr").GetString()![2..], 16));
        number.Size.Should().Be(entry.GetProperty("size").GetUInt32());
        number.Direction.Should().Be(entry.GetProperty("dir").GetString() switch
        {
            "none" => Uapi._IOC_NONE,
            "r" => Uapi._IOC_READ,
            "w" => Uapi._IOC_WRITE,
            _ => Uapi._IOC_READ | Uapi._IOC_WRITE,
        });
    }

    [Theory, MemberData(nameof(Ioctls))]
    public void Ioctl_that_x86_handles_has_a_name(string name)
    {
        if (Header.Entry("ioctls", name).GetProperty("x86_fd").GetArrayLength() == 0) return;
        IoctlNames.Of((uint)Header.Constant(name)!).Should().Be(name);
    }

    [Fact]
    public void Unknown_ioctl_is_named_by_its_parts() =>
        IoctlNames.Of(Uapi._IOC(Uapi._IOC_READ, 0xAE, 0xfe, 12)).Should().Be("_IOR(0xae, 0xfe, 12)");

    [Fact]
    public void Composing_gives_the_constants()
    {
        Uapi._IO((uint)Uapi.KVMIO, 0x80).Should().Be(Uapi.KVM_RUN);
        Uapi._IOR<kvm_regs>((uint)Uapi.KVMIO, 0x81).Should().Be(Uapi.KVM_GET_REGS);
        Uapi._IOW<kvm_sregs>((uint)Uapi.KVMIO, 0x84).Should().Be(Uapi.KVM_SET_SREGS);
        Uapi._IOWR<kvm_translation>((uint)Uapi.KVMIO, 0x85).Should().Be(Uapi.KVM_TRANSLATE);
    }

    [Theory, MemberData(nameof(Constants))]
    public void Constant_has_the_header_s_value(string name)
    {
        object? value = Header.Constant(name);
        value.Should().NotBeNull($"{name} exists in the header");
        Int128 expected = Int128.Parse(Header.Entry("constants", name).GetProperty("value").GetRawText(), CultureInfo.InvariantCulture);
        Wide(value!).Should().Be(expected);
    }

    [Theory, MemberData(nameof(Strings))]
    public void String_is_the_header_s(string name) =>
        Header.Constant(name).Should().Be(Header.Entry("strings", name).GetString()!.Trim('"').Replace("\\0", "\0"));

    [Theory, MemberData(nameof(Enums))]
    public void Enum_has_the_header_s_members(string name)
    {
        foreach (JsonProperty member in Header.Entry("enums", name).EnumerateObject().Where(m => m.Name != "header"))
        {
            Wide(Header.Constant(member.Name)!).Should().Be(member.Value.GetInt32(), "C makes the enumerator {0} global", member.Name);
            if (name == "anon0") continue; // the header gives it no name
            Type? type = Header.Type(name);
            type.Should().NotBeNull($"enum {name} exists in the header");
            Convert.ToInt64(Enum.Parse(type!, member.Name), CultureInfo.InvariantCulture).Should().Be(member.Value.GetInt32(), member.Name);
        }
    }

    [Theory, MemberData(nameof(OtherMacros))]
    public void Macro_is_there(string name)
    {
        string definition = Header.Entry("other_macros", name).GetString()!;
        if (definition.StartsWith("_IO", StringComparison.Ordinal))
        {
            Uapi.IoctlsWithoutNumberOnX86.Should().Contain(name, definition);
            return;
        }

        object? value = Header.Constant(name);
        value.Should().NotBeNull($"{name} exists in the header");
        if (definition.Length == 0) value.Should().Be(true);
        else if (definition is ['E', ..]) value.Should().Be((int)Enum.Parse<Errno>(definition));
        else if (definition is ['{', ..]) CheckTable(value!, definition);
    }

    [Fact]
    public void Computed_macros_have_their_values()
    {
        Uapi.KVM_COALESCED_MMIO_MAX.Should().Be((4096 - Layout.SizeOf(typeof(kvm_coalesced_mmio_ring))) / Layout.SizeOf(typeof(kvm_coalesced_mmio)));
        Uapi.KVM_ASYNC_PF_VEC_MASK.Should().Be(0xff);
        Uapi.KVM_MAP_GPA_RANGE_ENC_STAT(1).Should().Be((ulong)Uapi.KVM_MAP_GPA_RANGE_ENCRYPTED);
        Uapi.KVM_VM_TYPE_ARM_IPA_SIZE(0x128).Should().Be(0x28);
        Uapi.KVM_S390_INT_IO(1, 2, 3, 4).Should().Be(4 | (3 << 16) | (2 << 18) | (1 << 26));
        Uapi.SVM_VMGEXIT_TERM_REASON(0x15, 0x123).Should().Be(0x235);
    }

    [Fact]
    public void Every_function_macro_has_a_method()
    {
        foreach (JsonProperty macro in Header.Root.GetProperty("function_macros").EnumerateObject())
            typeof(Uapi).GetMethod(macro.Name.Split('(')[0]).Should().NotBeNull(macro.Name);
    }

    private static void CheckTable(object table, string definition)
    {
        IEnumerable<(Int128 Value, string Text)> actual = table switch
        {
            IReadOnlyList<KeyValuePair<ulong, string>> wide => wide.Select(p => ((Int128)p.Key, p.Value)),
            IReadOnlyList<KeyValuePair<uint, string>> narrow => narrow.Select(p => ((Int128)p.Key, p.Value)),
            _ => throw new InvalidOperationException(table.GetType().Name),
        };
        Int128 minusOne = ulong.MaxValue;
        IEnumerable<(Int128, string)> expected = Row().Matches(definition).Select(m =>
        {
            Int128 sum = m.Groups[1].Value.Split('+').Select(n => Wide(Header.Constant(n.Trim())!)).Aggregate((a, b) => a + b);
            return (sum == -1 ? minusOne : sum, m.Groups[2].Value);
        });
        actual.Should().Equal(expected);
    }

    private static Int128 Wide(object value) => value switch
    {
        int i => i,
        uint u => u,
        ulong l => l,
        _ => throw new InvalidOperationException(value.GetType().Name),
    };

    [GeneratedRegex("""\{\s*([\w\s+]+?),\s*"([^"]*)"\s*\}""")]
    private static partial Regex Row();
}
