using Kvm.Emulator.Vmx;

namespace Kvm.Emulator;

/// <summary>What the VMX unit needs to know about its processor.</summary>
public sealed unsafe partial class Processor
{
    /// <summary>The model's VMX capability MSRs.</summary>
    internal VmxCapabilities VmxCapabilities => VmxCapabilities.From(Model.Msrs);

    internal int PhysicalAddressBits => Model.PhysicalAddressBits;

    /// <summary>IA32_FEATURE_CONTROL, 0 when the processor does not have it.</summary>
    internal ulong FeatureControl => TryReadMsr(Msr.IA32_FEATURE_CONTROL, out ulong value) ? value : 0;

    /// <summary>Bits of IA32_DEBUGCTL that this model implements: LBR, BTF, and the trace and freeze bits of processors with performance monitoring.</summary>
    internal ulong SupportedDebugCtlBits => Model.Leaf(0xa).Eax != 0 ? 0x5fc3UL : 0x3UL;

    /// <summary>Enable bits of IA32_PERF_GLOBAL_CTRL: general counters from bit 0, fixed counters from bit 32.</summary>
    internal ulong SupportedPerfGlobalBits
    {
        get
        {
            CpuidLeaf leaf = Model.Leaf(0xa);
            int general = (int)(leaf.Eax >> 8) & 0xff, fixedCounters = (int)leaf.Edx & 0x1f;
            return ((1UL << Math.Min(general, 31)) - 1) | ((1UL << fixedCounters) - 1) << 32;
        }
    }

    /// <summary>Length of the instruction that the pending fault or memory exit belongs to; 0 when it comes from elsewhere. Set by the run loop.</summary>
    internal int PendingLength;

    /// <summary>
    /// A VM exit to C# kernel code has loaded host state, but State->Mode and State->Tlb are still the guest's: nothing executes or translates in root operation
    /// until <see cref="Run"/> or the next VM entry, which often finds them right (ARCHITECTURE D3).
    /// </summary>
    internal bool HostContextPending;

    /// <summary>A processor-local deadline has passed: called by host timers.</summary>
    internal void RequestTimer() => Request(ExitRequests.Timer);

    /// <summary>Power-up: nothing of the VMX unit survives.</summary>
    internal void ResetVmx() => vmx?.Reset();

    internal void DisposeVmx() => vmx?.Dispose();
}
