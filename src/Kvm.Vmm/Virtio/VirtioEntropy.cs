using System.Security.Cryptography;

namespace Kvm.Vmm.Virtio;

/// <summary>Random numbers, from the host's own generator.</summary>
/// <remarks>Virtio specification 1.2, "Entropy Device".</remarks>
public sealed class VirtioEntropy : VirtioDevice
{
    private const int MostAtOnce = 4096;

    private readonly byte[] _bytes = new byte[MostAtOnce];

    /// <summary>The device.</summary>
    public VirtioEntropy()
        : base(type: 4, "virtio-rng", 64)
    {
    }

    /// <inheritdoc/>
    protected override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    protected override void Process()
    {
        VirtioQueue queue = Queues[0];
        do
        {
            while (queue.TryPop() is { } chain)
            {
                Span<byte> bytes = _bytes.AsSpan(0, (int)Math.Min(chain.WritableLength, MostAtOnce));
                RandomNumberGenerator.Fill(bytes);
                chain.Write(0, bytes);
                queue.Push(chain.Head, (uint)bytes.Length);
            }

            Interrupt(queue);
            queue.SetNotify(true);
        }
        while (queue.HasMore);
    }
}
