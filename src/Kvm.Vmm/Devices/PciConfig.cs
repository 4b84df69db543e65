using System.Buffers.Binary;
using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>PCI configuration mechanism #1, ports 0xcf8 and 0xcfc, on a bus without devices: every function reads all ones.</summary>
/// <remarks>PCI Local Bus Specification 3.0, "Software Generation of Configuration Transactions".</remarks>
public sealed class PciConfig : IPortDevice
{
    /// <summary>The address register, a dword.</summary>
    public const ushort Address = 0xcf8;
    /// <summary>First of the four data ports.</summary>
    public const ushort Data = 0xcfc;

    private uint _address;

    /// <inheritdoc/>
    public void Read(ushort port, Span<byte> data)
    {
        // Only a dword access to 0xcf8 reaches the register; narrower ones go to the I/O bus, where nobody answers.
        if (port == Address && data.Length == 4) BinaryPrimitives.WriteUInt32LittleEndian(data, _address);
    }

    /// <inheritdoc/>
    public void Write(ushort port, ReadOnlySpan<byte> data)
    {
        if (port == Address && data.Length == 4) _address = BinaryPrimitives.ReadUInt32LittleEndian(data) & 0x80fffffc;
    }
}
