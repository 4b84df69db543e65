using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>
/// What bare-metal test kernels expect: scratch ports 0xe0 to 0xe3 and 0xeb, interrupt lines at 0x2000 to 0x2017, 64 KiB of plain memory behind MMIO at 0xff000000.
/// </summary>
/// <remarks>The ports of QEMU's pc-testdev.</remarks>
public sealed partial class TestDevice(Action<uint, bool> setLine, Action<ulong>? flushPage = null) : IPortDevice, IMmioDevice
{
    /// <summary>First of the ports that keep what was written: bytes, words, dwords.</summary>
    public const ushort ScratchPort = 0xe0;
    /// <summary>How many.</summary>
    public const int ScratchPorts = 4;
    /// <summary>One more that keeps a byte.</summary>
    public const ushort ByteScratchPort = 0xeb;
    /// <summary>A dword written there is the guest-physical address of a page that the kernel shall look at anew.</summary>
    public const ushort FlushPort = 0xe4;
    /// <summary>First of the ports that drive interrupt lines: not 0 raises, 0 lowers.</summary>
    public const ushort LinePort = 0x2000;
    /// <summary>How many.</summary>
    public const int Lines = 24;
    /// <summary>Guest-physical address of the memory behind MMIO.</summary>
    public const ulong MmioAddress = 0xff00_0000;
    /// <summary>Its bytes.</summary>
    public const ulong MmioSize = 0x10000;

    private readonly byte[] _scratch = new byte[8];
    private readonly byte[] _memory = new byte[MmioSize];
    private byte _byteScratch;

    /// <inheritdoc/>
    public void Read(ushort port, Span<byte> data)
    {
        if (port == ByteScratchPort) data.Fill(_byteScratch);
        else if (port is >= ScratchPort and < ScratchPort + ScratchPorts) _scratch.AsSpan(port - ScratchPort, data.Length).CopyTo(data);
    }

    /// <inheritdoc/>
    public void Write(ushort port, ReadOnlySpan<byte> data)
    {
        if (port == ByteScratchPort) _byteScratch = data[0];
        else if (port is >= FlushPort and < FlushPort + 4) FlushPage(port, data);
        else if (port >= LinePort) setLine((uint)(port - LinePort), data[0] != 0);
        else data.CopyTo(_scratch.AsSpan(port - ScratchPort));
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++) data[i] = _memory[(offset + (ulong)i) % MmioSize];
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length; i++) _memory[(offset + (ulong)i) % MmioSize] = data[i];
    }

    private void FlushPage(ushort port, ReadOnlySpan<byte> data)
    {
        if (port == FlushPort && data.Length == 4) flushPage?.Invoke(System.Buffers.Binary.BinaryPrimitives.ReadUInt32LittleEndian(data));
    }

    /// <summary>Registers all of it.</summary>
    public void AddTo(PortBus ports, MmioBus mmio)
    {
        ports.Add(ScratchPort, ScratchPorts, this);
        ports.Add(ByteScratchPort, 1, this);
        ports.Add(FlushPort, 4, this);
        ports.Add(LinePort, Lines, this);
        mmio.Add(MmioAddress, MmioSize, this);
    }
}
