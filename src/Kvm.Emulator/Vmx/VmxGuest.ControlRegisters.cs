namespace Kvm.Emulator.Vmx;

/// <summary>Control and debug registers in non-root operation: guest/host masks, read shadows, CR3 targets, virtual TPR.</summary>
internal sealed unsafe partial class VmxGuest
{
    private const ulong CrTypeFrom = 1 << 4, CrTypeClts = 2 << 4, CrTypeLmsw = 3 << 4;

    public override bool WriteCr(int length, int register, byte gpr, ref ulong value, out bool handled)
    {
        handled = false;
        switch (register)
        {
            case 0:
                if (((value ^ vmcs->Cr0ReadShadow) & vmcs->Cr0GuestHostMask) != 0)
                    return ExitCr(length, 0, 0, gpr);
                value = (value & ~vmcs->Cr0GuestHostMask) | (cpu.State->Cr0 & vmcs->Cr0GuestHostMask);
                return false;
            case 3:
                return Has(PrimaryControls.Cr3LoadExiting) && !IsCr3Target(value) && ExitCr(length, 3, 0, gpr);
            case 4:
                if (((value ^ vmcs->Cr4ReadShadow) & vmcs->Cr4GuestHostMask) != 0)
                    return ExitCr(length, 4, 0, gpr);
                value = (value & ~vmcs->Cr4GuestHostMask) | (cpu.State->Cr4 & vmcs->Cr4GuestHostMask);
                return false;
            case 8:
                if (Has(PrimaryControls.Cr8LoadExiting))
                    return ExitCr(length, 8, 0, gpr);
                if (!Has(PrimaryControls.UseTprShadow) || value > 15)
                    return false;
                handled = true;
                WriteVirtualTpr((byte)(value << 4));
                return false;
            default:
                return false;
        }
    }

    /// <summary>The first CR3-target-count target values do not exit.</summary>
    private bool IsCr3Target(ulong value)
    {
        uint count = vmcs->Cr3TargetCount;
        return (count > 0 && value == vmcs->Cr3TargetValue0) || (count > 1 && value == vmcs->Cr3TargetValue1)
            || (count > 2 && value == vmcs->Cr3TargetValue2) || (count > 3 && value == vmcs->Cr3TargetValue3);
    }

    public override bool ReadCr(int length, int register, byte gpr, ref ulong value)
    {
        switch (register)
        {
            case 0:
                value = VisibleCr0(value);
                return false;
            case 3:
                return Has(PrimaryControls.Cr3StoreExiting) && ExitCr(length, 3, CrTypeFrom, gpr);
            case 4:
                value = (value & ~vmcs->Cr4GuestHostMask) | (vmcs->Cr4ReadShadow & vmcs->Cr4GuestHostMask);
                return false;
            case 8:
                if (Has(PrimaryControls.Cr8StoreExiting))
                    return ExitCr(length, 8, CrTypeFrom, gpr);
                if (Has(PrimaryControls.UseTprShadow))
                    value = (ulong)VirtualTpr >> 4;
                return false;
            default:
                return false;
        }
    }

    public override ulong VisibleCr0(ulong cr0) => (cr0 & ~vmcs->Cr0GuestHostMask) | (vmcs->Cr0ReadShadow & vmcs->Cr0GuestHostMask);

    public override bool Clts(int length, out bool handled)
    {
        // A host-owned TS that the guest believes to be clear: nothing to do.
        handled = (vmcs->Cr0GuestHostMask & Cr0.TS) != 0;
        return handled && (vmcs->Cr0ReadShadow & Cr0.TS) != 0 && Exit(VmxExitReason.CR_ACCESS, CrTypeClts, length);
    }

    public override bool Lmsw(int length, ref ushort source, bool memory, ulong linear)
    {
        ulong mask = vmcs->Cr0GuestHostMask, shadow = vmcs->Cr0ReadShadow;
        // LMSW can set PE but not clear it.
        bool exits = ((mask & source & ~shadow & Cr0.PE) | (mask & (source ^ shadow) & (Cr0.MP | Cr0.EM | Cr0.TS))) != 0;
        if (exits)
        {
            if (memory)
                vmcs->GuestLinearAddress = linear;
            return Exit(VmxExitReason.CR_ACCESS, CrTypeLmsw | (memory ? 0x40UL : 0) | (ulong)source << 16, length);
        }
        ulong owned = mask & 0xf;
        source = (ushort)((source & ~owned) | (cpu.State->Cr0 & owned));
        return false;
    }

    public override bool MoveDr(int length, int register, bool write, byte gpr) =>
        Has(PrimaryControls.MovDrExiting) && Exit(VmxExitReason.DR_ACCESS, (uint)register | (write ? 0 : 0x10u) | (uint)gpr << 8, length);

    private bool ExitCr(int length, int register, ulong type, byte gpr) => Exit(VmxExitReason.CR_ACCESS, (uint)register | type | (uint)gpr << 8, length);
}
