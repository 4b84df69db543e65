using Kvm.Client;
using Kvm.Vmm.Bus;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm.Devices;

/// <summary>Told what changed in a flash: where, and the new bytes.</summary>
public delegate void FlashWriter(long offset, ReadOnlySpan<byte> data);

/// <summary>
/// A parallel NOR flash of 8-bit commands as firmware keeps its variables in. While it gives its array it is a read-only memory slot, whose writes exit with the
/// commands; while it gives its status or identity the slot is gone, so that reads exit too.
/// </summary>
/// <remarks>Intel 28F640J3 data sheet, "Command Bus Definitions". Not there: write to buffer, the CFI query table, suspend. Status bits are 0 after Clear Status, as in QEMU, by which OVMF knows a flash.</remarks>
public sealed class CfiFlash : IMmioDevice, IDisposable
{
    /// <summary>Bytes that are erased at once.</summary>
    public const int BlockSize = 4096;

    private const byte Ready = 0x80, EraseFailed = 0x20, ProgramFailed = 0x10;
    private const byte Erased = 0xff, Manufacturer = 0x89, Device = 0x18;

    private readonly Vm _vm;
    private readonly GuestMemory _memory;
    private readonly FlashWriter? _writer;
    private State _state = State.Array;
    private byte _status = Ready;
    private bool _shown = true;

    /// <param name="vm">Gets the memory slot.</param>
    /// <param name="slot">A free slot.</param>
    /// <param name="address">Guest-physical address of the first byte.</param>
    /// <param name="content">What it holds; whole blocks.</param>
    /// <param name="writer">Keeps what the guest changes; null: the changes are lost with the guest.</param>
    public CfiFlash(Vm vm, uint slot, ulong address, ReadOnlySpan<byte> content, FlashWriter? writer = null)
    {
        ArgumentNullException.ThrowIfNull(vm);
        _vm = vm;
        _writer = writer;
        _memory = vm.MapMemory(slot, address, (ulong)content.Length, KVM_MEM_READONLY);
        content.CopyTo(_memory.Span);
    }

    private enum State
    {
        Array,
        Status,
        Identity,
        Program,
        Erase,
        Lock,
    }

    /// <summary>Guest-physical address of the first byte.</summary>
    public ulong Address => _memory.GuestAddress;

    /// <summary>Bytes.</summary>
    public ulong Size => _memory.Size;

    /// <summary>The array.</summary>
    public ReadOnlySpan<byte> Content => _memory.Span;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        switch (_state)
        {
            case State.Array:
                _memory.Span.Slice((int)offset, data.Length).CopyTo(data);
                break;
            case State.Identity:
                for (int i = 0; i < data.Length; i++) data[i] = ((int)offset + i & 0xff) switch { 0 => Manufacturer, 1 => Device, _ => 0 };
                break;
            default:
                data.Fill(_status);
                break;
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        switch (_state)
        {
            case State.Program:
                Program((int)offset, data);
                _state = State.Status;
                break;
            case State.Erase:
                if (data[0] == 0xd0) EraseBlock((int)offset);
                else _status |= EraseFailed | ProgramFailed; // a wrong sequence
                _state = State.Status;
                break;
            case State.Lock:
                _status |= Ready; // blocks have no locks
                _state = State.Status;
                break;
            default:
                Command(data[0]);
                break;
        }

        Show(_state == State.Array);
    }

    /// <summary>Deletes the slot and frees the memory.</summary>
    public void Dispose() => _memory.Dispose();

    private void Command(byte command)
    {
        switch (command)
        {
            case 0x10 or 0x40: _state = State.Program; break;
            case 0x20: _state = State.Erase; break;
            case 0x50: _status = 0; break;
            case 0x60: _state = State.Lock; break;
            case 0x70: _state = State.Status; break;
            case 0x90: _state = State.Identity; break;
            default: _state = State.Array; break; // 0xff; others do nothing
        }
    }

    /// <summary>Programming clears bits; only erasing sets them.</summary>
    private void Program(int offset, ReadOnlySpan<byte> data)
    {
        Span<byte> at = _memory.Span.Slice(offset, data.Length);
        for (int i = 0; i < data.Length; i++) at[i] &= data[i];
        _status |= Ready;
        _writer?.Invoke(offset, at);
    }

    private void EraseBlock(int offset)
    {
        int start = offset & ~(BlockSize - 1);
        Span<byte> block = _memory.Span.Slice(start, BlockSize);
        block.Fill(Erased);
        _status |= Ready;
        _writer?.Invoke(start, block);
    }

    private void Show(bool show)
    {
        if (show == _shown) return;
        _shown = show;
        if (show) _memory.Protect(KVM_MEM_READONLY);
        else _vm.SetUserMemoryRegion(_memory.Slot, 0, _memory.GuestAddress, 0, 0);
    }
}
