namespace Kvm.Emulator.Vmx;

/// <summary>VMFUNC and VMCS shadowing.</summary>
internal sealed unsafe partial class VmxGuest
{
    /// <summary>"VM Functions": #UD without the control or with EAX &gt; 63; an exit for a function that is not enabled.</summary>
    internal ExecStatus Vmfunc(int length)
    {
        uint function = (uint)cpu.State->Gpr[0];
        if (!Has(SecondaryControls.EnableVmFunctions) || function > 63)
            return cpu.RaiseUd();
        if ((vmcs->VmFunctionControl >> (int)function & 1) == 0 || function != 0 || !SwitchEptp((uint)cpu.State->Gpr[1]))
        {
            Exit(VmxExitReason.VMFUNC, 0, length);
            return ExecStatus.Switched;
        }
        return ExecStatus.NextEndBlock;
    }

    /// <summary>VM function 0, EPTP switching: entry ECX (0–511) of the EPTP list, when a VM entry with it would succeed.</summary>
    private bool SwitchEptp(uint index)
    {
        byte* list = unit.Physical(vmcs->EptpListAddress);
        if (index > 511 || list == null)
            return false;
        ulong eptp = ((ulong*)list)[index];
        if (!unit.IsValidEptp(eptp))
            return false;
        vmcs->EptPointer = eptp;
        if (Has(SecondaryControls.EptViolationVe))
            vmcs->EptpIndex = (ushort)index;
        UseEptp(eptp);
        cpu.Mmu.OnContextChange();
        return true;
    }

    /// <summary>VMREAD of this encoding reads the shadow VMCS instead of exiting.</summary>
    internal bool ShadowsRead(ulong field) => Shadows(field, vmcs->VmreadBitmap);

    /// <summary>VMWRITE of this encoding writes the shadow VMCS instead of exiting.</summary>
    internal bool ShadowsWrite(ulong field) => Shadows(field, vmcs->VmwriteBitmap);

    private bool Shadows(ulong field, ulong bitmap)
    {
        if (!Has(SecondaryControls.VmcsShadowing) || field >> 15 != 0)
            return false;
        byte* bits = unit.Physical(bitmap);
        return bits != null && (bits[field >> 3] >> (int)(field & 7) & 1) == 0;
    }

    internal ulong LinkPointer => vmcs->VmcsLinkPointer;
}
