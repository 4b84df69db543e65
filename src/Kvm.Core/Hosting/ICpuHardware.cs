namespace Kvm.Core;

/// <summary>What the host needs of the silicon behind a <see cref="HostCpu"/>; the architecture binds an emulated processor to it.</summary>
public interface ICpuHardware
{
    /// <summary>
    /// Makes an interrupt pending, from any thread. A processor in non-root mode that exits on external interrupts leaves the guest at the next instruction
    /// boundary. Never blocks, never takes a host lock.
    /// </summary>
    void RaiseInterrupt(byte vector);

    /// <summary>True when an interrupt is pending and has not been acknowledged.</summary>
    bool InterruptPending { get; }

    /// <summary>Takes the highest pending interrupt, or -1. Called by the thread that occupies the CPU, when the host has interrupts enabled.</summary>
    int AcknowledgeInterrupt();

    /// <summary>The CPU comes online: it has the state the kernel gives a started CPU (called on that CPU).</summary>
    void OnStarting();

    /// <summary>The CPU goes offline (called on that CPU, after the kernel's teardown callbacks).</summary>
    void OnDead();
}
