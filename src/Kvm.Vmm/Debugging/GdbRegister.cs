namespace Kvm.Vmm.Debugging;

/// <summary>A register as gdb knows it.</summary>
/// <param name="Name">Its name there.</param>
/// <param name="Bits">Its size.</param>
/// <param name="Type">Its type in the target description.</param>
/// <param name="Get">Copies its bytes, lowest first, out of the state.</param>
/// <param name="Set">Copies them in; null: it can't be written.</param>
internal sealed record GdbRegister(string Name, int Bits, string Type, GdbRegister.Getter Get, GdbRegister.Setter? Set)
{
    public delegate void Getter(VcpuRegisters state, Span<byte> to);

    public delegate void Setter(VcpuRegisters state, ReadOnlySpan<byte> from);

    /// <summary>Bytes.</summary>
    public int Size => Bits / 8;
}
