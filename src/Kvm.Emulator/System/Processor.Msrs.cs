using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    private readonly MsrFile msrs;

    /// <summary>RDMSR: #GP(0) for an MSR that this processor does not have.</summary>
    public InstructionResult ReadMsr(uint index, out ulong value)
    {
        if (TakeInstructionFault("RDMSR", out InstructionResult injected))
        {
            value = 0;
            Observer?.Msr(this, false, index, 0, true);
            return injected;
        }
        bool ok = msrs.Read(index, out value);
        if (!ok)
            value = 0;
        Observer?.Msr(this, false, index, value, !ok);
        return ok ? InstructionResult.Success : InstructionResult.Faulted(Fault.Gp());
    }

    /// <summary>WRMSR: #GP(0) for an absent or read-only MSR, and for values that set reserved bits or break the MSR's rules.</summary>
    public InstructionResult WriteMsr(uint index, ulong value)
    {
        if (TakeInstructionFault("WRMSR", out InstructionResult injected))
        {
            Observer?.Msr(this, true, index, value, true);
            return injected;
        }
        bool ok = msrs.Write(index, value);
        Observer?.Msr(this, true, index, value, !ok);
        return ok ? InstructionResult.Success : InstructionResult.Faulted(Fault.Gp());
    }

    /// <summary>MSR access without CPL check, interception, fault injection or observer: VM-entry and VM-exit MSR lists. False: RDMSR would raise #GP.</summary>
    internal bool TryReadMsr(uint index, out ulong value) => msrs.Read(index, out value);
    /// <summary>See <see cref="TryReadMsr"/>.</summary>
    internal bool TryWriteMsr(uint index, ulong value) => msrs.Write(index, value);
    /// <summary>EFER bits that exist on this processor.</summary>
    internal ulong EferMask => msrs.EferMask;

    private readonly ClockRatio tscRatio;

    /// <summary>IA32_TIME_STAMP_COUNTER as root operation sees it.</summary>
    public ulong ReadTsc() => tscRatio.Convert(Machine.Ticks) + State->TscAdjust;

    /// <summary>TSC as software on this processor sees it: guests have an offset and ratio.</summary>
    private ulong VisibleTsc => NonRoot is { } guest ? guest.AdjustTsc(ReadTsc()) : ReadTsc();

    internal static ExecStatus RdmsrHandler(Processor cpu, Op* op)
    {
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        uint index = (uint)cpu.State->Gpr[1];
        if (cpu.NonRoot is { } guest)
        {
            if (guest.Rdmsr(op->Length, index))
                return ExecStatus.Switched;
            if (index == Msr.IA32_TIME_STAMP_COUNTER)
                return cpu.SetEdxEax(cpu.VisibleTsc);
            ulong virtualized = 0;
            if (guest.VirtualMsr(write: false, index, ref virtualized, out bool fault))
                return fault ? cpu.RaiseGp() : cpu.SetEdxEax(virtualized);
        }
        if (cpu.Counters is { } counters && counters.Owns(index) && !counters.Exact())
            return ExecStatus.Again;
        InstructionResult result = cpu.ReadMsr(index, out ulong value);
        return result.IsFault ? cpu.Raise(result.Fault) : cpu.SetEdxEax(value);
    }

    internal static ExecStatus WrmsrHandler(Processor cpu, Op* op)
    {
        if (cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        uint index = (uint)cpu.State->Gpr[1];
        ulong value = (uint)cpu.State->Gpr[0] | cpu.State->Gpr[2] << 32;
        if (cpu.NonRoot is { } guest)
        {
            if (guest.Wrmsr(op->Length, index, value))
                return ExecStatus.Switched;
            if (guest.VirtualMsr(write: true, index, ref value, out bool fault))
                return fault ? cpu.RaiseGp() : ExecStatus.NextEndBlock;
        }
        if (cpu.Counters is { } counters && counters.Owns(index) && !counters.Exact())
            return ExecStatus.Again;
        InstructionResult result = cpu.WriteMsr(index, value);
        return result.IsFault ? cpu.Raise(result.Fault) : ExecStatus.NextEndBlock;
    }

    /// <remarks>SDM vol 2B, RDTSC: CR4.TSD with CPL > 0 faults before a VM exit.</remarks>
    internal static ExecStatus RdtscHandler(Processor cpu, Op* op)
    {
        if ((cpu.State->Cr4 & Cr4.TSD) != 0 && cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        return cpu.NonRoot is { } guest && guest.Rdtsc(op->Length, rdtscp: false) ? ExecStatus.Switched : cpu.SetEdxEax(cpu.VisibleTsc);
    }

    internal static ExecStatus RdtscpHandler(Processor cpu, Op* op)
    {
        if (!cpu.Model.FeatureExtEdx(27) || cpu.NonRoot?.Enabled(NonRootFeature.Rdtscp) == false)
            return cpu.RaiseUd();
        if ((cpu.State->Cr4 & Cr4.TSD) != 0 && cpu.State->Cpl != 0)
            return cpu.RaiseGp();
        if (cpu.NonRoot is { } guest && guest.Rdtsc(op->Length, rdtscp: true))
            return ExecStatus.Switched;
        cpu.State->Gpr[1] = (uint)cpu.State->TscAux;
        return cpu.SetEdxEax(cpu.VisibleTsc);
    }

    internal static ExecStatus RdpidHandler(Processor cpu, Op* op)
    {
        if (!cpu.Model.Feature7Ecx(22) || cpu.NonRoot?.Enabled(NonRootFeature.Rdtscp) == false)
            return cpu.RaiseUd();
        cpu.State->Gpr[op->Rm != Op.NoRegister ? op->Rm : op->Reg] = cpu.Code64 ? cpu.State->TscAux : (uint)cpu.State->TscAux;
        return ExecStatus.Next;
    }

    /// <summary>RDPMC: counters are read as through their MSRs.</summary>
    internal static ExecStatus RdpmcHandler(Processor cpu, Op* op)
    {
        if ((cpu.State->Cr4 & Cr4.PCE) == 0 && cpu.State->Cpl != 0 && cpu.ProtectedMode)
            return cpu.RaiseGp();
        if (cpu.NonRoot is { } guest && guest.Rdpmc(op->Length))
            return ExecStatus.Switched;
        uint counter = (uint)cpu.State->Gpr[1];
        if (cpu.Counters is { } counters && !counters.Exact())
            return ExecStatus.Again;
        if (!PerformanceCounterMsr(cpu.Model, counter, out uint msr) || !cpu.msrs.Read(msr, out ulong value))
            return cpu.RaiseGp();
        return cpu.SetEdxEax(value);
    }

    private static bool PerformanceCounterMsr(CpuModel model, uint counter, out uint msr)
    {
        if (model.Vendor == CpuVendor.Amd)
        {
            bool core = model.PerformanceCounters && model.FeatureExtEcx(23);
            msr = core ? 0xc0010201 + 2 * counter : 0xc0010004 + counter;
            return counter < (core ? 6 : 4);
        }
        uint general = model.MaxLeaf >= 0xa ? model.Leaf(0xa).Eax >> 8 & 0xff : 0, fixedCount = model.MaxLeaf >= 0xa ? model.Leaf(0xa).Edx & 0x1f : 0;
        bool isFixed = (counter & 0x4000_0000) != 0;
        uint number = counter & 0x3fff_ffff;
        msr = (isFixed ? 0x309u : 0xc1u) + number;
        return number < (isFixed ? fixedCount : general);
    }

    internal ExecStatus SetEdxEax(ulong value)
    {
        State->Gpr[0] = (uint)value;
        State->Gpr[2] = value >> 32;
        return ExecStatus.Next;
    }
}
