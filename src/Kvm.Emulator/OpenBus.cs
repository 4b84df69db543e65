namespace Kvm.Emulator;

/// <summary>No devices: reads give all ones, writes vanish.</summary>
public sealed class OpenBus : IMachineBus
{
    public static OpenBus Instance { get; } = new();

    public uint ReadPort(ushort port, int size) => size == 4 ? uint.MaxValue : (1U << (size * 8)) - 1;
    public void WritePort(ushort port, int size, uint value) { }
    public ulong ReadMmio(ulong address, int size) => size == 8 ? ulong.MaxValue : (1UL << (size * 8)) - 1;
    public void WriteMmio(ulong address, int size, ulong value) { }
}
