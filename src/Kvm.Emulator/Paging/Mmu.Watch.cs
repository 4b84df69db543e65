namespace Kvm.Emulator;

public sealed unsafe partial class Mmu
{
    /// <summary>DR7 enables a data breakpoint: watched pages get no TLB tags.</summary>
    private bool watching;

    /// <summary>Data breakpoints are on: the loop executes one instruction at a time, so that they trap right after the access.</summary>
    internal bool Watching => watching;

    /// <summary>DR0–DR3 or DR7 changed.</summary>
    internal void OnDebugRegisters()
    {
        bool enabled = false;
        for (int i = 0; i < 4; i++)
            enabled |= DataBreakpoint(i);
        if (enabled || watching)
            FlushAll();
        watching = enabled;
    }

    private bool DataBreakpoint(int index) => (state->Dr[7] >> (index * 2) & 3) != 0 && ((state->Dr[7] >> (16 + (index * 4))) & 1) != 0;

    /// <summary>Length in bytes of a breakpoint: LEN 00 = 1, 01 = 2, 11 = 4, 10 = 8.</summary>
    internal int BreakpointLength(int index) => (int)(state->Dr[7] >> (18 + (index * 4)) & 3) switch { 0 => 1, 1 => 2, 2 => 8, _ => 4 };

    private bool Watched(ulong linear)
    {
        if (!watching)
            return false;
        for (int i = 0; i < 4; i++)
            if (DataBreakpoint(i) && ((state->Dr[i] ^ linear) >> 12 == 0))
                return true;
        return false;
    }

    /// <summary>Notes data breakpoints an access hits; they trap at the next boundary.</summary>
    /// <remarks>SDM vol 3B, "Debug Address Registers" and "Data Breakpoint Exception Condition".</remarks>
    private void CheckWatch(ulong linear, int size, bool write)
    {
        for (int i = 0; i < 4; i++)
        {
            if (!DataBreakpoint(i))
                continue;
            bool writesOnly = (state->Dr[7] >> (16 + (i * 4)) & 3) == 1;
            if (writesOnly && !write)
                continue;
            ulong length = (ulong)BreakpointLength(i);
            ulong start = state->Dr[i] & ~(length - 1);
            if (linear < start + length && start < linear + (ulong)size)
                HitBreakpoint(i);
        }
    }

    internal void HitBreakpoint(int index)
    {
        state->PendingDebug |= 1UL << index;
        cpu.Request(ExitRequests.Reevaluate);
    }
}
