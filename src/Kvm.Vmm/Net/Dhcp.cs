namespace Kvm.Vmm.Net;

/// <summary>The network's DHCP server: the same lease for whoever asks.</summary>
/// <remarks>RFC 2131, 2132.</remarks>
internal static class Dhcp
{
    public const ushort ServerPort = 67, ClientPort = 68;

    private const int Options = 240;
    private const uint Magic = 0x63825363;
    private const byte Discover = 1, Offer = 2, Request = 3, Ack = 5, Nak = 6, Inform = 8;
    private const byte RequestedAddress = 50, MessageType = 53, ServerId = 54, End = 255;

    /// <summary>The answer to a client's message; null for one that wants none.</summary>
    public static byte[]? Answer(ReadOnlySpan<byte> message)
    {
        if (message.Length < Options || message[0] != 1 || Wire.U32(message, 236) != Magic) return null;
        ReadOnlySpan<byte> type = Find(message, MessageType), wanted = Find(message, RequestedAddress), server = Find(message, ServerId);
        if (type.Length != 1 || (server.Length == 4 && Wire.U32(server, 0) != UserNetwork.Gateway)) return null;
        uint address = wanted.Length == 4 ? Wire.U32(wanted, 0) : Wire.U32(message, 12);
        return type[0] switch
        {
            Discover => Reply(message, Offer),
            Request => Reply(message, address is UserNetwork.Guest or 0 ? Ack : Nak),
            Inform => Reply(message, Ack),
            _ => null,
        };
    }

    private static byte[] Reply(ReadOnlySpan<byte> message, byte type)
    {
        var reply = new byte[300];
        message[..Options].CopyTo(reply);
        reply[0] = 2;
        reply.AsSpan(44, 192).Clear(); // server's name, boot file
        Wire.Put32(reply, 16, type == Nak ? 0 : UserNetwork.Guest);
        Wire.Put32(reply, 20, UserNetwork.Gateway);
        int at = Options;
        Add(reply, ref at, MessageType, [type]);
        AddAddress(reply, ref at, ServerId, UserNetwork.Gateway);
        if (type != Nak)
        {
            AddAddress(reply, ref at, 1, UserNetwork.Netmask);
            AddAddress(reply, ref at, 3, UserNetwork.Gateway);
            AddAddress(reply, ref at, 6, UserNetwork.NameServer);
            AddAddress(reply, ref at, 51, 86400); // seconds
        }

        reply[at] = End;
        return reply;
    }

    private static void AddAddress(Span<byte> reply, ref int at, byte option, uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        Wire.Put32(bytes, 0, value);
        Add(reply, ref at, option, bytes);
    }

    private static void Add(Span<byte> reply, ref int at, byte option, ReadOnlySpan<byte> value)
    {
        reply[at] = option;
        reply[at + 1] = (byte)value.Length;
        value.CopyTo(reply[(at + 2)..]);
        at += 2 + value.Length;
    }

    private static ReadOnlySpan<byte> Find(ReadOnlySpan<byte> message, byte option)
    {
        for (int at = Options; at < message.Length && message[at] != End;)
        {
            if (message[at] == 0)
            {
                at++;
                continue;
            }

            if (at + 1 >= message.Length || at + 2 + message[at + 1] > message.Length) break;
            if (message[at] == option) return message.Slice(at + 2, message[at + 1]);
            at += 2 + message[at + 1];
        }

        return default;
    }
}
