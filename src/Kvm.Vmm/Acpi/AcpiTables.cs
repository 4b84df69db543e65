using System.Buffers.Binary;
using System.Text;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Devices;
using Kvm.Vmm.Pci;

namespace Kvm.Vmm.Acpi;

/// <summary>
/// The tables by which an operating system that no firmware has started finds processors, interrupt controllers, the PCI bus, the serial port, and the registers that
/// reset the machine and switch it off. They lie from 0xe0000.
/// </summary>
/// <remarks>ACPI specification 6.4: "Root System Description Pointer", "Fixed ACPI Description Table", "Multiple APIC Description Table". There is no HPET.</remarks>
public static class AcpiTables
{
    /// <summary>Where the root pointer lies.</summary>
    public const ulong RootPointer = 0xe0000;
    /// <summary>PM1a event block, four bytes; control and timer follow at 4 and 8.</summary>
    public const ushort PowerPorts = 0x600;
    /// <summary>The system control interrupt.</summary>
    public const ushort SciInterrupt = 9;

    private const ulong End = 0xf0000;
    private const int HeaderSize = 36;
    private const uint LocalApic = 0xfee00000, IoApic = 0xfec00000;
    private const string Maker = "KVMCS ", Table = "KVMPC   ";

    /// <summary>Writes them all.</summary>
    /// <param name="ram">The guest's RAM.</param>
    /// <param name="processors">APIC ids are 0 to one less than this.</param>
    /// <param name="hasApics">There are local APICs and an I/O APIC.</param>
    /// <param name="devices">Further terms of the DSDT's <c>\_SB</c>.</param>
    /// <exception cref="BootException">They don't fit.</exception>
    public static void Install(GuestRam ram, int processors, bool hasApics, params ReadOnlySpan<byte[]> devices)
    {
        ArgumentNullException.ThrowIfNull(ram);
        ulong at = RootPointer + 64;
        ulong dsdt = Add(Finish("DSDT", 2, [.. Dsdt(Aml.Join([.. devices]))]));
        ulong facs = Add(Facs(), alignment: 64);
        var tables = new List<ulong> { Add(Finish("FACP", 6, Fadt((uint)facs, dsdt))) };
        if (hasApics) tables.Add(Add(Finish("APIC", 5, Madt(processors))));
        ulong rsdt = Add(Finish("RSDT", 1, [.. tables.SelectMany(static t => BitConverter.GetBytes((uint)t))]));
        ulong xsdt = Add(Finish("XSDT", 1, [.. tables.SelectMany(BitConverter.GetBytes)]));
        ram.Write(RootPointer, Rsdp((uint)rsdt, xsdt));

        ulong Add(byte[] table, ulong alignment = 16)
        {
            ulong address = (at + alignment - 1) & ~(alignment - 1);
            if (address + (ulong)table.Length > End) throw new BootException($"the ACPI tables of {processors} processors do not fit below 0x{End:x}");
            ram.Write(address, table);
            at = address + (ulong)table.Length;
            return address;
        }
    }

    /// <summary>A host bridge with its windows and interrupt routes, and COM1.</summary>
    /// <param name="routes">_PRT entries: device, pin (0 is INTA#), GSI.</param>
    public static byte[] Devices(IEnumerable<(int Device, int Pin, uint Gsi)> routes) => Aml.Join(
        Aml.Device("PCI0",
            Aml.Name("_HID", Aml.EisaId("PNP0A03")),
            Aml.Name("_UID", Aml.Integer(0)),
            new AcpiResources().Buses(0, 0).Ports(PciConfig.Address, 8).PortWindow(0, PciConfig.Address - 1).PortWindow(PciConfig.Address + 8, 0xffff)
                .MemoryWindow((uint)PciMemory.First, (uint)PciMemory.Last).ToCrs(),
            Aml.Name("_PRT", Aml.Package([.. routes.Select(static r =>
                Aml.Package(Aml.Integer((uint)r.Device << 16 | 0xffff), Aml.Integer((uint)r.Pin), Aml.Integer(0), Aml.Integer(r.Gsi)))]))),
        Aml.Device("COM1",
            Aml.Name("_HID", Aml.EisaId("PNP0501")),
            Aml.Name("_UID", Aml.Integer(1)),
            new AcpiResources().Ports(Serial16550.Com1, Serial16550.Ports).Irq((int)Serial16550.Com1Gsi).ToCrs()));

    /// <summary>A virtio device at a fixed place.</summary>
    public static byte[] VirtioMmioDevice(int number, uint address, uint size, uint gsi) => Aml.Device($"VR{number:X2}",
        Aml.Name("_HID", Aml.Text("LNRO0005")),
        Aml.Name("_UID", Aml.Integer((uint)number)),
        new AcpiResources().MemoryFixed(address, size).LevelInterrupt(gsi).ToCrs());

    /// <summary>Sleep type 0 of PM1 control is soft off.</summary>
    private static byte[] Dsdt(byte[] devices) => Aml.Join(
        Aml.Scope("\\_SB", devices),
        Aml.Name("\\_S5", Aml.Package(Aml.Integer(0), Aml.Integer(0), Aml.Integer(0), Aml.Integer(0))));

    private static byte[] Fadt(uint facs, ulong dsdt)
    {
        const uint flags = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10; // WBINVD, C1, no buttons, no RTC wake, reset register
        var table = new byte[276 - HeaderSize];
        Put32(36, facs);
        Put32(40, (uint)dsdt);
        Put16(46, SciInterrupt);
        Put32(48, PowerManagement.ApmPort);
        table[52 - HeaderSize] = PowerManagement.AcpiEnable;
        table[53 - HeaderSize] = PowerManagement.AcpiDisable;
        Put32(56, PowerPorts);
        Put32(64, PowerPorts + 4);
        Put32(76, PowerPorts + 8);
        table[88 - HeaderSize] = 4; // PM1 event length
        table[89 - HeaderSize] = 2; // PM1 control length
        table[91 - HeaderSize] = 4; // timer length
        Put16(96, 0xffff);  // no C2
        Put16(98, 0xffff);  // no C3
        Put16(109, 1 << 0 | 1 << 1 | 1 << 2); // ISA devices, an 8042, no VGA
        Put32(112, flags);
        PutPort(116, 8, SystemControl.ResetControl);
        table[128 - HeaderSize] = 0x06;
        BinaryPrimitives.WriteUInt64LittleEndian(At(140), dsdt);
        PutPort(148, 32, PowerPorts);
        PutPort(172, 16, PowerPorts + 4);
        PutPort(208, 32, PowerPorts + 8);
        return table;

        Span<byte> At(int offset) => table.AsSpan(offset - HeaderSize);
        void Put16(int offset, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(At(offset), value);
        void Put32(int offset, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(At(offset), value);
        void PutPort(int offset, byte bits, ushort port) // generic address: I/O space, width, offset, access size, address
        {
            At(offset)[0] = 1;
            At(offset)[1] = bits;
            At(offset)[3] = (byte)(bits == 8 ? 1 : bits == 16 ? 2 : 3);
            BinaryPrimitives.WriteUInt64LittleEndian(At(offset + 4), port);
        }
    }

    /// <summary>Processors, the I/O APIC, and the ISA interrupts that PCI's lines and the SCI use: level-triggered, active high.</summary>
    private static byte[] Madt(int processors)
    {
        var table = new List<byte>([.. BitConverter.GetBytes(LocalApic), .. BitConverter.GetBytes(1)]); // with 8259s
        for (int i = 0; i < processors; i++) table.AddRange([0, 8, (byte)i, (byte)i, 1, 0, 0, 0]);
        table.AddRange([1, 12, 0, 0, .. BitConverter.GetBytes(IoApic), 0, 0, 0, 0]);
        foreach (byte irq in (ReadOnlySpan<byte>)[5, (byte)SciInterrupt, 10, 11])
            table.AddRange([2, 10, 0, irq, irq, 0, 0, 0, 0x0d, 0]);
        table.AddRange([4, 6, 0xff, 0, 0, 1]); // LINT1 of all is NMI
        return [.. table];
    }

    private static byte[] Facs()
    {
        var table = new byte[64];
        "FACS"u8.CopyTo(table);
        table[4] = 64;
        table[32] = 2; // version
        return table;
    }

    private static byte[] Rsdp(uint rsdt, ulong xsdt)
    {
        var pointer = new byte[36];
        "RSD PTR "u8.CopyTo(pointer);
        Encoding.ASCII.GetBytes(Maker, pointer.AsSpan(9));
        pointer[15] = 2; // revision
        BinaryPrimitives.WriteUInt32LittleEndian(pointer.AsSpan(16), rsdt);
        pointer[20] = 36;
        BinaryPrimitives.WriteUInt64LittleEndian(pointer.AsSpan(24), xsdt);
        pointer[8] = Checksum(pointer.AsSpan(0, 20));
        pointer[32] = Checksum(pointer);
        return pointer;
    }

    private static byte[] Finish(string signature, byte revision, byte[] body)
    {
        var table = new byte[HeaderSize + body.Length];
        Encoding.ASCII.GetBytes(signature, table);
        BinaryPrimitives.WriteInt32LittleEndian(table.AsSpan(4), table.Length);
        table[8] = revision;
        Encoding.ASCII.GetBytes(Maker + Table, table.AsSpan(10));
        table[24] = 1;
        Encoding.ASCII.GetBytes("KVMC", table.AsSpan(28));
        table[32] = 1;
        body.CopyTo(table, HeaderSize);
        table[9] = Checksum(table);
        return table;
    }

    /// <summary>What makes the sum 0.</summary>
    private static byte Checksum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte value in bytes) sum += value;
        return (byte)-sum;
    }
}
