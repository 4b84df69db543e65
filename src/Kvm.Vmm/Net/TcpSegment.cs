namespace Kvm.Vmm.Net;

/// <summary>What a TCP segment's header says.</summary>
internal readonly struct TcpSegment
{
    private const byte EndOfOptions = 0, NoOperation = 1, MaximumSegmentSize = 2, WindowScale = 3;

    public TcpSegment(ReadOnlySpan<byte> segment, int header)
    {
        Sequence = Wire.U32(segment, 4);
        Acknowledged = Wire.U32(segment, 8);
        Flags = (TcpFlags)(segment[13] & 0x1f);
        Window = Wire.U16(segment, 14);
        if ((Flags & TcpFlags.Syn) == 0) return;
        for (int at = Wire.TcpSize; at < header && segment[at] != EndOfOptions;)
        {
            if (segment[at] == NoOperation)
            {
                at++;
                continue;
            }

            if (at + 1 >= header || segment[at + 1] < 2 || at + segment[at + 1] > header) break;
            if (segment[at] == MaximumSegmentSize && segment[at + 1] == 4) SegmentSize = Wire.U16(segment, at + 2);
            if (segment[at] == WindowScale && segment[at + 1] == 3) Scale = Math.Min((int)segment[at + 2], 14);
            at += segment[at + 1];
        }
    }

    public uint Sequence { get; }

    public uint Acknowledged { get; }

    public TcpFlags Flags { get; }

    public ushort Window { get; }

    /// <summary>The option of a SYN; null: it has none.</summary>
    public int? SegmentSize { get; }

    /// <summary>The option of a SYN: bits that windows are shifted by; null: not at all.</summary>
    public int? Scale { get; }
}
