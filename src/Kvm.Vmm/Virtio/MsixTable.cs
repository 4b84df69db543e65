using System.Buffers.Binary;
using Kvm.Client;

namespace Kvm.Vmm.Virtio;

/// <summary>A function's MSI-X vectors: where each one's message goes, and which are masked or pending.</summary>
/// <remarks>PCI Local Bus Specification 3.0, "MSI-X Capability and Table Structures".</remarks>
public sealed class MsixTable
{
    /// <summary>Bytes of an entry: address, data, control.</summary>
    public const int EntrySize = 16;

    private const int Control = 12;
    private const byte Masked = 1;

    private readonly Lock _lock = new();
    private readonly Vm _vm;
    private readonly byte[] _entries;
    private readonly ulong[] _pending;
    private bool _enabled, _allMasked;

    /// <param name="vm">Where messages go.</param>
    /// <param name="vectors">How many there are.</param>
    public MsixTable(Vm vm, int vectors)
    {
        _vm = vm;
        Vectors = vectors;
        _entries = new byte[vectors * EntrySize];
        _pending = new ulong[(vectors + 63) / 64];
        for (int i = 0; i < vectors; i++) _entries[i * EntrySize + Control] = Masked;
    }

    /// <summary>How many there are.</summary>
    public int Vectors { get; }

    /// <summary>The function sends messages instead of driving its line.</summary>
    public bool Enabled => Volatile.Read(ref _enabled);

    /// <summary>The capability's message control was written.</summary>
    public void SetControl(bool enabled, bool masked)
    {
        lock (_lock)
        {
            (_enabled, _allMasked) = (enabled, masked);
            for (int i = 0; i < Vectors; i++) SendPending(i);
        }
    }

    /// <summary>Sends a vector's message, now or when it is unmasked. A vector that is not there sends nothing.</summary>
    public void Fire(int vector)
    {
        if ((uint)vector >= (uint)Vectors) return;
        lock (_lock)
        {
            _pending[vector / 64] |= 1UL << vector % 64;
            SendPending(vector);
        }
    }

    /// <summary>Reads the table.</summary>
    public void Read(int offset, Span<byte> data)
    {
        lock (_lock)
        {
            if (offset + data.Length <= _entries.Length) _entries.AsSpan(offset, data.Length).CopyTo(data);
        }
    }

    /// <summary>Writes the table.</summary>
    public void Write(int offset, ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            if (offset + data.Length > _entries.Length) return;
            data.CopyTo(_entries.AsSpan(offset));
            SendPending(offset / EntrySize);
        }
    }

    /// <summary>Reads the pending bits.</summary>
    public void ReadPending(int offset, Span<byte> data)
    {
        lock (_lock)
        {
            for (int i = 0; i < data.Length; i++)
            {
                int at = offset + i;
                data[i] = at / 8 < _pending.Length ? (byte)(_pending[at / 8] >> at % 8 * 8) : (byte)0;
            }
        }
    }

    private void SendPending(int vector)
    {
        ref ulong pending = ref _pending[vector / 64];
        ulong bit = 1UL << vector % 64;
        ReadOnlySpan<byte> entry = _entries.AsSpan(vector * EntrySize, EntrySize);
        if ((pending & bit) == 0 || !_enabled || _allMasked || (entry[Control] & Masked) != 0) return;
        pending &= ~bit;
        try
        {
            _vm.SignalMsi(BinaryPrimitives.ReadUInt64LittleEndian(entry), BinaryPrimitives.ReadUInt32LittleEndian(entry[8..]));
        }
        catch (KvmException)
        {
            // An address that is no message's (EINVAL): the guest wrote it, and nobody gets the message.
        }
    }
}
