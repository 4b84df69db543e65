namespace Kvm.Vmm.Boot;

/// <summary>A firmware image that ends at 4 GiB, where processors start: SeaBIOS, OVMF, with or without their variables.</summary>
public sealed class FirmwareImage
{
    /// <summary>The largest: what lies between KVM's own pages and 4 GiB.</summary>
    public const int LargestSize = 16 << 20;

    /// <summary>What is also seen below 1 MiB.</summary>
    private const int LegacySize = 128 << 10;

    private const int PageSize = 4096, LeastSize = 64 << 10, ResetVector = 16;

    private FirmwareImage(ReadOnlyMemory<byte> bytes) => Bytes = bytes;

    /// <summary>The image.</summary>
    public ReadOnlyMemory<byte> Bytes { get; }

    /// <summary>Guest-physical address of its first byte.</summary>
    public ulong Address => GuestRam.HoleEnd - (ulong)Bytes.Length;

    /// <summary>Its end, of which there is a copy that ends at 1 MiB.</summary>
    public ReadOnlyMemory<byte> Legacy => Bytes[Math.Max(0, Bytes.Length - LegacySize)..];

    /// <exception cref="BootException">No whole pages, too small or large, or nothing at the reset vector.</exception>
    public static FirmwareImage Parse(ReadOnlyMemory<byte> bytes)
    {
        if (bytes.Length is < LeastSize or > LargestSize || bytes.Length % PageSize != 0)
            throw new BootException($"not a firmware image: {bytes.Length} bytes, which is not 64 KiB to 16 MiB in whole pages of 4 KiB");
        ReadOnlySpan<byte> vector = bytes.Span[^ResetVector..];
        if (!vector.ContainsAnyExcept((byte)0) || !vector.ContainsAnyExcept((byte)0xff))
            throw new BootException("not a firmware image: its last 16 bytes, where the processor starts, are blank (variables alone do not start: name the code)");
        return new FirmwareImage(bytes);
    }
}
