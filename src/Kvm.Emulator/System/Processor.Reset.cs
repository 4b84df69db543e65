namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>
    /// Power-up (<paramref name="init"/> false) or INIT: registers as SDM vol 3A "Processor State After Reset" lists them. INIT keeps MSRs, CR0.CD/NW and the TSC.
    /// The firmware of this machine does nothing but program MSRs (<see cref="BiosSettings"/>).
    /// </summary>
    public void Reset(bool init)
    {
        CpuState* s = State;
        for (int i = 0; i < 16; i++)
            s->Gpr[i] = 0;
        s->Gpr[2] = Model.Leaf(1).Eax & 0x0fff_ffff;
        s->Rip = 0xfff0;
        Rflags = Flags.Fixed1;
        s->Cr0 = init ? (s->Cr0 & (Cr0.CD | Cr0.NW)) | Cr0.ET : Cr0.CD | Cr0.NW | Cr0.ET;
        s->Cr2 = s->Cr3 = s->Cr4 = s->Cr8 = 0;
        s->Efer = 0;
        for (int i = 0; i < 4; i++)
            s->Dr[i] = s->Pdpte[i] = 0;
        s->Dr[6] = Dr6Fixed;
        s->Dr[7] = Dr7Fixed;
        s->Cpl = 0;
        s->InterruptShadow = 0;
        s->NmiBlocked = 0;
        s->PendingDebug = 0;
        for (Seg seg = Seg.ES; seg <= Seg.GS; seg++)
            Segment(seg) = new SegmentCache { Limit = 0xffff, AccessRights = 0x93 };
        Segment(Seg.CS) = new SegmentCache { Selector = 0xf000, Base = 0xffff_0000, Limit = 0xffff, AccessRights = 0x9b };
        Segment(Seg.LDTR) = new SegmentCache { Limit = 0xffff, AccessRights = 0x82 };
        Segment(Seg.TR) = new SegmentCache { Limit = 0xffff, AccessRights = 0x8b };
        s->Gdtr = s->Idtr = new DescriptorTableRegister { Limit = 0xffff };
        s->DebugCtl = 0;
        if (!init)
        {
            ResetMsrs();
            Counters?.Reset();
            ResetVmx();
        }
        instructionBreakpoints = false;
        CancelDelivery();
        // INIT leaves processors other than the first waiting for a SIPI (MP initialization protocol).
        s->Activity = init && Index != 0 ? ActivityState.WaitForSipi : ActivityState.Active;
        svm?.Reset(init);
        Mmu.OnDebugRegisters();
        Mmu.FlushAll();
        ClearRequest(ExitRequests.SingleStep);
        UpdateMode();
    }

    private void ResetMsrs()
    {
        CpuState* s = State;
        s->Star = s->Lstar = s->Cstar = s->Sfmask = s->KernelGsBase = 0;
        s->SysenterCs = s->SysenterEsp = s->SysenterEip = 0;
        s->TscAux = 0;
        s->TscAdjust = 0;
        s->Xcr0 = 1;
        s->Pkru = 0;
        ResetFpu();
        nmiPending = initPending = false;
        sipiPending = -1;
        for (int i = 0; i < interrupts.Length; i++)
            interrupts[i] = 0;
        msrs.PowerUp();
    }

    /// <summary>
    /// Puts the processor in the state in which a 64-bit kernel runs: 64-bit mode, paging on, CS 0x10, SS 0x18, DS ES FS GS 0, TR 0x40 busy, LDTR null,
    /// syscall MSRs programmed, interrupts off. Every host-state check of VM entry holds.
    /// </summary>
    public void EnterKernelMode(in KernelContext context)
    {
        CpuState* s = State;
        s->Cr0 = Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG;
        s->Cr3 = context.Cr3;
        s->Cr4 = (Cr4.PAE | Cr4.PGE | Cr4.PSE | Cr4.OSFXSR | Cr4.OSXMMEXCPT | context.ExtraCr4) & Cr4Mask;
        s->Efer = (s->Efer & Efer.SVME) | Efer.SCE | Efer.LME | Efer.LMA | (Model.FeatureExtEdx(20) ? Efer.NXE : 0);
        Rflags = Flags.Fixed1;
        s->Cpl = 0;
        s->Activity = ActivityState.Active;
        s->InterruptShadow = 0;
        Segment(Seg.CS) = new SegmentCache { Selector = 0x10, Limit = uint.MaxValue, AccessRights = 0xa09b };
        Segment(Seg.SS) = new SegmentCache { Selector = 0x18, Limit = uint.MaxValue, AccessRights = 0xc093 };
        for (int i = 0; i < 4; i++)
        {
            Seg seg = i switch { 0 => Seg.ES, 1 => Seg.DS, 2 => Seg.FS, _ => Seg.GS };
            Segment(seg) = new SegmentCache { AccessRights = SegmentRights.Unusable };
        }
        Segment(Seg.GS).Base = context.GsBase;
        Segment(Seg.LDTR) = new SegmentCache { AccessRights = SegmentRights.Unusable };
        Segment(Seg.TR) = new SegmentCache { Selector = 0x40, Base = context.TssBase, Limit = context.TssLimit == 0 ? 0x67 : context.TssLimit, AccessRights = 0x8b };
        s->Gdtr = new DescriptorTableRegister { Base = context.GdtBase, Limit = context.GdtLimit };
        s->Idtr = new DescriptorTableRegister { Base = context.IdtBase, Limit = context.IdtLimit };
        s->Star = 0x0023_0010_0000_0000;
        s->Lstar = context.SyscallEntry;
        s->Cstar = Model.Vendor == CpuVendor.Amd ? context.CompatSyscallEntry : 0;
        s->Sfmask = 0x25_7fd5;
        s->SysenterCs = 0x10;
        s->SysenterEsp = context.SysenterStack;
        s->SysenterEip = context.SysenterEntry;
        s->KernelGsBase = 0;
        s->TscAux = context.TscAux;
        s->Pat = 0x0407_0506_0007_0106;
        s->Gpr[4] = context.StackTop;
        Mmu.FlushTag(0, keepGlobal: false);
        UpdateMode();
    }
}
