using System.Buffers.Binary;
using System.Text;
using Kvm.Client;
using Kvm.Vmm.Acpi;
using Kvm.Vmm.Boot;

namespace Kvm.Vmm.Tests;

/// <summary>AML bytes as the ACPI specification encodes them, and the tables as an operating system walks them.</summary>
public class AcpiTests
{
    [Theory]
    [InlineData(0, "00")]
    [InlineData(1, "01")]
    [InlineData(2, "0A02")]
    [InlineData(0xff, "0AFF")]
    [InlineData(0x100, "0B0001")]
    [InlineData(0xffff, "0BFFFF")]
    [InlineData(0x10000, "0C00000100")]
    [InlineData(0xffffffff, "0CFFFFFFFF")]
    [InlineData(0x100000000, "0E0000000001000000")]
    public void Integers_take_their_shortest_form(ulong value, string bytes) => Convert.ToHexString(Aml.Integer(value)).Should().Be(bytes);

    [Theory]
    [InlineData("PNP0A03", "0C41D00A03")]
    [InlineData("PNP0501", "0C41D00501")]
    public void EISA_ids_are_compressed(string id, string bytes) => Convert.ToHexString(Aml.EisaId(id)).Should().Be(bytes);

    /// <summary>The package length counts its own bytes: one to 0x3f, two to 0xfff, three beyond.</summary>
    [Theory]
    [InlineData(62 - 2, "3F")]      // op, length | 0x0a n, data
    [InlineData(63 - 2, "4104")]
    [InlineData(4093 - 3, "4FFF")]
    [InlineData(4094 - 3, "810001")]
    public void Package_length_has_one_to_four_bytes(int data, string length)
    {
        byte[] buffer = Aml.Buffer(new byte[data]);
        Convert.ToHexString(buffer.AsSpan(1, length.Length / 2)).Should().Be(length);
    }

    [Fact]
    public void Names_are_padded_and_may_begin_at_the_root() =>
        Encoding.ASCII.GetString(Aml.Name("\\_S5", Aml.Integer(0))).Should().Be("\b\\_S5_\0");

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    [InlineData(255)]
    public void Tables_are_found_from_the_root_pointer_and_their_sums_are_0(int processors)
    {
        using var kvm = KvmSystem.Open(KvmBackend.Model());
        using Vm vm = kvm.CreateVm();
        using var ram = new GuestRam(vm, 2 << 20);
        AcpiTables.Install(ram, processors, hasApics: true, AcpiTables.Devices([(2, 0, 10)]));

        ReadOnlySpan<byte> pointer = ram.At(AcpiTables.RootPointer, 36);
        pointer[..8].SequenceEqual("RSD PTR "u8).Should().BeTrue();
        Sum(pointer[..20]).Should().Be(0);
        Sum(pointer).Should().Be(0);
        byte[] xsdt = Table(ram, BinaryPrimitives.ReadUInt64LittleEndian(pointer[24..]), "XSDT"), rsdt = Table(ram, BinaryPrimitives.ReadUInt32LittleEndian(pointer[16..]), "RSDT");
        (xsdt.Length - 36).Should().Be(2 * (rsdt.Length - 36));
        byte[] fadt = Table(ram, BitConverter.ToUInt64(xsdt, 36), "FACP"), madt = Table(ram, BitConverter.ToUInt64(xsdt, 44), "APIC");
        BitConverter.ToUInt32(rsdt, 36).Should().Be((uint)BitConverter.ToUInt64(xsdt, 36));

        byte[] dsdt = Table(ram, BitConverter.ToUInt64(fadt, 140), "DSDT");
        Encoding.Latin1.GetString(dsdt).Should().Contain("_S5_").And.Contain("PCI0").And.Contain("COM1").And.Contain("_PRT");
        ram.At(BitConverter.ToUInt32(fadt, 36), 4).SequenceEqual("FACS"u8).Should().BeTrue();
        (BitConverter.ToUInt32(fadt, 36) % 64).Should().Be(0);
        BitConverter.ToUInt32(fadt, 64).Should().Be(0x604, "PM1a control");
        (fadt[116], BitConverter.ToUInt64(fadt, 120), fadt[128]).Should().Be((1, 0xcf9, 6), "the reset register: a port, and what to write");

        var apics = new List<byte>();
        for (int at = 44; at < madt.Length; at += madt[at + 1])
        {
            if (madt[at] == 0) apics.Add(madt[at + 3]);
        }

        apics.Should().Equal(Enumerable.Range(0, processors).Select(static i => (byte)i));
    }

    private static byte[] Table(GuestRam ram, ulong address, string signature)
    {
        byte[] table = ram.At(address, ram.Read<int>(address + 4)).ToArray();
        Encoding.ASCII.GetString(table, 0, 4).Should().Be(signature);
        Sum(table).Should().Be(0, signature);
        return table;
    }

    private static byte Sum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte value in bytes) sum += value;
        return sum;
    }
}
