namespace Kvm.Vmm.Debugging;

/// <summary>Looks guest-physical memory up. False: not all of the range is memory.</summary>
public delegate bool GuestPhysicalMemory(ulong address, int length, out Span<byte> bytes);
