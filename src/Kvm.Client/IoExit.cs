using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>A port access: <see cref="Count"/> items of <see cref="Size"/> bytes at one port.</summary>
public readonly unsafe ref struct IoExit
{
    private readonly kvm_run* _run;

    internal IoExit(kvm_run* run) => _run = run;

    /// <summary>OUT: <see cref="Data"/> is what the guest wrote. Otherwise IN: the guest waits for <see cref="Data"/> to be filled.</summary>
    public bool IsOut => _run->io.direction == KVM_EXIT_IO_OUT;

    /// <summary>The port, 0 to 0xffff.</summary>
    public ushort Port => _run->io.port;

    /// <summary>1, 2 or 4 bytes.</summary>
    public int Size => _run->io.size;

    /// <summary>More than 1 for string instructions.</summary>
    public int Count => (int)_run->io.count;

    /// <summary>All items: what the guest wrote, or where its input goes.</summary>
    public Span<byte> Data => new((byte*)_run + _run->io.data_offset, _run->io.size * (int)_run->io.count);
}
