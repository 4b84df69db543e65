namespace Kvm.Vmm.Boot;

/// <summary>An image that cannot be booted: what is wrong with it, in one sentence.</summary>
public sealed class BootException(string message) : Exception(message);
