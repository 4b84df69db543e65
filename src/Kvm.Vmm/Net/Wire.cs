using System.Buffers.Binary;

namespace Kvm.Vmm.Net;

/// <summary>Headers of Ethernet, IPv4, ICMP, UDP and TCP as they are on the wire; numbers are big-endian there.</summary>
/// <remarks>IEEE 802.3; RFC 791, 792, 768, 9293.</remarks>
internal static class Wire
{
    public const int EthernetSize = 14, Ipv4Size = 20, UdpSize = 8, TcpSize = 20;
    public const ushort Ipv4Type = 0x0800, ArpType = 0x0806;
    public const byte Icmp = 1, Tcp = 6, Udp = 17;

    public static ushort U16(ReadOnlySpan<byte> data, int offset) => BinaryPrimitives.ReadUInt16BigEndian(data[offset..]);

    public static uint U32(ReadOnlySpan<byte> data, int offset) => BinaryPrimitives.ReadUInt32BigEndian(data[offset..]);

    public static void Put16(Span<byte> data, int offset, int value) => BinaryPrimitives.WriteUInt16BigEndian(data[offset..], (ushort)value);

    public static void Put32(Span<byte> data, int offset, uint value) => BinaryPrimitives.WriteUInt32BigEndian(data[offset..], value);

    /// <summary>A frame with Ethernet and IPv4 headers, and room for so many bytes behind them.</summary>
    public static byte[] Ipv4Frame(ReadOnlySpan<byte> to, ReadOnlySpan<byte> from, uint source, uint destination, byte protocol, int payload)
    {
        var frame = new byte[EthernetSize + Ipv4Size + payload];
        to.CopyTo(frame);
        from.CopyTo(frame.AsSpan(6));
        Put16(frame, 12, Ipv4Type);
        Span<byte> ip = frame.AsSpan(EthernetSize);
        ip[0] = 0x45; // version 4, five words
        Put16(ip, 2, Ipv4Size + payload);
        Put16(ip, 6, 0x4000); // not to be fragmented
        ip[8] = 64; // time to live
        ip[9] = protocol;
        Put32(ip, 12, source);
        Put32(ip, 16, destination);
        Put16(ip, 10, Checksum(ip[..Ipv4Size]));
        return frame;
    }

    /// <summary>Fills in the checksum of UDP or TCP, which covers the addresses too.</summary>
    public static void PutTransportChecksum(Span<byte> frame, int offset)
    {
        Span<byte> ip = frame[EthernetSize..], segment = ip[Ipv4Size..];
        Put16(segment, offset, 0);
        uint sum = Sum(ip.Slice(12, 8)) + ip[9] + (uint)segment.Length + Sum(segment);
        int checksum = Fold(sum);
        Put16(segment, offset, checksum == 0 && ip[9] == Udp ? 0xffff : checksum); // 0 says of UDP that there is none
    }

    /// <summary>The Internet checksum.</summary>
    public static int Checksum(ReadOnlySpan<byte> data) => Fold(Sum(data));

    private static uint Sum(ReadOnlySpan<byte> data)
    {
        uint sum = 0;
        for (; data.Length >= 2; data = data[2..]) sum += BinaryPrimitives.ReadUInt16BigEndian(data);
        return data.Length == 0 ? sum : sum + ((uint)data[0] << 8);
    }

    private static int Fold(uint sum)
    {
        while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
        return (ushort)~sum;
    }
}
