using System.IO.Pipelines;
using Kvm.Vmm.Bus;

namespace Kvm.Vmm.Devices;

/// <summary>Port 0xe9: a byte written is printed; reading gives 0xe9, by which guests detect it. As in Bochs and QEMU.</summary>
public sealed class DebugConsole(PipeWriter output) : BytePortDevice
{
    /// <summary>The port.</summary>
    public const ushort Port = 0xe9;

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
