using System.Buffers.Binary;
using Kvm.Vmm.Bus;
using Kvm.Vmm.Pci;

namespace Kvm.Vmm.Devices;

/// <summary>PCI configuration mechanism #1, ports 0xcf8 and 0xcfc, for bus 0. A function that is not there reads all ones.</summary>
/// <remarks>PCI Local Bus Specification 3.0, "Software Generation of Configuration Transactions".</remarks>
public sealed partial class PciConfig : IPortDevice
{
    /// <summary>The address register, a dword.</summary>
    public const ushort Address = 0xcf8;
    /// <summary>First of the four data ports.</summary>
    public const ushort Data = 0xcfc;

    private const uint Enable = 0x8000_0000, OtherBuses = 0x7fff_0000;

    private readonly PciFunction?[] _functions = new PciFunction?[256];
    private uint _address;

    /// <summary>Puts a function on the bus; a device with functions beside the first says so in its first.</summary>
    /// <exception cref="InvalidOperationException">There is one already.</exception>
    public void Add(int device, int function, PciFunction what)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)device, 31u);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)function, 7u);
        ref PciFunction? slot = ref _functions[device << 3 | function];
        if (slot is not null) throw new InvalidOperationException($"00:{device:x2}.{function} is taken");
        slot = what;
        if (function != 0) _functions[device << 3]?.SetMultiFunction();
    }

    /// <inheritdoc/>
    public void Read(ushort port, Span<byte> data)
    {
        if (port >= Data)
        {
            Selected(port, data.Length)?.Read(Offset(port), data);
            return;
        }

        // Only a dword access to 0xcf8 reaches the register; narrower ones go to the I/O bus, where nobody answers.
        if (data.Length == 4) BinaryPrimitives.WriteUInt32LittleEndian(data, _address);
    }

    /// <inheritdoc/>
    public void Write(ushort port, ReadOnlySpan<byte> data)
    {
        if (port >= Data) Selected(port, data.Length)?.Write(Offset(port), data);
        else if (data.Length == 4) _address = BinaryPrimitives.ReadUInt32LittleEndian(data) & 0x80fffffc;
    }

    private int Offset(ushort port) => (int)(_address & 0xfc) + port - Data;

    private PciFunction? Selected(ushort port, int length) =>
        (_address & (Enable | OtherBuses)) == Enable && port - Data + length <= 4 ? _functions[_address >> 8 & 0xff] : null;
}
