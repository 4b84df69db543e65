namespace Kvm.Emulator;

/// <summary>
/// The MSRs of one processor: which exist, what they read, which writes fault. MSRs with an effect on execution live in <see cref="CpuState"/>, the rest here,
/// present when the CPU model (or the BIOS) lists them.
/// </summary>
/// <remarks>SDM vol 4; APM vol 2, appendix A. A false result is #GP(0).</remarks>
internal sealed unsafe class MsrFile
{
    private readonly Processor cpu;
    private readonly CpuState* state;
    private readonly CpuModel model;
    private readonly Dictionary<uint, ulong> values = [];
    private readonly ulong physicalReserved;
    private readonly ulong eferMask;

    internal MsrFile(Processor cpu)
    {
        this.cpu = cpu;
        state = cpu.State;
        model = cpu.Model;
        physicalReserved = ~((1UL << model.PhysicalAddressBits) - 1);
        eferMask = (model.FeatureExtEdx(11) ? Efer.SCE : 0) | (model.HasLongMode ? Efer.LME | Efer.LMA : 0) | (model.FeatureExtEdx(20) ? Efer.NXE : 0)
            | (model.HasSvm ? Efer.SVME : 0) | (model.FeatureExtEdx(25) ? Efer.FFXSR : 0) | (model.Vendor == CpuVendor.Amd && model.HasLongMode ? Efer.LMSLE : 0)
            | (model.FeatureExtEcx(17) ? Efer.TCE : 0);
    }

    /// <summary>EFER bits that exist (SVME only while VM_CR allows it).</summary>
    internal ulong EferMask => model.HasSvm && (cpu.Svm.VmCr & Msr.VmCrSvmDisable) != 0 ? eferMask & ~Efer.SVME : eferMask;

    /// <summary>Power-up: the model's values, then the BIOS's.</summary>
    internal void PowerUp()
    {
        values.Clear();
        foreach ((uint index, ulong value) in model.Msrs)
            values[index] = value;
        if (model.Msrs.TryGetValue(Msr.IA32_APIC_BASE, out ulong apic))
            values[Msr.IA32_APIC_BASE] = apic | (cpu.Index == 0 ? 0x100UL : 0);
        if (model.Msrs.ContainsKey(Msr.IA32_FEATURE_CONTROL))
            values[Msr.IA32_FEATURE_CONTROL] = cpu.Bios.FeatureControl;
        if (cpu.Bios.MicrocodeRevision is { } revision)
            values[Msr.IA32_BIOS_SIGN_ID] = revision;
        if (model.HasSvm)
        {
            cpu.Svm.VmCr = cpu.Bios.VmCr;
            cpu.Svm.HsavePa = 0;
        }
        state->Pat = model.Msrs.GetValueOrDefault(Msr.IA32_PAT, 0x0007_0406_0007_0406UL);
        foreach ((uint index, ulong value) in cpu.Bios.Msrs)
            values[index] = value;
    }

    internal bool Read(uint index, out ulong value)
    {
        switch (index)
        {
            case Msr.IA32_TIME_STAMP_COUNTER: value = cpu.ReadTsc(); return true;
            case Msr.IA32_SYSENTER_CS: value = state->SysenterCs; return true;
            case Msr.IA32_SYSENTER_ESP: value = state->SysenterEsp; return true;
            case Msr.IA32_SYSENTER_EIP: value = state->SysenterEip; return true;
            case Msr.IA32_DEBUGCTL: value = state->DebugCtl; return true;
            case Msr.IA32_PAT: value = state->Pat; return true;
            case Msr.IA32_EFER: value = state->Efer; return eferMask != 0;
            case Msr.IA32_STAR: value = state->Star; return model.HasLongMode;
            case Msr.IA32_LSTAR: value = state->Lstar; return model.HasLongMode;
            case Msr.IA32_CSTAR: value = state->Cstar; return model.HasLongMode;
            case Msr.IA32_FMASK: value = state->Sfmask; return model.HasLongMode;
            case Msr.IA32_FS_BASE: value = cpu.Segment(Seg.FS).Base; return model.HasLongMode;
            case Msr.IA32_GS_BASE: value = cpu.Segment(Seg.GS).Base; return model.HasLongMode;
            case Msr.IA32_KERNEL_GS_BASE: value = state->KernelGsBase; return model.HasLongMode;
            case Msr.IA32_TSC_AUX: value = state->TscAux; return HasTscAux;
            case Msr.IA32_XSS: value = state->Xss; return cpu.Fpu.Supervisor;
            // Write-only.
            case Msr.IA32_PRED_CMD or Msr.IA32_FLUSH_CMD or Msr.IA32_BIOS_UPDT_TRIG: value = 0; return false;
        }
        if (model.HasSvm && cpu.Svm.TryReadMsr(index, out value))
            return true;
        if (cpu.Counters is { } counters && counters.Owns(index))
        {
            value = counters.Read(index);
            return true;
        }

        return values.TryGetValue(index, out value);
    }

    internal bool Write(uint index, ulong value)
    {
        switch (index)
        {
            case Msr.IA32_TIME_STAMP_COUNTER: WriteTsc(value); return true;
            case Msr.IA32_TSC_ADJUST when values.ContainsKey(index):
                state->TscAdjust += value - values[index];
                values[index] = value;
                return true;
            case Msr.IA32_SYSENTER_CS: state->SysenterCs = (uint)value; return true;
            case Msr.IA32_SYSENTER_ESP: return Canonical(value) && Set(out state->SysenterEsp, value);
            case Msr.IA32_SYSENTER_EIP: return Canonical(value) && Set(out state->SysenterEip, value);
            case Msr.IA32_DEBUGCTL:
                if ((value & ~DebugCtlMask) != 0)
                    return false;
                state->DebugCtl = value;
                cpu.UpdateMode();
                return true;
            case Msr.IA32_PAT: return ValidPat(value) && Set(out state->Pat, value);
            case Msr.IA32_EFER: return WriteEfer(value);
            case Msr.IA32_STAR: return model.HasLongMode && Set(out state->Star, value);
            case Msr.IA32_LSTAR: return model.HasLongMode && Canonical(value) && Set(out state->Lstar, value);
            case Msr.IA32_CSTAR: return model.HasLongMode && Canonical(value) && Set(out state->Cstar, value);
            case Msr.IA32_FMASK: return model.HasLongMode && Set(out state->Sfmask, (uint)value);
            case Msr.IA32_FS_BASE: return model.HasLongMode && Canonical(value) && Set(out cpu.Segment(Seg.FS).Base, value);
            case Msr.IA32_GS_BASE: return model.HasLongMode && Canonical(value) && Set(out cpu.Segment(Seg.GS).Base, value);
            case Msr.IA32_KERNEL_GS_BASE: return model.HasLongMode && Canonical(value) && Set(out state->KernelGsBase, value);
            case Msr.IA32_TSC_AUX:
                if (!HasTscAux || (model.Vendor == CpuVendor.Intel && value >> 32 != 0))
                    return false;
                state->TscAux = (uint)value;
                return true;
            case Msr.IA32_XSS: return cpu.Fpu.Supervisor && (value & ~cpu.Fpu.Xss) == 0 && Set(out state->Xss, value);
            case Msr.IA32_PRED_CMD: return HasPredictionBarrier && (value & ~1UL) == 0;
            case Msr.IA32_FLUSH_CMD: return model.Feature7Edx(28) && (value & ~1UL) == 0;
            case Msr.IA32_BIOS_UPDT_TRIG: return values.ContainsKey(index);
        }
        if (model.HasSvm && cpu.Svm.TryWriteMsr(index, value))
            return true;
        if (cpu.Counters is { } counters && counters.Owns(index))
            return counters.Write(index, value);
        // Counters that are only there to be read: the recorded processors (Bochs, QEMU) forget what is written.
        if (cpu.Counters is null && PerformanceMonitor.IsCounter(index) && values.ContainsKey(index))
            return true;
        if (!values.TryGetValue(index, out ulong old) || !MayWrite(index, old, value))
            return false;
        values[index] = value;
        return true;
    }

    private static bool Set(out ulong target, ulong value)
    {
        target = value;
        return true;
    }

    private bool HasTscAux => model.FeatureExtEdx(27) || model.Feature7Ecx(22);
    private bool HasPredictionBarrier => model.Feature7Edx(26) || (model.MaxExtendedLeaf >= 0x80000008 && (model.Leaf(0x80000008).Ebx & 1 << 12) != 0);
    private ulong DebugCtlMask => model.Vendor == CpuVendor.Intel ? cpu.SupportedDebugCtlBits : 0x3fUL;

    /// <summary>The processor has AMD's LastBranch and LastInt MSRs.</summary>
    internal bool HasLastBranch => model.Vendor == CpuVendor.Amd && model.Msrs.ContainsKey(Msr.AMD_LAST_BRANCH_FROM);

    /// <summary>DEBUGCTL.LBR: a taken branch, an interrupt or an exception.</summary>
    internal void RecordBranch(ulong from, ulong to)
    {
        values[Msr.AMD_LAST_BRANCH_FROM] = from;
        values[Msr.AMD_LAST_BRANCH_TO] = to;
    }

    /// <summary>DEBUGCTL.LBR: before an interrupt or exception is recorded as a branch, the last branch before it is kept.</summary>
    internal void RecordInterrupt(ulong from, ulong to)
    {
        values[Msr.AMD_LAST_INT_FROM] = values[Msr.AMD_LAST_BRANCH_FROM];
        values[Msr.AMD_LAST_INT_TO] = values[Msr.AMD_LAST_BRANCH_TO];
        RecordBranch(from, to);
    }

    private bool Canonical(ulong value) => cpu.Mmu.Canonical(value);

    /// <summary>The rules of MSRs that are only stored.</summary>
    private bool MayWrite(uint index, ulong old, ulong value)
    {
        switch (index)
        {
            case Msr.IA32_PLATFORM_ID or Msr.IA32_MTRRCAP or Msr.IA32_ARCH_CAPABILITIES or Msr.IA32_MCG_CAP or Msr.IA32_PERF_GLOBAL_STATUS:
                return false;
            case Msr.IA32_FEATURE_CONTROL:
                // Locked until reset; SMX and SGX bits only with the feature.
                return (old & Msr.FeatureControlLocked) == 0 && (value & ~FeatureControlMask) == 0;
            case Msr.IA32_APIC_BASE:
                return ValidApicBase(old, value);
            case Msr.IA32_SPEC_CTRL:
                return (value & ~7UL) == 0;
            case Msr.IA32_MTRR_DEF_TYPE:
                return (value & ~0xcffUL) == 0 && ValidMtrrType((byte)value);
            case Msr.AMD_OSVW_ID_LENGTH or Msr.AMD_OSVW_STATUS:
                return true;
            case Msr.IA32_BIOS_SIGN_ID:
                return model.Vendor == CpuVendor.Intel;
        }
        if (index is >= Msr.IA32_VMX_BASIC and <= Msr.IA32_VMX_EXIT_CTLS2)
            return false;
        if (index is >= Msr.IA32_MTRR_PHYSBASE0 and < Msr.IA32_MTRR_PHYSBASE0 + 0x20)
        {
            ulong reserved = physicalReserved | ((index & 1) == 0 ? 0xf00UL : 0x7ffUL);
            return (value & reserved) == 0 && ((index & 1) != 0 || ValidMtrrType((byte)value));
        }
        if (index is Msr.IA32_MTRR_FIX64K_00000 or Msr.IA32_MTRR_FIX16K_80000 or Msr.IA32_MTRR_FIX16K_A0000 or (>= Msr.IA32_MTRR_FIX4K_C0000 and < Msr.IA32_MTRR_FIX4K_C0000 + 8))
            return AllBytes(value, ValidMtrrType);
        // IA32_MCi_STATUS: software may only clear it.
        if (index is >= Msr.IA32_MC0_CTL and < Msr.IA32_VMX_BASIC && (index & 3) == 1)
            return value == 0;
        return true;
    }

    private ulong FeatureControlMask => Msr.FeatureControlLocked | (model.HasVmx ? Msr.FeatureControlVmxonOutsideSmx : 0)
        | (model.Feature1Ecx(6) ? 0xff02UL : 0) | (model.Feature7Ebx(2) ? 0x60000UL : 0) | 0x100000;

    private bool ValidApicBase(ulong old, ulong value)
    {
        bool x2apic = model.Feature1Ecx(21);
        if ((value & (physicalReserved | 0x2ffUL)) != 0 || (!x2apic && (value & 0x400) != 0))
            return false;
        // xAPIC enable (bit 11) and x2APIC (bit 10): disabled → xAPIC → x2APIC → disabled.
        ulong from = old >> 10 & 3, to = value >> 10 & 3;
        return to != 1 && !(from == 0 && to == 3) && !(from == 3 && to == 2);
    }

    private static bool ValidMtrrType(byte type) => type is 0 or 1 or 4 or 5 or 6;
    private static bool ValidPatType(byte type) => type is 0 or 1 or 4 or 5 or 6 or 7;
    internal static bool ValidPat(ulong value) => AllBytes(value, ValidPatType);

    private static bool AllBytes(ulong value, Func<byte, bool> valid)
    {
        for (int i = 0; i < 64; i += 8)
            if (!valid((byte)(value >> i)))
                return false;
        return true;
    }

    private void WriteTsc(ulong value)
    {
        ulong delta = value - cpu.ReadTsc();
        state->TscAdjust += delta;
        if (values.TryGetValue(Msr.IA32_TSC_ADJUST, out ulong adjust))
            values[Msr.IA32_TSC_ADJUST] = adjust + delta;
    }

    /// <summary>Reserved bits and a change of LME under paging fault; LMA is not writable.</summary>
    private bool WriteEfer(ulong value)
    {
        if ((value & ~(EferMask | Efer.LMA)) != 0)
            return false;
        if (((value ^ state->Efer) & Efer.LME) != 0 && (state->Cr0 & Cr0.PG) != 0)
            return false;
        state->Efer = (value & ~Efer.LMA) | (state->Efer & Efer.LMA);
        cpu.UpdateMode();
        return true;
    }
}
