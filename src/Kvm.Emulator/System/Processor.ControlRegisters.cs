namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>CR4 bits that CPUID announces; others are reserved.</summary>
    internal ulong Cr4Mask { get; private set; }

    private static ulong SupportedCr4(CpuModel m)
    {
        ulong mask = 0;
        void Add(bool present, ulong bits) => mask |= present ? bits : 0;
        Add(m.Feature1Edx(1), Cr4.VME | Cr4.PVI);
        Add(m.Feature1Edx(4), Cr4.TSD);
        Add(m.Feature1Edx(2), Cr4.DE);
        Add(m.Feature1Edx(3), Cr4.PSE);
        Add(m.Feature1Edx(6), Cr4.PAE);
        Add(true, Cr4.MCE | Cr4.PCE);
        Add(m.Feature1Edx(13), Cr4.PGE);
        Add(m.Feature1Edx(24), Cr4.OSFXSR);
        Add(m.Feature1Edx(25), Cr4.OSXMMEXCPT);
        Add(m.Feature7Ecx(2), Cr4.UMIP);
        Add(m.Feature7Ecx(16), Cr4.LA57);
        Add(m.HasVmx, Cr4.VMXE);
        Add(m.Feature1Ecx(6), Cr4.SMXE);
        Add(m.Feature7Ebx(0), Cr4.FSGSBASE);
        Add(m.Feature1Ecx(17), Cr4.PCIDE);
        Add(m.Feature1Ecx(26), Cr4.OSXSAVE);
        Add(m.Feature7Ebx(7), Cr4.SMEP);
        Add(m.Feature7Ebx(20), Cr4.SMAP);
        Add(m.Feature7Ecx(3), Cr4.PKE);
        return mask;
    }

    /// <summary>MOV r64, CRn.</summary>
    public ulong ReadCr(int register) => register switch
    {
        0 => State->Cr0,
        2 => State->Cr2,
        3 => State->Cr3,
        4 => State->Cr4,
        8 => State->Cr8,
        _ => 0,
    };

    /// <summary>MOV CRn, r64 with every #GP(0) rule of SDM vol 2B "MOV—Move to/from Control Registers" and vol 3C "Restrictions on VMX Operation".</summary>
    public InstructionResult WriteCr(int register, ulong value)
    {
        ulong old = ReadCr(register);
        PendingMemoryExit = false;
        bool ok = TryWriteCr(register, value);
        if (ok && register is 0 or 3 or 4)
            Observer?.ControlRegister(this, register, old, ReadCr(register));
        return ok ? InstructionResult.Success : InstructionResult.Faulted(register is 0 or 2 or 3 or 4 or 8 ? Fault.Gp() : Fault.Ud);
    }

    /// <summary>False: #GP(0), or a nested-paging exit when PendingMemoryExit is set (PDPTE loads).</summary>
    private bool TryWriteCr(int register, ulong value)
    {
        switch (register)
        {
            case 0: return WriteCr0(value);
            case 2: State->Cr2 = value; return true;
            case 3: return WriteCr3(value);
            case 4: return WriteCr4(value);
            case 8:
                if (value > 15)
                    return false;
                State->Cr8 = value;
                Reevaluate();
                return true;
            default: return false;
        }
    }

    /// <summary>In VMX operation CR0 and CR4 obey the FIXED MSRs; unrestricted guests are free in PE and PG.</summary>
    private bool VmxFixed(ulong value, uint fixed0Msr, ulong exempt)
    {
        if (!InVmxOperation || !msrs.Read(fixed0Msr, out ulong fixed0) || !msrs.Read(fixed0Msr + 1, out ulong fixed1))
            return true;
        return (~value & fixed0 & ~exempt) == 0 && (value & ~fixed1) == 0;
    }

    private bool WriteCr0(ulong value)
    {
        CpuState* s = State;
        if (value >> 32 != 0)
            return false;
        value = (value & (Cr0.PE | Cr0.MP | Cr0.EM | Cr0.TS | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.NW | Cr0.CD | Cr0.PG)) | Cr0.ET;
        ulong changed = value ^ s->Cr0;
        if ((value & Cr0.PG) != 0 && (value & Cr0.PE) == 0)
            return false;
        if ((value & Cr0.NW) != 0 && (value & Cr0.CD) == 0)
            return false;
        if (!VmxFixed(value, Msr.IA32_VMX_CR0_FIXED0, NonRoot is { UnrestrictedGuest: true } ? Cr0.PE | Cr0.PG : 0))
            return false;
        ulong efer = s->Efer;
        if ((changed & Cr0.PG) != 0)
        {
            if ((value & Cr0.PG) != 0)
            {
                if ((efer & Efer.LME) != 0)
                {
                    int tr = Segment(Seg.TR).Type;
                    if ((s->Cr4 & Cr4.PAE) == 0 || Segment(Seg.CS).L || (Model.Vendor == CpuVendor.Intel && tr is SegmentRights.TssAvailable16 or SegmentRights.TssBusy16 && !Segment(Seg.TR).Unusable && Segment(Seg.TR).Selector >> 2 != 0))
                        return false;
                    efer |= Efer.LMA;
                }
            }
            else
            {
                if (Code64 || (s->Cr4 & Cr4.PCIDE) != 0)
                    return false;
                efer &= ~Efer.LMA;
            }
        }
        bool pae = (value & Cr0.PG) != 0 && (s->Cr4 & Cr4.PAE) != 0 && (efer & Efer.LMA) == 0;
        if (pae && (changed & (Cr0.PG | Cr0.CD | Cr0.NW)) != 0 && !Mmu.LoadPdptes(s->Cr3))
            return false;
        s->Cr0 = value;
        s->Efer = efer;
        if ((changed & Cr0.PG) != 0)
            Mmu.FlushTag(TlbTag, keepGlobal: false);
        UpdateMode();
        return true;
    }

    private ushort TlbTag => NonRoot?.TlbTag ?? 0;

    private bool WriteCr3(ulong value)
    {
        CpuState* s = State;
        bool keep = false;
        if (LongMode)
        {
            if ((s->Cr4 & Cr4.PCIDE) != 0)
            {
                keep = value >> 63 != 0;
                value &= ~(1UL << 63);
            }
            if (value >> Model.PhysicalAddressBits != 0)
                return false;
        }
        else
        {
            value = (uint)value;
            if ((s->Cr0 & Cr0.PG) != 0 && (s->Cr4 & Cr4.PAE) != 0 && !Mmu.LoadPdptes(value))
                return false;
        }
        s->Cr3 = value;
        if (!keep)
            Mmu.FlushPcid(TlbTag, Mmu.CurrentPcid);
        Mmu.OnContextChange();
        return true;
    }

    private bool WriteCr4(ulong value)
    {
        CpuState* s = State;
        ulong changed = value ^ s->Cr4;
        if ((value & ~Cr4Mask) != 0)
            return false;
        if (LongMode && ((value & Cr4.PAE) == 0 || (changed & Cr4.LA57) != 0))
            return false;
        if ((changed & value & Cr4.PCIDE) != 0 && (!LongMode || (s->Cr3 & 0xfff) != 0))
            return false;
        if (InVmxOperation && (value & Cr4.VMXE) == 0)
            return false;
        if (!VmxFixed(value, Msr.IA32_VMX_CR4_FIXED0, 0))
            return false;
        bool pae = (s->Cr0 & Cr0.PG) != 0 && (value & Cr4.PAE) != 0 && !LongMode;
        if (pae && (changed & (Cr4.PAE | Cr4.PGE | Cr4.PSE | Cr4.SMEP)) != 0 && !Mmu.LoadPdptes(s->Cr3))
            return false;
        s->Cr4 = value;
        if ((changed & (Cr4.PGE | Cr4.PAE | Cr4.PSE | Cr4.LA57 | Cr4.SMEP | Cr4.SMAP)) != 0 || (changed & ~value & Cr4.PCIDE) != 0)
            Mmu.FlushTag(TlbTag, keepGlobal: false);
        UpdateMode();
        return true;
    }

    /// <summary>INVLPG in root operation by kernel code.</summary>
    public InstructionResult Invlpg(ulong linear)
    {
        Mmu.FlushLinearCurrent(linear);
        return InstructionResult.Success;
    }

    /// <summary>WBINVD: caches are not modelled, nothing to write back.</summary>
    public void Wbinvd() { }
}
