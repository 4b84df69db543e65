namespace Kvm.Vmm.Bus;

/// <summary>A device in the I/O port space.</summary>
public interface IPortDevice
{
    /// <summary>Answers IN.</summary>
    /// <param name="port">The port, as the guest named it.</param>
    /// <param name="data">1, 2 or 4 bytes; all ones on entry, which is what an undriven bus reads.</param>
    void Read(ushort port, Span<byte> data);

    /// <summary>Takes OUT.</summary>
    void Write(ushort port, ReadOnlySpan<byte> data);
}
