using System.Numerics;

namespace Kvm.Emulator.Vmx;

/// <summary>SDM vol 3C, chapter "APIC Virtualization and Virtual Interrupts": virtual-APIC page, TPR shadow, APIC-access page, virtual-interrupt delivery, posted interrupts.</summary>
internal sealed unsafe partial class VmxGuest
{
    private const int Vtpr = 0x80, Vppr = 0xa0, Veoi = 0xb0, Visr = 0x100, Virr = 0x200, VicrLow = 0x300;

    /// <summary>Access types in the qualification of an APIC-access exit.</summary>
    private const ulong AccessRead = 0, AccessWrite = 1UL << 12, AccessFetch = 2UL << 12, AccessDelivery = 3UL << 12, AccessPhysical = 15UL << 12, AccessPhysicalDelivery = 10UL << 12;

    private byte VirtualTpr => virtualApic == null ? (byte)0 : virtualApic[Vtpr];

    private uint* Register(int offset) => (uint*)(virtualApic + offset);

    private bool IsTprBelowThreshold() =>
        Has(PrimaryControls.UseTprShadow) && !Has(SecondaryControls.VirtualInterruptDelivery) && VirtualTpr >> 4 < (int)(vmcs->TprThreshold & 0xf);

    /// <summary>"TPR Virtualization": after a write to VTPR by MOV to CR8, to the APIC-access page or to MSR 808H.</summary>
    private void WriteVirtualTpr(byte value)
    {
        if (virtualApic == null)
            return;
        *Register(Vtpr) = value;
        if (Has(SecondaryControls.VirtualInterruptDelivery))
        {
            UpdateVirtualPpr();
            cpu.Request(ExitRequests.Trap | ExitRequests.Reevaluate); // at the next boundary, not the next block
        }
        else if (IsTprBelowThreshold())
        {
            RequestTrapExit(TrapExit.TprBelowThreshold);
        }
    }

    // ---- the APIC-access page ----

    public override bool IsSpecialPage(ulong hpa) => hpa == apicAccessPage;

    public override bool SpecialPageAccess(ulong hpa, in NestedAccess access, int size, ref ulong value)
    {
        int offset = (int)hpa & 0xfff;
        bool virtualized = virtualApic != null && !isVectoring && !access.Execute && !access.PageWalk && size <= 4 && (offset & 3) + size <= 4;
        if (virtualized && (access.Write ? WriteApicPage(offset, size, value) : ReadApicPage(offset, size, out value)))
            return true;
        pendingExit = PendingExit.ApicAccess;
        pendingLinear = access.Linear;
        pendingQualification = (uint)offset | AccessType(access);
        cpu.PendingMemoryExit = true;
        return false;
    }

    private ulong AccessType(in NestedAccess access)
    {
        if (access.PageWalk || !access.LinearValid)
            return isVectoring ? AccessPhysicalDelivery : AccessPhysical;
        return isVectoring ? AccessDelivery : access.Execute ? AccessFetch : access.Write ? AccessWrite : AccessRead;
    }

    private bool ReadApicPage(int offset, int size, out ulong value)
    {
        value = 0;
        int register = offset & ~3;
        bool allowed = register == Vtpr || (Has(SecondaryControls.ApicRegisterVirtualization) && IsVirtualizedRegister(register));
        if (!allowed)
            return false;
        for (int i = 0; i < size; i++)
            value |= (ulong)virtualApic[offset + i] << (8 * i);
        return true;
    }

    /// <summary>Registers that "APIC-register virtualization" reads from the virtual-APIC page.</summary>
    private static bool IsVirtualizedRegister(int register) => register is 0x20 or 0x30 or Vtpr or Veoi or 0xd0 or 0xe0 or 0xf0 or 0x280 or 0x300 or 0x310 or 0x380 or 0x3e0
        || ((register & 0xf) == 0 && register is >= 0x100 and <= 0x270)
        || ((register & 0xf) == 0 && register is >= 0x320 and <= 0x370);

    private static bool IsWritableRegister(int register) => register is 0x20 or Vtpr or Veoi or 0xd0 or 0xe0 or 0xf0 or 0x280 or 0x300 or 0x310 or 0x380 or 0x3e0
        || ((register & 0xf) == 0 && register is >= 0x320 and <= 0x370);

    private bool WriteApicPage(int offset, int size, ulong value)
    {
        int register = offset & ~3;
        bool delivery = Has(SecondaryControls.VirtualInterruptDelivery);
        bool allowed = register switch
        {
            Vtpr => true,
            Veoi or VicrLow => delivery || Has(SecondaryControls.ApicRegisterVirtualization),
            _ => Has(SecondaryControls.ApicRegisterVirtualization) && IsWritableRegister(register),
        };
        if (!allowed)
            return false;
        for (int i = 0; i < size; i++)
            virtualApic[offset + i] = (byte)(value >> (8 * i));
        AfterApicWrite(register);
        return true;
    }

    /// <summary>"APIC-Write Emulation": TPR, EOI and self-IPI are virtualized; anything else is an APIC-write exit after the instruction.</summary>
    private void AfterApicWrite(int register)
    {
        if (register == Vtpr)
            WriteVirtualTpr((byte)*Register(Vtpr));
        else if (register == Veoi && Has(SecondaryControls.VirtualInterruptDelivery))
            VirtualizeEoi();
        else if (register == VicrLow && Has(SecondaryControls.VirtualInterruptDelivery) && IsSelfIpi(*Register(VicrLow)))
            VirtualizeSelfIpi((byte)*Register(VicrLow));
        else
            RequestTrapExit(TrapExit.ApicWrite, (ulong)register);
    }

    /// <summary>ICR: fixed delivery, edge, destination shorthand "self", vector at least 16, reserved bits zero.</summary>
    private static bool IsSelfIpi(uint icr) => (icr & 0xfff3_b700) == 0 && (icr >> 18 & 3) == 1 && (icr & 0xf0) != 0;

    // ---- x2APIC mode ----

    /// <summary>RDMSR of 800H–8FFH in "virtualize x2APIC mode"; true when the value comes from the virtual-APIC page.</summary>
    public override bool VirtualMsr(bool write, uint index, ref ulong value, out bool fault)
    {
        fault = false;
        if (!Has(SecondaryControls.VirtualizeX2ApicMode) || virtualApic == null || index >> 8 != 8)
            return false;
        int register = (int)(index & 0xff) << 4;
        return write ? WriteX2Apic(register, value, out fault) : ReadX2Apic(register, out value);
    }

    private bool ReadX2Apic(int register, out ulong value)
    {
        value = 0;
        if (register != Vtpr && !Has(SecondaryControls.ApicRegisterVirtualization))
            return false;
        value = *(ulong*)(virtualApic + register);
        if (register != VicrLow)
            value = (uint)value;
        return true;
    }

    private bool WriteX2Apic(int register, ulong value, out bool fault)
    {
        fault = false;
        bool delivery = Has(SecondaryControls.VirtualInterruptDelivery);
        switch (register)
        {
            case Vtpr:
                fault = value >> 8 != 0;
                if (!fault)
                    WriteVirtualTpr((byte)value);
                return true;
            case Veoi when delivery:
                fault = value != 0;
                if (!fault)
                    VirtualizeEoi();
                return true;
            case 0x3f0 when delivery:
                fault = value >> 8 != 0;
                if (fault)
                    return true;
                *Register(0x3f0) = (uint)value;
                if (value >= 16)
                    VirtualizeSelfIpi((byte)value);
                else
                    RequestTrapExit(TrapExit.ApicWrite, 0x3f0);
                return true;
            default:
                return false;
        }
    }

    // ---- virtual interrupts ----

    private int Rvi { get => vmcs->GuestIntrStatus & 0xff; set => vmcs->GuestIntrStatus = (ushort)((vmcs->GuestIntrStatus & 0xff00) | value); }
    private int Svi { get => vmcs->GuestIntrStatus >> 8; set => vmcs->GuestIntrStatus = (ushort)((vmcs->GuestIntrStatus & 0xff) | value << 8); }

    /// <summary>"PPR Virtualization".</summary>
    private void UpdateVirtualPpr()
    {
        if (virtualApic == null)
            return;
        int tpr = VirtualTpr, svi = Svi;
        *Register(Vppr) = (uint)(tpr >> 4 >= svi >> 4 ? tpr : svi & 0xf0);
    }

    /// <summary>"Evaluation of Pending Virtual Interrupts" and "Virtual-Interrupt Delivery". True when one was delivered.</summary>
    private bool DeliverVirtualInterrupt()
    {
        int vector = Rvi;
        if (virtualApic == null || vector >> 4 <= (int)(*Register(Vppr) >> 4 & 0xf))
            return false;
        SetBit(Visr, vector);
        Svi = vector;
        *Register(Vppr) = (uint)vector & 0xf0;
        ClearBit(Virr, vector);
        Rvi = HighestBit(Virr);
        cpu.State->Activity = ActivityState.Active;
        var info = new EventInfo((byte)vector, InterruptionInfo.ExternalInterrupt, false, 0, 0);
        if (cpu.InjectEvent(info) == ExecStatus.Fault)
            cpu.DeliverPending();
        return true;
    }

    /// <summary>"EOI Virtualization": the EOI-exit bitmap decides about an exit.</summary>
    private void VirtualizeEoi()
    {
        *Register(Veoi) = 0;
        int vector = Svi;
        ClearBit(Visr, vector);
        Svi = HighestBit(Visr);
        UpdateVirtualPpr();
        ulong word = (vector >> 6) switch { 0 => vmcs->EoiExitBitmap0, 1 => vmcs->EoiExitBitmap1, 2 => vmcs->EoiExitBitmap2, _ => vmcs->EoiExitBitmap3 };
        if ((word >> (vector & 63) & 1) != 0)
            RequestTrapExit(TrapExit.EoiInduced, (ulong)vector);
        else
            cpu.Request(ExitRequests.Trap | ExitRequests.Reevaluate); // at the next boundary, not the next block
    }

    /// <summary>"Self-IPI Virtualization".</summary>
    private void VirtualizeSelfIpi(byte vector)
    {
        SetBit(Virr, vector);
        Rvi = Math.Max(Rvi, vector);
        cpu.Request(ExitRequests.Trap | ExitRequests.Reevaluate); // at the next boundary, not the next block
    }

    /// <summary>"Posted-Interrupt Processing": clears ON, moves PIR into VIRR, re-evaluates. No VM exit.</summary>
    private void ProcessPostedInterrupts()
    {
        byte* descriptor = unit.Physical(vmcs->PostedIntrDescAddr & ~0xfffUL);
        if (descriptor == null || virtualApic == null)
            return;
        descriptor += vmcs->PostedIntrDescAddr & 0xfff;
        Interlocked.And(ref *(uint*)(descriptor + 32), ~1u);
        int highest = -1;
        for (int i = 0; i < 8; i++)
        {
            uint posted = Interlocked.Exchange(ref *(uint*)(descriptor + (i * 4)), 0);
            if (posted == 0)
                continue;
            *Register(Virr + (i * 16)) |= posted;
            highest = (i * 32) + BitOperations.Log2(posted);
        }
        if (highest >= 0)
            Rvi = Math.Max(Rvi, highest);
        cpu.Request(ExitRequests.Reevaluate);
    }

    private void SetBit(int array, int vector) => *Register(array + ((vector >> 5) * 16)) |= 1u << (vector & 31);
    private void ClearBit(int array, int vector) => *Register(array + ((vector >> 5) * 16)) &= ~(1u << (vector & 31));

    private int HighestBit(int array)
    {
        for (int i = 7; i >= 0; i--)
        {
            uint word = *Register(array + (i * 16));
            if (word != 0)
                return (i * 32) + BitOperations.Log2(word);
        }
        return 0;
    }
}
