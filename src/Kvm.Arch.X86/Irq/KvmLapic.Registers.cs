using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>Register access: the memory page of xAPIC mode and the MSRs of x2APIC mode.</remarks>
public sealed unsafe partial class KvmLapic
{
    private const uint LvtMask = APIC_LVT_MASKED | APIC_SEND_PENDING | APIC_VECTOR_MASK;
    private const uint LintMask = LvtMask | APIC_MODE_MASK | APIC_INPUT_POLARITY | APIC_LVT_REMOTE_IRR | APIC_LVT_LEVEL_TRIGGER;

    /// <summary>Writable bits by LVT index; the timer's mode bits come on top.</summary>
    private static ReadOnlySpan<uint> LvtMasks => [LvtMask, LvtMask | APIC_MODE_MASK, LvtMask | APIC_MODE_MASK, LintMask, LintMask, LvtMask, LvtMask | APIC_MODE_MASK];

    /// <summary>The page at <see cref="BaseAddress"/>: asked before the VM's own bus.</summary>
    public KvmIoDevice Device { get; }

    private sealed class MmioDevice(KvmLapic apic) : KvmIoDevice
    {
        public override KvmResult Read(KvmVcpu? vcpu, ulong address, int length, void* value) => apic.MmioRead(address, length, (byte*)value);

        public override KvmResult Write(KvmVcpu? vcpu, ulong address, int length, void* value) => apic.MmioWrite(address, length, (byte*)value);
    }

    private bool MmioInRange(ulong address) => address >= BaseAddress && address < BaseAddress + LAPIC_MMIO_LENGTH;

    [KernelFunction("apic_mmio_read", File = "arch/x86/kvm/lapic.c")]
    private KvmResult MmioRead(ulong address, int length, byte* value)
    {
        using var _ = FunctionTrace.Enter("apic_mmio_read");
        if (!MmioInRange(address))
            return Errno.EOPNOTSUPP;
        if (!HwEnabled || X2apicMode)
        {
            if (!Vcpu.Vm.CheckHasQuirk(KVM_X86_QUIRK_LAPIC_MMIO_HOLE))
                return Errno.EOPNOTSUPP;
            new Span<byte>(value, length).Fill(0xff);
            return 0;
        }

        RegRead((uint)(address - BaseAddress), length, value);
        return 0;
    }

    [KernelFunction("apic_mmio_write", File = "arch/x86/kvm/lapic.c")]
    private KvmResult MmioWrite(ulong address, int length, byte* value)
    {
        using var _ = FunctionTrace.Enter("apic_mmio_write");
        if (!MmioInRange(address))
            return Errno.EOPNOTSUPP;
        if (!HwEnabled || X2apicMode)
            return Vcpu.Vm.CheckHasQuirk(KVM_X86_QUIRK_LAPIC_MMIO_HOLE) ? 0 : Errno.EOPNOTSUPP;

        // Registers are 16 bytes apart and written with 32 bits; anything else is dropped.
        uint offset = (uint)(address - BaseAddress);
        if (length != 4 || (offset & 0xf) != 0)
            return 0;
        RegWrite((int)offset & 0xff0, *(uint*)value);
        return 0;
    }

    // ---- reading ----

    private uint ReadValue(int offset)
    {
        switch (offset)
        {
            case APIC_ARBPRI:
                return 0;
            case APIC_TMCCT:
                return TscDeadlineMode ? 0 : GetTmcct();
            case APIC_PROCPRI:
                UpdatePpr();
                break;
            case APIC_TASKPRI:
                ReportTprAccess(false);
                break;
        }

        return GetReg(offset);
    }

    private bool IsReadable(uint offset) => (int)(offset & ~0xfu) switch
    {
        APIC_ID or APIC_LVR or APIC_TASKPRI or APIC_PROCPRI or APIC_LDR or APIC_DFR or APIC_SPIV or APIC_ESR or APIC_ICR or APIC_LVTT or APIC_LVTTHMR or APIC_LVTPC
            or APIC_LVT0 or APIC_LVT1 or APIC_LVTERR or APIC_TMICT or APIC_TMCCT or APIC_TDCR => true,
        >= APIC_ISR and < APIC_ESR => true,
        APIC_LVTCMCI => NrLvtEntries > LVT_CMCI,
        APIC_ARBPRI or APIC_ICR2 => !X2apicMode,
        _ => false,
    };

    /// <summary>kvm_lapic_reg_read: false (1) for a register that there is not or an access across its 32 bits.</summary>
    [KernelFunction("kvm_lapic_reg_read", File = "arch/x86/kvm/lapic.c")]
    private bool RegRead(uint offset, int length, byte* value)
    {
        using var _ = FunctionTrace.Enter("kvm_lapic_reg_read");
        uint alignment = offset & 0xf;
        if (alignment + length > 4 || offset > 0x3f0 || !IsReadable(offset))
            return false;
        uint result = ReadValue((int)(offset & ~0xfu));
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_apic", $"apic_read {RegisterName((int)offset)} = 0x{result:x}");
        if (length is 1 or 2 or 4)
            new ReadOnlySpan<byte>((byte*)&result + alignment, length).CopyTo(new Span<byte>(value, length));
        else
            Vcpu.Host.Log.Err($"Local APIC read with len = {length:x}, should be 1,2, or 4 instead");
        return true;
    }

    private void ReportTprAccess(bool write)
    {
        if (!Vcpu.TprAccessReporting)
            return;
        Vcpu.MakeRequest(KVM_REQ_REPORT_TPR_ACCESS);
        Vcpu.Run->tpr_access.rip = Vcpu.Rip;
        Vcpu.Run->tpr_access.is_write = write ? 1u : 0u;
    }

    // ---- writing ----

    /// <summary>kvm_lapic_reg_write: false (1) for a register that can't be written in this mode.</summary>
    [KernelFunction("kvm_lapic_reg_write", File = "arch/x86/kvm/lapic.c")]
    private bool RegWrite(int reg, uint value)
    {
        using var _ = FunctionTrace.Enter("kvm_lapic_reg_write");
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_apic", $"apic_write {RegisterName(reg)} = 0x{value:x}");
        bool ok = WriteRegister(reg, value);

        // Only a write that concerned the map finds it dirty.
        Vcpu.Vm.RecalculateApicMap();
        return ok;
    }

    private bool WriteRegister(int reg, uint value)
    {
        switch (reg)
        {
            case APIC_ID:
                if (X2apicMode)
                    return false;
                SetXapicId((byte)(value >> 24));
                XapicIdUpdated();
                return true;
            case APIC_TASKPRI:
                ReportTprAccess(true);
                SetTprRegister(value & 0xff);
                return true;
            case APIC_EOI:
                SetEoi();
                return true;
            case APIC_LDR:
                if (X2apicMode)
                    return false;
                SetLdr(value & APIC_LDR_MASK);
                return true;
            case APIC_DFR:
                if (X2apicMode)
                    return false;
                SetDfr(value | 0x0fffffff);
                return true;
            case APIC_SPIV:
                WriteSpiv(value);
                return true;
            case APIC_ICR:
                // The message leaves at once: never busy.
                value &= ~APIC_ICR_BUSY;
                SendIpi(value, GetReg(APIC_ICR2));
                SetReg(APIC_ICR, value);
                return true;
            case APIC_ICR2:
                if (X2apicMode)
                    return false;
                SetReg(APIC_ICR2, value & 0xff000000);
                return true;
            case APIC_LVT0:
            case APIC_LVTTHMR:
            case APIC_LVTPC:
            case APIC_LVT1:
            case APIC_LVTERR:
            case APIC_LVTCMCI:
                return WriteLvt(reg, value);
            case APIC_LVTT:
                if (!SwEnabled)
                    value |= APIC_LVT_MASKED;
                SetReg(APIC_LVTT, value & (LvtMask | TimerModeMask));
                UpdateLvtt();
                return true;
            case APIC_TMICT:
                WriteTmict(value);
                return true;
            case APIC_TDCR:
                WriteTdcr(value);
                return true;
            case APIC_ESR:
                return !X2apicMode || value == 0;
            case APIC_SELF_IPI:
                if (!X2apicMode || (value & ~APIC_VECTOR_MASK) != 0)
                    return false;
                SendIpi(APIC_DEST_SELF | value, 0);
                return true;
            default:
                return false;
        }
    }

    private void WriteSpiv(uint value)
    {
        uint mask = 0x3ff;
        if ((GetReg(APIC_LVR) & APIC_LVR_DIRECTED_EOI) != 0)
            mask |= APIC_SPIV_DIRECTED_EOI;
        SetSpiv(value & mask);
        if ((value & APIC_SPIV_APIC_ENABLED) != 0)
            return;
        for (int i = 0; i < NrLvtEntries; i++)
            SetReg(LvtRegister(i), GetReg(LvtRegister(i)) | APIC_LVT_MASKED);
        UpdateLvtt();
        Volatile.Write(ref _timerPending, 0);
    }

    private bool WriteLvt(int reg, uint value)
    {
        if (reg == APIC_LVT0)
            ManageNmiWatchdog(value);
        int index = reg == APIC_LVTCMCI ? LVT_CMCI : (reg - APIC_LVTT) >> 4;
        if (index >= NrLvtEntries)
            return false;
        if (!SwEnabled)
            value |= APIC_LVT_MASKED;
        SetReg(reg, value & LvtMasks[index]);
        return true;
    }

    /// <summary>kvm_apic_write_nodecode: the processor has put the value into the page; do what the write means.</summary>
    [KernelFunction("kvm_apic_write_nodecode", File = "arch/x86/kvm/lapic.c")]
    public void WriteNodecode(int offset)
    {
        using var _ = FunctionTrace.Enter("kvm_apic_write_nodecode");
        if (X2apicMode && offset == APIC_ICR)
            X2apicIcrWrite(X2apicIcrRead());
        else
            RegWrite(offset, GetReg(offset));
    }

    // ---- x2APIC ----

    /// <summary>kvm_x2apic_icr_write: false (1) for a reserved bit.</summary>
    [KernelFunction("kvm_x2apic_icr_write", File = "arch/x86/kvm/lapic.c")]
    public bool X2apicIcrWrite(ulong data)
    {
        using var _ = FunctionTrace.Enter("kvm_x2apic_icr_write");
        const ulong reserved = (0xffful << 20) | (3ul << 16) | (1ul << 13);
        if ((data & reserved) != 0)
            return false;
        data &= ~(ulong)APIC_ICR_BUSY;
        SendIpi((uint)data, (uint)(data >> 32));
        if (Vcpu.Ops.X2apicIcrIsSplit)
        {
            SetReg(APIC_ICR, (uint)data);
            SetReg(APIC_ICR2, (uint)(data >> 32));
        }
        else
        {
            SetReg64(APIC_ICR, data);
        }

        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_apic", $"apic_write {RegisterName(APIC_ICR)} = 0x{data:x}");
        return true;
    }

    private ulong X2apicIcrRead() => Vcpu.Ops.X2apicIcrIsSplit ? GetReg(APIC_ICR) | ((ulong)GetReg(APIC_ICR2) << 32) : GetReg64(APIC_ICR);

    /// <summary>kvm_x2apic_msr_write: 0, or 1 when the write faults.</summary>
    public int X2apicMsrWrite(uint msr, ulong data)
    {
        int reg = (int)(msr - APIC_BASE_MSR) << 4;
        return X2apicMode ? MsrWrite(reg, data) : 1;
    }

    /// <summary>kvm_lapic_msr_write: of an x2APIC's MSR or Hyper-V's: ICR has 64 bits, the others 32.</summary>
    internal int MsrWrite(int reg, ulong data)
    {
        if (reg == APIC_ICR)
            return X2apicIcrWrite(data) ? 0 : 1;
        if (data >> 32 != 0)
            return 1;
        return RegWrite(reg, (uint)data) ? 0 : 1;
    }

    /// <summary>kvm_x2apic_msr_read: 0, or 1 when the read faults.</summary>
    public int X2apicMsrRead(uint msr, out ulong data)
    {
        data = 0;
        int reg = (int)(msr - APIC_BASE_MSR) << 4;
        return X2apicMode && reg != APIC_DFR ? MsrRead(reg, out data) : 1;
    }

    /// <summary>kvm_lapic_msr_read.</summary>
    internal int MsrRead(int reg, out ulong data)
    {
        data = 0;
        if (reg == APIC_ICR)
        {
            data = X2apicIcrRead();
            return 0;
        }

        uint low;
        if (!RegRead((uint)reg, 4, (byte*)&low))
            return 1;
        data = low;
        return 0;
    }

    /// <summary>kvm_trace_symbol_apic.</summary>
    internal static string RegisterName(int offset) => offset switch
    {
        APIC_ID => "APIC_ID",
        APIC_LVR => "APIC_LVR",
        APIC_TASKPRI => "APIC_TASKPRI",
        APIC_ARBPRI => "APIC_ARBPRI",
        APIC_PROCPRI => "APIC_PROCPRI",
        APIC_EOI => "APIC_EOI",
        APIC_LDR => "APIC_LDR",
        APIC_DFR => "APIC_DFR",
        APIC_SPIV => "APIC_SPIV",
        APIC_ISR => "APIC_ISR",
        APIC_ESR => "APIC_ESR",
        APIC_ICR => "APIC_ICR",
        APIC_ICR2 => "APIC_ICR2",
        APIC_LVTT => "APIC_LVTT",
        APIC_LVTTHMR => "APIC_LVTTHMR",
        APIC_LVTPC => "APIC_LVTPC",
        APIC_LVT0 => "APIC_LVT0",
        APIC_LVT1 => "APIC_LVT1",
        APIC_LVTERR => "APIC_LVTERR",
        APIC_TMICT => "APIC_TMICT",
        APIC_TMCCT => "APIC_TMCCT",
        APIC_TDCR => "APIC_TDCR",
        APIC_SELF_IPI => "APIC_SELF_IPI",
        _ => $"0x{offset:x}",
    };
}
