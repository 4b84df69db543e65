using System.Buffers.Binary;
using System.IO.Compression;
using System.Numerics;
using Kvm.Client;

namespace Kvm.Vmm.Migration;

/// <summary>
/// Guest memory as sections: pages of zeroes are left out, the rest is compressed in pieces. Pages may come more than once, and the last ones count: a running guest's memory
/// is sent whole, then what it has written meanwhile (KVM_MEM_LOG_DIRTY_PAGES), and the rest once it stands still.
/// </summary>
public static unsafe class MemoryState
{
    private const int PageSize = 4096, PiecePages = 64, PieceHeader = 16;
    private const string SlotTag = "slot", PagesTag = "page";
    private const int Quality = 1, Window = 18;

    /// <summary>Announces a slot and writes all of it that is not zero. The memory it is read into must be new, that is, zero.</summary>
    public static void Write(StateWriter writer, GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(memory);
        Span<byte> slot = stackalloc byte[16];
        BinaryPrimitives.WriteUInt64LittleEndian(slot, memory.GuestAddress);
        BinaryPrimitives.WriteUInt64LittleEndian(slot[8..], memory.Size);
        writer.Section(SlotTag, memory.Slot, slot);
        ulong pages = memory.Size / PageSize;
        for (ulong page = 0; page < pages;)
        {
            if (IsZero(memory, page))
            {
                page++;
                continue;
            }

            int count = 1;
            while (count < PiecePages && page + (ulong)count < pages && !IsZero(memory, page + (ulong)count)) count++;
            WritePages(writer, memory, page, count);
            page += (ulong)count;
        }
    }

    /// <summary>Writes the pages whose bits are set in a dirty log, zero or not.</summary>
    /// <returns>How many.</returns>
    public static int WriteDirty(StateWriter writer, GuestMemory memory, ReadOnlySpan<ulong> log)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(memory);
        int written = 0;
        for (int word = 0; word < log.Length; word++)
        {
            for (ulong bits = log[word]; bits != 0;)
            {
                int first = BitOperations.TrailingZeroCount(bits);
                int count = BitOperations.TrailingZeroCount(~(bits >> first));
                WritePages(writer, memory, (ulong)word * 64 + (ulong)first, count);
                written += count;
                bits &= count == 64 ? 0 : ~(((1UL << count) - 1) << first);
            }
        }

        return written;
    }

    /// <summary>Takes in a section of memory; false when the current one is none.</summary>
    /// <exception cref="StateFileException">There is no such memory here, or the section is damaged.</exception>
    public static bool Take(StateReader reader, IReadOnlyList<GuestMemory> memories)
    {
        ArgumentNullException.ThrowIfNull(reader);
        ArgumentNullException.ThrowIfNull(memories);
        if (reader.Tag is not (SlotTag or PagesTag)) return false;
        GuestMemory memory = memories.FirstOrDefault(m => m.Slot == reader.Index) ?? throw reader.Wrong("there is no such slot of memory here");
        ReadOnlySpan<byte> payload = reader.Payload;
        if (payload.Length < PieceHeader) throw reader.Wrong($"{payload.Length} bytes are too few");
        ulong first = BinaryPrimitives.ReadUInt64LittleEndian(payload), second = BinaryPrimitives.ReadUInt64LittleEndian(payload[8..]);
        if (reader.Tag == SlotTag)
        {
            if (first != memory.GuestAddress || second != memory.Size)
                throw reader.Wrong($"the saved machine has 0x{second:x} bytes at 0x{first:x}, this one 0x{memory.Size:x} at 0x{memory.GuestAddress:x}");
            return true;
        }

        ulong pages = memory.Size / PageSize;
        if (second is 0 or > PiecePages || first >= pages || second > pages - first) throw reader.Wrong($"{second} pages from page {first} are not inside");
        var target = new Span<byte>(memory.Host + first * PageSize, (int)second * PageSize);
        ReadOnlySpan<byte> data = payload[PieceHeader..];
        if (data.Length == target.Length) data.CopyTo(target);
        else if (!BrotliDecoder.TryDecompress(data, target, out int length) || length != target.Length) throw reader.Wrong("its pages can't be unpacked");
        return true;
    }

    private static bool IsZero(GuestMemory memory, ulong page) => new ReadOnlySpan<byte>(memory.Host + page * PageSize, PageSize).IndexOfAnyExcept((byte)0) < 0;

    private static void WritePages(StateWriter writer, GuestMemory memory, ulong page, int count)
    {
        // A copy: a running guest may write while the pages are packed, and would make nonsense of it.
        byte[] buffer = new byte[PieceHeader + count * PageSize];
        BinaryPrimitives.WriteUInt64LittleEndian(buffer, page);
        BinaryPrimitives.WriteUInt64LittleEndian(buffer.AsSpan(8), (ulong)count);
        Span<byte> copy = buffer.AsSpan(PieceHeader);
        new ReadOnlySpan<byte>(memory.Host + page * PageSize, count * PageSize).CopyTo(copy);
        byte[] packed = new byte[buffer.Length];
        buffer.AsSpan(0, PieceHeader).CopyTo(packed);
        bool smaller = BrotliEncoder.TryCompress(copy, packed.AsSpan(PieceHeader), out int length, Quality, Window) && length < copy.Length;
        writer.Section(PagesTag, memory.Slot, smaller ? packed.AsSpan(0, PieceHeader + length) : buffer);
    }
}
