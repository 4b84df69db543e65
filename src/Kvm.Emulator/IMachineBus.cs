namespace Kvm.Emulator;

/// <summary>Ports and memory-mapped devices of the machine itself (not of a KVM guest, whose accesses exit). Default: an open bus, reads all ones, writes vanish.</summary>
public interface IMachineBus
{
    uint ReadPort(ushort port, int size);
    void WritePort(ushort port, int size, uint value);
    /// <summary>Access to a physical address where there is no RAM.</summary>
    ulong ReadMmio(ulong address, int size);
    void WriteMmio(ulong address, int size, ulong value);
}
