using System.Buffers.Binary;
using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>Port 0xf4: writing v ends the guest with exit status <c>(v &lt;&lt; 1) | 1</c>, as QEMU's isa-debug-exit does.</summary>
public sealed class DebugExit(StopSignal stop) : IPortDevice
{
    /// <summary>The first port.</summary>
    public const ushort Port = 0xf4;
    /// <summary>Ports that it takes: a dword can be written.</summary>
    public const int Ports = 4;

    /// <inheritdoc/>
    public void Read(ushort port, Span<byte> data) => data.Clear();

    /// <inheritdoc/>
    public void Write(ushort port, ReadOnlySpan<byte> data)
    {
        Span<byte> wide = stackalloc byte[4];
        wide.Clear();
        data.CopyTo(wide);
        uint status = (BinaryPrimitives.ReadUInt32LittleEndian(wide) << 1) | 1;
        stop.Request(GuestStopReason.DebugExit, status, $"guest wrote the debug-exit port: status {status}");
    }
}
