using System.Buffers.Binary;
using System.Text;

namespace Kvm.Vmm.Acpi;

/// <summary>Terms of the ACPI Machine Language, each as its bytes: what a DSDT is put together from.</summary>
/// <remarks>ACPI specification, "AML Byte Stream Byte Values", "Term Objects Encoding".</remarks>
public static class Aml
{
    private const byte ZeroOp = 0x00, OneOp = 0x01, NameOp = 0x08, BytePrefix = 0x0a, WordPrefix = 0x0b, DWordPrefix = 0x0c, StringPrefix = 0x0d, QWordPrefix = 0x0e;
    private const byte ScopeOp = 0x10, BufferOp = 0x11, PackageOp = 0x12, ExtendedPrefix = 0x5b, DeviceOp = 0x82;

    /// <summary>A number in its shortest form.</summary>
    public static byte[] Integer(ulong value)
    {
        if (value == 0) return [ZeroOp];
        if (value == 1) return [OneOp];
        var bytes = new byte[9];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(1), value);
        (byte prefix, int size) = value switch
        {
            <= byte.MaxValue => (BytePrefix, 1),
            <= ushort.MaxValue => (WordPrefix, 2),
            <= uint.MaxValue => (DWordPrefix, 4),
            _ => (QWordPrefix, 8),
        };
        bytes[0] = prefix;
        return bytes[..(1 + size)];
    }

    /// <summary>A string of ASCII characters.</summary>
    public static byte[] Text(string value) => [StringPrefix, .. Encoding.ASCII.GetBytes(value), 0];

    /// <summary>An EISA id such as PNP0A03: three letters in five bits each, four hexadecimal digits, high byte first.</summary>
    public static byte[] EisaId(string id)
    {
        ArgumentNullException.ThrowIfNull(id);
        if (id.Length != 7) throw new ArgumentException($"'{id}': an EISA id has three letters and four digits", nameof(id));
        int letters = (id[0] - '@') << 10 | (id[1] - '@') << 5 | (id[2] - '@');
        ushort number = Convert.ToUInt16(id[3..], 16);
        return [DWordPrefix, (byte)(letters >> 8), (byte)letters, (byte)(number >> 8), (byte)number];
    }

    /// <summary>Bytes as a buffer.</summary>
    public static byte[] Buffer(ReadOnlySpan<byte> bytes) => WithLength([BufferOp], [.. Integer((ulong)bytes.Length), .. bytes]);

    /// <summary>At most 255 elements.</summary>
    public static byte[] Package(params byte[][] elements) => WithLength([PackageOp], [(byte)elements.Length, .. Join(elements)]);

    /// <summary>A named object of the enclosing scope.</summary>
    public static byte[] Name(string name, byte[] value) => [NameOp, .. NameString(name), .. value];

    /// <summary>Opens a scope that exists: <c>\_SB</c>.</summary>
    public static byte[] Scope(string name, params byte[][] terms) => WithLength([ScopeOp], [.. NameString(name), .. Join(terms)]);

    /// <summary>A device with its objects.</summary>
    public static byte[] Device(string name, params byte[][] terms) => WithLength([ExtendedPrefix, DeviceOp], [.. NameString(name), .. Join(terms)]);

    /// <summary>Terms one after the other.</summary>
    public static byte[] Join(params byte[][] terms) => [.. terms.SelectMany(static t => t)];

    /// <summary>One segment of up to four characters, with the root before it or not.</summary>
    private static byte[] NameString(string name)
    {
        string segment = name.TrimStart('\\');
        if (segment.Length is 0 or > 4) throw new ArgumentException($"'{name}': a name has one to four characters", nameof(name));
        byte[] bytes = Encoding.ASCII.GetBytes(segment.PadRight(4, '_'));
        return name[0] == '\\' ? [(byte)'\\', .. bytes] : bytes;
    }

    /// <summary>The length counts itself: one byte up to 63, else four bits and up to three further bytes.</summary>
    private static byte[] WithLength(byte[] op, byte[] body)
    {
        if (body.Length + 1 <= 0x3f) return [.. op, (byte)(body.Length + 1), .. body];
        int more = 1;
        while (body.Length + 1 + more >= 1 << (4 + 8 * more)) more++;
        int length = body.Length + 1 + more;
        var bytes = new List<byte>(op) { (byte)(more << 6 | length & 0xf) };
        for (int i = 0; i < more; i++) bytes.Add((byte)(length >> (4 + 8 * i)));
        bytes.AddRange(body);
        return [.. bytes];
    }
}
