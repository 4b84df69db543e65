using System.Numerics;

namespace Kvm.Emulator;

/// <summary>The processor's pins and bus messages: interrupts, NMI, INIT, SIPI, stop. Any thread.</summary>
public sealed unsafe partial class Processor
{
    private readonly ulong[] interrupts = new ulong[4];
    private volatile bool nmiPending;
    private volatile bool initPending;
    private volatile int sipiPending = -1;
    private readonly ManualResetEventSlim wake = new(false);

    /// <summary>A fixed interrupt for this processor, as its local APIC would accept it; stays pending until acknowledged.</summary>
    public void RaiseInterrupt(byte vector)
    {
        Interlocked.Or(ref interrupts[vector >> 6], 1UL << (vector & 63));
        Signal(ExitRequests.Interrupt);
    }

    public void RaiseNmi()
    {
        nmiPending = true;
        Signal(ExitRequests.Nmi);
    }

    public void RaiseInit()
    {
        initPending = true;
        Signal(ExitRequests.Init);
    }

    /// <summary>Start-up IPI: takes effect only in the wait-for-SIPI state; execution starts at <paramref name="page"/> &lt;&lt; 12.</summary>
    public void RaiseSipi(byte page)
    {
        sipiPending = page;
        Signal(ExitRequests.Sipi);
    }

    /// <summary>Makes Run return StopRequested at the next boundary.</summary>
    public void RequestStop() => Signal(ExitRequests.Stop);

    private void Signal(ExitRequests request)
    {
        Request(request);
        wake.Set();
    }

    /// <summary>A fixed interrupt is pending, whatever IF and TPR say.</summary>
    public bool InterruptPending => (Volatile.Read(ref interrupts[0]) | Volatile.Read(ref interrupts[1]) | Volatile.Read(ref interrupts[2]) | Volatile.Read(ref interrupts[3])) != 0;

    /// <summary>An NMI is pending.</summary>
    public bool NmiPending => nmiPending;
    internal bool InitPending => initPending;

    /// <summary>Highest pending vector, -1: none.</summary>
    internal int PeekInterrupt()
    {
        for (int i = 3; i >= 0; i--)
        {
            ulong word = Volatile.Read(ref interrupts[i]);
            if (word != 0)
                return (i * 64) + BitOperations.Log2(word);
        }
        return -1;
    }

    /// <summary>Removes and returns the highest pending vector; -1: none. What the interrupt-acknowledge cycle of a CPU with IF = 1 does.</summary>
    public int AcknowledgeInterrupt()
    {
        int vector = PeekInterrupt();
        if (vector >= 0)
            Interlocked.And(ref interrupts[vector >> 6], ~(1UL << (vector & 63)));
        return vector;
    }

    /// <summary>Takes the pending NMI.</summary>
    public bool AcknowledgeNmi()
    {
        bool pending = nmiPending;
        nmiPending = false;
        return pending;
    }

    /// <summary>A pending interrupt whose priority class is above the task priority (CR8).</summary>
    private bool InterruptDeliverable(bool maskByTpr)
    {
        int vector = PeekInterrupt();
        return vector >= 0 && (!maskByTpr || (ulong)(vector >> 4) > State->Cr8);
    }

    /// <summary>Blocks the calling thread until an input arrives or the time is over: a halted guest that its host lets halt.</summary>
    internal void WaitForInput(TimeSpan limit)
    {
        if (State->ExitRequest == 0)
            wake.Wait(limit);
        wake.Reset();
    }
}
