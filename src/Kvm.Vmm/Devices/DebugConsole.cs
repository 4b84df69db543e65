using System.IO.Pipelines;
using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>Port 0xe9, and firmware's 0x402: a byte written is printed; reading gives 0xe9, by which guests detect it. As in Bochs and QEMU.</summary>
public sealed class DebugConsole(PipeWriter output) : BytePortDevice
{
    /// <summary>The port that kernels and boot loaders use.</summary>
    public const ushort Port = 0xe9;
    /// <summary>The port that SeaBIOS and OVMF use.</summary>
    public const ushort FirmwarePort = 0x402;

    /// <inheritdoc/>
    protected override byte ReadByte(ushort port) => 0xe9;

    /// <inheritdoc/>
    protected override void WriteByte(ushort port, byte value)
    {
        output.GetSpan(1)[0] = value;
        output.Advance(1);
        ValueTask<FlushResult> flush = output.FlushAsync();
        if (!flush.IsCompletedSuccessfully) flush.AsTask().GetAwaiter().GetResult();
    }
}
