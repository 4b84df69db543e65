namespace Kvm.Vmm.Net;

/// <summary>What tells a guest's connections apart: its port, and whom it talks to.</summary>
internal readonly record struct FlowKey(ushort GuestPort, uint Remote, ushort RemotePort);
